"""What convex polygons share, for the cases of `polygon_nms`: compiled clipping takes seconds to load in a judge."""

from __future__ import annotations

import numpy as np


def area(corners: np.ndarray) -> float:
    """Area of a polygon, by the shoelace formula.

    Args:
        corners: (R, 2), (y, x) in order, either way round; fewer than 3 have no area.

    Returns:
        At least 0.
    """
    y, x = corners.reshape(-1, 2).T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def shared_areas(polygons: np.ndarray) -> np.ndarray:
    """Area that each two convex polygons have in common.

    Args:
        polygons: (N, R, 2), (y, x) of the corners in order, either way round.

    Returns:
        (N, N) float64, symmetric, the areas themselves on the diagonal; 9 decimals.
    """
    N = len(polygons)
    shared = np.zeros((N, N))
    for i in range(N):
        shared[i, i] = area(polygons[i])
        for j in range(i):
            if shared[i, i] and shared[j, j]:  # what has no area has no inside either
                shared[i, j] = shared[j, i] = area(_clipped(polygons[i], polygons[j]))
    return shared.round(9)  # cuts leave slivers of 1e-16


def _clipped(corners: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Sutherland and Hodgman: one edge of the window after the other cuts off what lies beyond it."""
    middle = window.mean(axis=0)
    for a, b in zip(window, np.roll(window, -1, axis=0), strict=True):
        side = _turn(a, b, corners) * np.sign(_turn(a, b, middle))
        kept = []
        for p, q, d, e in zip(corners, np.roll(corners, -1, axis=0), side, np.roll(side, -1), strict=True):
            if d >= 0:
                kept.append(p)
            if d * e < 0:
                kept.append(p + (q - p) * d / (d - e))
        corners = np.array(kept).reshape(-1, 2)
    return corners


def _turn(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """On which side of the line from a to b points lie: above 0 on one, below 0 on the other."""
    away = points - a
    return (b[0] - a[0]) * away[..., 1] - (b[1] - a[1]) * away[..., 0]
