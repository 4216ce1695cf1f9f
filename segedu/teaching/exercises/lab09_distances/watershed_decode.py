"""watershed_decode: from a map of distances back to cells, one for each top."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import local_maxima
from skimage.segmentation import watershed
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.hills import cases


def watershed_decode(distance: Tensor, min_distance: float) -> Tensor:
    """Give each top of a distance map a number, and let water run down from there over the inside.

    1. A pixel is inside where its distance is above 0.
    2. A top is a plateau inside: pixels of one height that share edges (one pixel alone is a plateau too), where no
       pixel that shares an edge with it is higher. Its place is its first pixel in reading order.
    3. Take tops from the highest down, of equal ones the first in reading order. Leave a top out if it is nearer than
       `min_distance` to one that was taken before *in the same piece*: two pixels of the inside are in one piece if a
       way inside, over shared edges, leads from one to the other. So each piece has a cell, however small it is.
    4. The places of the tops that are taken are the seeds: 1, 2, ... in the order in which they were taken. Water
       runs from them: pixels have their turn from the highest down, and each hands its number to those inside that
       share an edge with it and have none yet. `skimage.segmentation.watershed` does this for heights upside down:
       `watershed(-distance, seeds, mask=distance > 0)`.

    Args:
        distance: (H, W) floats, above 0 inside of cells, as a network predicts them.
        min_distance: pixels, Euclidean; 0 keeps all tops.

    Returns:
        (H, W) integers: 0 outside, else the number of the cell.

    Example: the top at 2.5 on the right is only 1 away from a higher one.

        >>> watershed_decode(torch.tensor([[-1.0, 0.5, 2.5, 1.5, 0.5, 2.5, 3.5, -2.0]]), 2.0)
        tensor([[0, 2, 2, 2, 1, 1, 1, 0]], dtype=torch.int32)
    """
    heights = distance.numpy()
    seeds = _numbered(_taken(_tops(heights), _pieces(heights), min_distance), heights.shape)
    return torch.from_numpy(watershed(-heights, seeds, mask=heights > 0))


Place = tuple[int, int]


def _tops(heights: np.ndarray) -> list[Place]:
    """Places of the tops, the highest first."""
    plateaus, count = ndimage.label(local_maxima(heights, connectivity=1) & (heights > 0))
    firsts = [tuple(np.argwhere(plateaus == n)[0].tolist()) for n in range(1, count + 1)]
    return sorted(firsts, key=lambda place: (-heights[place], place))


def _pieces(heights: np.ndarray) -> np.ndarray:
    return ndimage.label(heights > 0)[0]


def _taken(tops: list[Place], pieces: np.ndarray, min_distance: float) -> list[Place]:
    """Those not too near to one before in their piece."""
    taken: list[Place] = []
    for top in tops:
        others = [other for other in taken if pieces[other] == pieces[top]]
        if all(math.dist(top, other) >= min_distance for other in others):
            taken.append(top)
    return taken


def _numbered(places: list[Place], shape: tuple[int, ...]) -> np.ndarray:
    seeds = np.zeros(shape, dtype=np.int32)
    for number, place in enumerate(places, start=1):
        seeds[place] = number
    return seeds


def _flooded(heights: np.ndarray, places: list[Place], **options: int) -> Tensor:
    return torch.from_numpy(watershed(-heights, _numbered(places, heights.shape), mask=heights > 0, **options))


def _places(distance: Tensor, min_distance: float) -> list[Place]:
    """The right seeds."""
    heights = distance.numpy()
    return _taken(_tops(heights), _pieces(heights), min_distance)


def upside_down(distance: Tensor, min_distance: float) -> Tensor:
    """Water runs from the lowest pixels up: no minus."""
    heights, places = distance.numpy(), _places(distance, min_distance)
    return torch.from_numpy(watershed(heights, _numbered(places, heights.shape), mask=heights > 0))


def a_seed_a_pixel(distance: Tensor, min_distance: float) -> Tensor:
    """Each pixel of a plateau is a top."""
    heights = distance.numpy()
    pixels = np.argwhere(local_maxima(heights, connectivity=1) & (heights > 0)).tolist()
    tops = sorted(((y, x) for y, x in pixels), key=lambda place: (-heights[place], place))
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def no_mask(distance: Tensor, min_distance: float) -> Tensor:
    """Water runs everywhere."""
    places = _places(distance, min_distance)
    return torch.from_numpy(watershed(-distance.numpy(), _numbered(places, tuple(distance.shape))))


def all_tops(distance: Tensor, min_distance: float) -> Tensor:
    """min_distance is ignored."""
    return watershed_decode(distance, 0.0)


def pieces_only(distance: Tensor, min_distance: float) -> Tensor:
    """Connected components of the inside: one cell each."""
    return watershed_decode(distance, math.inf)


def seeds_only(distance: Tensor, min_distance: float) -> Tensor:
    """No water."""
    return torch.from_numpy(_numbered(_places(distance, min_distance), tuple(distance.shape)))


def in_a_square(distance: Tensor, min_distance: float) -> Tensor:
    """The larger of rows and columns."""
    heights, pieces, taken = distance.numpy(), _pieces(distance.numpy()), []
    for y, x in _tops(heights):
        others = [(j, i) for j, i in taken if pieces[j, i] == pieces[y, x]]
        if all(max(abs(y - j), abs(x - i)) >= min_distance for j, i in others):
            taken.append((y, x))
    return _flooded(heights, taken)


def just_too_near(distance: Tensor, min_distance: float) -> Tensor:
    """Exactly min_distance away is too near."""
    return watershed_decode(distance, min_distance + 1e-9 if min_distance else 0.0)


def across_pieces(distance: Tensor, min_distance: float) -> Tensor:
    """A top in another piece counts too."""
    heights = distance.numpy()
    return _flooded(heights, _taken(_tops(heights), np.zeros(heights.shape), min_distance))


def pieces_by_corners(distance: Tensor, min_distance: float) -> Tensor:
    """Pixels of the inside that touch at a corner are in one piece."""
    heights = distance.numpy()
    return _flooded(heights, _taken(_tops(heights), ndimage.label(heights > 0, np.ones((3, 3)))[0], min_distance))


def left_out_still_count(distance: Tensor, min_distance: float) -> Tensor:
    """Compared with all higher tops of the piece, taken or not."""
    heights = distance.numpy()
    tops, pieces = _tops(heights), _pieces(heights)
    taken = [
        top
        for i, top in enumerate(tops)
        if all(math.dist(top, other) >= min_distance for other in tops[:i] if pieces[other] == pieces[top])
    ]
    return _flooded(heights, taken)


def in_reading_order(distance: Tensor, min_distance: float) -> Tensor:
    """Tops as they come, not from the highest down."""
    heights = distance.numpy()
    return _flooded(heights, _taken(sorted(_tops(heights)), _pieces(heights), min_distance))


def lowest_first(distance: Tensor, min_distance: float) -> Tensor:
    """From the lowest up."""
    heights = distance.numpy()
    tops = sorted(_tops(heights), key=lambda place: (heights[place], place))
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def last_of_equal(distance: Tensor, min_distance: float) -> Tensor:
    """Of equal tops the last first."""
    heights = distance.numpy()
    tops = sorted(_tops(heights)[::-1], key=lambda place: -heights[place])
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def renumbered(distance: Tensor, min_distance: float) -> Tensor:
    """The right cells, numbered from the top of the image down."""
    return _flooded(distance.numpy(), sorted(_places(distance, min_distance)))


def nearest_seed(distance: Tensor, min_distance: float) -> Tensor:
    """Each pixel inside goes to the nearest seed of its piece, no water."""
    heights, pieces = distance.numpy(), _pieces(distance.numpy())
    found = np.zeros(heights.shape, np.int32)
    places = _places(distance, min_distance)
    for y, x in np.argwhere(heights > 0):
        near = [np.hypot(y - j, x - i) if pieces[j, i] == pieces[y, x] else np.inf for j, i in places]
        found[y, x] = 1 + int(np.argmin(near))
    return torch.from_numpy(found)


def round_corners(distance: Tensor, min_distance: float) -> Tensor:
    """Water runs over corners too."""
    return _flooded(distance.numpy(), _places(distance, min_distance), connectivity=2)


def plateaus_by_corners(distance: Tensor, min_distance: float) -> Tensor:
    """Pixels that touch at a corner are one plateau."""
    heights = distance.numpy()
    plateaus, count = ndimage.label(local_maxima(heights, connectivity=2) & (heights > 0), np.ones((3, 3)))
    firsts = [tuple(np.argwhere(plateaus == n)[0].tolist()) for n in range(1, count + 1)]
    tops = sorted(firsts, key=lambda place: (-heights[place], place))
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def higher_at_a_corner(distance: Tensor, min_distance: float) -> Tensor:
    """A higher pixel at a corner is no top's neighbour, but `local_maxima` looks there by default."""
    heights = distance.numpy()
    plateaus, count = ndimage.label(local_maxima(heights) & (heights > 0))
    firsts = [tuple(np.argwhere(plateaus == n)[0].tolist()) for n in range(1, count + 1)]
    tops = sorted(firsts, key=lambda place: (-heights[place], place))
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def no_tops_on_the_border(distance: Tensor, min_distance: float) -> Tensor:
    """A top needs neighbours on all sides."""
    heights = distance.numpy()
    H, W = heights.shape
    tops = [(y, x) for y, x in _tops(heights) if 0 < y < H - 1 and 0 < x < W - 1]
    return _flooded(heights, _taken(tops, _pieces(heights), min_distance))


