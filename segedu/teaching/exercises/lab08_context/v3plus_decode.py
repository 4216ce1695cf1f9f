"""v3plus_decode: the decoder of DeepLab v3+, up to the concatenation."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab08_context.dilate_conv import pointwise, random_quarters


def v3plus_decode(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """Upsample the deep features to the size of the low-level ones, and concatenate both.

    Args:
        deep: (B, C, h, w).
        low: (B, E, H, W).
        weight: (R, E) of the 1x1 convolution that reduces `low`.

    Returns:
        (B, C + R, H, W), deep first.
    """
    return _decode(deep, low, weight)


def _reduce(low: Tensor, weight: Tensor) -> Tensor:
    return pointwise(low, weight).relu()


def _to_low(deep: Tensor, low: Tensor) -> Tensor:
    return F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=False)


def _decode(deep: Tensor, low: Tensor, weight: Tensor, reduce: Callable = _reduce, up: Callable = _to_low) -> Tensor:
    """The right answer, whose parts the wrong answers replace."""
    return torch.cat([up(deep, low), reduce(low, weight)], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Output stride 16 and 8; sizes that are not multiples, and as many deep channels as reduced ones."""

    def decoder(name: str, deep: tuple[int, ...], low: tuple[int, ...], out: int) -> Case:
        weight = random_quarters(rng, out, low[1])
        weight[0, 0], weight[1, 0] = 8.0, -8.0  # both signs before the ReLU, in every draw
        return case(name, random_quarters(rng, *deep), random_quarters(rng, *low), weight)

    core = [
        decoder("output stride 16: four times", (2, 5, 3, 4), (2, 6, 12, 16), 3),
        decoder("as many deep channels as reduced ones", (1, 3, 2, 3), (1, 4, 8, 12), 3),
    ]
    edge = [
        decoder("output stride 8: twice", (1, 4, 5, 6), (1, 3, 10, 12), 2),
        decoder("sizes that are not multiples", (2, 3, 3, 4), (2, 5, 10, 15), 2),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(v3plus_decode)


def _with(**parts: Callable) -> Callable:
    """A wrong answer with another reduction or another upsampling."""
    return right.instead(lambda a: _decode(**vars(a), **parts))


def _up_by(factor: Callable[[int, int], int]) -> Callable:
    """A wrong answer that upsamples by a factor, a function of the two sizes; torch.cat refuses what does not fit."""

    def up(deep: Tensor, low: Tensor) -> Tensor:
        factors = [factor(large, small) for large, small in zip(low.shape[2:], deep.shape[2:], strict=True)]
        return F.interpolate(deep, scale_factor=factors, mode="bilinear", align_corners=False)

    return _with(up=up)


def _downsample_low(a: SimpleNamespace) -> Tensor:
    small = F.interpolate(_reduce(a.low, a.weight), a.deep.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([a.deep, small], dim=1)


def _to_size_of_deep(low: Tensor, deep: Tensor) -> Tensor:
    return F.interpolate(low, deep.shape[2:], mode="bilinear", align_corners=False)


def _factor_then_cropped(deep: Tensor, low: Tensor) -> Tensor:
    """Upsample by the rounded-up factor, then crop."""
    factors = [-(-large // small) for large, small in zip(low.shape[2:], deep.shape[2:], strict=True)]
    up = F.interpolate(deep, scale_factor=factors, mode="bilinear", align_corners=False)
    return up[:, :, : low.shape[2], : low.shape[3]]


def _four_times_then_fitted(deep: Tensor, low: Tensor) -> Tensor:
    """Upsample four times, then crop or pad with zeros."""
    (height, width), up = low.shape[2:], F.interpolate(deep, scale_factor=4, mode="bilinear", align_corners=False)
    up = up[:, :, :height, :width]
    return F.pad(up, [0, width - up.shape[3], 0, height - up.shape[2]])


def _in_two_steps(deep: Tensor, low: Tensor) -> Tensor:
    return _to_low(F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False), low)


def _joined_small(a: SimpleNamespace) -> Tensor:
    pooled = F.adaptive_avg_pool2d(_reduce(a.low, a.weight), a.deep.shape[2:])
    return _to_low(torch.cat([a.deep, pooled], dim=1), a.low)


def _rows_of_memory(low: Tensor, weight: Tensor) -> Tensor:
    """Reshape to rows of E values, which do not hold the channels of one pixel."""
    rows = low.reshape(-1, low.shape[1]) @ weight.T
    return rows.relu().reshape(len(low), len(weight), *low.shape[2:])


SIZE = "Which of your two arguments determines the size of the result?"

exercise = Exercise(
    name="v3plus_decode",
    points=2,
    cases=cases,
    reference=v3plus_decode,
    kind="shape",
    hides=["segedu.semantic.deeplabv3plus"],
    wrong=[
        Wrong(
            "low level not reduced",
            _with(reduce=lambda low, weight: low),
            "You concatenate the low-level features as they are. Reduce them by the 1x1 convolution first.",
            "The many channels of the early layer would outweigh the deep ones.",
        ),
        Wrong(
            "always four times",
            _up_by(lambda large, small: 4),
            "You always upsample by a factor of 4. Upsample to the size of the low-level features.",
            SIZE,
        ),
        Wrong(
            "by a factor",
            _up_by(lambda large, small: large // small),
            "You upsample by an integer factor. Upsample to the exact size of the low-level features.",
            SIZE,
        ),
        Wrong(
            "added",
            right.instead(lambda a: _to_low(a.deep, a.low) + _reduce(a.low, a.weight)),
            "You add the two feature maps. DeepLab v3+ concatenates them.",
            "How many channels should the result have?",
        ),
        Wrong(
            "low level first",
            right.instead(lambda a: torch.cat([_reduce(a.low, a.weight), _to_low(a.deep, a.low)], dim=1)),
            "You concatenate the low-level features first. The deep features have to come first.",
            "The order determines which weights of the next layer are applied to which channels.",
        ),
        Wrong(
            "low level made small",
            right.instead(_downsample_low),
            "You downsample the low-level features, which loses their fine outlines. Upsample the deep ones instead.",
            SIZE,
        ),
        Wrong(
            "no ReLU",
            _with(reduce=pointwise),
            "Your reduced features have negative values. A ReLU has to follow the 1x1 convolution.",
            "Read the three steps again.",
        ),
        Wrong(
            "corners aligned",
            _with(up=lambda deep, low: F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=True)),
            "You interpolate with align_corners=True. This exercise expects align_corners=False.",
            "Papers differ in this. Which value does the exercise name?",
        ),
        Wrong(
            "nearest",
            _with(up=lambda deep, low: F.interpolate(deep, low.shape[2:])),
            "You upsample with nearest-neighbour interpolation. This exercise expects bilinear interpolation.",
            "What is the default mode of torch.nn.functional.interpolate?",
        ),
        Wrong(
            "ReLU on the deep features too",
            right.then(lambda out, a: out.relu()),
            "You apply the ReLU to the deep features as well. Only the reduced low-level features have one.",
            "Read the three steps again.",
        ),
        Wrong(
            "ReLU on the deep features only",
            right.instead(lambda a: torch.cat([_to_low(a.deep, a.low).relu(), pointwise(a.low, a.weight)], dim=1)),
            "You apply the ReLU to the deep features instead of the reduced low-level features.",
            "Read the three steps again.",
        ),
        Wrong(
            "ReLU before the convolution",
            _with(reduce=lambda low, weight: pointwise(low.relu(), weight)),
            "You apply the ReLU before the 1x1 convolution. It follows the convolution.",
            "Read the three steps again.",
        ),
        Wrong(
            "low level downsampled first",
            right.instead(lambda a: torch.cat([a.deep, _reduce(_to_size_of_deep(a.low, a.deep), a.weight)], dim=1)),
            "You downsample the low-level features to the size of the deep ones. Upsample the deep features instead.",
            SIZE,
        ),
        Wrong(
            "joined at the small size",
            right.instead(_joined_small),
            "You concatenate at the small size and upsample both. Upsample the deep features, then concatenate.",
            "The low-level features are there for their fine outlines.",
        ),
        Wrong(
            "height and width exchanged",
            _with(up=lambda deep, low: F.interpolate(deep, low.shape[:1:-1], mode="bilinear", align_corners=False)),
            "You give the size as (W, H). It is (H, W).",
            "Try features that are wider than they are high.",
        ),
        Wrong(
            "by a factor, then cropped",
            _with(up=_factor_then_cropped),
            "You upsample by an integer factor and crop the rest. Upsample to the exact size of the low-level "
            "features.",
            SIZE,
        ),
        Wrong(
            "four times, then fitted",
            _with(up=_four_times_then_fitted),
            "You upsample by a factor of 4, then crop or pad. Upsample to the size of the low-level features.",
            SIZE,
        ),
        Wrong(
            "in two steps",
            _with(up=_in_two_steps),
            "You upsample in two steps, which gives other values. Upsample once, to the final size.",
            "Interpolating twice smooths twice.",
        ),
        Wrong(
            "bicubic",
            _with(up=lambda deep, low: F.interpolate(deep, low.shape[2:], mode="bicubic", align_corners=False)),
            "You upsample with bicubic interpolation. This exercise expects bilinear interpolation.",
            "Look at the argument mode.",
        ),
        Wrong(
            "channels mixed with pixels",
            _with(reduce=_rows_of_memory),
            "You reshape the low-level features to rows of E values, which mixes pixels and channels. Keep the shape.",
            "A 1x1 convolution, or einsum, works on (B, E, H, W) as it is.",
        ),
        Wrong(
            "low level not reduced, with ReLU",
            _with(reduce=lambda low, weight: low.relu()),
            "You concatenate all channels of the low-level features. Reduce them by the 1x1 convolution first.",
            "The many channels of the early layer would outweigh the deep ones.",
        ),
    ],
)
