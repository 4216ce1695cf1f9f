"""bilinear_kernel: the weights with which a transposed convolution begins as bilinear interpolation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.fcn import bilinear_kernel
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def _tent(k: int) -> Tensor:
    return 1 - (torch.arange(k) - (k - 1) / 2).abs() / ((k + 1) // 2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Even and odd kernels, one channel and several; then a kernel of one pixel, and FCN's kernels.

    Args:
        rng: of sizes and channels.

    Returns:
        The cases by group.
    """
    even, odd = 2 * int(rng.integers(3, 6)), 2 * int(rng.integers(3, 6)) + 1
    many = int(rng.integers(3, 6))

    def case(channels: int, k: int) -> Case:
        return {"name": f"{channels} channels, {k}x{k}", "args": [channels, k]}

    return {
        "core": (2, [case(1, 4), case(1, 5), case(2, even), case(2, odd)]),
        "edge": (1, [case(many, 1), case(many, 3), case(many, 2 * int(rng.integers(6, 9)))]),
    }


def _from_plane(plane: Callable[[int], Tensor]) -> Callable[[int, int], Tensor]:
    """The kernel of somebody whose plane for k is another one."""

    def answer(channels: int, kernel_size: int) -> Tensor:
        return torch.eye(channels)[:, :, None, None] * plane(kernel_size)

    return answer


def _offsets(k: int, centre: float | None = None) -> Tensor:
    return (torch.arange(k) - ((k - 1) / 2 if centre is None else centre)).abs()


def _outer(tent: Tensor) -> Tensor:
    return torch.outer(tent, tent)


