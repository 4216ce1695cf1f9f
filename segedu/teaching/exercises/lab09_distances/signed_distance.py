"""signed_distance: how far is each pixel from the edge of its cell?"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.cells import crescent, crowd


def signed_distance(label_map: Tensor) -> Tensor:
    """Measure how far the centre of each pixel is from the edge of its cell: above 0 inside cells, below 0 outside.

    The edge lies half-way between two pixels. So in a cell the distance is the Euclidean distance to the nearest pixel
    that is not of this cell, minus 1/2; that pixel may be background or of another cell. In the background it is minus
    the distance to the nearest pixel of any cell, plus 1/2. The border of the image is no edge.

    Args:
        label_map: (H, W) integers: 0 is background, every other number is one cell. Numbers may have gaps.

    Returns:
        (H, W) floats, in pixels. Where there is no such nearest pixel, there is no edge: without any cell the distance
        is minus the diagonal of the image, sqrt(H^2 + W^2), and where one cell fills the image it is the diagonal.

    Example: cells 7 and 4 touch, so both are at 1/2 beside the edge between them.

        >>> signed_distance(torch.tensor([[0, 0, 7, 7, 7, 4, 4]]))
        tensor([[-1.5000, -0.5000,  0.5000,  1.5000,  0.5000,  0.5000,  1.5000]],
               dtype=torch.float64)
    """
    distance = 0.5 - _way_to(label_map > 0)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        distance[inside] = _way_to(~inside)[inside] - 0.5
    return distance


def _way_to(wanted: Tensor) -> Tensor:
    """From each pixel to the nearest wanted one; where none is wanted, half a pixel more than the diagonal."""
    if not wanted.any():
        return torch.full(wanted.shape, math.hypot(*wanted.shape) + 0.5, dtype=torch.float64)
    return torch.from_numpy(ndimage.distance_transform_edt(~wanted.numpy()))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, a C; one pixel, one row, images without background, without a cell, without an edge.

    Args:
        rng: of sizes, numbers and the side that is up.

    Returns:
        The cases by group. Maps have at most 100 pixels, so that their pictures show numbers.
    """
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(2, 5))
    single = torch.zeros(5, 7, dtype=torch.int64)
    single[int(rng.integers(5)), int(rng.integers(2, 5))] = one
    row = torch.tensor([[two] * width + [one] * 3 + [0] * 4 + [one] * 2])
    full = torch.full((6, 9), one)
    full[2:, width:] = two
    return {
        "core": (
            2,
            [
                {"name": "cells that touch", "args": [crowd(rng)]},
                {"name": "a cell like a C", "args": [crescent(rng)]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "a cell of one pixel", "args": [single]},
                {"name": "one row", "args": [row]},
                {"name": "two cells and no background", "args": [full]},
                {"name": "no cell", "args": [torch.zeros(3, 3 + width, dtype=torch.int64)]},
                {"name": "one cell everywhere", "args": [torch.full((4, 2 + width), one)]},
            ],
        ),
    }


def unsigned(label_map: Tensor) -> Tensor:
    """Positive outside too."""
    return signed_distance(label_map).abs()


def turned_round(label_map: Tensor) -> Tensor:
    """Negative inside."""
    return -signed_distance(label_map)


def merged(label_map: Tensor) -> Tensor:
    """All cells are one."""
    return signed_distance((label_map > 0).long())


def to_the_pixel(label_map: Tensor) -> Tensor:
    """The distance between centres of pixels, without the half."""
    distance = signed_distance(label_map)
    return distance + distance.sign() / 2


def half_too_far(label_map: Tensor) -> Tensor:
    """The half is added on both sides."""
    distance = signed_distance(label_map)
    return distance + distance.sign()


def half_inside_only(label_map: Tensor) -> Tensor:
    """The edge lies on the first pixel outside for those outside."""
    distance = signed_distance(label_map)
    return torch.where(distance > 0, distance, distance - 0.5)


