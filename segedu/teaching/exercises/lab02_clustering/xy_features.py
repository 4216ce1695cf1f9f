"""xy_features: describe every pixel by its colour and its position, so that clusters are more compact."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.unsupervised.kmeans import colour_position_features


def xy_features(image: Tensor, weight: float) -> Tensor:
    """Channels, then row and column divided by the longer side, times a weight; pixels in reading order.

    Args:
        image: (C, H, W) float.
        weight: of the position against the colour, at least 0.

    Returns:
        (H W, C + 2).
    """
    return colour_position_features(image, weight)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Wide and tall images, weights below and above 1; weight 0, one channel, one row, one pixel."""

    def image(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(0.05, 0.95, shape)).float()

    core = [case("a wide image", image(3, 3, 6), 0.5), case("a tall image", image(3, 5, 4), 3.0)]
    edge = [
        case("one channel", image(1, 3, 5), 2),
        case("more channels than columns", image(7, 2, 3), 0.5),
        case("weight 0", image(2, 3, 4), 0.0),
        case("one row", image(3, 1, 6), 0.25),
        case("one pixel", image(3, 1, 1), 1.0),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def _longer(image: Tensor) -> int:
    return max(image.shape[1:])


def each_side(image: Tensor, weight: float) -> Tensor:
    """Divide rows by the height and columns by the width."""
    colours, position = xy_features(image, weight).split([len(image), 2], dim=1)
    return torch.cat([colours, position * _longer(image) / torch.tensor(image.shape[1:])], dim=1)


def _moved(image: Tensor, weight: float, offset: Tensor) -> Tensor:
    """Add an offset in pixels, (2,), to row and column."""
    colours, position = xy_features(image, weight).split([len(image), 2], dim=1)
    return torch.cat([colours, position + offset * weight / _longer(image)], dim=1)


def _transposed_grid(image: Tensor, weight: float) -> Tensor:
    """Read the positions down the columns, and the colours along the rows."""
    out = xy_features(image, weight)
    positions = out[:, -2:].unflatten(0, image.shape[1:]).transpose(0, 1).flatten(0, 1)
    return torch.cat([out[:, :-2], positions], dim=1)


SCALE_HINT = "Divide both coordinates by the longer side, max(H, W)."
right = Variants(xy_features)

wrong = [
    Wrong(
        "unscaled pixels",
        right.given(weight=lambda a: a.weight * _longer(a.image)),
        "Your coordinates are in pixels. Divide them by the longer side, or they outweigh colours from 0 to 1.",
        SCALE_HINT,
    ),
    Wrong(
        "each side by itself",
        each_side,
        "You divide rows by the height and columns by the width. Use one scale for both coordinates.",
        SCALE_HINT,
    ),
    Wrong(
        "longer side minus 1",
        right.given(weight=lambda a: a.weight * _longer(a.image) / max(_longer(a.image) - 1, 1)),
        "You divide by the longer side minus 1. Divide by the longer side.",
        "With weight 1, which coordinate does the last pixel of a row of 7 have?",
    ),
    Wrong(
        "shorter side",
        right.given(weight=lambda a: a.weight * _longer(a.image) / min(a.image.shape[1:])),
        "You divide by the shorter side. Divide by the longer side.",
        SCALE_HINT,
    ),
    Wrong(
        "swapped axes",
        right.then(lambda out, a: torch.cat([out[:, :-2], out[:, -2:].flip(1)], dim=1)),
        "You put the column before the row. The exercise asks for row, then column.",
        "Axis 1 of the image counts rows.",
    ),
    Wrong(
        "place first",
        right.then(lambda out, a: out.roll(2, dims=1)),
        "You put the coordinates before the channels. The coordinates come last.",
        "The exercise gives the order of the columns of the result.",
    ),
    Wrong(
        "column by column",
        right.then(lambda out, a: out.unflatten(0, a.image.shape[1:]).transpose(0, 1).flatten(0, 1)),
        "Your pixels go down the columns. They must come row by row.",
        "`flatten()` of an (H, W) tensor reads row by row.",
    ),
    Wrong(
        "weight squared",
        right.given(weight=lambda a: a.weight**2),
        "You square the weight. Multiply the coordinates by the weight itself.",
        "The weight appears squared only in the squared distance.",
    ),
    Wrong(
        "weight ignored",
        right.given(weight=lambda a: 1.0),
        "You do not use the weight. Multiply both coordinates by it.",
        "With weight 0, all coordinates must be 0.",
    ),
    Wrong(
        "colours weighted",
        right.then(lambda out, a: torch.cat([a.weight * out[:, :-2], out[:, -2:]], dim=1)),
        "You multiply the colours by the weight too. It multiplies only the coordinates.",
        "If all columns are multiplied by the same number, the clusters do not change.",
    ),
    Wrong(
        "integer division",
        right.given(weight=lambda a: 0.0),
        "All your coordinates are 0, which looks like an integer division. They should be fractions of the longer "
        "side.",
        "3 // 7 is 0, and so is 3 / 7 when you store it in an integer tensor.",
    ),
    Wrong(
        "pixels scrambled",
        right.then(lambda out, a: torch.cat([a.image.reshape(-1, len(a.image)), out[:, -2:]], dim=1)),
        "You reshape (C, H, W) to (H W, C), which mixes pixels. Each row has to hold all channels of one pixel.",
        "Move the channel axis to the end before you flatten the other two axes.",
    ),
    Wrong(
        "a map",
        right.then(lambda out, a: out.T.reshape(-1, *a.image.shape[1:])),
        "You return a map, (C + 2, H, W). The result has one row per pixel, (H W, C + 2).",
        "k-means takes points, (N, D).",
    ),
    Wrong(
        "centres of the pixels",
        right.instead(lambda a: _moved(a.image, a.weight, torch.tensor([0.5, 0.5]))),
        "You add 0.5 to rows and columns. Here the first pixel has the coordinates 0 and 0.",
        "Count rows and columns from 0, and add nothing.",
    ),
    Wrong(
        "counted from 1",
        right.instead(lambda a: _moved(a.image, a.weight, torch.tensor([1.0, 1.0]))),
        "You count rows and columns from 1. Count them from 0.",
        "The first pixel has the coordinates 0 and 0.",
    ),
    Wrong(
        "origin in the centre",
        right.instead(
            lambda a: _moved(a.image, a.weight, -(torch.tensor([*a.image.shape[1:]], dtype=torch.float32) - 1) / 2)
        ),
        "Your coordinates are 0 in the centre of the image. They should be 0 at its first pixel.",
        "Count rows and columns from 0, and subtract nothing.",
    ),
    Wrong(
        "colours by 1 minus the weight",
        right.then(lambda out, a: torch.cat([(1 - a.weight) * out[:, :-2], out[:, -2:]], dim=1)),
        "You multiply the colours by 1 minus the weight. The weight multiplies only the coordinates.",
        "The weight may be larger than 1.",
    ),
    Wrong(
        "one column per pixel",
        right.then(lambda out, a: out.T),
        "You return one column per pixel, (C + 2, H W). The result has one row per pixel, (H W, C + 2).",
        "k-means takes points, (N, D).",
    ),
    Wrong(
        "positions of a transposed image",
        right.instead(lambda a: _transposed_grid(a.image, a.weight)),
        "Your colours come row by row, but your positions column by column. Both must come row by row.",
        '`meshgrid` has to be called with indexing="ij", or its results are transposed.',
    ),
    Wrong(
        "diagonal",
        right.given(weight=lambda a: a.weight * _longer(a.image) / np.hypot(*a.image.shape[1:])),
        "You divide by the diagonal of the image. Divide by the longer side.",
        SCALE_HINT,
    ),
    Wrong(
        "divided by the weight",
        right.given(weight=lambda a: 1 / a.weight if a.weight > 0 else 0.0),
        "You divide the coordinates by the weight. Multiply them by it.",
        "A larger weight makes positions count more.",
    ),
    Wrong(
        "longest of three axes",
        right.given(weight=lambda a: a.weight * _longer(a.image) / max(a.image.shape)),
        "You also compare the number of channels when you look for the longer side. Compare height and width only.",
        SCALE_HINT,
    ),
]

exercise = Exercise(
    name="xy_features",
    points=3,
    cases=cases,
    reference=xy_features,
    wrong=wrong,
    kind="matrix",
    hides=["segedu.unsupervised.kmeans"],
)
