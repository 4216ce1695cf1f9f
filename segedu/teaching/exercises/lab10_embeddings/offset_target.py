"""offset_target: the way from each pixel to the centre of its object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def offset_target(label_map: Tensor, unit: float) -> Tensor:
    """Point from each pixel to the centre of its object: the mean of the places of the object's pixels.

    All pixels with one number are one object, also where it lies in several pieces; numbers may have gaps.

    Args:
        label_map: (H, W) integers: 0 is background, every other number an object.
        unit: pixels in one unit of length; the way in pixels is divided by it.

    Returns:
        (2, H, W) floats, dy before dx: centre minus pixel, in units; 0 in the background.

    Example: the centre of object 5 lies at x = 1, so its left pixel points 1 to the right, its right one 1 to the left.

        >>> offset_target(torch.tensor([[5, 5, 5, 0]]), 1.0)[1]
        tensor([[ 1.,  0., -1.,  0.]], dtype=torch.float64)
    """
    return _towards(label_map, _mean) / unit


def _mean(places: Tensor) -> Tensor:
    return places.mean(dim=0)


def _towards(label_map: Tensor, centre: Callable[[Tensor], Tensor]) -> Tensor:
    """In pixels; `centre` (N, 2) -> (2,)."""
    offsets = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        places = inside.nonzero().double()  # (N, 2), y before x
        offsets[:, inside] = (centre(places) - places).T
    return offsets


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Two cells that touch, an object in two pieces; one pixel, a line, unit 1, nothing.

    Args:
        rng: of places and numbers.

    Returns:
        The cases by group.
    """
    low, high = (int(n) for n in rng.permutation([3, 7, 12, 40])[:2])
    height, width = (int(n) for n in rng.integers((5, 4), (7, 6)))
    cells = torch.zeros(10, 13, dtype=torch.int64)
    cells[1 : height + 1, 2:4] = low  # an L: its mean lies elsewhere than the middle of its box
    cells[height - 1 : height + 1, 2 : width + 3] = low
    cells[1 : height - 1, 4 : width + 5] = high
    pieces = torch.zeros(9, 11, dtype=torch.int64)
    pieces[1:3, 0:3] = 2
    pieces[6 : 6 + int(rng.integers(1, 3)), 3 + int(rng.integers(3)) : 9] = 2
    pieces[3:6, 9:] = 9
    single = torch.zeros(4, 5, dtype=torch.int64)
    row, column = (int(n) for n in rng.integers((1, 1), (3, 4)))
    single[row, column] = 6
    line = torch.tensor([[0, 0, *[high] * (height + 3), *[high + 1] * 4, 0]])
    whole = torch.ones(4, width + 3, dtype=torch.int64)
    return {
        "core": (
            2,
            [
                {"name": "two cells that touch", "args": [cells, 4.0]},
                {"name": "an object in two pieces", "args": [pieces, 8.0]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "pixels as unit", "args": [cells.T.contiguous(), 1.0]},
                {"name": "an object of one pixel", "args": [single, 4.0]},
                {"name": "one row", "args": [line, 2.0]},
                {"name": "one object everywhere", "args": [whole, 0.5]},
                {"name": "no object", "args": [torch.zeros(4, 5, dtype=torch.int64), 4.0]},
            ],
        ),
    }


def from_the_centre(label_map: Tensor, unit: float) -> Tensor:
    """Pixel minus centre."""
    return -offset_target(label_map, unit)


def in_pixels(label_map: Tensor, unit: float) -> Tensor:
    """The unit is forgotten."""
    return offset_target(label_map, 1.0)


def times_the_unit(label_map: Tensor, unit: float) -> Tensor:
    """Multiplied where it should be divided."""
    return offset_target(label_map, 1 / unit)


def background_too(label_map: Tensor, unit: float) -> Tensor:
    """0 is a number like the others."""
    return offset_target(label_map + 1, unit)


def background_to_the_corner(label_map: Tensor, unit: float) -> Tensor:
    """A map of centres minus a map of places, and the centres are 0 in the background."""
    y, x = (torch.arange(n, dtype=torch.float64) for n in label_map.shape)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")) * (label_map == 0)
    return offset_target(label_map, unit) - places / unit


def x_first(label_map: Tensor, unit: float) -> Tensor:
    """dx before dy."""
    return offset_target(label_map, unit).flip(0)


