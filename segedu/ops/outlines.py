"""Outlines of masks as polygons, along the edges of pixels: what annotation tools draw and COCO keeps.

`ops.masks.polygons_to_rle` fills them again, and gives back the same pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Point = tuple[int, int]  # x, y

# Of a pixel: where its neighbour is (rows, columns), and the side towards it, walked with the pixel on the right.
SIDES = (((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0)))


def mask_outlines(mask: Tensor) -> list[list[int]]:
    """Polygons that together cover a mask, each one piece of it; pixels that share a corner only are two pieces.

    A polygon has no holes: to leave one out, it runs along a cut to the hole, around it, and back along the cut.

    Args:
        mask: (H, W) bool.

    Returns:
        Of each piece, from left to right, x0, y0, x1, y1, ... of its corners, clockwise on the screen; a pixel in row
        y and column x has the corners (x, y) to (x + 1, y + 1). No pixels: no polygons.

    Raises:
        TypeError: `mask` is not a bool tensor.
        ValueError: its shape is not (H, W).

    Example:
        >>> mask_outlines(torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]).bool())
        [[0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2], [2, 2, 3, 2, 3, 3, 2, 3]]
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else f"type {type(mask).__name__}"
        raise TypeError(f"mask has {kind}, expected a bool tensor of shape (H, W)")
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected (H, W)")
    polygons: list[list[Point]] = []
    of_polygon: dict[Point, int] = {}  # which one a point on an outline belongs to
    rings = _rings(mask.cpu().numpy())
    # all outer outlines first, then holes from left to right: what a cut to the left meets is known already
    for ring in sorted(rings, key=_runs_around_a_hole):
        if _runs_around_a_hole(ring):
            x, y = ring[0]
            while (x, y) not in of_polygon:
                x -= 1
            number = of_polygon[x, y]
            at = polygons[number].index((x, y))
            polygons[number][at + 1 : at + 1] = [*ring, ring[0], (x, y)]
        else:
            number = len(polygons)
            polygons.append(list(ring))
        of_polygon.update(dict.fromkeys(ring, number))
    return [[coordinate for point in _corners(polygon) for coordinate in point] for polygon in polygons]


def _rings(mask: np.ndarray) -> list[list[Point]]:
    """Closed walks of steps of one pixel, the mask on the right; each begins at its leftmost point, the upper one."""
    padded, following = np.pad(mask, 1), {}
    for (down, right), (start_x, start_y), (end_x, end_y) in SIDES:
        neighbour = np.roll(padded, (-down, -right), axis=(0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(mask & ~neighbour).tolist():
            following.setdefault((x + start_x, y + start_y), []).append((x + end_x, y + end_y))
    rings = []
    for start in sorted(following):
        ring, point, before = [], start, start
        while point in following and not (ring and point == start):
            ends, (x, y) = following[point], point
            to_the_right = (x - (y - before[1]), y + (x - before[0]))  # stays with the same pixel
            end = to_the_right if to_the_right in ends else ends[0]
            ends.remove(end)
            if not ends:
                del following[point]
            ring.append(point)
            before, point = point, end
        if ring:
            rings.append(ring)
    return rings


def _runs_around_a_hole(ring: list[Point]) -> bool:
    x, y = np.array(ring).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) < 0  # twice the area, negative where it turns left


def _corners(polygon: list[Point]) -> list[Point]:
    """Without the points at which the walk goes straight on."""
    points = np.array(polygon)
    came, goes = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    straight = (np.sign(came) == np.sign(goes)).all(axis=1)
    return [tuple(point) for point in points[~straight].tolist()]
