"""diffusion_flow: heat spreads from the middle of a cell, and the flow says where it rises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.cells import crescent, crowd, pieces, turned

LEAST = 3e-7  # in float32 a slope of the cases that should be 0 is at most 1e-7; all others are above 6e-6


def diffusion_flow(label_map: Tensor, steps: int) -> Tensor:
    """Let heat spread in each cell from its middle; return the direction in which it rises.

    For each cell by itself:

    1. The source is the pixel of the cell that is nearest to the mean of the places of all its pixels; of equally near
       ones the first in reading order. So the source is inside, even where the mean is not.
    2. Heat is 0 at first. Each of the `steps` adds 1 at the source; then each pixel of the cell becomes the mean of the
       3x3 pixels around it (always a sum over 9). Outside of the cell heat stays 0, also beyond the image.
    3. The slope at (y, x) is (heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]), with the heat of this
       cell only. The flow is the slope divided by its length; it is 0 where the length is below 3e-7, as rounding
       would decide its direction.

    Args:
        label_map: (H, W) integers: 0 is background, every other number is one cell. Numbers may have gaps.
        steps: how often heat spreads.

    Returns:
        (2, H, W) floats, dy before dx: of length 1 or 0 in cells, 0 in the background.

    Example: the source of cell 4 is its second pixel. A cell of one pixel has no slope.

        >>> diffusion_flow(torch.tensor([[4, 4, 4, 4, 0, 2]]), 10)[1]
        tensor([[ 1.,  1., -1., -1.,  0.,  0.]], dtype=torch.float64)
    """
    flows = torch.zeros(2, *label_map.shape)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        flows = flows + _unit(_slope(_heat(inside, _source(inside), steps))) * inside
    return flows


def _source(inside: Tensor) -> tuple[int, int]:
    places = inside.nonzero().double()
    nearest = ((places - places.mean(dim=0)) ** 2).sum(dim=1).argmin()
    return tuple(inside.nonzero()[nearest].tolist())


def _heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    heat = torch.zeros_like(inside, dtype=torch.float64)
    for _ in range(steps):
        heat[source] += 1
        heat = F.avg_pool2d(heat[None], 3, stride=1, padding=1)[0] * inside
    return heat


def _slope(heat: Tensor) -> Tensor:
    around = F.pad(heat, (1, 1, 1, 1))
    return torch.stack([around[2:, 1:-1] - around[:-2, 1:-1], around[1:-1, 2:] - around[1:-1, :-2]])


def _unit(slope: Tensor) -> Tensor:
    length = slope.norm(dim=0)
    return torch.where(length < LEAST, 0.0, slope / length)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Cells that touch, a C, a cell in two pieces; few steps, one pixel, one row, one cell everywhere, no cell.

    Args:
        rng: of sizes, numbers and the side that is up.

    Returns:
        The cases by group.
    """
    one, two = (int(n) for n in rng.permutation([1, int(rng.choice([4, 6, 20]))]))
    width = int(rng.integers(4, 7))
    single = torch.zeros(5, 6, dtype=torch.int64)
    single[int(rng.integers(5)), int(rng.integers(1, 5))] = one
    row = torch.tensor([[two] * width + [one] * 4 + [0] * 2 + [one]])
    hook = torch.zeros(6, 8, dtype=torch.int64)  # its mean rounded, or nearest in city blocks, is another pixel
    hook[1:5, 1:6] = one
    hook[2:, 2:4] = 0
    hook[2, 4] = 0
    return {
        "core": (
            2,
            [
                {"name": "cells that touch", "args": [crowd(rng), 30]},
                {"name": "a cell like a C", "args": [crescent(rng), 60]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "few steps", "args": [crescent(rng), 4]},
                {"name": "a cell in two pieces", "args": [pieces(rng), 25]},
                {"name": "a cell like a hook", "args": [turned(hook, rng), 30]},
                {"name": "a cell of one pixel", "args": [single, 5]},
                {"name": "one row", "args": [row, 20]},
                {"name": "one cell everywhere", "args": [torch.full((5, width), one), 8]},
                {"name": "no cell", "args": [torch.zeros(3, width, dtype=torch.int64), 10]},
            ],
        ),
    }


def _flow(
    label_map: Tensor,
    steps: int,
    source: Callable = _source,
    heat: Callable = _heat,
    slope: Callable = _slope,
    unit: Callable = _unit,
) -> Tensor:
    """`diffusion_flow` with one of its parts another one."""
    flows = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        place = source(inside)
        warm = heat(inside, place, steps) if place else torch.zeros(label_map.shape, dtype=torch.float64)
        flows += unit(slope(warm)) * inside
    return flows


