"""dilate_conv: an atrous (dilated) convolution that keeps the size of the feature map."""

from __future__ import annotations

from collections.abc import Callable
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


def _padded(pad: Callable[[int, int], list[int]], mode: str = "constant") -> Callable:
    """A wrong answer with another padding: (rows, columns) -> the argument of `F.pad`."""

    def compute(a: SimpleNamespace) -> Tensor:
        return F.conv2d(F.pad(a.features, pad(*_same(a.weight, a.rate)), mode=mode), a.weight, dilation=a.rate)

    return right.instead(compute)


def _rolled(a: SimpleNamespace) -> Tensor:
    """Shift the map, so that what leaves at one side enters at the other."""
    out = torch.zeros(len(a.features), len(a.weight), *a.features.shape[2:], dtype=a.features.dtype)
    for y, x in np.ndindex(*a.weight.shape[2:]):
        shift = [-a.rate * (i - k // 2) for i, k in zip((y, x), a.weight.shape[2:], strict=True)]
        out += pointwise(a.features.roll(shift, (2, 3)), a.weight[:, :, y, x])
    return out


def _repeated_taps(a: SimpleNamespace) -> Tensor:
    return a.weight.repeat_interleave(a.rate, 2).repeat_interleave(a.rate, 3)


def _repeated_centred(a: SimpleNamespace) -> Tensor:
    """The enlarged kernel with half of its size, less one, before the pixel."""
    height, width = (a.rate * k for k in a.weight.shape[2:])
    before = (width - 1) // 2, (height - 1) // 2
    padded = F.pad(a.features, [before[0], width - 1 - before[0], before[1], height - 1 - before[1]])
    return F.conv2d(padded, _repeated_taps(a))


def _repeated_padded(a: SimpleNamespace) -> Tensor:
    """The enlarged kernel with half of its size on each side, cropped."""
    kernel, (height, width) = _repeated_taps(a), a.features.shape[2:]
    padding = [n // 2 for n in kernel.shape[2:]]
    return F.conv2d(a.features, kernel, padding=padding)[:, :, :height, :width]


def _coarse_map(a: SimpleNamespace) -> Tensor:
    height, width = a.features.shape[2:]
    coarse = dilate_conv(a.features[:, :, :: a.rate, :: a.rate], a.weight, 1)
    return coarse.repeat_interleave(a.rate, 2).repeat_interleave(a.rate, 3)[:, :, :height, :width]


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
        Wrong(
            "padding of the plain kernel",
            right.instead(lambda a: F.conv2d(a.features, a.weight, padding=_same(a.weight, 1), dilation=a.rate)),
            "Your padding is that of the kernel without dilation, so the map shrinks. It has to grow with the rate.",
            REACH,
        ),
        Wrong(
            "padding of rows and columns exchanged",
            _padded(lambda rows, columns: [rows, rows, columns, columns]),
            "You exchange the padding of rows and columns. The padding of an axis depends on the kernel's size along "
            "it.",
            "torch.nn.functional.pad begins with the last axis, the columns.",
        ),
        Wrong(
            "padding of the rows for both",
            _padded(lambda rows, columns: [rows] * 4),
            "You use the padding of the rows for the columns, too. The kernel may be wider than it is high.",
            REACH,
        ),
        Wrong(
            "border repeated",
            _padded(lambda rows, columns: [columns, columns, rows, rows], mode="replicate"),
            "You repeat the border pixels outside the map. Outside the map are zeros.",
            "The argument padding of conv2d adds zeros.",
        ),
        Wrong(
            "padding in front only",
            _padded(lambda rows, columns: [2 * columns, 0, 2 * rows, 0]),
            "You pad only at the beginning of rows and columns, so the result is shifted. Pad both sides equally.",
            "The centre tap of the kernel must lie on the pixel itself.",
        ),
        Wrong(
            "map continues at the other side",
            right.instead(_rolled),
            "Your map continues at its opposite side. Outside the map are zeros.",
            "torch.roll moves what leaves on one side back in on the other.",
        ),
        Wrong(
            "rows dilated only",
            right.instead(lambda a: F.conv2d(a.features, a.weight, padding="same", dilation=(a.rate, 1))),
            "You dilate the rows only. The taps are `rate` apart along both axes.",
            "With rate 2, which pixels does the middle row of a 3x3 kernel read?",
        ),
        Wrong(
            "taps repeated",
            right.instead(_repeated_centred),
            "You enlarge the kernel by repeating its taps. Dilation puts zeros between them.",
            WHICH,
        ),
        Wrong(
            "taps repeated, cropped",
            right.instead(_repeated_padded),
            "You repeat each tap of the kernel, so the gaps are filled. They have to be zeros.",
            WHICH,
        ),
        Wrong(
            "every rate-th pixel",
            right.instead(_coarse_map),
            "You convolve the map of every `rate`-th pixel and enlarge the result. Every pixel has its own result.",
            "Atrous convolution computes a dense result.",
        ),
        Wrong(
            "divided by the taps",
            right.then(lambda out, a: out / a.weight[0, 0].numel()),
            "You divide by the number of taps. A convolution sums the products.",
            "Use sum, not mean.",
        ),
        Wrong(
            "kernel transposed",
            right.given(weight=lambda a: a.weight.transpose(2, 3)),
            "You exchange the two axes of the kernel. Its rows come first, (D, C, Kh, Kw).",
            "Is weight[..., 0, 1] multiplied by the pixel above, or by the pixel to the left?",
        ),
        Wrong(
            "transposed, padded",
            right.instead(
                lambda a: F.conv_transpose2d(
                    a.features, a.weight.transpose(0, 1), stride=a.rate, padding=_same(a.weight, 1)
                )
            ),
            "You compute a transposed convolution with stride `rate`, which upsamples the map. Dilate the kernel "
            "instead.",
            WHICH,
        ),
    ],
)
