"""Outlines of masks as polygons along the edges of pixels, the format of annotation tools and COCO.

`ops.masks.polygons_to_rle` fills such polygons, and returns the same pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.validation.tensors import check_dtype

Point = tuple[int, int]  # x, y

# For each side of a pixel: the offset (rows, columns) of the neighbour across it, and the start and end (x, y) of the
# side, traversed with the pixel on the right.
SIDES = (((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0)))


def mask_outlines(mask: Tensor) -> list[list[int]]:
    """Polygons that together cover a mask, one for each 4-connected component.

    A polygon has no holes: to exclude a hole, it runs along a cut to the hole, around it, and back along the cut.

    Args:
        mask: (H, W) bool.

    Returns:
        For each component, from left to right, x0, y0, x1, y1, ... of its corners, clockwise on the screen; a pixel in
        row y and column x has the corners (x, y) to (x + 1, y + 1). Without pixels there are no polygons.

    >>> mask_outlines(torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]).bool())
    [[0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2], [2, 2, 3, 2, 3, 3, 2, 3]]
    """
    check_dtype("mask", mask, torch.bool, "H? W?")
    polygons: list[list[Point]] = []
    polygon_of: dict[Point, int] = {}  # the polygon to which a point on an outline belongs
    rings = _rings(mask.cpu().numpy())
    # Outer outlines first, then holes from left to right, so a cut to the left meets an outline that is known already.
    for ring in sorted(rings, key=_runs_around_a_hole):
        if _runs_around_a_hole(ring):
            x, y = ring[0]
            while (x, y) not in polygon_of:
                x -= 1
            number = polygon_of[x, y]
            index = polygons[number].index((x, y))
            polygons[number][index + 1 : index + 1] = [*ring, ring[0], (x, y)]
        else:
            number = len(polygons)
            polygons.append(list(ring))
        polygon_of.update(dict.fromkeys(ring, number))
    return [[coordinate for point in _corners(polygon) for coordinate in point] for polygon in polygons]


def _rings(mask: np.ndarray) -> list[list[Point]]:
    """Closed walks in steps of one pixel, with the mask on the right, from the leftmost point, the topmost of these."""
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
            to_the_right = (x - (y - before[1]), y + (x - before[0]))  # the walk stays at the same pixel
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
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) < 0  # twice the signed area


def _corners(polygon: list[Point]) -> list[Point]:
    """The points at which the walk changes its direction."""
    points = np.array(polygon)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    straight = (np.sign(before) == np.sign(after)).all(axis=1)
    return [tuple(point) for point in points[~straight].tolist()]
