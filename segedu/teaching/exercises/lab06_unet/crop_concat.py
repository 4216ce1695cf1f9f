"""crop_concat: a skip of the U-Net, cropped to its centre and concatenated with the upsampled features."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
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


def _resized(resize: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """A wrong answer that changes the size of the skip in another way."""
    return right.instead(lambda a: torch.cat([resize(a.skip, a.up), a.up], dim=1))


def _padded_up(a: SimpleNamespace) -> Tensor:
    dy, dx = (n - m for n, m in zip(a.skip.shape[2:], a.up.shape[2:], strict=True))
    return torch.cat([a.skip, F.pad(a.up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], dim=1)


def _margins_exchanged(skip: Tensor, up: Tensor) -> Tensor:
    """Negative padding with the rows first."""
    dy, dx = (n - m for n, m in zip(skip.shape[2:], up.shape[2:], strict=True))
    return F.pad(skip, [-(dy // 2), dy // 2 - dy, -(dx // 2), dx // 2 - dx])


def _ends_too_early(skip: Tensor, up: Tensor) -> Tensor:
    (h, w), (top, left) = up.shape[2:], ((n - m) // 2 for n, m in zip(skip.shape[2:], up.shape[2:], strict=True))
    return skip[:, :, top:h, left:w]


def _one_offset(offset: Callable[[int, int], int]) -> Callable:
    """A wrong answer that begins in row and column with one offset, by the margins of rows and columns."""

    def crop(skip: Tensor, up: Tensor) -> Tensor:
        (h, w), margins = up.shape[2:], [n - m for n, m in zip(skip.shape[2:], up.shape[2:], strict=True)]
        start = offset(*margins)
        return skip[:, :, start : start + h, start : start + w]

    return _resized(crop)


def _from_the_middles(skip: Tensor, up: Tensor) -> Tensor:
    (h, w), (top, left) = up.shape[2:], (n // 2 - m // 2 for n, m in zip(skip.shape[2:], up.shape[2:], strict=True))
    return skip[:, :, top : top + h, left : left + w]


def _moved_in_place(skip: Tensor, up: Tensor) -> Tensor:
    h, w = up.shape[2:]
    skip[:, :, :h, :w] = center_crop(skip, (h, w)).clone()
    return torch.cat([skip[:, :, :h, :w], up], dim=1)


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
        Wrong(
            "skip resized",
            _resized(lambda skip, up: F.interpolate(skip, size=up.shape[2:], mode="bilinear", align_corners=False)),
            "You resize the skip by interpolation, which moves its pixels. Crop its centre.",
            "The pixels of the centre keep their values.",
        ),
        Wrong(
            "skip pooled",
            _resized(lambda skip, up: F.adaptive_avg_pool2d(skip, up.shape[2:])),
            "You pool the skip to the smaller size. Crop its centre.",
            "The pixels of the centre keep their values.",
        ),
        Wrong(
            "up padded",
            right.instead(_padded_up),
            "You pad the upsampled features to the size of the skip. Crop the skip to theirs.",
            "The result has the size of `up`.",
        ),
        Wrong(
            "margins exchanged",
            _resized(_margins_exchanged),
            "You exchange the margins of rows and columns. torch.nn.functional.pad begins with the last axis.",
            "Try a skip whose rows and columns have different margins.",
        ),
        Wrong(
            "ends at h and w",
            _resized(_ends_too_early),
            "Your crop ends at row h and column w. It begins at the margin, so it ends h rows and w columns later.",
            START,
        ),
        Wrong(
            "bottom-right crop",
            right.instead(lambda a: _crop_from(a, start=lambda margin: margin)),
            "You crop the bottom right corner of the skip. This exercise expects its centre.",
            "Unpadded convolutions remove the same number of pixels on all four sides.",
        ),
        Wrong(
            "one offset for both axes",
            _one_offset(lambda rows, columns: rows // 2),
            "You use one offset for rows and columns. Compute one for each axis.",
            "The margins of height and width may differ.",
        ),
        Wrong(
            "difference of the halves",
            _resized(_from_the_middles),
            "You subtract half sizes, H // 2 - h // 2, which rounds twice. Halve the difference, (H - h) // 2.",
            ODD,
        ),
        Wrong(
            "skip changed",
            _moved_in_place,
            "You move the centre of the skip in place, which changes the argument. Slice it instead.",
            "A slice reads the values and leaves them where they are.",
        ),
    ],
    kind="shape",
    hides=["segedu.semantic.unet"],
)
