"""ppm: the pyramid pooling module of PSPNet, with given weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab08_context.dilate_conv import numbers

Weights = Sequence[Tensor]


def ppm(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """The features, and beside them what each grid of means says, spread over the map.

    Args:
        features: (B, C, H, W).
        weights: one (c, C) matrix a grid, of its 1x1 convolution.
        bins: cells of each grid along each axis.

    Returns:
        (B, C + len(bins) c, H, W).
    """
    return _pyramid(features, weights, bins)


def _mean(features: Tensor, bin_: int) -> Tensor:
    return F.adaptive_avg_pool2d(features, bin_)


def _reduce(grid: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(grid, weight[:, :, None, None]).relu()


def _spread(grid: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(grid, size, mode="bilinear", align_corners=True)


def _pyramid(
    features: Tensor,
    weights: Weights,
    bins: Sequence[int],
    pool: Callable = _mean,
    reduce: Callable = _reduce,
    spread: Callable = _spread,
) -> Tensor:
    """The right answer whose parts the wrong ones replace."""
    size = features.shape[2:]
    levels = [spread(reduce(pool(features, n), w), size) for n, w in zip(bins, weights, strict=True)]
    return torch.cat([features, *levels], dim=1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Maps that the cells divide and maps that they do not; other grids, one grid, a map smaller than the finest.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """

    def case(name: str, shape: tuple[int, ...], out: int, bins: list[int]) -> Case:
        weights = [numbers(rng, out, shape[1]) for _ in bins]
        for weight in weights:  # one channel that the ReLU cuts in part, whatever is drawn
            weight[0] = torch.tensor([1.0, -1.0] * shape[1], dtype=torch.float64)[: shape[1]]
        features = numbers(rng, *shape)
        features[:, 0, 0, 0], features[:, 1, 0, 0] = 9.0, -9.0  # a cell that is surely positive
        features[:, 0, -1, -1], features[:, 1, -1, -1] = -9.0, 9.0  # and one that is surely negative
        return {"name": name, "args": [features, weights, bins]}

    return {
        "core": (
            3,
            [
                case("8 channels, grids 1, 2, 3, 6", (2, 8, 12, 18), 2, [1, 2, 3, 6]),
                case("a map that the grids do not divide", (1, 4, 11, 16), 3, [1, 2, 3, 6]),
            ],
        ),
        "edge": (
            2,
            [
                case("other grids", (2, 6, 9, 10), 2, [1, 4, 5]),
                case("one grid", (1, 4, 7, 8), 2, [2]),
                case("a map smaller than its finest grid", (2, 4, 5, 4), 1, [1, 2, 3, 6]),
            ],
        ),
    }


def max_pooled(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """The largest value of a cell."""
    return _pyramid(features, weights, bins, pool=F.adaptive_max_pool2d)


def not_reduced(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Leaves out the 1x1 convolutions: each level has all C channels."""
    return _pyramid(features, weights, bins, reduce=lambda grid, weight: grid)


def no_relu(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """A 1x1 convolution without what follows it."""
    return _pyramid(features, weights, bins, reduce=lambda grid, weight: torch.einsum("oc,bchw->bohw", weight, grid))


def relu_last(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Spreads first, then cuts the negative values."""
    levels = [
        _spread(torch.einsum("oc,bchw->bohw", w, _mean(features, n)), features.shape[2:]).relu()
        for n, w in zip(bins, weights, strict=True)
    ]
    return torch.cat([features, *levels], dim=1)


def nearest(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Blocks in place of slopes."""
    return _pyramid(features, weights, bins, spread=lambda grid, size: F.interpolate(grid, size))


def other_corners(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """The other convention of bilinear interpolation."""
    return _pyramid(
        features,
        weights,
        bins,
        spread=lambda grid, size: F.interpolate(grid, size, mode="bilinear", align_corners=False),
    )


def without_features(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """The pyramid alone."""
    return ppm(features, weights, bins)[:, features.shape[1] :]


def features_last(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """The other order."""
    return torch.cat([without_features(features, weights, bins), features], dim=1)


def rest_dropped(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Cells of floor(H / n) rows, as many as there are; the rest belongs to no cell."""

    def pool(features: Tensor, n: int) -> Tensor:
        h, w = (size // n for size in features.shape[2:])
        return F.avg_pool2d(features, (h, w))

    return _pyramid(features, weights, bins, pool=pool)


def cells_of_n_pixels(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Takes n for the side of a cell; avg_pool2d refuses one that is larger than the map."""
    return _pyramid(features, weights, bins, pool=F.avg_pool2d)


def reduced_before_pooling(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """1x1 convolution and ReLU on the whole map, the mean after them."""
    levels = [_spread(_mean(_reduce(features, w), n), features.shape[2:]) for n, w in zip(bins, weights, strict=True)]
    return torch.cat([features, *levels], dim=1)


def each_from_the_last(features: Tensor, weights: Weights, bins: Sequence[int]) -> Tensor:
    """Pools the finest grid again for the coarser ones."""
    fine = _mean(features, max(bins))
    return _pyramid(features, weights, bins, pool=lambda features, n: _mean(fine, n))


SIZE = "Count the channels: the map itself, and len(bins) times as many as the 1x1 convolutions give."

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
            not_reduced,
            "You leave out the 1x1 convolutions: each level keeps all C channels, so the pyramid outweighs the map.",
            SIZE,
        ),
        Wrong(
            "maximum",
            max_pooled,
            "You take the maximum of each cell; PSPNet takes its mean.",
            "Which of the two says what most of the cell looks like?",
        ),
        Wrong(
            "map not concatenated",
            without_features,
            "You return the pyramid alone: the map itself has to stand in front of it.",
            SIZE,
        ),
        Wrong(
            "map last",
            features_last,
            "You put the map behind its pyramid; the statement puts it first.",
            "The order decides which weights of the next layer meet which channels.",
        ),
        Wrong(
            "nearest",
            nearest,
            "You spread each cell as a block (nearest neighbour); the statement asks for bilinear interpolation.",
            "Look at one of your levels as a picture: has it edges?",
        ),
        Wrong(
            "corners not aligned",
            other_corners,
            "You interpolate with align_corners=False; the authors of PSPNet align the corners.",
            "Which value must the corner pixel of the map get from the corner cell?",
        ),
        Wrong(
            "no ReLU",
            no_relu,
            "Your levels have negative values: the ReLU after the 1x1 convolution is missing.",
            "Read the three steps of a level again.",
        ),
        Wrong(
            "ReLU last",
            relu_last,
            "You interpolate before the ReLU: negative cells then eat into their positive neighbours.",
            "What comes first, what comes second, what comes third?",
        ),
        Wrong(
            "rest dropped",
            rest_dropped,
            "Your cells all have floor(H / n) rows: where n does not divide H, rows are left over, or cells are more.",
            "Cells may overlap: where does cell i begin, and where does it end?",
        ),
        Wrong(
            "cells of n pixels",
            cells_of_n_pixels,
            "You make cells of n x n pixels: n says how many cells there are along each axis.",
            "With n = 1, how many numbers of a channel does every pixel get to know?",
        ),
        Wrong(
            "reduced before pooling",
            reduced_before_pooling,
            "You convolve and cut the whole map and pool afterwards: the mean comes first.",
            "A cell's mean may be negative although some of its pixels are not. What is left of it then?",
        ),
        Wrong(
            "pooled twice",
            each_from_the_last,
            "You pool the finest grid again for the coarser ones: where cells overlap, pixels then count twice.",
            "Every grid is made from the map itself.",
        ),
    ],
)
