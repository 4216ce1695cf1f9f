"""watershed_markers: one seed for each summit of the distance to the background."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

EIGHT = np.ones((3, 3), bool)


def watershed_markers(mask: Tensor, min_distance: int) -> Tensor:
    """Number the summits of the distance map.

    Args:
        mask: (H, W) bool, not True everywhere.
        min_distance: a summit is as high as all pixels that lie at most so many rows and columns away, at least 1.

    Returns:
        int32 (H, W): 1, 2, ... for summits in reading order, 0 elsewhere; summits that touch are one.
    """
    distance = ndimage.distance_transform_edt(mask.numpy())
    return _numbered(_summits(distance, 2 * min_distance + 1) & mask.numpy())


def _summits(height: np.ndarray, size: int) -> np.ndarray:
    return height == ndimage.maximum_filter(height, size)


def _numbered(summits: np.ndarray, touching: np.ndarray = EIGHT) -> Tensor:
    return torch.from_numpy(ndimage.label(summits, touching)[0])


def _discs(shape: tuple[int, int], discs: list[tuple[float, float, float]]) -> Tensor:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return torch.from_numpy(np.any([(y - r) ** 2 + (x - c) ** 2 <= s**2 for r, c, s in discs], axis=0))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, a bump beside a summit, a triangle; plateaus, summits on the border, nothing at all.

    Args:
        rng: of places and sizes.

    Returns:
        The cases by group.
    """
    r, c, s = (float(n) for n in rng.integers((8, 7, 5), (11, 9, 7)))
    touching = _discs((20, 32), [(r, c, s), (r + 1, c + 2 * s - 1, s - 1), (16, 28, 2)])
    bump = _discs((22, 20), [(r - 1, c + 1, 5), (r + 5, c + 2, 3)])  # a neck, and a second summit 6 rows below
    bump[0, 18] = True
    slope = torch.ones(10, 10, dtype=torch.bool).tril()  # in a corner of it, steps and distance disagree
    slope = torch.nn.functional.pad(slope.rot90(int(rng.integers(4))), (1, 2, 2, 1))
    bars = torch.zeros(14, 24, dtype=torch.bool)
    top, left = (int(n) for n in rng.integers(1, 3, 2))
    bars[top : top + 4, left : left + 9] = True  # an even width: its ridge is two pixels wide
    for k in range(7):  # a slanting band: its ridge runs from corner to corner
        bars[6 + k, 11 + k : 14 + k] = True
    bars[10, 3] = True
    cut = _discs((16, 18), [(0, c - 2, 4), (r, 17, s - 1), (15, 1, 3)])
    cut[:2, 15:] = True
    return {
        "core": (
            2,
            [
                {"name": "two cells that touch, one alone", "args": [touching, 2]},
                {"name": "a cell with a bump", "args": [bump, 7]},
                {"name": "a triangle", "args": [slope, 2]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "plateaus", "args": [bars, 1]},
                {"name": "cells that the border cuts", "args": [cut, 3]},
                {"name": "nothing", "args": [torch.zeros(5, 7, dtype=torch.bool), 1]},
            ],
        ),
    }


def _distance(mask: Tensor) -> np.ndarray:
    return ndimage.distance_transform_edt(mask.numpy())


def every_pixel(mask: Tensor, min_distance: int) -> Tensor:
    """A number for each pixel of a plateau."""
    found = np.argwhere(watershed_markers(mask, min_distance).numpy())
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(found.T)] = np.arange(1, len(found) + 1)
    return torch.from_numpy(markers)


def on_the_mask(mask: Tensor, min_distance: int) -> Tensor:
    """Summits of the mask: whole components."""
    return _numbered(_summits(mask.numpy().astype(float), 2 * min_distance + 1) & mask.numpy())


def direct_neighbours(mask: Tensor, min_distance: int) -> Tensor:
    """min_distance is ignored."""
    return watershed_markers(mask, 1)


def half_the_window(mask: Tensor, min_distance: int) -> Tensor:
    """A window of min_distance pixels, which reaches half as far."""
    return _numbered(_summits(_distance(mask), min_distance) & mask.numpy())


def without_the_border(mask: Tensor, min_distance: int) -> Tensor:
    """No summit within min_distance of the border, as some libraries have it."""
    inner = np.zeros(mask.shape, bool)
    inner[min_distance:-min_distance, min_distance:-min_distance] = True
    return _numbered((watershed_markers(mask, min_distance).numpy() > 0) & inner)


