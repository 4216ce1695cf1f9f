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
    ],
)