def border_is_an_edge(label_map: Tensor) -> Tensor:
    """Beyond the image lies background."""
    padded = torch.nn.functional.pad(label_map, (1, 1, 1, 1))
    distance = signed_distance(padded)[1:-1, 1:-1]
    return torch.where(label_map > 0, distance, signed_distance(label_map))


def from_the_last_pixel(label_map: Tensor) -> Tensor:
    """The edge runs through the last pixels inside: they have 0."""
    distance = signed_distance(label_map)
    on_the_edge = (distance > 0) & (distance < 1)
    depth = torch.zeros_like(distance)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        depth[inside] = _way_to(on_the_edge & inside)[inside]
    return torch.where(distance > 0, depth, distance - 0.5)


def _measured(label_map: Tensor, metric: str) -> Tensor:
    """With whole steps; where there is no edge as it should be."""

    def way_to(wanted: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.distance_transform_cdt(~wanted.numpy(), metric)).double()

    distance = signed_distance(label_map)
    if len(label_map.unique()) == 1:
        return distance
    distance = torch.where(label_map > 0, distance, 0.5 - way_to(label_map > 0))
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        distance[inside] = way_to(~inside)[inside] - 0.5
    return distance


def city_blocks(label_map: Tensor) -> Tensor:
    """Rows plus columns."""
    return _measured(label_map, "taxicab")


def chessboard(label_map: Tensor) -> Tensor:
    """The larger of rows and columns."""
    return _measured(label_map, "chessboard")


def squared(label_map: Tensor) -> Tensor:
    """No root."""
    distance = to_the_pixel(label_map)
    return distance * distance.abs() - distance.sign() / 2


def zero_outside(label_map: Tensor) -> Tensor:
    """Background has no distance."""
    return signed_distance(label_map).clamp(min=0)


def share_of_the_depth(label_map: Tensor) -> Tensor:
    """Each cell divided by its largest distance."""
    distance = signed_distance(label_map)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        distance[inside] /= distance[inside].max()
    return distance


def no_gaps(label_map: Tensor) -> Tensor:
    """Cells 1, 2, ... up to how many there are; the others keep 0."""
    count = len(label_map[label_map > 0].unique())
    return torch.where(label_map <= count, signed_distance(label_map), 0.0)


def first_left_out(label_map: Tensor) -> Tensor:
    """The smallest number is taken for the background, also where there is none."""
    distance, first = signed_distance(label_map), label_map.unique()[0]
    if first == 0 or len(label_map.unique()) == 1:
        return distance
    return torch.where(label_map == first, 0.5 - _by_scipy(label_map == 0), distance)


def _by_scipy(inside: Tensor) -> Tensor:
    """To the nearest pixel that is not inside; where there is none, scipy's answer means nothing."""
    return torch.from_numpy(ndimage.distance_transform_edt(inside.numpy()))


def no_edge_not_seen(label_map: Tensor) -> Tensor:
    """scipy's distance as it comes, also where there is nothing to measure to."""
    distance = 0.5 - _by_scipy(label_map == 0)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        distance[inside] = _by_scipy(inside)[inside] - 0.5
    return distance


def foreground_by_scipy(label_map: Tensor) -> Tensor:
    """The usual two lines: the inside of the foreground minus its outside."""
    return _by_scipy(label_map > 0) - _by_scipy(label_map == 0)


def zero_without_an_edge(label_map: Tensor) -> Tensor:
    """Nothing to measure, so 0."""
    return signed_distance(label_map) * (len(label_map.unique()) > 1)


def infinite_without_an_edge(label_map: Tensor) -> Tensor:
    """What is nowhere is infinitely far away."""
    distance = signed_distance(label_map)
    return distance if len(label_map.unique()) > 1 else distance * math.inf


HALF = "Try one row, [0, 7]: the edge lies in the middle between both pixels, half a pixel from each."
NO_EDGE = "Read what the statement says of an image without a cell, and of one that a cell fills."

