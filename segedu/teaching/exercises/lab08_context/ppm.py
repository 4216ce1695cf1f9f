"""ppm: the pyramid pooling module of PSPNet, with given weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab08_context.dilate_conv import pointwise, random_quarters

Weights = Sequence[Tensor]


def ppm(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Concatenate the features with their means over grids of cells, reduced and upsampled.

    Args:
        features: (B, C, H, W).
        weights: one (c, C) matrix per grid, the weight of its 1x1 convolution.
        bins: cells of each grid along each axis.

    Returns:
        (B, C + len(bins) c, H, W).
    """
    return _pyramid(features, weights, bins)


def _reduce(grid: Tensor, weight: Tensor) -> Tensor:
    return pointwise(grid, weight).relu()


def _upsample(grid: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(grid, size, mode="bilinear", align_corners=True)


def _pyramid(
    features: Tensor,
    weights: Weights,
    bins: Sequence[int],
    pool: Callable = F.adaptive_avg_pool2d,
    reduce: Callable = _reduce,
    upsample: Callable = _upsample,
) -> Tensor:
    """The right answer, whose parts the wrong answers replace."""
    size = features.shape[2:]
    levels = [upsample(reduce(pool(features, n), w), size) for n, w in zip(bins, weights, strict=True)]
    return torch.cat([features, *levels], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Maps that the cells divide and maps that they do not; other grids, one grid, a map smaller than the finest."""

    def pyramid(name: str, shape: tuple[int, ...], out: int, bins: list[int]) -> Case:
        weights = [random_quarters(rng, out, shape[1]) for _ in bins]
        for weight in weights:  # one channel has both signs before the ReLU, in every draw
            weight[0] = torch.tensor([1.0, -1.0] * shape[1], dtype=torch.float64)[: shape[1]]
        features = random_quarters(rng, *shape)
        features[:, 0, 0, 0], features[:, 1, 0, 0] = 9.0, -9.0  # a cell that is certainly positive
        features[:, 0, -1, -1], features[:, 1, -1, -1] = -9.0, 9.0  # and one that is certainly negative
        return case(name, features, weights, bins)

    core = [
        pyramid("8 channels, grids 1, 2, 3, 6", (2, 8, 12, 18), 2, [1, 2, 3, 6]),
        pyramid("a map that the grids do not divide", (1, 4, 11, 16), 3, [1, 2, 3, 6]),
    ]
    edge = [
        pyramid("other grids", (2, 6, 9, 10), 2, [1, 4, 5]),
        pyramid("one grid", (1, 4, 7, 8), 2, [2]),
        pyramid("a map smaller than its finest grid", (2, 4, 5, 4), 1, [1, 2, 3, 6]),
    ]
    return {"core": (3, core), "edge": (2, edge)}


right = Variants(ppm)


def _with(**parts: Callable) -> Callable:
    """A wrong answer with other parts of `_pyramid`."""
    return right.instead(lambda a: _pyramid(**vars(a), **parts))


def _map_last(out: Tensor, a: SimpleNamespace) -> Tensor:
    channels = a.features.shape[1]
    return torch.cat([out[:, channels:], out[:, :channels]], dim=1)


def _relu_last(a: SimpleNamespace) -> Tensor:
    out = _pyramid(**vars(a), reduce=pointwise)
    return torch.cat([a.features, out[:, a.features.shape[1] :].relu()], dim=1)


def _whole_cells_only(features: Tensor, n: int) -> Tensor:
    """Cells of floor(H / n) rows, as many as there are; avg_pool2d drops the rows that are left."""
    h, w = (size // n for size in features.shape[2:])
    return F.avg_pool2d(features, (h, w))


def _reduce_before_pooling(a: SimpleNamespace) -> Tensor:
    size = a.features.shape[2:]
    pairs = zip(a.bins, a.weights, strict=True)
    levels = [_upsample(F.adaptive_avg_pool2d(_reduce(a.features, w), n), size) for n, w in pairs]
    return torch.cat([a.features, *levels], dim=1)


def _pool_twice(a: SimpleNamespace) -> Tensor:
    finest = F.adaptive_avg_pool2d(a.features, max(a.bins))
    return _pyramid(**vars(a), pool=lambda features, n: F.adaptive_avg_pool2d(finest, n))


CHANNELS = "Count the channels: those of the map, and len(bins) times the output channels of a 1x1 convolution."

exercise = Exercise(
    name="ppm",
    points=5,
    cases=cases,
    reference=ppm,
    kind="shape",
    hides=["segedu.semantic.pspnet"],
    wrong=[
        Wrong(
            "channels not reduced",
            _with(reduce=lambda grid, weight: grid),
            "You do not apply the 1x1 convolutions. They reduce the channels of each level before it is upsampled.",
            CHANNELS,
        ),
        Wrong(
            "maximum",
            _with(pool=F.adaptive_max_pool2d),
            "You take the maximum of each cell. PSPNet takes its mean.",
            "Which of the two describes most of the cell?",
        ),
        Wrong(
            "map not concatenated",
            right.then(lambda out, a: out[:, a.features.shape[1] :]),
            "You return only the pyramid. The map itself has to come before it.",
            CHANNELS,
        ),
        Wrong(
            "map last",
            right.then(_map_last),
            "You concatenate the map after its pyramid. The map has to come first.",
            "The order determines which weights of the next layer are applied to which channels.",
        ),
        Wrong(
            "nearest",
            _with(upsample=F.interpolate),
            "You upsample with nearest-neighbour interpolation. This exercise expects bilinear interpolation.",
            "Show one of your levels as an image. Does it have edges?",
        ),
        Wrong(
            "corners not aligned",
            _with(upsample=lambda grid, size: F.interpolate(grid, size, mode="bilinear", align_corners=False)),
            "You interpolate with align_corners=False. The corners have to be aligned, as in the code of PSPNet.",
            "Which value must the corner pixel of the map get from the corner cell?",
        ),
        Wrong(
            "no ReLU",
            _with(reduce=pointwise),
            "Your levels have negative values. The ReLU after the 1x1 convolution is missing.",
            "Read the three steps of a level again.",
        ),
        Wrong(
            "ReLU last",
            right.instead(_relu_last),
            "You interpolate before the ReLU. Apply the ReLU first, so that negative cells do not reduce their "
            "neighbours.",
            "In which order does the exercise list the three steps of a level?",
        ),
        Wrong(
            "rest dropped",
            _with(pool=_whole_cells_only),
            "All your cells have floor(H / n) rows. If n does not divide H, cells overlap so that they cover all rows.",
            "Where does cell i begin, and where does it end? The formula rounds one of them down and one up.",
        ),
        Wrong(
            "cells of n pixels",
            _with(pool=F.avg_pool2d),
            "Your cells have n x n pixels. n is the number of cells along each axis.",
            "With n = 1, how many cells does the grid have?",
        ),
        Wrong(
            "reduced before pooling",
            right.instead(_reduce_before_pooling),
            "You apply the 1x1 convolution and the ReLU to the whole map before you pool. The pooling comes first.",
            "A cell with some positive pixels can have a negative mean. What does the ReLU return for this mean?",
        ),
        Wrong(
            "pooled twice",
            right.instead(_pool_twice),
            "You compute the coarser grids from the finest grid. Compute each grid from the map itself.",
            "Where cells of the finest grid overlap, you count pixels twice.",
        ),
    ],
)