def border_is_background(mask: Tensor, min_distance: int) -> Tensor:
    """The distance to the border counts too."""
    distance = ndimage.distance_transform_edt(np.pad(mask.numpy(), 1))[1:-1, 1:-1]
    return _numbered(_summits(distance, 2 * min_distance + 1) & mask.numpy())


def four_neighbours(mask: Tensor, min_distance: int) -> Tensor:
    """Pixels that touch at a corner are two summits, as scipy.ndimage.label has it by default."""
    summits = watershed_markers(mask, min_distance).numpy() > 0
    return _numbered(summits, ndimage.generate_binary_structure(2, 1))


def background_too(mask: Tensor, min_distance: int) -> Tensor:
    """0 is the largest value among zeros."""
    return _numbered(_summits(_distance(mask), 2 * min_distance + 1))


def thresholded(mask: Tensor, min_distance: int) -> Tensor:
    """Where the distance is more than half of the largest."""
    distance = _distance(mask)
    return _numbered(distance > 0.5 * distance.max())


def city_blocks(mask: Tensor, min_distance: int) -> Tensor:
    """Steps to the background."""
    distance = ndimage.distance_transform_cdt(mask.numpy(), "taxicab")
    return _numbered(_summits(distance, 2 * min_distance + 1) & mask.numpy())


def highest_only(mask: Tensor, min_distance: int) -> Tensor:
    """The largest distance of the whole picture."""
    distance = _distance(mask)
    return _numbered((distance == distance.max()) & mask.numpy())


def not_numbered(mask: Tensor, min_distance: int) -> Tensor:
    """1 at all summits."""
    return (watershed_markers(mask, min_distance) > 0).int()


WINDOW = "A window that reaches m pixels to each side has 2 m + 1 rows and columns."

exercise = Exercise(
    name="watershed_markers",
    points=3,
    cases=cases,
    reference=watershed_markers,
    kind="map",
    hides=["segedu.unsupervised.watershed"],
    wrong=[
        Wrong(
            "every pixel of a plateau",
            every_pixel,
            "You give every pixel of a plateau its own number: summits that touch are one marker.",
            "Number connected groups, not pixels.",
        ),
        Wrong(
            "on the mask",
            on_the_mask,
            "You look for summits of the mask, which is flat: take the distance to the background.",
            "scipy.ndimage.distance_transform_edt.",
        ),
        Wrong(
            "min_distance ignored",
            direct_neighbours,
            "You compare with direct neighbours only: a summit is as high as all within min_distance.",
            WINDOW,
        ),
        Wrong("half the window", half_the_window, "Your window has min_distance rows: it reaches half as far.", WINDOW),
        Wrong(
            "border dropped",
            without_the_border,
            "You drop summits near the border of the image: a cell that is cut off there needs a marker too.",
            "Beyond the border there is nothing to compare with.",
        ),
        Wrong(
            "border is background",
            border_is_background,
            "You count the border of the image as background: only pixels that are not in the mask are.",
            "A cell that is cut off may be highest right at the border.",
        ),
        Wrong(
            "4-neighbours",
            four_neighbours,
            "Summits that touch at a corner are one marker: yours are two.",
            "The `structure` of scipy.ndimage.label says who is a neighbour.",
        ),
        Wrong(
            "background too",
            background_too,
            "You find summits in the background: there all distances are 0, and 0 is as high as its neighbours.",
            "Keep those that lie in the mask.",
        ),
        Wrong(
            "threshold",
            thresholded,
            "You take what is higher than half of the highest: small cells get no marker, and necks may join two.",
            "Compare each pixel with its surroundings, not with one number.",
        ),
        Wrong(
            "steps, not distance",
            city_blocks,
            "You count steps up, down and aside: the distance is Euclidean.",
            "A corner is sqrt(2) away.",
        ),
        Wrong(
            "highest only",
            highest_only,
            "You mark the highest places of the whole image: each cell has a summit of its own.",
            "Compare each pixel with its surroundings.",
        ),
        Wrong(
            "not numbered",
            not_numbered,
            "All your markers are 1: each summit needs its own number.",
            "scipy.ndimage.label.",
        ),
    ],
)
