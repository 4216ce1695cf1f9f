"""Flows of cells, the two loops that take all the time: heat that spreads in a cell, and pixels that drift.

Source: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
Methods 18, 2021, Methods: "Creation of spatial flow fields" and "Recovery of masks". Vectorised over pixels, each of
200 steps reads and writes all of them; here a pixel goes all its way while its numbers are in registers, and stops as
soon as its path repeats itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled


def spread_heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    """Heat after some steps: each adds 1 at the source, then a pixel becomes the mean of itself and its 8 neighbours.

    Outside the cell it is always 0, so heat is lost at its border.

    Args:
        inside: (H, W) bool, one cell.
        source: row and column of a pixel inside.
        steps: how many, at least 0.

    Returns:
        (H, W) float64.

    Raises:
        TypeError: `inside` is not a tensor of bool.
        ValueError: `inside` is not (H, W), `source` is not inside, or `steps` is negative.

    >>> spread_heat(torch.tensor([[True, True, False]]), (0, 0), 1)
    tensor([[0.1111, 0.1111, 0.0000]], dtype=torch.float64)
    """
    if not isinstance(inside, Tensor) or inside.dtype != torch.bool:
        raise TypeError(f"inside is {getattr(inside, 'dtype', type(inside).__name__)}, expected a tensor of torch.bool")
    if inside.ndim != 2:
        raise ValueError(f"inside has shape {tuple(inside.shape)}, expected (H, W)")
    (height, width), (y, x) = inside.shape, source
    if not (0 <= y < height and 0 <= x < width and inside[y, x]):
        raise ValueError(f"source is {tuple(source)}, expected a pixel inside, in shape {tuple(inside.shape)}")
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 0")
    padded = np.pad(inside.numpy(force=True), 1).astype(np.float64)  # a border of 0: no neighbour is missing
    heat = _spread_heat(padded, y + 1, x + 1, steps)
    return torch.from_numpy(heat[1:-1, 1:-1].copy()).to(inside.device)


@compiled
def _spread_heat(inside, y, x, steps):
    height, width = inside.shape
    heat, after = np.zeros((height, width)), np.zeros((height, width))
    for _ in range(steps):
        heat[y, x] += 1
        for i in range(1, height - 1):
            above, here, below, cell, mean = heat[i - 1], heat[i], heat[i + 1], inside[i], after[i]
            for j in range(1, width - 1):
                total = here[j] + above[j] + below[j] + here[j - 1] + here[j + 1]
                total = total + above[j - 1] + above[j + 1] + below[j - 1] + below[j + 1]
                mean[j] = cell[j] * (1 / 9.0 * total)
        heat, after = after, heat
    return heat


def drift(flows: Tensor, starts: Tensor, steps: int) -> Tensor:
    """Move points along a flow: each step adds the flow at the place where a point is now.

    Between pixels the flow is bilinear; a point that would leave the image stays on its border.

    Args:
        flows: (2, H, W) float32, dy and dx in pixels a step.
        starts: (2, N) rows and columns within the image.
        steps: how many, at least 0.

    Returns:
        (2, N) float32, rows and columns where the points are in the end.

    Raises:
        TypeError: `flows` is not a tensor of float32, or `starts` not one of numbers.
        ValueError: a shape is another one, `flows` is not finite, a start lies outside the image, or `steps` is
            negative.

    >>> right = torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 0.5, 0.0]]])
    >>> drift(right, torch.tensor([[0, 0], [0, 2]]), 2)
    tensor([[0.0000, 0.0000],
            [1.5000, 2.0000]])
    """
    if not isinstance(flows, Tensor) or flows.dtype != torch.float32:
        raise TypeError(f"flows is {getattr(flows, 'dtype', type(flows).__name__)}, expected a tensor of torch.float32")
    if not isinstance(starts, Tensor) or starts.dtype == torch.bool or starts.is_complex():
        raise TypeError(f"starts is {getattr(starts, 'dtype', type(starts).__name__)}, expected a tensor of numbers")
    if flows.ndim != 3 or len(flows) != 2 or 0 in flows.shape:
        raise ValueError(f"flows has shape {tuple(flows.shape)}, expected (2, H, W), no axis empty")
    if starts.ndim != 2 or len(starts) != 2:
        raise ValueError(f"starts has shape {tuple(starts.shape)}, expected (2, N)")
    last = torch.tensor(flows.shape[1:], device=starts.device)[:, None] - 1
    if not bool(((starts >= 0) & (starts <= last)).all()):  # a NaN too: the loop reads memory at its place
        raise ValueError(f"starts has a point outside the image, expected rows and columns in {tuple(flows.shape[1:])}")
    if not bool(flows.isfinite().all()):
        raise ValueError("flows has a NaN or an infinity, expected finite numbers")
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 0")
    field = np.ascontiguousarray(flows.detach().movedim(0, -1).numpy(force=True))  # dy beside dx: one cache line
    ends = _drift(field, starts.numpy(force=True).astype(np.float32), steps)
    return torch.from_numpy(ends).to(flows.device)


@compiled
def _drift(field, starts, steps):
    height, width, _ = field.shape
    bottom, right = np.float32(height - 1), np.float32(width - 1)
    ends = np.empty_like(starts)
    for n in range(starts.shape[1]):
        y, x = starts[0, n], starts[1, n]
        mark_y, mark_x, marked, next_mark = y, x, 0, 1
        step = 0
        while step < steps:
            top, left = np.int32(y), np.int32(x)
            low, far = min(top + 1, height - 1), min(left + 1, width - 1)
            v, u = y - np.float32(top), x - np.float32(left)
            # 1 - v is float64 and v float32: rounded as in the authors' code, paths are theirs to the last bit
            a, b, c, d = field[top, left], field[top, far], field[low, left], field[low, far]
            dy = a[0] * (1 - v) * (1 - u) + b[0] * (1 - v) * u + c[0] * v * (1 - u) + d[0] * v * u
            dx = a[1] * (1 - v) * (1 - u) + b[1] * (1 - v) * u + c[1] * v * (1 - u) + d[1] * v * u
            y = min(bottom, max(np.float32(0), y + np.float32(dy)))
            x = min(right, max(np.float32(0), x + np.float32(dx)))
            step += 1
            if y == mark_y and x == mark_x:  # where it was `step - marked` steps ago: whole rounds change nothing
                step = steps - (steps - step) % (step - marked)
                next_mark = steps + 1
            elif step >= next_mark:
                mark_y, mark_x, marked, next_mark = y, x, step, 2 * step
        ends[0, n], ends[1, n] = y, x
    return ends
