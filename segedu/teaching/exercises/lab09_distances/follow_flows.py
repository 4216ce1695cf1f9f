"""follow_flows: pixels drift along the flow, and those that meet are one cell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab09_distances.field import cases


def follow_flows(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Let each pixel of the foreground drift along the flow; pixels that end near each other are one cell.

    The ends: each pixel of the foreground is a particle, P of them in reading order, and starts at its own place. Each
    step moves a particle by the flow at the place where it is now, between pixels by bilinear interpolation. In the
    background the flow counts as 0, whatever `flows` holds there. A particle that would leave the image stays on its
    border: y in [0, H - 1] and x in [0, W - 1].

    The cells: two particles whose ends are at most 1 pixel apart (Euclidean) are of one cell, and so are chains of
    them: if a is of one cell with b, and b with c, then a is with c. Cells are numbered 1, 2, ... in the order in which
    their first pixels come in reading order.

    Args:
        flows: (2, H, W) floats, dy before dx, in pixels a step.
        foreground: (H, W) bool.
        steps: how often particles move; 0 leaves them where they are.

    Returns:
        ends: (P, 2) floats, y before x.
        label_map: (H, W) integers: 0 in the background, else the number of the cell.

    Example: four pixels want to meet at x = 1, the last one wants to go to the right.

        >>> right = torch.tensor([[[0.0] * 6], [[1.0, 0.0, -1.0, -1.0, 0.0, 1.0]]])
        >>> ends, label_map = follow_flows(right, torch.tensor([[True, True, True, True, False, True]]), 3)
        >>> ends[:, 1], label_map
        (tensor([1., 1., 1., 1., 5.], dtype=torch.float64), tensor([[1, 1, 1, 1, 0, 2]]))
    """
    ends = _drift(flows * foreground, foreground.nonzero().double(), steps)
    return ends, _painted(_chains(ends), foreground)


def _drift(flows: Tensor, places: Tensor, steps: int) -> Tensor:
    last = torch.tensor(flows.shape[1:]) - 1
    for _ in range(steps):
        places = torch.minimum((places + _bilinear(flows, places)).clamp(min=0), last)
    return places


def _bilinear(flows: Tensor, places: Tensor) -> Tensor:
    """(P, 2): flows at places (P, 2) within the image."""
    last = torch.tensor(flows.shape[1:]) - 1
    low = places.long()
    v, u = (places - low).T
    (top, left), (bottom, right) = low.T, torch.minimum(low + 1, last).T
    above = flows[:, top, left] * (1 - u) + flows[:, top, right] * u
    below = flows[:, bottom, left] * (1 - u) + flows[:, bottom, right] * u
    return (above * (1 - v) + below * v).T


