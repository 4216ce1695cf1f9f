"""xy_features: every pixel as a point of colour and place, so that clusters hang together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.unsupervised.kmeans import colour_position_features


def xy_features(image: Tensor, weight: float) -> Tensor:
    """Channels, then row and column over the longer side, times a weight; pixels in reading order.

    Args:
        image: (C, H, W) float.
        weight: of the place against the colour, at least 0.

    Returns:
        (H W, C + 2).
    """
    return colour_position_features(image, weight)


def _grid(image: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the row and of the column of each pixel, (1, H, W) each."""
    _, H, W = image.shape
    rows, columns = torch.arange(H, dtype=image.dtype), torch.arange(W, dtype=image.dtype)
    return rows[None, :, None].expand(1, H, W), columns.expand(1, H, W)


def _table(planes: list[Tensor]) -> Tensor:
    return torch.cat(planes).flatten(1).T


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Wide and tall images, weights on both sides of 1; weight 0, one channel, one row, one pixel.

    Args:
        rng: of the pixels.

    Returns:
        The cases by group.
    """

    def image(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(0.05, 0.95, shape)).float()

    return {
        "core": (
            2,
            [
                {"name": "a wide image", "args": [image(3, 3, 6), 0.5]},
                {"name": "a tall image", "args": [image(3, 5, 4), 3.0]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one channel", "args": [image(1, 3, 5), 2]},
                {"name": "weight 0", "args": [image(2, 3, 4), 0.0]},
                {"name": "one row", "args": [image(3, 1, 6), 0.25]},
                {"name": "one pixel", "args": [image(3, 1, 1), 1.0]},
            ],
        ),
    }


def _features(image: Tensor, rows: float, columns: float) -> Tensor:
    """With a factor for each axis."""
    y, x = _grid(image)
    return _table([image, rows * y, columns * x])


def unscaled(image: Tensor, weight: float) -> Tensor:
    """Coordinates in pixels."""
    return _features(image, weight, weight)


def each_side(image: Tensor, weight: float) -> Tensor:
    """Rows over the height, columns over the width: a square becomes a rectangle."""
    return _features(image, weight / image.shape[1], weight / image.shape[2])


def to_the_last_pixel(image: Tensor, weight: float) -> Tensor:
    """The last pixel is at 1."""
    scale = weight / max(max(image.shape[1:]) - 1, 1)
    return _features(image, scale, scale)


def shorter_side(image: Tensor, weight: float) -> Tensor:
    """min for max."""
    scale = weight / min(image.shape[1:])
    return _features(image, scale, scale)


def columns_first(image: Tensor, weight: float) -> Tensor:
    """x before y."""
    right = xy_features(image, weight)
    return torch.cat([right[:, :-2], right[:, -1:], right[:, -2:-1]], dim=1)


def place_first(image: Tensor, weight: float) -> Tensor:
    """Coordinates before colours."""
    right = xy_features(image, weight)
    return torch.cat([right[:, -2:], right[:, :-2]], dim=1)


def down_the_columns(image: Tensor, weight: float) -> Tensor:
    """Pixels column by column."""
    _, H, W = image.shape
    return xy_features(image, weight).reshape(H, W, -1).transpose(0, 1).flatten(0, 1)


def squared_weight(image: Tensor, weight: float) -> Tensor:
    """Weight squared: it is the squared distance that grows with the square."""
    return xy_features(image, weight**2)


def weight_ignored(image: Tensor, weight: float) -> Tensor:
    """Weight 1."""
    return xy_features(image, 1.0)


def weight_on_colour(image: Tensor, weight: float) -> Tensor:
    """All columns are weighted."""
    right = xy_features(image, weight)
    return torch.cat([weight * right[:, :-2], right[:, -2:]], dim=1)


def whole_numbers(image: Tensor, weight: float) -> Tensor:
    """Integer division: every pixel is at 0."""
    return _features(image, 0.0, 0.0)


def scrambled(image: Tensor, weight: float) -> Tensor:
    """reshape for a permutation: the numbers of a pixel are three neighbours of one channel."""
    right = xy_features(image, weight)
    return torch.cat([image.reshape(-1, len(image)), right[:, -2:]], dim=1)


def as_a_map(image: Tensor, weight: float) -> Tensor:
    """(C + 2, H, W), no table."""
    return xy_features(image, weight).T.reshape(-1, *image.shape[1:])


SCALE = "Divide both coordinates by the longer side, max(H, W)."

exercise = Exercise(
    name="xy_features",
    points=3,
    cases=cases,
    reference=xy_features,
    kind="matrix",
    hides=["segedu.unsupervised.kmeans"],
    wrong=[
        Wrong(
            "unscaled pixels",
            unscaled,
            "Your coordinates are in pixels: beside colours from 0 to 1 the place decides everything.",
            SCALE,
        ),
        Wrong(
            "each side by itself",
            each_side,
            "You divide rows by the height and columns by the width: then a step down and a step aside differ.",
            SCALE,
        ),
        Wrong(
            "longer side minus 1",
            to_the_last_pixel,
            "You divide by the longer side minus 1: the statement divides by the longer side.",
            "Which number has the last pixel of a row of 7?",
        ),
        Wrong("shorter side", shorter_side, "You divide by the shorter side.", SCALE),
        Wrong(
            "swapped axes",
            columns_first,
            "You put the column before the row: the statement asks for row, then column.",
            "Axis 1 of the image counts rows.",
        ),
        Wrong(
            "place first",
            place_first,
            "You put the coordinates before the channels: they come last.",
            "The statement gives the order of the columns.",
        ),
        Wrong(
            "column by column",
            down_the_columns,
            "Your pixels run down the columns: they should come row by row.",
            "flatten() of (H, W) reads row by row.",
        ),
        Wrong(
            "weight squared",
            squared_weight,
            "You square the weight: it multiplies the coordinates once.",
            "It is the squared distance in which it appears squared.",
        ),
        Wrong("weight ignored", weight_ignored, "You do not use the weight.", "It multiplies both coordinates."),
        Wrong(
            "colours weighted",
            weight_on_colour,
            "You weight the colours too: only the coordinates are multiplied.",
            "If all columns are multiplied, no cluster changes.",
        ),
        Wrong(
            "integer division",
            whole_numbers,
            "All your coordinates are 0: integers were divided and rounded down.",
            "3 // 7 is 0, and so is 3 / 7 written into an array of integers.",
        ),
        Wrong(
            "pixels scrambled",
            scrambled,
            "You reshape (C, H, W) to (H W, C): a row then holds neighbours of one channel, not one pixel's channels.",
            "The channel axis has to move to the end before the others are joined.",
        ),
        Wrong(
            "a map",
            as_a_map,
            "You return a map (C + 2, H, W): one row a pixel is asked for.",
            "k-means takes points, (N, D).",
        ),
    ],
)
