"""Distances by the eikonal equation |grad u| = 1, solved inside every cell of a label map at once by fast sweeping.

Source: Zhao, "A fast sweeping method for eikonal equations", Mathematics of Computation 74, 2005 (Godunov's upwind
difference, sweeps in alternating order); a second stencil along the diagonals as in Hassouna, Farag, "MultiStencils
Fast Marching Methods", TPAMI 29(9), 2007. The two are joined by their geometric mean, which is exact at the edge of
a half-plane along an axis (1 and 1) and along a diagonal (1/sqrt(2) and sqrt(2)).
"""

from __future__ import annotations

import math

import numpy as np

from segedu.ops.compiled import compiled

DIAGONAL = math.sqrt(2.0)


def solve_eikonal(label_map: np.ndarray, tolerance: float = 1e-4, sweeps: int = 200) -> np.ndarray:
    """Distance of each pixel of a cell from the nearest pixel outside it, as a smooth field.

    A pixel with another label, be it background or a cell that touches, has u = 0 as seen from this cell: nothing
    leaks from one into the other. At the border of the image the outermost pixels are repeated, so it is no edge.

    Args:
        label_map: (H, W) integers, 0 is background.
        tolerance: pixels; the sweeps end when none changes a value by more.
        sweeps: at most so many, four for the four orders.

    Returns:
        (H, W) float64, in pixels, 0 on background; infinite where no pixel outside can be reached.

    Raises:
        TypeError: ``label_map`` is not an array of integers.
        ValueError: it is not (H, W), is empty, or has a negative label; ``tolerance`` is not above 0, or ``sweeps``
            below 4.

    Example:
        >>> solve_eikonal(np.array([[0, 2, 2, 2, 7, 7]])).tolist()
        [[0.0, 1.0, 2.0, 1.0, 1.0, 2.0]]
    """
    _check(label_map, tolerance, sweeps)
    labels = np.ascontiguousarray(label_map, dtype=np.int64)
    far = 4.0 * sum(labels.shape)  # above every distance: so sweeps only lower values, in whatever order
    field = np.where(labels > 0, far, 0.0)
    for sweep in range(sweeps):
        if _sweep(labels, field, far, sweep & 1 > 0, sweep & 2 > 0) <= tolerance and sweep >= 3:
            break
    return np.where(field >= far, np.inf, field)


@compiled
def _sweep(labels, field, far, upwards, leftwards):
    """Update every pixel once, in place; returns the largest change."""
    height, width = labels.shape
    largest = 0.0
    for i in range(height):
        y = height - 1 - i if upwards else i
        for j in range(width):
            x = width - 1 - j if leftwards else j
            if labels[y, x] <= 0:
                continue
            straight = _solve(_lowest(labels, field, far, y, x, 1, 0), _lowest(labels, field, far, y, x, 0, 1), 1.0)
            slanted = _solve(
                _lowest(labels, field, far, y, x, 1, 1), _lowest(labels, field, far, y, x, 1, -1), DIAGONAL
            )
            value = math.sqrt(straight * slanted)
            if value < field[y, x]:
                largest = max(largest, field[y, x] - value)
                field[y, x] = value
    return largest


@compiled
def _lowest(labels, field, far, y, x, down, right):
    """The lower of the two neighbours along a line, as the cell at (y, x) sees them."""
    lowest = far
    for sign in (-1, 1):
        row = min(max(y + sign * down, 0), labels.shape[0] - 1)
        column = min(max(x + sign * right, 0), labels.shape[1] - 1)
        lowest = min(lowest, field[row, column] if labels[row, column] == labels[y, x] else 0.0)
    return lowest


@compiled
def _solve(a, b, step):
    """u with max(u - a, 0)^2 + max(u - b, 0)^2 = step^2: Godunov's difference, from the lower sides only."""
    if abs(a - b) >= step:
        return min(a, b) + step
    return 0.5 * (a + b + math.sqrt(2.0 * step * step - (a - b) ** 2))


def _check(label_map: np.ndarray, tolerance: float, sweeps: int) -> None:
    if not isinstance(label_map, np.ndarray):
        raise TypeError(f"label_map has type {type(label_map).__name__}, expected an array of integers")
    if label_map.dtype.kind not in "iu":
        raise TypeError(f"label_map has dtype {label_map.dtype}, expected integers")
    if label_map.ndim != 2 or label_map.size == 0:
        raise ValueError(f"label_map has shape {label_map.shape}, expected (H, W), no axis empty")
    if label_map.min() < 0:
        raise ValueError(f"label_map has the label {label_map.min()}, expected 0 for background and more for objects")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, expected a finite number of pixels above 0")
    if sweeps < 4:
        raise ValueError(f"sweeps is {sweeps}, expected at least 4, one for each order")
