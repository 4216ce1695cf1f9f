"""v3plus_decode: the decoder of DeepLab v3+, up to the concatenation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab08_context.dilate_conv import numbers


def v3plus_decode(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """The deep features brought to the size of the low-level ones, and beside them these, reduced.

    Args:
        deep: (B, C, h, w).
        low: (B, E, H, W).
        weight: (R, E) of the 1x1 convolution.

    Returns:
        (B, C + R, H, W), deep first.
    """
    return _decode(deep, low, weight)


def _reduce(low: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", weight, low).relu()


def _to_low(deep: Tensor, low: Tensor) -> Tensor:
    return F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=False)


def _decode(deep: Tensor, low: Tensor, weight: Tensor, reduce: Callable = _reduce, up: Callable = _to_low) -> Tensor:
    """The right answer whose parts the wrong ones replace."""
    return torch.cat([up(deep, low), reduce(low, weight)], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Output stride 16 and 8; sizes that are no multiples, and as many deep channels as reduced ones.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """

    def case(name: str, deep: tuple[int, ...], low: tuple[int, ...], out: int) -> Case:
        weight = numbers(rng, out, low[1])
        weight[0, 0], weight[1, 0] = 8.0, -8.0  # both signs before the ReLU, in every draw
        return {"name": name, "args": [numbers(rng, *deep), numbers(rng, *low), weight]}

    return {
        "core": (
            1,
            [
                case("output stride 16: four times", (2, 5, 3, 4), (2, 6, 12, 16), 3),
                case("as many deep channels as reduced ones", (1, 3, 2, 3), (1, 4, 8, 12), 3),
            ],
        ),
        "edge": (
            1,
            [
                case("output stride 8: twice", (1, 4, 5, 6), (1, 3, 10, 12), 2),
                case("sizes that are no multiples", (2, 3, 3, 4), (2, 5, 10, 15), 2),
            ],
        ),
    }


def not_reduced(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """All low-level channels as they are."""
    return _decode(deep, low, weight, reduce=lambda low, weight: low)


def four_times(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """Always times 4; torch.cat refuses what does not fit."""
    return _decode(
        deep,
        low,
        weight,
        up=lambda deep, low: F.interpolate(deep, scale_factor=4, mode="bilinear", align_corners=False),
    )


def whole_factor(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """A factor rounded down to a whole number; torch.cat refuses what is a pixel or two too small."""

    def up(deep: Tensor, low: Tensor) -> Tensor:
        factors = [big // small for big, small in zip(low.shape[2:], deep.shape[2:], strict=True)]
        return F.interpolate(deep, scale_factor=factors, mode="bilinear", align_corners=False)

    return _decode(deep, low, weight, up=up)


def added(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """Sums, as FCN does."""
    return _to_low(deep, low) + _reduce(low, weight)


def low_first(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """The other order."""
    return torch.cat([_reduce(low, weight), _to_low(deep, low)], dim=1)


def low_made_small(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """Brings the fine features down to the coarse ones."""
    small = F.interpolate(_reduce(low, weight), deep.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([deep, small], dim=1)


def no_relu(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """A linear reduction."""
    return _decode(deep, low, weight, reduce=lambda low, weight: torch.einsum("oc,bchw->bohw", weight, low))


def corners(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """The other convention of bilinear interpolation."""
    return _decode(
        deep,
        low,
        weight,
        up=lambda deep, low: F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=True),
    )


def nearest(deep: Tensor, low: Tensor, weight: Tensor) -> Tensor:
    """Blocks."""
    return _decode(deep, low, weight, up=lambda deep, low: F.interpolate(deep, low.shape[2:]))


SIZE = "Which of your two arguments says how large the result is?"

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
            not_reduced,
            "You concatenate the low-level features as they are: a 1x1 convolution reduces them first.",
            "The many channels of the early layer would outweigh the deep ones.",
        ),
        Wrong(
            "always four times",
            four_times,
            "You always enlarge four times: that fits output stride 16 and whole multiples only.",
            SIZE,
        ),
        Wrong(
            "by a factor",
            whole_factor,
            "You enlarge by a factor: where the sizes are no multiples, rows and columns are missing or left over.",
            SIZE,
        ),
        Wrong(
            "added",
            added,
            "You add the two maps: DeepLab v3+ concatenates them.",
            "How many channels should come out?",
        ),
        Wrong(
            "low level first",
            low_first,
            "You put the low-level features first; the statement puts the deep ones first.",
            "The order decides which weights of the next layer meet which channels.",
        ),
        Wrong(
            "low level made small",
            low_made_small,
            "You bring the fine map down to the coarse one: then the outlines that it was fetched for are lost.",
            SIZE,
        ),
        Wrong(
            "no ReLU",
            no_relu,
            "Your reduced features have negative values: a ReLU follows the 1x1 convolution.",
            "Read the three steps again.",
        ),
        Wrong(
            "corners aligned",
            corners,
            "You interpolate with align_corners=True; here the statement asks for False.",
            "Papers differ in this. The statement decides.",
        ),
        Wrong(
            "nearest",
            nearest,
            "You enlarge by repeating pixels; the statement asks for bilinear interpolation.",
            "What is the default mode of torch.nn.functional.interpolate?",
        ),
    ],
)
