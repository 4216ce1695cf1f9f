"""The grey arrow of the U-Net: the centre of the skip, joined to what comes from below."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.unet import center_crop
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def crop_concat(skip: Tensor, up: Tensor) -> Tensor:
    """Cut the centre of `skip` to the size of `up` and put the two side by side, skip first.

    Args:
        skip: (B, C, H, W).
        up: (B, D, h, w) with h <= H and w <= W.

    Returns:
        (B, C + D, h, w).
    """
    return torch.cat([center_crop(skip, up.shape[-2:]), up], dim=1)


def _case(rng: np.random.Generator, name: str, channels: tuple[int, int, int], skip: tuple, up: tuple) -> Case:
    # whole numbers are exact in float32, and negative numbers show a crop that was filled with zeros
    batch, c, d = channels
    arrays = rng.integers(-99, 100, (batch, c, *skip)), rng.integers(-99, 100, (batch, d, *up))
    return {"name": name, "args": [torch.from_numpy(array.astype(np.float32)) for array in arrays]}


def crop_concat_cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Even margins, then odd ones, margins of 0, margins that differ between height and width."""
    return {
        "core": (
            2,
            [
                _case(rng, "as many channels in the skip as in up", (2, 3, 3), (12, 14), (8, 10)),
                _case(rng, "2 channels in the skip, 5 in up", (3, 2, 5), (10, 9), (6, 5)),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "margins that add up to odd numbers", (2, 4, 3), (8, 13), (5, 8)),
                _case(rng, "one row and one column to cut", (1, 2, 2), (7, 6), (6, 5)),
                _case(rng, "nothing to cut", (2, 3, 4), (5, 7), (5, 7)),
                _case(rng, "columns to cut, no rows", (2, 2, 3), (5, 11), (5, 7)),
            ],
        ),
    }


def _with_start(start: Callable[[int], int]) -> Callable:
    """The answer of somebody whose crop begins at `start(pixels to cut)`."""

    def answer(skip: Tensor, up: Tensor) -> Tensor:
        h, w = up.shape[-2:]
        top, left = start(skip.shape[-2] - h), start(skip.shape[-1] - w)
        return torch.cat([skip[..., top : top + h, left : left + w], up], dim=1)

    return answer


def _adds(skip: Tensor, up: Tensor) -> Tensor:
    return center_crop(skip, up.shape[-2:]) + up


def _on_batch_axis(skip: Tensor, up: Tensor) -> Tensor:
    return torch.cat([center_crop(skip, up.shape[-2:]), up], dim=0)


def _same_margin_on_both_sides(skip: Tensor, up: Tensor) -> Tensor:
    height, width = skip.shape[-2:]
    y, x = (height - up.shape[-2]) // 2, (width - up.shape[-1]) // 2
    return torch.cat([skip[..., y : height - y, x : width - x], up], dim=1)


def _negative_slice(skip: Tensor, up: Tensor) -> Tensor:
    y, x = (skip.shape[-2] - up.shape[-2]) // 2, (skip.shape[-1] - up.shape[-1]) // 2
    return torch.cat([skip[..., y:-y, x:-x], up], dim=1)


def _up_first(skip: Tensor, up: Tensor) -> Tensor:
    return torch.cat([up, center_crop(skip, up.shape[-2:])], dim=1)


ODD = "When an odd number of pixels has to go, the statement says on which side the extra one is cut."

exercise = Exercise(
    name="crop_concat",
    points=3,
    cases=crop_concat_cases,
    reference=crop_concat,
    wrong=[
        Wrong(
            "top-left crop",
            _with_start(lambda rest: 0),
            "You cut the top left corner out of the skip, not its centre.",
            hint="Unpadded convolutions lose the same number of pixels on all four sides.",
        ),
        Wrong(
            "adds",
            _adds,
            "You add the skip to what comes from below; the U-Net concatenates them.",
            hint="How many channels has the result? Adding keeps the number, concatenating does not.",
        ),
        Wrong(
            "batch axis",
            _on_batch_axis,
            "You concatenate along the batch axis: your result has more images, not more channels.",
            hint="Which axis of (B, C, H, W) holds the channels?",
        ),
        Wrong(
            "odd sizes fail",
            _same_margin_on_both_sides,
            "You cut the same number on both sides, which fails where an odd number of pixels has to go.",
            hint="Compute where the crop begins; where it ends follows from the size of `up`.",
        ),
        Wrong(
            "negative slice",
            _negative_slice,
            "You cut with a slice such as m:-m, which is empty where m is 0.",
            hint="Compute where the crop begins; where it ends follows from the size of `up`.",
        ),
        Wrong(
            "up first",
            _up_first,
            "You put the features from below first and the skip second.",
            hint="The two orders need different weights, so the statement fixes one. Which one?",
        ),
        Wrong(
            "odd rest rounded up",
            _with_start(lambda rest: (rest + 1) // 2),
            "Your crop begins one pixel too late where an odd number of pixels has to go.",
            hint=ODD,
        ),
        Wrong(
            "odd rest rounded to even",
            _with_start(lambda rest: round(rest / 2)),
            "You round half a pixel to the nearest even number, as Python's round does "
            "and torchvision's center_crop with it.",
            hint=ODD,
        ),
    ],
    kind="shape",
    hides=["segedu.semantic.unet"],
)
