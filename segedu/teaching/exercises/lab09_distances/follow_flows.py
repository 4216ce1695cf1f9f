"""follow_flows: pixels drift along the flow, and those that meet form one cell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab09_distances.field import cases


def follow_flows(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Let each foreground pixel drift along the flow; pixels whose final positions are close form one cell.

    Final positions: each foreground pixel is a particle that starts at its own position; the P particles are in reading
    order. Each step moves a particle by the flow at its current position, which is interpolated bilinearly between
    pixels. In the background the flow counts as 0, whatever `flows` contains there. A particle that would leave the
    image stays on its border: y in [0, H - 1] and x in [0, W - 1].

    Cells: two particles belong to the same cell if their final positions are at most 1 pixel apart (Euclidean), or if a
    chain of such pairs connects them: if a belongs with b, and b with c, then a belongs with c. Cells are numbered
    1, 2, ... in the reading order of their first pixels.

    Args:
        flows: (2, H, W) floats, dy before dx, in pixels per step.
        foreground: (H, W) bool.
        steps: number of steps; 0 leaves the particles where they are.

    Returns:
        ends: (P, 2) floats, the final positions, y before x.
        label_map: (H, W) integers: 0 in the background, else the number of the cell.

    Example: four pixels meet at x = 1, the last one would move to the right.

        >>> right = torch.tensor([[[0.0] * 6], [[1.0, 0.0, -1.0, -1.0, 0.0, 1.0]]])
        >>> ends, label_map = follow_flows(right, torch.tensor([[True, True, True, True, False, True]]), 3)
        >>> ends[:, 1], label_map
        (tensor([1., 1., 1., 1., 5.], dtype=torch.float64), tensor([[1, 1, 1, 1, 0, 2]]))
    """
    ends = _drift(flows * foreground, foreground.nonzero().double(), steps)
    return ends, _paint(_chains(ends), foreground)


def _drift(flows: Tensor, positions: Tensor, steps: int) -> Tensor:
    last = torch.tensor(flows.shape[1:]) - 1
    for _ in range(steps):
        positions = torch.minimum((positions + _bilinear(flows, positions)).clamp(min=0), last)
    return positions


def _bilinear(flows: Tensor, positions: Tensor) -> Tensor:
    """(P, 2): the flow at positions (P, 2) within the image."""
    last = torch.tensor(flows.shape[1:]) - 1
    low = positions.long()
    v, u = (positions - low).T
    (top, left), (bottom, right) = low.T, torch.minimum(low + 1, last).T
    above = flows[:, top, left] * (1 - u) + flows[:, top, right] * u
    below = flows[:, bottom, left] * (1 - u) + flows[:, bottom, right] * u
    return (above * (1 - v) + below * v).T


def _chains(ends: Tensor, reach: float = 1.0) -> Tensor:
    return _components(cKDTree(ends.numpy()).query_pairs(reach, output_type="ndarray"), len(ends))


def _components(pairs: np.ndarray, count: int) -> Tensor:
    """(P,) integers: 1, 2, ... in the order of the first particle of each connected component."""
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=[count] * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long() + 1


def _paint(numbers: Tensor, foreground: Tensor) -> Tensor:
    label_map = torch.zeros(foreground.shape, dtype=torch.int64)
    label_map[foreground] = numbers
    return label_map


right = Variants(follow_flows)