def middle_of_the_box(label_map: Tensor, unit: float) -> Tensor:
    """The centre of the bounding box."""
    return _towards(label_map, lambda places: (places.amin(0) + places.amax(0)) / 2) / unit


def nearest_pixel(label_map: Tensor, unit: float) -> Tensor:
    """The centre rounded to a pixel."""
    return _towards(label_map, lambda places: places.mean(0).round()) / unit


def directions(label_map: Tensor, unit: float) -> Tensor:
    """Each vector divided by its own length, as flows are."""
    offsets = offset_target(label_map, unit)
    return offsets / offsets.norm(dim=0).clamp(min=1e-12)


def one_centre(label_map: Tensor, unit: float) -> Tensor:
    """The mean of all foreground pixels."""
    return offset_target((label_map > 0).long(), unit)


def pieces_apart(label_map: Tensor, unit: float) -> Tensor:
    """A centre for each connected piece of an object."""
    pieces = torch.zeros_like(label_map)
    for number in label_map[label_map > 0].unique():
        found = torch.from_numpy(ndimage.label((label_map == number).numpy())[0]).long()
        pieces = torch.where(found > 0, found + pieces.max(), pieces)
    return offset_target(pieces, unit)


def no_gaps(label_map: Tensor, unit: float) -> Tensor:
    """Objects 1, 2, ... up to how many there are; the others are missed."""
    count = len(label_map[label_map > 0].unique())
    return offset_target(torch.where(label_map <= count, label_map, 0), unit)


def the_centre_itself(label_map: Tensor, unit: float) -> Tensor:
    """Where the centre is, not the way to it."""
    y, x = (torch.arange(n, dtype=torch.float64) for n in label_map.shape)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")) * (label_map > 0)
    return offset_target(label_map, unit) + places / unit


exercise = Exercise(
    name="offset_target",
    points=3,
    cases=cases,
    reference=offset_target,
    kind="map",
    hides=["segedu.instance.spatial_embedding"],
    wrong=[
        Wrong(
            "from the centre",
            from_the_centre,
            "Your arrows start at the centre and end at the pixel: they should point from the pixel to the centre.",
            "Pixel + offset should be the centre: which of the two is subtracted?",
        ),
        Wrong(
            "in pixels",
            in_pixels,
            "Your offsets are in pixels: divide them by the unit.",
            "With unit=4, a way of 2 pixels is 0.5.",
        ),
        Wrong(
            "times the unit",
            times_the_unit,
            "You multiply by the unit: divide by it.",
            "With unit=4, a way of 2 pixels is 0.5.",
        ),
        Wrong(
            "background points too",
            background_too,
            "Your background points at a centre of its own: 0 is no object, and its offsets are 0.",
            "Which number of the label map must the loop leave out?",
        ),
        Wrong(
            "background points to the corner",
            background_to_the_corner,
            "Your background points at pixel (0, 0): 0 is no object, and its offsets are 0.",
            "A map of centres that is 0 in the background, minus the places of the pixels, is not 0 there.",
        ),
        Wrong(
            "x first",
            x_first,
            "You give dx before dy: the first plane is the way along rows, dy.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "middle of the box",
            middle_of_the_box,
            "Your centre is the middle of the bounding box: take the mean of the object's pixels.",
            "Draw an L: the mean of its pixels lies nearer to its corner.",
        ),
        Wrong(
            "centre rounded",
            nearest_pixel,
            "You round the centre to a whole pixel: it may lie between pixels.",
            "The mean of the places 0 and 1 is 0.5.",
        ),
        Wrong(
            "lengths lost",
            directions,
            "All your arrows are 1 long: only the unit divides them, so that pixel + offset is the centre.",
            "A far pixel needs a longer arrow than a near one.",
        ),
        Wrong(
            "one centre for all",
            one_centre,
            "All your objects point at one centre: each has its own.",
            "Do for each number of the label map what you do for the whole foreground.",
        ),
        Wrong(
            "pieces apart",
            pieces_apart,
            "You give each piece of an object a centre of its own: pixels with one number share one centre.",
            "Something may hide the middle of an object. Select by number, not by connection.",
        ),
        Wrong(
            "numbers without gaps",
            no_gaps,
            "You take the objects to be 1, 2, 3, ...: numbers may have gaps.",
            "torch.unique tells which numbers there are.",
        ),
        Wrong(
            "the centre itself",
            the_centre_itself,
            "You give the place of the centre: what is asked for is the way from the pixel to it.",
            "Subtract the place of the pixel.",
        ),
    ],
)
