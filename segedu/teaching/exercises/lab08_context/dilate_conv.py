"""dilate_conv: an atrous (dilated) convolution that keeps the size of the feature map."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def dilate_conv(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Convolve with a dilated kernel, zeros outside the map, and no change of its size.

    Args:
        features: (B, C, H, W).
        weight: (D, C, Kh, Kw), Kh and Kw odd.
        rate: distance between neighbouring taps, at least 1.

    Returns:
        (B, D, H, W).
    """
    return F.conv2d(features, weight, padding=_same(weight, rate), dilation=rate)


def _same(weight: Tensor, rate: int) -> list[int]:
    return [rate * (k // 2) for k in weight.shape[2:]]


def random_quarters(rng: np.random.Generator, *shape: int) -> Tensor:
    """Multiples of 1/4 from -2 to 2 without 0, which float64 represents exactly."""
    return torch.from_numpy(rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape))


def random_kernel(rng: np.random.Generator, *shape: int) -> Tensor:
    """A kernel that always differs from its mirror image: its first tap is 3, its last -3."""
    weight = random_quarters(rng, *shape)
    weight[..., 0, 0], weight[..., -1, -1] = 3.0, -3.0
    return weight


def pointwise(features: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution without bias; the weight is (D, C)."""
    return torch.einsum("oc,bchw->bohw", weight, features)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One bright pixel, several channels, an oblong kernel; rate 1, 1x1 kernels, a rate larger than the map."""

    def layer(name: str, features: tuple[int, ...], weight: tuple[int, ...], rate: int) -> Case:
        kernel = random_kernel if weight[2:] != (1, 1) else random_quarters
        return case(name, random_quarters(rng, *features), kernel(rng, *weight), rate)

    spot = torch.zeros(1, 1, 7, 9, dtype=torch.float64)
    spot[0, 0, 3, 4] = float(rng.integers(1, 4))
    core = [
        case("one bright pixel, rate 2", spot, random_kernel(rng, 1, 1, 3, 3), 2),
        layer("2 maps, 3 channels to 4, rate 3", (2, 3, 8, 9), (4, 3, 3, 3), 3),
        layer("a 3x5 kernel, rate 2", (1, 2, 7, 11), (3, 2, 3, 5), 2),
    ]
    edge = [
        layer("rate 1", (3, 2, 5, 4), (2, 2, 5, 3), 1),
        layer("a rate larger than the map", (2, 2, 4, 5), (3, 2, 3, 3), 6),
        layer("a 1x1 kernel, rate 4", (1, 3, 5, 6), (2, 3, 1, 1), 4),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(dilate_conv)


def _zeros_in_the_map(a: SimpleNamespace) -> Tensor:
    B, C, H, W = a.features.shape
    spread = a.features.new_zeros(B, C, (H - 1) * a.rate + 1, (W - 1) * a.rate + 1)
    spread[..., :: a.rate, :: a.rate] = a.features
    return dilate_conv(spread, a.weight, 1)


WHICH = "Dilation inserts zeros between the taps of the kernel. Where does your code insert zeros?"
REACH = "How far from its centre does the dilated kernel reach?"

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
            right.instead(lambda a: F.conv_transpose2d(a.features, a.weight.transpose(0, 1), stride=a.rate)),
            "You compute a transposed convolution, which upsamples the map. An atrous convolution dilates the kernel.",
            WHICH,
        ),
        Wrong(
            "zeros in the map",
            right.instead(_zeros_in_the_map),
            "You insert zeros between the pixels of the map. They belong between the taps of the kernel.",
            WHICH,
        ),
        Wrong(
            "padding 1",
            right.instead(lambda a: F.conv2d(a.features, a.weight, padding=1, dilation=a.rate)),
            "Your padding is 1 for every rate, so the size of the map changes. The padding has to grow with the rate.",
            REACH,
        ),
        Wrong(
            "no padding",
            right.instead(lambda a: F.conv2d(a.features, a.weight, dilation=a.rate)),
            "You do not pad the map, so the result is smaller. The result has to be as large as the map.",
            REACH,
        ),
        Wrong(
            "padding is the rate",
            right.instead(lambda a: F.conv2d(a.features, a.weight, padding=a.rate, dilation=a.rate)),
            "Your padding is the rate. This keeps the size only for kernels with 3 taps; others need another padding.",
            "How far from its centre does a kernel with K taps reach, along each axis?",
        ),
        Wrong(
            "stride",
            right.instead(lambda a: F.conv2d(a.features, a.weight, padding=_same(a.weight, 1), stride=a.rate)),
            "You use the rate as a stride. The kernel moves by one pixel, and its taps are `rate` pixels apart.",
            "The result must have as many rows and columns as the map.",
        ),
        Wrong(
            "rate zeros between taps",
            right.given(rate=lambda a: a.rate + 1),
            "You insert `rate` zeros between two taps, so they are rate + 1 pixels apart. They have to be `rate` "
            "apart.",
            "With rate 1 there is no gap between the taps.",
        ),
        Wrong(
            "flipped kernel",
            right.given(weight=lambda a: a.weight.flip(2, 3)),
            "You rotate the kernel by 180 degrees. This exercise expects no flip, as in torch.",
            "Is weight[..., 0, 0] multiplied by the pixel above and to the left?",
        ),
        Wrong(
            "no holes",
            right.given(rate=lambda a: 1),
            "You ignore the rate. Neighbouring taps of the kernel have to be `rate` pixels apart.",
            "With rate 2, which pixels does the middle row of a 3x3 kernel read?",
        ),
    ],
)