def _drifted(drift: Callable) -> Callable:
    """`follow_flows` with another way to drift."""

    def follow(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        ends = drift(flows * foreground, foreground.nonzero().double(), steps)
        return ends, _paint(_chains(ends), foreground)

    return follow


def _moved(move: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """`follow_flows` with another move (P, 2) per step, made from the flows and the positions."""

    def drift(flows: Tensor, positions: Tensor, steps: int) -> Tensor:
        last = torch.tensor(flows.shape[1:]) - 1
        for _ in range(steps):
            positions = (positions + move(flows, positions)).clamp(torch.zeros(2), last)
        return positions

    return _drifted(drift)


def _drift_over_the_border(flows: Tensor, positions: Tensor, steps: int) -> Tensor:
    """Beyond the border the flow of the border continues."""
    last = torch.tensor(flows.shape[1:]) - 1
    for _ in range(steps):
        positions = positions + _bilinear(flows, positions.clamp(torch.zeros(2), last))
    return positions


def background_counts(flows: Tensor, foreground: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    ends = _drift(flows, foreground.nonzero().double(), steps)
    return ends, _paint(_chains(ends), foreground)


def _grouped(number: Callable[[Tensor], Tensor]) -> Callable:
    """`follow_flows` with another way to number final positions (P, 2)."""
    return right.then(lambda out, a: (out[0], _paint(number(out[0]), a.foreground)))


def _chains_by_norm(ends: Tensor, p: float) -> Tensor:
    return _components(cKDTree(ends.numpy()).query_pairs(1.0, p=p, output_type="ndarray"), len(ends))


def _within_1_of_the_first(ends: Tensor) -> Tensor:
    numbers = torch.zeros(len(ends), dtype=torch.int64)
    for i in range(len(ends)):
        if numbers[i] == 0:
            numbers[((ends - ends[i]).norm(dim=1) <= 1) & (numbers == 0)] = numbers.max() + 1
    return numbers


def _by_spline(flows: Tensor, positions: Tensor) -> Tensor:
    """A cubic spline through the flows, scipy's default."""
    parts = [ndimage.map_coordinates(part.numpy(), positions.T.numpy(), mode="nearest") for part in flows]
    return torch.from_numpy(np.stack(parts, axis=1))


def _by_nearest(flows: Tensor, positions: Tensor) -> Tensor:
    parts = [ndimage.map_coordinates(part.numpy(), positions.T.numpy(), order=0, mode="nearest") for part in flows]
    return torch.from_numpy(np.stack(parts, axis=1))


def _corners_not_aligned(flows: Tensor, positions: Tensor) -> Tensor:
    size = torch.tensor(flows.shape[1:]).double() - 1
    unit = (2 * positions / size.clamp(min=1) - 1).flip(1)[None, None]
    return F.grid_sample(flows[None], unit, padding_mode="border", align_corners=False)[0, :, 0].T


def _y_first(flows: Tensor, positions: Tensor, steps: int) -> Tensor:
    """Read the flow along x after the step along y."""
    last = torch.tensor(flows.shape[1:]) - 1
    for _ in range(steps):
        for axis in (0, 1):
            move = torch.zeros_like(positions)
            move[:, axis] = _bilinear(flows, positions)[:, axis]
            positions = torch.minimum((positions + move).clamp(min=0), last)
    return positions


def _by_size(ends: Tensor) -> Tensor:
    numbers = _chains(ends)
    order = torch.bincount(numbers)[1:].argsort(descending=True, stable=True)
    return (order.argsort() + 1)[numbers - 1] if len(ends) else numbers


CHAINS = "scipy.sparse.csgraph.connected_components finds the chains from a matrix that marks the close pairs."
EUCLIDEAN = "The Euclidean distance is sqrt(dy^2 + dx^2)."

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
            right.given(flows=lambda a: -a.flows),
            "Your particles move against the flow. Each step adds the flow to the position.",
            "Plus, not minus: flows point to where the pixels of a cell meet.",
        ),
        Wrong(
            "x first",
            right.given(flows=lambda a: a.flows.flip(0)),
            "You read the flows as (dx, dy). The first plane is dy.",
            "The first axis of an image is y.",
        ),
        Wrong(
            "nearest pixel",
            _moved(lambda flows, positions: flows[:, *positions.round().long().T].T),
            "You use the flow of the nearest pixel. Between pixels the flow is interpolated bilinearly.",
            "At y = 2.25 the flow is 3/4 of that in row 2 plus 1/4 of that in row 3; likewise for x.",
        ),
        Wrong(
            "whole steps",
            _moved(lambda flows, positions: (positions + flows[:, *positions.long().T].T).round() - positions),
            "Your particles jump from pixel to pixel. Their positions should be floats, not rounded to integers.",
            "If each step is rounded, a flow of 0.4 per step never leaves its pixel.",
        ),
        Wrong(
            "one leap",
            right.given(flows=lambda a: a.flows * a.steps, steps=lambda a: min(a.steps, 1)),
            "You use the flow at the start for all steps. Read the flow again at the new position after each step.",
            "A loop over `steps`, in which the position changes each time.",
        ),
        Wrong(
            "one step more",
            right.given(steps=lambda a: a.steps + 1),
            "You take one step too many. Take exactly `steps` steps.",
            "With steps=0 the particles stay where they are.",
        ),
        Wrong(
            "full steps",
            right.given(flows=lambda a: a.flows / a.flows.norm(dim=0).clamp(min=1e-12)),
            "You normalize all flows to length 1. Use their own lengths: a step is as long as the flow.",
            "Near the meeting point the flow may be short, so that particles come to rest.",
        ),
        Wrong(
            "background counts",
            background_counts,
            "You use the flow of the background. Treat it as 0 there, whatever `flows` contains.",
            "Compute flows * foreground before the first step.",
        ),
        Wrong(
            "background follows",
            right.given(flows=lambda a: a.flows * a.foreground, foreground=lambda a: torch.ones_like(a.foreground)),
            "Your background pixels are particles too. Only the pixels of the foreground are particles.",
            "foreground.nonzero() gives their positions in reading order.",
        ),
        Wrong(
            "over the border",
            _drifted(_drift_over_the_border),
            "Your particles leave the image. They should stay on its border.",
            "Clamp y to [0, H - 1] and x to [0, W - 1] after each step.",
        ),
        Wrong(
            "ends with x first",
            right.then(lambda out, a: (out[0].flip(1), out[1])),
            "Your final positions have x before y. Return y before x.",
            "nonzero() gives rows before columns.",
        ),
        Wrong(
            "pieces of the foreground",
            right.then(lambda out, a: (out[0], follow_flows(a.flows, a.foreground, 0)[1])),
            "You number connected components of the foreground. Group pixels by their final positions instead.",
            "Two cells that touch are one component, but their pixels end at different positions.",
        ),
        Wrong(
            "one cell for each pixel of an end",
            _grouped(lambda ends: _chains(ends.round(), 0.5)),
            "You round the final positions and make a cell of each pixel. Final positions at most 1 apart are one "
            "cell.",
            CHAINS,
        ),
        Wrong(
            "rounded ends that touch",
            _grouped(lambda ends: _chains(ends.round(), 1.5)),
            "You round the final positions and join adjacent pixels. Compare the positions without rounding.",
            CHAINS,
        ),
        Wrong(
            "at most 2 apart",
            _grouped(lambda ends: _chains(ends, 2.0)),
            "You join final positions that are more than 1 apart. Join only those at most 1 apart.",
            CHAINS,
        ),
        Wrong(
            "city blocks",
            _grouped(partial(_chains_by_norm, p=1.0)),
            "You use |dy| + |dx| as the distance between two final positions. Use the Euclidean distance.",
            EUCLIDEAN,
        ),
        Wrong(
            "distance in a square",
            _grouped(partial(_chains_by_norm, p=np.inf)),
            "You use the larger of |dy| and |dx| as the distance of two final positions. Use the Euclidean distance.",
            EUCLIDEAN,
        ),
        Wrong(
            "less than 1 apart",
            _grouped(lambda ends: _chains(ends, 1 - 1e-9)),
            "You do not join final positions that are exactly 1 apart. Join them: the distance may be at most 1.",
            "Does your comparison include equality?",
        ),
        Wrong(
            "no chains",
            _grouped(_within_1_of_the_first),
            "You join only particles close to the first one of a cell. A chain of close particles is one cell, too.",
            CHAINS,
        ),
        Wrong(
            "numbers from 0",
            right.then(lambda out, a: (out[0], (out[1] - 1).clamp(min=0))),
            "Your first cell has number 0, which is the background. Cells are numbered 1, 2, ...",
            "connected_components counts from 0.",
        ),
        Wrong(
            "cubic spline",
            _moved(_by_spline),
            "You interpolate with a cubic spline, the default of map_coordinates. Interpolate bilinearly.",
            "order=1.",
        ),
        Wrong(
            "nearest pixel by map_coordinates",
            _moved(_by_nearest),
            "You read the flow at the nearest pixel, with order=0. Between pixels, interpolate it bilinearly.",
            "order=1.",
        ),
        Wrong(
            "corners not aligned",
            _moved(_corners_not_aligned),
            "grid_sample does not align the corners in your code, so it reads other positions. Use align_corners=True.",
            "With aligned corners, -1 and 1 are the centres of the first and the last pixel.",
        ),
        Wrong(
            "y before x",
            _drifted(_y_first),
            "You move along y before you read the flow along x. Read both at the same position.",
            "Compute the whole step, then add it.",
        ),
        Wrong(
            "one step too few",
            right.given(steps=lambda a: max(a.steps - 1, 0)),
            "You take one step too few. Take exactly `steps` steps.",
            "range(1, steps) has steps - 1 elements.",
        ),
        Wrong(
            "numbered by size",
            _grouped(_by_size),
            "You number the cells by size. Number them in the reading order of their first pixels.",
            "A cell gets its number when you meet its first pixel.",
        ),
    ],
)
