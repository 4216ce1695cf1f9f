"""Flows of cells: simulated heat that spreads inside a cell, and points that follow a flow field.

Source: Stringer, Wang, Michaelos, Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation", Nature
Methods 18, 2021, Methods: "Creation of spatial flow fields" and "Recovery of masks". These are the two slow loops of
Cellpose. If they were vectorised over pixels, each of 200 steps would read and write all pixels. Here, each point makes
all its steps while its values are in registers, and stops as soon as its path repeats itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_dtype, check_finite, check_numeric


def spread_heat(inside: Tensor, source: tuple[int, int], steps: int) -> Tensor:
    """Simulate heat in a cell: each step adds 1 at the source, then replaces each pixel by the mean of its 3x3 window.

    Outside the cell, the heat is always 0, so heat is lost at its border.

    Args:
        inside: (H, W) bool, the pixels of one cell.
        source: row and column of a pixel inside.
        steps: at least 0.

    Returns:
        (H, W) float64.

    >>> spread_heat(torch.tensor([[True, True, False]]), (0, 0), 1)
    tensor([[0.1111, 0.1111, 0.0000]], dtype=torch.float64)
    """
    check_dtype("inside", inside, torch.bool, "H W")
    check_integer("steps", steps, 0)
    (height, width), (y, x) = inside.shape, source
    if not (0 <= y < height and 0 <= x < width and inside[y, x]):
        raise ValueError(f"source is {tuple(source)}, expected a pixel inside, in shape {tuple(inside.shape)}")
    padded = np.pad(inside.numpy(force=True), 1).astype(np.float64)  # with a border of 0, every pixel has 8 neighbours
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
    """Move points along a flow field: each step adds the flow at the current position of the point.

    Between pixels, the flow is interpolated bilinearly. A point that would leave the image stays on its border.

    Args:
        flows: (2, H, W) float32, finite, dy and dx in pixels per step.
        starts: (2, N) rows and columns within the image.
        steps: at least 0.

    Returns:
        (2, N) float32, rows and columns of the final positions.

    >>> right = torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 0.5, 0.0]]])
    >>> drift(right, torch.tensor([[0, 0], [0, 2]]), 2)
    tensor([[0.0000, 0.0000],
            [1.5000, 2.0000]])
    """
    check_dtype("flows", flows, torch.float32, "2 H W")
    check_numeric("starts", starts, "2 N?")
    check_integer("steps", steps, 0)
    last = torch.tensor(flows.shape[1:], device=starts.device)[:, None] - 1
    if not bool(((starts >= 0) & (starts <= last)).all()):  # NaN too: the loop would read outside the array
        raise ValueError(f"starts has a point outside the image, expected rows and columns in {tuple(flows.shape[1:])}")
    check_finite("flows", flows)
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
            # 1 - v is float64 and v float32, rounded as in the authors' code, so paths are equal to the last bit
            a, b, c, d = field[top, left], field[top, far], field[low, left], field[low, far]
            dy = a[0] * (1 - v) * (1 - u) + b[0] * (1 - v) * u + c[0] * v * (1 - u) + d[0] * v * u
            dx = a[1] * (1 - v) * (1 - u) + b[1] * (1 - v) * u + c[1] * v * (1 - u) + d[1] * v * u
            y = min(bottom, max(np.float32(0), y + np.float32(dy)))
            x = min(right, max(np.float32(0), x + np.float32(dx)))
            step += 1
            if y == mark_y and x == mark_x:  # the path is a cycle of `step - marked` steps: skip full cycles
                step = steps - (steps - step) % (step - marked)
                next_mark = steps + 1
            elif step >= next_mark:
                mark_y, mark_x, marked, next_mark = y, x, step, 2 * step
        ends[0, n], ends[1, n] = y, x
    return ends