exercise = Exercise(
    name="signed_distance",
    points=3,
    cases=cases,
    reference=signed_distance,
    kind="matrix",
    hides=["segedu.instance.signed_distance"],
    wrong=[
        Wrong(
            "unsigned",
            unsigned,
            "Your distances have no sign: outside of cells they are below 0.",
            "Two maps, one of the inside and one of the outside, are put together with a minus.",
        ),
        Wrong(
            "sign turned round",
            turned_round,
            "Your signs are turned round: above 0 is inside, below 0 is outside.",
            "The tops of the map are to be the cells.",
        ),
        Wrong(
            "cells that touch merged",
            merged,
            "You measure all cells as one: between two that touch there is an edge too.",
            "Measure one number after the other: whatever is not this cell is outside of it.",
        ),
        Wrong(
            "no half",
            to_the_pixel,
            "You measure to the nearest pixel on the other side: the edge lies half a pixel before it.",
            HALF,
        ),
        Wrong(
            "half the wrong way",
            half_too_far,
            "You go half a pixel too far: the edge lies before the nearest pixel of the other side, not behind it.",
            HALF,
        ),
        Wrong(
            "half only inside",
            half_inside_only,
            "Outside of cells your distances are half a pixel too long: the edge is the same for both sides.",
            HALF,
        ),
        Wrong(
            "edge on the last pixels",
            from_the_last_pixel,
            "Your edge runs through the last pixels of a cell: it runs between them and those outside.",
            HALF,
        ),
        Wrong(
            "border of the image",
            border_is_an_edge,
            "You take the border of the image for an edge: a cell that it cuts goes on behind it.",
            "No padding with zeros: only pixels of the image are outside of a cell.",
        ),
        Wrong(
            "city blocks",
            city_blocks,
            "You add rows and columns: take the Euclidean distance, sqrt(rows^2 + columns^2).",
            "scipy.ndimage.distance_transform_edt: the e is for Euclidean.",
        ),
        Wrong(
            "chessboard",
            chessboard,
            "You take the larger of rows and columns: take the Euclidean distance, sqrt(rows^2 + columns^2).",
            "scipy.ndimage.distance_transform_edt: the e is for Euclidean.",
        ),
        Wrong("squared", squared, "Your distances are squared: take the root before the half.", HALF),
        Wrong(
            "zero outside",
            zero_outside,
            "Your background is 0: there it is minus the distance to the nearest cell, plus 1/2.",
            "A signed distance goes on outside.",
        ),
        Wrong(
            "share of the depth",
            share_of_the_depth,
            "You divide by the largest distance of each cell: the distances are in pixels.",
            "A large cell has a higher top than a small one.",
        ),
        Wrong(
            "numbers without gaps",
            no_gaps,
            "You take the cells to be 1, 2, 3, ...: numbers may have gaps.",
            "torch.unique tells which numbers there are.",
        ),
        Wrong(
            "first number left out",
            first_left_out,
            "You leave out the first number: it is 0 only where there is background.",
            "label_map[label_map > 0].unique() holds the numbers of cells and no other.",
        ),
        Wrong(
            "foreground as one, to the pixel",
            foreground_by_scipy,
            "You measure all cells as one, and to the nearest pixel: each has an edge, half a pixel before that one.",
            "Measure one number after the other, and take 1/2 off.",
        ),
        Wrong(
            "no edge not seen",
            no_edge_not_seen,
            "Where the image has no edge scipy's distance means nothing: it is the diagonal, and signed.",
            NO_EDGE,
        ),
        Wrong(
            "0 without an edge",
            zero_without_an_edge,
            "Where the image has no edge you give 0: it is the diagonal, with the sign of the side.",
            NO_EDGE,
        ),
        Wrong(
            "infinite without an edge",
            infinite_without_an_edge,
            "Where the image has no edge you give infinity: it is the diagonal, with the sign of the side.",
            NO_EDGE,
        ),
    ],
)