def _if_inside(place: Tensor, inside: Tensor) -> tuple[int, int] | None:
    """Rounded; outside of the cell no heat arises, for it is 0 there."""
    y, x = place.round().long().tolist()
    return (y, x) if inside[y, x] else None


def mean_itself(label_map: Tensor, steps: int) -> Tensor:
    """The mean rounded, in the cell or not."""
    return _flow(label_map, steps, source=lambda inside: _if_inside(inside.nonzero().double().mean(dim=0), inside))


def last_of_equal(label_map: Tensor, steps: int) -> Tensor:
    """Of equally near pixels the last."""

    def source(inside: Tensor) -> tuple[int, int]:
        places = inside.nonzero().flip(0)
        y, x = places[((places - places.double().mean(dim=0)) ** 2).sum(dim=1).argmin()].tolist()
        return y, x

    return _flow(label_map, steps, source=source)


def straight_to_the_source(label_map: Tensor, steps: int) -> Tensor:
    """The direction to the middle as the crow flies, no heat."""
    flows = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        way = torch.tensor(_source(inside)) - inside.nonzero()
        flows[:, inside] = _unit(way.T.double())
    return flows


def leaks(label_map: Tensor, steps: int) -> Tensor:
    """Heat goes on into neighbours: only the background is cold."""
    cells = label_map > 0
    return _flow(label_map, steps, heat=lambda inside, source, steps: _heat(cells, source, steps))


