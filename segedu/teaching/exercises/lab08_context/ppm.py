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
        pyramid("the finest grid first", (1, 4, 6, 9), 1, [3, 1]),
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


def _cells(edges: Callable[[int, int, int], tuple[int, int]]) -> Callable:
    """A pooling with other cells: (i, size, n) -> first and one past the last row of cell i."""

    def pool(features: Tensor, n: int) -> Tensor:
        rows, columns = ([edges(i, size, n) for i in range(n)] for size in features.shape[2:])
        means = [features[:, :, y0:y1, x0:x1].mean((2, 3)) for y0, y1 in rows for x0, x1 in columns]
        return torch.stack(means, dim=2).unflatten(2, (n, n))

    return _with(pool=pool)


def _rounded_down(i: int, size: int, n: int) -> tuple[int, int]:
    return i * size // n, max((i + 1) * size // n, i * size // n + 1)


def _first_whole_cells(features: Tensor, n: int) -> Tensor:
    """Cells of at least one pixel and no rest."""
    h, w = (max(size // n, 1) for size in features.shape[2:])
    return F.avg_pool2d(features, (h, w))[:, :, :n, :n]


def _large_cells(features: Tensor, n: int) -> Tensor:
    """Cells of ceil(H / n) rows, the last one with what is left."""
    cell = [-(-size // n) for size in features.shape[2:]]
    return F.avg_pool2d(features, cell, stride=cell, ceil_mode=True)


def _levels_reversed(out: Tensor, a: SimpleNamespace) -> Tensor:
    features, *levels = out.split([a.features.shape[1], *[len(w) for w in a.weights]], dim=1)
    return torch.cat([features, *levels[::-1]], dim=1)


def _paper_grids(a: SimpleNamespace) -> Tensor:
    pairs = list(zip(a.weights, (1, 2, 3, 6), strict=False))
    return ppm(a.features, [weight for weight, _ in pairs], [n for _, n in pairs])


def _by_grid(a: SimpleNamespace) -> Tensor:
    order = sorted(range(len(a.bins)), key=lambda i: a.bins[i])
    return ppm(a.features, [a.weights[i] for i in order], [a.bins[i] for i in order])


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
        Wrong(
            "cells of n pixels, also incomplete ones",
            _with(pool=lambda features, n: F.avg_pool2d(features, n, ceil_mode=True)),
            "Your cells have n x n pixels, and smaller ones at the end. n is the number of cells along each axis.",
            "With n = 1, how many cells does the grid have?",
        ),
        Wrong(
            "cells of at most n pixels",
            _with(pool=lambda features, n: F.avg_pool2d(features, [min(n, size) for size in features.shape[2:]])),
            "You use n as the side of a cell in pixels. It is the number of cells along each axis.",
            "With n = 1, how many cells does the grid have?",
        ),
        Wrong(
            "whole cells, rest ignored",
            _with(pool=_first_whole_cells),
            "Your cells have floor(H / n) rows, and the rows that are left belong to none. Cells overlap so that they "
            "cover all rows.",
            "Where does cell i begin, and where does it end? The formula rounds one of them down and one up.",
        ),
        Wrong(
            "large cells",
            _with(pool=_large_cells),
            "Your cells have ceil(H / n) rows and never overlap, so the last one is smaller. Each begins at floor(i H "
            "/ n).",
            "Where does cell i begin, and where does it end? The formula rounds one of them down and one up.",
        ),
        Wrong(
            "end of a cell rounded down",
            _cells(_rounded_down),
            "You round the end of a cell down, so cells never overlap. The end is rounded up.",
            "With 5 rows and 2 cells, the middle row belongs to both.",
        ),
        Wrong(
            "n x 1 cells",
            _with(pool=lambda features, n: F.adaptive_avg_pool2d(features, (n, 1))),
            "You divide the rows only. Each grid has n x n cells.",
            "n cells along each axis.",
        ),
        Wrong(
            "ReLU on the map",
            right.then(lambda out, a: out.relu()),
            "You apply the ReLU to the features as well. They are concatenated as they are.",
            "Only the levels of the pyramid have a ReLU.",
        ),
        Wrong(
            "ReLU before the convolution",
            _with(reduce=lambda grid, weight: pointwise(grid.relu(), weight)),
            "You apply the ReLU before the 1x1 convolution. It follows the convolution.",
            "Read the three steps of a level again.",
        ),
        Wrong(
            "first weights for all",
            right.given(weights=lambda a: [a.weights[0]] * len(a.bins)),
            "You use the weights of the first level for all levels. Each level has its own.",
            "weights[i] belongs to bins[i].",
        ),
        Wrong(
            "levels reversed",
            right.then(_levels_reversed),
            "You concatenate the levels in reverse order. They come in the order of bins.",
            "The order determines which weights of the next layer are applied to which channels.",
        ),
        Wrong(
            "levels sorted",
            right.instead(_by_grid),
            "You sort the levels by their grids. They come in the order of bins.",
            "The order determines which weights of the next layer are applied to which channels.",
        ),
        Wrong(
            "grids of the paper",
            right.instead(_paper_grids),
            "You always use the grids 1, 2, 3 and 6. Use the argument `bins`.",
            "There may be one grid, or five.",
        ),
        Wrong(
            "mean over the batch",
            _with(
                pool=lambda features, n: F.adaptive_avg_pool2d(features.mean(0, keepdim=True).expand_as(features), n)
            ),
            "You average over the batch as well, so all images have the same levels. Each image has its own.",
            "Pool over rows and columns only.",
        ),
    ],
)
