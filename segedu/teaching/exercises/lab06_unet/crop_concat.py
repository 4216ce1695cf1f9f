"""crop_concat: a skip of the U-Net, cropped to its centre and concatenated with the upsampled features."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.unet import center_crop
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def crop_concat(skip: Tensor, up: Tensor) -> Tensor:
    """Crop the centre of `skip` to the size of `up` and concatenate both along the channels, skip first.

    Args:
        skip: (B, C, H, W).
        up: (B, D, h, w) with h <= H and w <= W.

    Returns:
        (B, C + D, h, w).
    """
    return torch.cat([center_crop(skip, up.shape[-2:]), up], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Even margins, then odd ones, margins of 0, margins that differ between height and width."""

    def pair(name: str, channels: tuple[int, int, int], skip: tuple, up: tuple) -> Case:
        # integers are exact in float32, and negative ones differ from a crop that was padded with zeros
        batch, c, d = channels
        arrays = rng.integers(-99, 100, (batch, c, *skip)), rng.integers(-99, 100, (batch, d, *up))
        return case(name, *(torch.from_numpy(array.astype(np.float32)) for array in arrays))

    core = [
        pair("as many channels in the skip as in up", (2, 3, 3), (12, 14), (8, 10)),
        pair("2 channels in the skip, 5 in up", (3, 2, 5), (10, 9), (6, 5)),
    ]
    edge = [
        pair("margins that add up to odd numbers", (2, 4, 3), (8, 13), (5, 8)),
        pair("one row and one column to crop", (1, 2, 2), (7, 6), (6, 5)),
        pair("nothing to crop", (2, 3, 4), (5, 7), (5, 7)),
        pair("columns to crop, no rows", (2, 2, 3), (5, 11), (5, 7)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(crop_concat)


def _cropped(a: SimpleNamespace) -> Tensor:
    return center_crop(a.skip, a.up.shape[-2:])


def _same_margin_on_both_sides(skip: Tensor, up: Tensor) -> Tensor:
    height, width = skip.shape[-2:]
    y, x = (height - up.shape[-2]) // 2, (width - up.shape[-1]) // 2
    return torch.cat([skip[..., y : height - y, x : width - x], up], dim=1)


def _negative_slice(skip: Tensor, up: Tensor) -> Tensor:
    y, x = (skip.shape[-2] - up.shape[-2]) // 2, (skip.shape[-1] - up.shape[-1]) // 2
    return torch.cat([skip[..., y:-y, x:-x], up], dim=1)


def _crop_from(a: SimpleNamespace, start: Callable[[int], int]) -> Tensor:
    """The answer with a crop that begins at start(margin); the margin is the number of rows or columns to remove."""
    h, w = a.up.shape[-2:]
    top, left = start(a.skip.shape[-2] - h), start(a.skip.shape[-1] - w)
    return torch.cat([a.skip[..., top : top + h, left : left + w], a.up], dim=1)


START = "Compute where the crop begins. Where it ends follows from the size of `up`."
ODD = "If an odd number of pixels has to be removed, the exercise says on which side the extra one is removed."

exercise = Exercise(
    name="crop_concat",
    points=3,
    cases=cases,
    reference=crop_concat,
    wrong=[
        Wrong(
            "top-left crop",
            right.instead(lambda a: _crop_from(a, start=lambda margin: 0)),
            "You crop the top left corner of the skip. This exercise expects its centre.",
            "Unpadded convolutions remove the same number of pixels on all four sides.",
        ),
        Wrong(
            "adds",
            right.instead(lambda a: _cropped(a) + a.up),
            "You add the skip to the upsampled features. The U-Net concatenates them.",
            "How many channels does your result have? Addition keeps the number, concatenation does not.",
        ),
        Wrong(
            "batch axis",
            right.instead(lambda a: torch.cat([_cropped(a), a.up], dim=0)),
            "You concatenate along the batch axis, which gives more images. Concatenate along the channel axis.",
            "Which axis of (B, C, H, W) holds the channels?",
        ),
        Wrong(
            "odd sizes fail",
            _same_margin_on_both_sides,
            "Your function fails if an odd number of pixels has to be removed. One side has to lose one pixel more.",
            START,
        ),
        Wrong(
            "negative slice",
            _negative_slice,
            "Your function fails if nothing has to be removed. This looks like a slice m:-m, which is empty if m is 0.",
            START,
        ),
        Wrong(
            "up first",
            right.instead(lambda a: torch.cat([a.up, _cropped(a)], dim=1)),
            "You concatenate the upsampled features first and the skip second. The skip has to come first.",
            "The two orders need different weights in the next layer, so the exercise fixes one of them.",
        ),
        Wrong(
            "odd rest rounded up",
            right.instead(lambda a: _crop_from(a, start=lambda margin: (margin + 1) // 2)),
            "If an odd number of pixels has to be removed, your crop begins one pixel too late. Round half of it down.",
            ODD,
        ),
        Wrong(
            "odd rest rounded to even",
            right.instead(lambda a: _crop_from(a, start=lambda margin: round(margin / 2))),
            "You round half of an odd number to the nearest even integer, as Python's round does. Always round down.",
            ODD,
        ),
    ],
    kind="shape",
    hides=["segedu.semantic.unet"],
)
