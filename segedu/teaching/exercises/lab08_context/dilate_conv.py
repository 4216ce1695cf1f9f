"""dilate_conv: an atrous convolution that keeps the size of its map."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def dilate_conv(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Convolve with holes in the kernel, zeros around the map, and no change of its size.

    Args:
        features: (B, C, H, W).
        weight: (D, C, Kh, Kw), Kh and Kw odd.
        rate: distance between neighbouring taps, at least 1.

    Returns:
        (B, D, H, W).
    """
    return F.conv2d(features, weight, padding=_same(weight, rate), dilation=rate)


def numbers(rng: np.random.Generator, *shape: int) -> Tensor:
    """Quarters from -2 to 2 without 0, exactly representable.

    Args:
        rng: of the values.
        shape: of the tensor.

    Returns:
        float64.
    """
    return torch.from_numpy(rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape))


def lopsided(rng: np.random.Generator, *shape: int) -> Tensor:
    """A kernel that differs from its mirror image in every draw: its first tap is 3, its last -3.

    Args:
        rng: of the other values.
        shape: (D, C, Kh, Kw).

    Returns:
        float64.
    """
    weight = numbers(rng, *shape)
    weight[..., 0, 0], weight[..., -1, -1] = 3.0, -3.0
    return weight


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One bright pixel, several channels, an oblong kernel; rate 1, 1x1 kernels, a rate larger than the map.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    spot = torch.zeros(1, 1, 7, 9, dtype=torch.float64)
    spot[0, 0, 3, 4] = float(rng.integers(1, 4))
    return {
        "core": (
            2,
            [
                {"name": "one bright pixel, rate 2", "args": [spot, lopsided(rng, 1, 1, 3, 3), 2]},
                {
                    "name": "2 maps, 3 channels to 4, rate 3",
                    "args": [numbers(rng, 2, 3, 8, 9), lopsided(rng, 4, 3, 3, 3), 3],
                },
                {
                    "name": "a 3x5 kernel, rate 2",
                    "args": [numbers(rng, 1, 2, 7, 11), lopsided(rng, 3, 2, 3, 5), 2],
                },
            ],
        ),
        "edge": (
            1,
            [
                {"name": "rate 1", "args": [numbers(rng, 3, 2, 5, 4), lopsided(rng, 2, 2, 5, 3), 1]},
                {
                    "name": "a rate larger than the map",
                    "args": [numbers(rng, 2, 2, 4, 5), lopsided(rng, 3, 2, 3, 3), 6],
                },
                {"name": "a 1x1 kernel, rate 4", "args": [numbers(rng, 1, 3, 5, 6), numbers(rng, 2, 3, 1, 1), 4]},
            ],
        ),
    }


def _same(weight: Tensor, rate: int) -> list[int]:
    return [rate * (k // 2) for k in weight.shape[2:]]


def transposed(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Takes "atrous" for another name of transposed convolution."""
    return F.conv_transpose2d(features, weight.transpose(0, 1), stride=rate)


def zeros_in_the_map(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Spreads the map in place of the kernel."""
    B, C, H, W = features.shape
    spread = features.new_zeros(B, C, (H - 1) * rate + 1, (W - 1) * rate + 1)
    spread[..., ::rate, ::rate] = features
    return F.conv2d(spread, weight, padding=_same(weight, 1))


def padding_of_one(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """The padding that a plain 3x3 convolution needs."""
    return F.conv2d(features, weight, padding=1, dilation=rate)


def no_padding(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Only where the whole kernel fits."""
    return F.conv2d(features, weight, dilation=rate)


def padding_is_rate(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """The padding that a 3x3 kernel needs, for every kernel."""
    return F.conv2d(features, weight, padding=rate, dilation=rate)


def strided(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Moves the kernel in steps of the rate."""
    return F.conv2d(features, weight, padding=_same(weight, 1), stride=rate)


def rate_zeros(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Puts `rate` zeros between two taps, which is one too many."""
    return F.conv2d(features, weight, padding=_same(weight, rate + 1), dilation=rate + 1)


def flipped(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Convolution as in signal processing."""
    return dilate_conv(features, weight.flip(2, 3), rate)


def no_holes(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Ignores the rate."""
    return F.conv2d(features, weight, padding=_same(weight, 1))


WHICH = "Dilation puts its zeros between the taps of the kernel. Where do yours go?"

exercise = Exercise(
    name="dilate_conv",
    points=3,
    cases=cases,
    reference=dilate_conv,
    kind="map",
    hides=["segedu.ops.convolution"],
    wrong=[
        Wrong(
            "as transposed",
            transposed,
            "You compute a transposed convolution, which makes the map larger; atrous means dilated.",
            WHICH,
        ),
        Wrong(
            "zeros in the map",
            zeros_in_the_map,
            "You insert zeros between the pixels of the map: they belong between the taps of the kernel.",
            WHICH,
        ),
        Wrong(
            "padding 1",
            padding_of_one,
            "Your padding is 1 whatever the rate, so the map changes its size.",
            "How far from its middle does the dilated kernel reach?",
        ),
        Wrong(
            "no padding",
            no_padding,
            "You convolve without padding, so the map shrinks.",
            "How far from its middle does the dilated kernel reach?",
        ),
        Wrong(
            "padding is the rate",
            padding_is_rate,
            "Your padding is the rate: that fits kernels of 3 taps only.",
            "How far from its middle does a kernel of K taps reach, along each axis?",
        ),
        Wrong(
            "stride",
            strided,
            "You move the kernel in steps of the rate: it has to move by one pixel, with its taps the rate apart.",
            "The result must have as many rows and columns as the map.",
        ),
        Wrong(
            "rate zeros between taps",
            rate_zeros,
            "You put as many zeros between two taps as the rate says: neighbouring taps lie `rate` apart, "
            "so one zero less lies between them.",
            "With rate 1 there is no hole at all.",
        ),
        Wrong(
            "flipped kernel",
            flipped,
            "Your kernel is turned by 180 degrees: this course convolves without the flip, as torch does.",
            "Does weight[..., 0, 0] meet the pixel above and to the left?",
        ),
        Wrong(
            "no holes",
            no_holes,
            "You ignore the rate: your kernel has no holes.",
            "Which pixels does the middle one meet, with rate 2?",
        ),
    ],
)