def _chains(ends: Tensor, reach: float = 1.0) -> Tensor:
    """(P,) integers: 1, 2, ... in the order of the first particle of each chain."""
    pairs = cKDTree(ends.numpy()).query_pairs(reach, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=[len(ends)] * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long() + 1


def _painted(numbers: Tensor, foreground: Tensor) -> Tensor:
    label_map = torch.zeros(foreground.shape, dtype=torch.int64)
    label_map[foreground] = numbers
    return label_map


def _followed(drift: Callable, flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """`follow_flows` with another way to drift."""
    ends = drift(flows * foreground, foreground.nonzero().double(), steps)
    return ends, _painted(_chains(ends), foreground)


def _grouped(numbers: Callable, flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """`follow_flows` with another way to number ends (P, 2), at least one of them."""
    ends, label_map = follow_flows(flows, foreground, steps)
    return ends, _painted(numbers(ends), foreground) if len(ends) else label_map


def against_the_flow(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Minus for plus."""
    return follow_flows(-flows, foreground, steps)


def x_first(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """dx before dy."""
    return follow_flows(flows.flip(0), foreground, steps)


def _drift_by(read: Callable) -> Callable:
    """Flows (P, 2) at places are what `read` says."""

    def drift(flows: Tensor, places: Tensor, steps: int) -> Tensor:
        last = torch.tensor(flows.shape[1:]) - 1
        for _ in range(steps):
            places = (places + read(flows, places)).clamp(torch.zeros(2), last)
        return places

    return drift


def nearest_pixel(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The flow of the nearest pixel."""
    drift = _drift_by(lambda flows, places: flows[:, *places.round().long().T].T)
    return _followed(drift, flows, foreground, steps)


def whole_steps(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Particles jump to the nearest pixel after each step."""
    drift = _drift_by(lambda flows, places: (places + flows[:, *places.long().T].T).round() - places)
    return _followed(drift, flows, foreground, steps)


def one_leap(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The flow of the start for the whole way."""
    return follow_flows(flows * steps, foreground, min(steps, 1))


def one_more(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """range(steps + 1)."""
    return follow_flows(flows, foreground, steps + 1)


def full_steps(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Each flow made 1 long before."""
    return follow_flows(flows / flows.norm(dim=0).clamp(min=1e-12), foreground, steps)


def background_counts(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Flows of the background are not set to 0."""
    ends = _drift(flows, foreground.nonzero().double(), steps)
    return ends, _painted(_chains(ends), foreground)


def background_follows(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """All pixels are particles."""
    everything = torch.ones_like(foreground)
    return follow_flows(flows * foreground, everything, steps)


def over_the_border(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Outside of the image the flow of the border goes on, and so do particles."""
    last = torch.tensor(flows.shape[1:]) - 1

    def drift(flows: Tensor, places: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            places = places + _bilinear(flows, places.clamp(torch.zeros(2), last))
        return places

    return _followed(drift, flows, foreground, steps)


def ends_x_first(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """x before y in the ends."""
    ends, label_map = follow_flows(flows, foreground, steps)
    return ends.flip(1), label_map


def pieces_of_the_foreground(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """What touches is one cell, wherever it ends."""
    return follow_flows(flows, foreground, steps)[0], follow_flows(flows, foreground, 0)[1]


def a_cell_a_pixel(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Ends rounded; each pixel on which some end is a cell."""
    return _grouped(lambda ends: _chains(ends.round(), 0.5), flows, foreground, steps)


def pixels_that_touch(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Ends rounded; pixels that touch, also at corners, are a cell."""
    return _grouped(lambda ends: _chains(ends.round(), 1.5), flows, foreground, steps)


def two_pixels(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """At most 2 apart."""
    return _grouped(lambda ends: _chains(ends, 2.0), flows, foreground, steps)


def _near_by(ends: Tensor, p: float) -> Tensor:
    """`_chains` with distances that are no Euclidean ones."""
    pairs = cKDTree(ends.numpy()).query_pairs(1.0, p=p, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=[len(ends)] * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long() + 1


def city_blocks(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Rows plus columns."""
    return _grouped(lambda ends: _near_by(ends, p=1.0), flows, foreground, steps)


def in_a_square(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The larger of rows and columns."""
    return _grouped(lambda ends: _near_by(ends, p=np.inf), flows, foreground, steps)


def nearer_than_one(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """< for <=."""
    return _grouped(lambda ends: _chains(ends, 1 - 1e-9), flows, foreground, steps)


def no_chains(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """All within 1 of the first particle that has no cell yet."""

    def numbers(ends: Tensor) -> Tensor:
        found = torch.zeros(len(ends), dtype=torch.int64)
        for i in range(len(ends)):
            if found[i] == 0:
                found[((ends - ends[i]).norm(dim=1) <= 1) & (found == 0)] = found.max() + 1
        return found

    return _grouped(numbers, flows, foreground, steps)


def from_zero(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The first cell is 0."""
    ends, label_map = follow_flows(flows, foreground, steps)
    return ends, (label_map - 1).clamp(min=0)


BETWEEN = "At y = 2.25 three quarters of the flow are that of row 2 and one quarter that of row 3; x likewise."
CHAINS = "scipy.sparse.csgraph.connected_components makes chains of a matrix that says who is near whom."

exercise = Exercise(
    name="follow_flows",
    points=3,
    cases=cases,
    reference=follow_flows,
    tolerance=1e-5,
    kind="drift",
    hides=["segedu.instance.cellpose.flows", "segedu.ops.flows"],
    wrong=[
        Wrong(
            "against the flow",
            against_the_flow,
            "Your particles go against the flow: each step adds the flow to the place.",
            "Plus, not minus: flows point to where the pixels of a cell meet.",
        ),
        Wrong(
            "x first",
            x_first,
            "You read the flows as (dx, dy): the first plane is dy.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "nearest pixel",
            nearest_pixel,
            "You take the flow of the nearest pixel: between pixels it is interpolated.",
            BETWEEN,
        ),
        Wrong(
            "whole steps",
            whole_steps,
            "Your particles jump from pixel to pixel: their places have digits behind the point.",
            "A flow of 0.4 a step never leaves its pixel if each step is rounded.",
        ),
        Wrong(
            "one leap",
            one_leap,
            "You take the flow of the start for the whole way: read it again after each step.",
            "A loop of `steps` steps; the place is a new one each time.",
        ),
        Wrong("one step more", one_more, "You take one step too many.", "With steps=0 particles stay where they are."),
        Wrong(
            "full steps",
            full_steps,
            "You make all flows 1 long: a step is as long as the flow.",
            "Near its meeting place a flow may be short, so that particles come to rest.",
        ),
        Wrong(
            "background counts",
            background_counts,
            "You read the flow of the background: it counts as 0, whatever `flows` holds there.",
            "flows * foreground, before the first step.",
        ),
        Wrong(
            "background follows",
            background_follows,
            "Pixels of the background follow too: only those of the foreground are particles.",
            "foreground.nonzero() gives their places in reading order.",
        ),
        Wrong(
            "over the border",
            over_the_border,
            "Your particles leave the image: they stay on its border.",
            "Clamp y to [0, H - 1] and x to [0, W - 1] after each step.",
        ),
        Wrong(
            "ends with x first",
            ends_x_first,
            "Your ends have x before y: it is y before x.",
            "nonzero() gives rows before columns.",
        ),
        Wrong(
            "pieces of the foreground",
            pieces_of_the_foreground,
            "You number pieces of the foreground: cells that touch are told apart by where their pixels end.",
            "Look at the ends, not at the pixels where they started.",
        ),
        Wrong(
            "one cell for each pixel of an end",
            a_cell_a_pixel,
            "You round ends to pixels and make a cell of each: ends at most 1 apart are one cell.",
            CHAINS,
        ),
        Wrong(
            "rounded ends that touch",
            pixels_that_touch,
            "You round ends to pixels and join those that touch: ends at most 1 apart are one cell, as they are.",
            CHAINS,
        ),
        Wrong(
            "at most 2 apart",
            two_pixels,
            "You join ends that are more than 1 apart: two meeting places may be near each other.",
            CHAINS,
        ),
        Wrong(
            "city blocks",
            city_blocks,
            "You add rows and columns between two ends: take the Euclidean distance.",
            "sqrt(rows^2 + columns^2)",
        ),
        Wrong(
            "distance in a square",
            in_a_square,
            "You measure between ends by the larger of rows and columns: take the Euclidean distance.",
            "sqrt(rows^2 + columns^2)",
        ),
        Wrong(
            "less than 1 apart",
            nearer_than_one,
            "You do not join ends that are just 1 apart: at most 1 is near enough.",
            "< or <=?",
        ),
        Wrong(
            "no chains",
            no_chains,
            "You join what is near the first particle only: chains count, from end to end.",
            CHAINS,
        ),
        Wrong(
            "numbers from 0",
            from_zero,
            "Your first cell has number 0, which is the background: cells are 1, 2, ...",
            "connected_components counts from 0.",
        ),
    ],
)
