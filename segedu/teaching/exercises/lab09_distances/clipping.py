"""Intersection areas of convex polygons, for the cases of `polygon_nms`: compiled clipping takes seconds to load."""

from __future__ import annotations

import numpy as np


def area(corners: np.ndarray) -> float:
    """Area of a polygon by the shoelace formula.

    Args:
        corners: (R, 2), (y, x) in order, clockwise or not; the area of fewer than 3 corners is 0.

    Returns:
        At least 0.
    """
    y, x = corners.reshape(-1, 2).T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def shared_areas(polygons: np.ndarray) -> np.ndarray:
    """Area of the intersection of each two convex polygons.

    Args:
        polygons: (N, R, 2), (y, x) of the corners in order, clockwise or not.

    Returns:
        (N, N) float64, symmetric, with the areas of the polygons on the diagonal; rounded to 9 decimals.
    """
    N = len(polygons)
    shared = np.zeros((N, N))
    for i in range(N):
        shared[i, i] = area(polygons[i])
        for j in range(i):
            if shared[i, i] and shared[j, j]:  # a polygon without area has no interior
                shared[i, j] = shared[j, i] = area(_clip(polygons[i], polygons[j]))
    return shared.round(9)  # clipping leaves slivers of 1e-16


def _clip(corners: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Sutherland-Hodgman: each edge of the window in turn cuts off what lies outside it."""
    middle = window.mean(axis=0)
    for a, b in zip(window, np.roll(window, -1, axis=0), strict=True):
        side = _side(a, b, corners) * np.sign(_side(a, b, middle))
        kept = []
        for p, q, d, e in zip(corners, np.roll(corners, -1, axis=0), side, np.roll(side, -1), strict=True):
            if d >= 0:
                kept.append(p)
            if d * e < 0:
                kept.append(p + (q - p) * d / (d - e))
        corners = np.array(kept).reshape(-1, 2)
    return corners


def _side(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Positive for points on one side of the line from a to b, negative on the other."""
    offsets = points - a
    return (b[0] - a[0]) * offsets[..., 1] - (b[1] - a[1]) * offsets[..., 0]
