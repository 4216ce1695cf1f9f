"""Intersections of rays from one point with boxes and cylinders, for the synthetic street and laser scan.

Axes: x to the right, y up, z forward, in metres. A ray is its origin plus its direction times a number, the
distance in lengths of the direction.
"""

from __future__ import annotations

import numpy as np

MISSED = np.inf


def box_hit(
    origin: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First point at which each ray enters a box: the slab method (Kay and Kajiya 1986).

    Args:
        origin: (3,) common origin of the rays, outside the box.
        directions: (3, ...), none of them 0 along an axis.
        low: (3,) the lowest corner of the box.
        high: (3,) the highest corner.

    Returns:
        Distances (...), `MISSED` where the ray passes by, and the axis (...) of the face that was met: 0, 1, 2.
    """
    enter, leave, axis = None, None, None
    for i in range(3):
        first, second = (low[i] - origin[i]) / directions[i], (high[i] - origin[i]) / directions[i]
        near, far = np.minimum(first, second), np.maximum(first, second)
        if enter is None:
            enter, leave, axis = near, far, np.zeros(near.shape, np.int8)
        else:
            axis = np.where(near > enter, np.int8(i), axis)
            enter, leave = np.maximum(enter, near), np.minimum(leave, far)
    return np.where((enter < leave) & (enter > 0), enter, MISSED), axis


def pole_hit(
    directions: np.ndarray, centre: tuple[float, float], radius: float, ends: tuple[float, float]
) -> np.ndarray:
    """First point at which rays from the origin meet the side of an upright cylinder.

    Args:
        directions: (3, ...); the third axis is up.
        centre: centre of the cylinder on the first two axes; the origin of the rays lies outside.
        ends: its lower and upper end along the third axis.

    Returns:
        Distances (...), `MISSED` where the ray passes by.
    """
    x, y, up = directions
    a, b = x * x + y * y, x * centre[0] + y * centre[1]
    root = b * b - a * (centre[0] ** 2 + centre[1] ** 2 - radius**2)
    near = (b - np.sqrt(np.where(root > 0, root, 0))) / a
    height = near * up
    return np.where((root > 0) & (near > 0) & (height > ends[0]) & (height < ends[1]), near, MISSED)