def cone(k: int) -> Tensor:
    """Falls off with the distance to the centre, alike in all directions."""
    away = _offsets(k)
    return (1 - torch.hypot(away[:, None], away[None]) / ((k + 1) // 2)).clamp(min=0)


def pyramid(k: int) -> Tensor:
    """The smaller of the two tents."""
    tent = _tent(k)
    return torch.minimum(tent[:, None], tent[None])


def tents_averaged(k: int) -> Tensor:
    """The mean of the two tents."""
    tent = _tent(k)
    return (tent[:, None] + tent[None]) / 2


def odd_centre(k: int) -> Tensor:
    """The peak on a pixel at all sizes."""
    return _outer((1 - _offsets(k, (k + 1) // 2 - 1) / ((k + 1) // 2)).clamp(min=0))


def even_centre(k: int) -> Tensor:
    """The peak between two pixels at all sizes."""
    return _outer((1 - _offsets(k, (k + 1) // 2 - 0.5) / ((k + 1) // 2)).clamp(min=0))


def late_centre(k: int) -> Tensor:
    """The peak on pixel k // 2."""
    return _outer((1 - _offsets(k, k // 2) / ((k + 1) // 2)).clamp(min=0))


def late_centre_half_width(k: int) -> Tensor:
    """The peak on pixel k // 2, the tent k / 2 wide."""
    return _outer((1 - _offsets(k, k // 2) / (k / 2)).clamp(min=0))


def half_width(k: int) -> Tensor:
    """The tent as wide as half the kernel size, not rounded up."""
    return _outer((1 - _offsets(k) / (k / 2)).clamp(min=0))


def rounded_down(k: int) -> Tensor:
    """The tent as wide as half the kernel size, rounded down; 0 / 0 in a kernel of one pixel."""
    return _outer(1 - _offsets(k) / (k // 2))


def to_the_border(k: int) -> Tensor:
    """The tent reaches 0 on the outermost pixels."""
    return _outer(1 - _offsets(k) / max((k - 1) / 2, 1e-9))


def sums_to_one(k: int) -> Tensor:
    """Normalised, as a blur is."""
    plane = _outer(_tent(k))
    return plane / plane.sum()


def peak_of_one(k: int) -> Tensor:
    """Scaled until its largest number is 1."""
    plane = _outer(_tent(k))
    return plane / plane.max()


def mixes_channels(channels: int, kernel_size: int) -> Tensor:
    """The same plane for every pair of channels."""
    return _outer(_tent(kernel_size)).expand(channels, channels, -1, -1)


def mean_of_channels(channels: int, kernel_size: int) -> Tensor:
    """The same plane for every pair, divided by their number."""
    return mixes_channels(channels, kernel_size) / channels


def depthwise(channels: int, kernel_size: int) -> Tensor:
    """(C, 1, k, k), for a convolution in groups."""
    return _outer(_tent(kernel_size)).expand(channels, 1, -1, -1)


exercise = Exercise(
    name="bilinear_kernel",
    points=3,
    cases=cases,
    reference=bilinear_kernel,
    tolerance=1e-5,
    kind="matrix",
    hides=["segedu.semantic.fcn"],
    wrong=[
        Wrong(
            "round cone",
            _from_plane(cone),
            "Your kernel is a round cone: bilinear is linear along the rows times linear along the columns.",
            "Make the tent of one axis first. Then multiply each number of a column by each number of a row.",
        ),
        Wrong(
            "smaller of two tents",
            _from_plane(pyramid),
            "You take the smaller of the two tents: bilinear multiplies them.",
            "Compare a corner of the 4x4 kernel with the worked numbers.",
        ),
        Wrong(
            "tents averaged",
            _from_plane(tents_averaged),
            "You average the two tents: bilinear multiplies them.",
            "Compare a corner of the 4x4 kernel with the worked numbers.",
        ),
        Wrong(
            "centre of an odd kernel",
            _from_plane(odd_centre),
            "Your peak lies on a pixel at every size: in an even kernel it lies between the two middle pixels.",
            "Where is the middle of the pixels 0, 1, 2, 3?",
        ),
        Wrong(
            "centre of an even kernel",
            _from_plane(even_centre),
            "Your peak lies between two pixels at every size: in an odd kernel it lies on the middle pixel.",
            "Where is the middle of the pixels 0, 1, 2?",
        ),
        Wrong(
            "centre at k // 2",
            _from_plane(late_centre),
            "Your peak lies on pixel k // 2: in an even kernel that is half a pixel too late.",
            "Where is the middle of the pixels 0, 1, 2, 3?",
        ),
        Wrong(
            "centre at k // 2, width k / 2",
            _from_plane(late_centre_half_width),
            "Your peak lies on pixel k // 2 and your tent is k / 2 wide: one is wrong for even k, the other for odd k.",
            "For k = 4 the tent is 1/4, 3/4, 3/4, 1/4; for k = 3 it is 1/2, 1, 1/2.",
        ),
        Wrong(
            "half width not rounded up",
            _from_plane(half_width),
            "Your tent of an odd kernel is half a pixel too narrow: it falls to 0 over k/2 pixels, rounded up.",
            "For k = 3 the tent is 1/2, 1, 1/2.",
        ),
        Wrong(
            "half width rounded down",
            _from_plane(rounded_down),
            "You round half of an odd kernel down: the tent falls to 0 over k/2 pixels, rounded up.",
            "For k = 3 the tent is 1/2, 1, 1/2, and for k = 1 it is 1.",
        ),
        Wrong(
            "0 at the border",
            _from_plane(to_the_border),
            "Your tent is 0 on the outermost pixels: it reaches 0 outside the kernel.",
            "For k = 4 the tent is 1/4, 3/4, 3/4, 1/4.",
        ),
        Wrong(
            "sums to 1",
            _from_plane(sums_to_one),
            "You make the kernel sum to 1: with stride 2 each output pixel gets only a part of it.",
            "Enlarge a map of ones. What should come out in the middle, and which taps meet there?",
        ),
        Wrong(
            "peak of 1",
            _from_plane(peak_of_one),
            "You scale the largest number to 1: in an even kernel no pixel lies at the peak.",
            "For k = 4 the largest number is 9/16.",
        ),
        Wrong(
            "mixes channels",
            mixes_channels,
            "You fill the kernel for every pair of channels: each class would get the sum of all classes.",
            "Only weight[c, c] is not zero.",
        ),
        Wrong(
            "mean of all channels",
            mean_of_channels,
            "You spread each channel over all others: every class would get the mean of all classes.",
            "Only weight[c, c] is not zero.",
        ),
        Wrong(
            "one plane a channel",
            depthwise,
            "You return (C, 1, k, k), the layout for groups: the statement asks for (C, C, k, k).",
            "The first axis is the channel that comes in, the second the one that goes out.",
        ),
    ],
)