def one_map_of_heat(label_map: Tensor, steps: int) -> Tensor:
    """Each cell spreads by itself, but the slope is taken of all heat together."""
    heat = torch.zeros(label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        heat += _heat(inside, _source(inside), steps)
    return _unit(_slope(heat)) * (label_map > 0)


def into_the_background(label_map: Tensor, steps: int) -> Tensor:
    """Heat is not set back to 0 outside of the cell."""

    def heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
        return _heat(torch.ones_like(inside), source, steps)

    return _flow(label_map, steps, heat=heat)


def background_flows(label_map: Tensor, steps: int) -> Tensor:
    """Beside a cell the slope is not 0 either: flows of the background stay."""
    flows = diffusion_flow(label_map, steps)
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        flows += _unit(_slope(_heat(inside, _source(inside), steps))) * (label_map == 0)
    return flows


def not_unit(label_map: Tensor, steps: int) -> Tensor:
    """The slope itself."""
    return _flow(label_map, steps, unit=lambda slope: slope)


def signs(label_map: Tensor, steps: int) -> Tensor:
    """Each component divided by its own length."""
    return _flow(label_map, steps, unit=lambda slope: torch.where(slope.abs() < LEAST, 0.0, slope.sign()))


def nan_without_slope(label_map: Tensor, steps: int) -> Tensor:
    """Divided by 0 where the slope is 0."""

    def unit(slope: Tensor) -> Tensor:
        return torch.where(slope.norm(dim=0) < LEAST, torch.nan, slope / slope.norm(dim=0))

    flows = _flow(label_map, steps, unit=lambda slope: torch.nan_to_num(unit(slope)))
    for number in label_map[label_map > 0].unique():
        inside = label_map == number
        flows[:, inside] = unit(_slope(_heat(inside, _source(inside), steps)))[:, inside]
    return flows


def x_first(label_map: Tensor, steps: int) -> Tensor:
    """dx before dy."""
    return diffusion_flow(label_map, steps).flip(0)


def downhill(label_map: Tensor, steps: int) -> Tensor:
    """Away from the middle, as heat flows."""
    return -diffusion_flow(label_map, steps)


def heated_once(label_map: Tensor, steps: int) -> Tensor:
    """1 at the source before the first step, and never again."""

    def heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
        return _heat(inside, source, steps) - _heat(inside, source, steps - 1)

    def fainter(slope: Tensor) -> Tensor:
        return _unit(slope / slope.norm(dim=0).max().clamp(min=1e-300))

    return _flow(label_map, steps, heat=heat, unit=fainter)


def heated_after(label_map: Tensor, steps: int) -> Tensor:
    """First the mean, then the 1 at the source."""

    def heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
        warm = _heat(inside, source, steps - 1)
        warm[source] += 1
        return warm

    return _flow(label_map, steps, heat=heat)


def mean_of_the_inside(label_map: Tensor, steps: int) -> Tensor:
    """Divided by how many of the 9 lie in the cell: no heat is lost."""

    def heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
        counts = F.avg_pool2d(inside.double()[None], 3, stride=1, padding=1)
        warm = torch.zeros(1, *inside.shape, dtype=torch.float64)
        for _ in range(steps):
            warm[0, *source] += 1
            warm = torch.where(inside, F.avg_pool2d(warm, 3, stride=1, padding=1) / counts, 0.0)
        return warm[0]

    return _flow(label_map, steps, heat=heat)


def wraps(label_map: Tensor, steps: int) -> Tensor:
    """roll brings the other border in."""

    def slope(heat: Tensor) -> Tensor:
        return torch.stack([heat.roll(-1, axis) - heat.roll(1, axis) for axis in (0, 1)])

    return _flow(label_map, steps, slope=slope)


def one_cell(label_map: Tensor, steps: int) -> Tensor:
    """All foreground is one cell."""
    return diffusion_flow((label_map > 0).long(), steps)


MIDDLE = "Draw a C: the mean of its pixels lies in its mouth. Which of its pixels is nearest?"
OUTSIDE = "After each step, heat * inside, with inside = (label_map == number)."
LENGTH = "Divide dy and dx of a pixel by sqrt(dy^2 + dx^2) of this pixel, where that is at least 3e-7."
STEP_2 = "Read step 2 of the statement again: heat[source] += 1, then the mean over 3x3, then 0 outside."

exercise = Exercise(
    name="diffusion_flow",
    points=3,
    cases=cases,
    reference=diffusion_flow,
    tolerance=5e-6,
    kind="arrows",
    hides=["segedu.instance.cellpose.flows", "segedu.ops.flows"],
    wrong=[
        Wrong(
            "mean outside of the cell",
            mean_itself,
            "Your source may lie outside of its cell: take the pixel of the cell that is nearest to the mean.",
            MIDDLE,
        ),
        Wrong(
            "last of equally near ones",
            last_of_equal,
            "Of equally near pixels you take the last: take the first in reading order.",
            "argmin gives the first of equal values.",
        ),
        Wrong(
            "straight to the source",
            straight_to_the_source,
            "Your arrows point straight at the source, also across the background: they follow the heat.",
            "In a C the way goes round the bend. Heat finds it.",
        ),
        Wrong(
            "leaks into neighbours",
            leaks,
            "Your heat leaks into neighbours: each cell is heated by itself, and all others are cold.",
            OUTSIDE,
        ),
        Wrong(
            "slope of all heat",
            one_map_of_heat,
            "Your slopes look at the heat of neighbours too: take the slope of each cell's own heat.",
            "Compute the flow of a cell before the next cell is heated.",
        ),
        Wrong(
            "heat in the background",
            into_the_background,
            "Your heat spreads into the background: outside of the cell it stays 0.",
            OUTSIDE,
        ),
        Wrong(
            "all one cell",
            one_cell,
            "You heat all cells as one: each has a source of its own.",
            OUTSIDE,
        ),
        Wrong(
            "background flows",
            background_flows,
            "Your background flows: the flow is 0 there.",
            "Beside a cell the slope is not 0, for the heat in the cell is not.",
        ),
        Wrong("not of length 1", not_unit, "Your arrows have all lengths: divide each by its own length.", LENGTH),
        Wrong(
            "dy and dx by themselves",
            signs,
            "You divide dy by |dy| and dx by |dx|: divide both by the length of the arrow.",
            LENGTH,
        ),
        Wrong(
            "0 / 0",
            nan_without_slope,
            "You divide by 0 where there is no slope: the flow is 0 there.",
            LENGTH,
        ),
        Wrong(
            "x first",
            x_first,
            "You give dx before dy: the first plane is the way along rows, dy.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "away from the middle",
            downhill,
            "Your arrows point away from the middle: heat flows so, but ours point to where heat rises.",
            "heat[y + 1, x] - heat[y - 1, x] is above 0 where heat rises downwards.",
        ),
        Wrong(
            "heated once",
            heated_once,
            "You heat the source once: each step adds 1 there.",
            STEP_2,
        ),
        Wrong(
            "heated after the mean",
            heated_after,
            "You add 1 after the mean was taken: it comes before.",
            STEP_2,
        ),
        Wrong(
            "mean of the cell's pixels only",
            mean_of_the_inside,
            "You divide by how many of the 9 pixels are in the cell: always divide by 9.",
            STEP_2,
        ),
        Wrong(
            "wraps around",
            wraps,
            "Your slopes wrap around: beyond the border of the image heat is 0, not that of the other side.",
            "torch.roll and np.roll do that. Pad with zeros.",
        ),
    ],
)