def zero_is_inside(distance: Tensor, min_distance: float) -> Tensor:
    """>= 0."""
    return watershed_decode(torch.where(distance == 0, 1e-9, distance), min_distance)


HEIGHT = "The map is turned upside down so that tops are the deepest places: -distance."
STEP_2 = "Read step 2 of the statement again: plateaus by shared edges, their place, no higher neighbour."
STEP_3 = "Read step 3 of the statement again: in which order are tops taken, and which of them are left out?"

exercise = Exercise(
    name="watershed_decode",
    points=3,
    cases=cases,
    reference=watershed_decode,
    kind="map",
    hides=["segedu.instance.signed_distance", "segedu.unsupervised.watershed"],
    wrong=[
        Wrong(
            "not upside down",
            upside_down,
            "Your water climbs from low to high: it runs down from the tops.",
            HEIGHT,
        ),
        Wrong(
            "a seed for each pixel",
            a_seed_a_pixel,
            "Your plateaus have several seeds: all pixels of a plateau are one top, at its first pixel.",
            STEP_2,
        ),
        Wrong(
            "no mask",
            no_mask,
            "Your water floods the background: only pixels with a distance above 0 are inside.",
            "watershed(..., mask=distance > 0)",
        ),
        Wrong(
            "min_distance ignored",
            all_tops,
            "You take all tops: one that is nearer than min_distance to one taken before in its piece is left out.",
            STEP_3,
        ),
        Wrong(
            "pieces only",
            pieces_only,
            "You number pieces of the inside: cells that touch are one piece, but have a top each.",
            "The valley between two cells is above 0. Seeds at the tops tell them apart.",
        ),
        Wrong(
            "seeds only",
            seeds_only,
            "You give the seeds: let water run from them over the inside.",
            "watershed(-distance, seeds, mask=distance > 0)",
        ),
        Wrong(
            "distance in a square",
            in_a_square,
            "You measure between tops by the larger of rows and columns: take the Euclidean distance.",
            "sqrt(rows^2 + columns^2)",
        ),
        Wrong(
            "just min_distance away",
            just_too_near,
            "You leave out tops that are just min_distance away: only nearer ones are left out.",
            "< or <=?",
        ),
        Wrong(
            "across pieces",
            across_pieces,
            "A top is left out for one in another piece: only tops of the same piece count.",
            "scipy.ndimage.label(distance > 0) numbers the pieces.",
        ),
        Wrong(
            "pieces by corners",
            pieces_by_corners,
            "Your pieces connect at corners: only shared edges connect.",
            "scipy.ndimage.label connects over edges if you give it no structure.",
        ),
        Wrong(
            "left out still count",
            left_out_still_count,
            "A top that was left out still keeps others away: only those that were taken do.",
            STEP_3,
        ),
        Wrong(
            "in reading order",
            in_reading_order,
            "You take tops in reading order: take them from the highest down.",
            STEP_3,
        ),
        Wrong("lowest first", lowest_first, "You take tops from the lowest up: take the highest first.", STEP_3),
        Wrong(
            "last of equal tops",
            last_of_equal,
            "Of equally high tops you take the last first: the first in reading order comes first.",
            "A list that was sorted upwards and reversed begins with the last of equal ones.",
        ),
        Wrong(
            "numbered in reading order",
            renumbered,
            "You number cells in reading order: the highest top is 1, the next one 2.",
            STEP_3,
        ),
        Wrong(
            "nearest seed",
            nearest_seed,
            "You give pixels to the nearest seed: water finds the valleys, which may lie nearer to one of two seeds.",
            "watershed(-distance, seeds, mask=distance > 0)",
        ),
        Wrong(
            "water over corners",
            round_corners,
            "Your water runs over corners: only pixels that share an edge hand their number on.",
            "connectivity=1 is what skimage's watershed takes by default.",
        ),
        Wrong(
            "plateaus by corners",
            plateaus_by_corners,
            "You look at all 8 neighbours of a pixel: for plateaus and their tops the 4 that share an edge count.",
            STEP_2,
        ),
        Wrong(
            "higher at a corner",
            higher_at_a_corner,
            "You look for higher pixels at corners too: only the 4 that share an edge count.",
            STEP_2,
        ),
        Wrong(
            "no tops on the border",
            no_tops_on_the_border,
            "You lose tops on the border of the image: what lies beyond it is not higher.",
            STEP_2,
        ),
        Wrong(
            "0 is inside",
            zero_is_inside,
            "You take pixels at 0 for inside: they are inside above 0.",
            "> or >=?",
        ),
    ],
)
