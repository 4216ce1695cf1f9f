"""Star polygons: a centre point, and its distances to the outline along equally spaced rays.

Ray k of n has the angle 2 pi k / n; in (y, x) it points to (sin, cos), so ray 0 points right and the next ones rotate
towards larger y. Areas and overlaps are exact, not counted in pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled, float64_array
from segedu.validation.numbers import check_integer, check_number, check_size
from segedu.validation.tensors import check_finite, check_floats, check_numeric

EPS = 1e-10


def star_rays(n_rays: int) -> Tensor:
    """Unit vectors (R, 2) float64, (y, x), of at least 3 equally spaced rays.

    >>> star_rays(4).round(decimals=3).abs()
    tensor([[0., 1.],
            [1., 0.],
            [0., 1.],
            [1., 0.]], dtype=torch.float64)
    """
    check_integer("n_rays", n_rays, 3)
    angles = torch.arange(n_rays, dtype=torch.float64) * (2 * math.pi / n_rays)
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def star_polygons(distances: Tensor, points: Tensor) -> Tensor:
    """Corners of star polygons.

    Args:
        distances: (N, R) floats in pixels, at least 0, for R >= 3 rays.
        points: (N, 2), (y, x) of the points from which the rays start.

    Returns:
        (N, R, 2), (y, x) of each corner, in the dtype of `distances`.

    >>> star_polygons(torch.full((1, 4), 2.0), torch.tensor([[5, 5]])).round()
    tensor([[[5., 7.],
             [7., 5.],
             [5., 3.],
             [3., 5.]]])
    """
    _check_stars(distances, points)
    rays = star_rays(distances.shape[1]).to(distances)
    return points[:, None].to(distances) + distances[..., None] * rays


def polygon_areas(polygons: Tensor) -> Tensor:
    """Areas (N,) of polygons by the shoelace formula.

    Args:
        polygons: (N, V, 2) floats, V >= 3 corners in order, clockwise or not, without crossing edges.

    >>> polygon_areas(torch.tensor([[[0.0, 0.0], [0.0, 3.0], [2.0, 3.0], [2.0, 0.0]]]))
    tensor([6.])
    """
    corners = check_floats("polygons", polygons, "N? V 2")["V"]
    if corners < 3:
        raise ValueError(f"polygons has shape {tuple(polygons.shape)}, expected (N, V, 2) with V >= 3")
    y, x = (polygons - polygons[:, :1]).unbind(dim=2)  # relative to a corner, because large coordinates cost precision
    return 0.5 * (x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum(dim=1).abs()


def polygon_intersections(distances: Tensor, points: Tensor, other_distances: Tensor, other_points: Tensor) -> Tensor:
    """Intersection areas of every pair of star polygons, exact although the polygons need not be convex.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        other_distances: (M, R').
        other_points: (M, 2).

    Returns:
        (N, M) float64, in square pixels.

    >>> square, points = torch.full((2, 4), 2.0), torch.tensor([[0, 0], [1, 1]])
    >>> polygon_intersections(square, points, square, points).round(decimals=6)
    tensor([[8., 4.],
            [4., 8.]], dtype=torch.float64)
    """
    _check_stars(distances, points)
    _check_stars(other_distances, other_points)
    rays = star_rays(distances.shape[1]).numpy()
    intersection = _intersections(
        float64_array(star_polygons(distances.double(), points)),
        float64_array(points),
        rays,
        float64_array(star_polygons(other_distances.double(), other_points)),
    )
    return torch.from_numpy(intersection).to(distances.device)


def polygon_iou(distances: Tensor, points: Tensor, other_distances: Tensor, other_points: Tensor) -> Tensor:
    """Intersection over union of every pair of star polygons.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        other_distances: (M, R').
        other_points: (M, 2).

    Returns:
        (N, M) float64; 0 where both areas are 0.

    >>> square = torch.full((1, 4), 2.0)
    >>> polygon_iou(square, torch.tensor([[0, 0]]), square, torch.tensor([[1, 1]])).round(decimals=4)
    tensor([[0.3333]], dtype=torch.float64)
    """
    intersection = polygon_intersections(distances, points, other_distances, other_points)
    areas = polygon_areas(star_polygons(distances.double(), points))
    others = polygon_areas(star_polygons(other_distances.double(), other_points))
    union = areas[:, None] + others.to(areas.device) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=EPS), 0.0)


def rasterize_polygons(distances: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Rasterise star polygons into a label map; later polygons cover earlier ones.

    A pixel belongs to a polygon if its centre is inside or on the outline; pixels outside the map are ignored.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        size: (H, W) of the label map.

    Returns:
        (H, W) int32: label of each pixel: i + 1 for polygon i, the last one that covers it; 0 is background.

    >>> rasterize_polygons(torch.full((1, 4), 1.0), torch.tensor([[1, 1]]), (3, 4))
    tensor([[0, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 0, 0]], dtype=torch.int32)
    """
    _check_stars(distances, points)
    size = check_size("size", size)
    label_map = np.zeros(size, np.int32)
    rays = star_rays(distances.shape[1]).numpy()
    _paint(label_map, float64_array(star_polygons(distances.double(), points)), float64_array(points), rays)
    return torch.from_numpy(label_map).to(distances.device)


def suppress_polygons(distances: Tensor, points: Tensor, overlap_threshold: float) -> Tensor:
    """Greedy suppression: from the first to the last, each polygon that is kept removes later ones that overlap it.

    The overlap is the intersection over the smaller of both areas, as in StarDist's own code: a small polygon inside a
    large one overlaps it fully, although their intersection over union is small.

    Args:
        distances: (N, R) in pixels, the most confident candidate first.
        points: (N, 2), (y, x).
        overlap_threshold: in [0, 1]. A candidate is removed if its overlap with a kept polygon is above it.

    Returns:
        (N,) bool, True for the polygons that are kept.

    >>> distances, points = torch.tensor([[9.0] * 8, [2.0] * 8, [2.0] * 8]), torch.tensor([[9, 9], [9, 12], [9, 40]])
    >>> suppress_polygons(distances, points, 0.5)
    tensor([ True, False,  True])
    """
    _check_stars(distances, points)
    check_number("overlap_threshold", overlap_threshold, maximum=1)
    if len(distances) == 0:
        return torch.zeros(0, dtype=torch.bool, device=distances.device)
    polygons = star_polygons(distances.double(), points)
    radii, rays = float64_array(distances), star_rays(distances.shape[1]).numpy()
    # Between two rays, the outline may be closer to the centre than at both rays, but at most by this factor.
    inner_radii = radii.min(axis=1) * math.cos(math.pi / radii.shape[1])
    areas, corners, centers = float64_array(polygon_areas(polygons)), float64_array(polygons), float64_array(points)
    cell = max(2 * radii.max(axis=1).mean(), 1.0)
    buckets = _buckets(corners.min(axis=1), corners.max(axis=1), cell)
    kept = _suppress(corners, centers, rays, areas, inner_radii, overlap_threshold, buckets)
    return torch.from_numpy(kept).to(distances.device)


def _check_stars(distances: Tensor, points: Tensor) -> None:
    sizes = check_floats("distances", distances, "N? R")
    if sizes["R"] < 3:
        raise ValueError(f"distances has shape {tuple(distances.shape)}, expected (N, R) with R >= 3")
    check_numeric("points", points, "N? 2", sizes)
    check_finite("distances", distances)
    check_finite("points", points)
    if len(distances) and distances.min() < 0:
        raise ValueError(f"distances has the value {distances.min():.4g}, expected at least 0")


@compiled
def _sector(angle, n_rays):
    return int(math.floor(angle * n_rays / (2 * math.pi)))


@compiled
def _intersection(star, center, rays, polygon):
    """Intersection area of a star polygon and any polygon.

    Both are divided into triangles between an edge and the star's centre; triangles of the other polygon count as
    negative where its outline runs clockwise around that centre. Two such triangles intersect inside the angles of
    both, out to the closer of two straight lines: that area has a closed form.
    """
    n_rays, n_corners, total = len(star), len(polygon), 0.0
    for j in range(n_corners):
        after = j + 1 if j + 1 < n_corners else 0
        y0, x0 = polygon[j, 0] - center[0], polygon[j, 1] - center[1]
        y1, x1 = polygon[after, 0] - center[0], polygon[after, 1] - center[1]
        cross = x0 * y1 - y0 * x1  # twice the signed area of the triangle
        if cross == 0:
            continue
        if cross < 0:
            y0, x0, y1, x1 = y1, x1, y0, x0
        start = math.atan2(y0, x0)
        angle = abs(math.atan2(y1, x1) - start)
        angle = min(angle, 2 * math.pi - angle)  # an edge spans less than half a turn
        first, last = _sector(start, n_rays), _sector(start + angle, n_rays)
        area, yp, xp = 0.0, y0, x0
        for sector in range(first, last + 1):
            k = sector % n_rays
            k1 = k + 1 if k + 1 < n_rays else 0
            yq, xq = y1, x1
            if sector < last:  # the edge leaves this sector on ray k + 1
                left, right = x0 * rays[k1, 0] - y0 * rays[k1, 1], x1 * rays[k1, 0] - y1 * rays[k1, 1]
                t = left / (left - right) if left > right else 1.0
                t = min(max(t, 0.0), 1.0)
                yq, xq = y0 + t * (y1 - y0), x0 + t * (x1 - x0)
            ay, ax = star[k, 0] - center[0], star[k, 1] - center[1]
            ey, ex = star[k1, 0] - star[k, 0], star[k1, 1] - star[k, 1]
            area += _wedge(ax * ey - ay * ex, xp * ey - yp * ex, xq * ey - yq * ex, xp * yq - yp * xq)
            yp, xp = yq, xq
        total += area if cross > 0 else -area
    return max(0.5 * total, 0.0)


@compiled
def _wedge(star_cross, cross_begin, cross_end, cross):
    """Twice the area of a wedge, out to the closer of two lines: an edge of the polygon and an edge of the star.

    `cross` is twice the area out to the polygon's edge. `cross_begin / star_cross` and `cross_end / star_cross` are the
    distance of that edge relative to the distance of the star's edge, where the wedge begins and where it ends.
    """
    if star_cross <= 0:
        return 0.0  # the star has no area here
    begin, end = cross_begin / star_cross, cross_end / star_cross
    if begin <= 1 and end <= 1:
        return cross
    if begin >= 1 and end >= 1:
        return cross / (begin * end)
    t = (1 - begin) / (end - begin)  # the lines cross
    return cross * (t + (1 - t) / end) if begin < 1 else cross * (t / begin + 1 - t)


@compiled
def _intersections(stars, centers, rays, others):
    areas = np.empty((len(stars), len(others)))
    for i in range(len(stars)):
        for j in range(len(others)):
            areas[i, j] = _intersection(stars[i], centers[i], rays, others[j])
    return areas


@compiled
def _paint(label_map, polygons, centers, rays):
    height, width = label_map.shape
    n_rays = len(rays)
    for i in range(len(polygons)):
        rows, columns = polygons[i, :, 0], polygons[i, :, 1]
        # Clamp before rounding: an int64 cannot hold coordinates that are too far away.
        top, bottom = math.ceil(max(rows.min() - EPS, 0.0)), math.floor(min(rows.max() + EPS, height - 1.0))
        left, right = math.ceil(max(columns.min() - EPS, 0.0)), math.floor(min(columns.max() + EPS, width - 1.0))
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                y, x = row - centers[i, 0], column - centers[i, 1]
                k = _sector(math.atan2(y, x), n_rays) % n_rays
                k1 = (k + 1) % n_rays
                ay, ax = rows[k] - centers[i, 0], columns[k] - centers[i, 1]
                ey, ex = rows[k1] - rows[k], columns[k1] - columns[k]
                if x * ey - y * ex <= ax * ey - ay * ex + EPS:
                    label_map[row, column] = i + 1


@compiled
def _buckets(lower, upper, cell):
    """Grid cells and the polygons that touch each: those of cell c are members[starts[c] : starts[c + 1]]."""
    origin_y, origin_x = lower[:, 0].min(), lower[:, 1].min()
    cell = max(cell, max(upper[:, 0].max() - origin_y, upper[:, 1].max() - origin_x) / 4096)
    columns = int((upper[:, 1].max() - origin_x) / cell) + 1
    first = np.empty((len(lower), 2), np.int64)
    last = np.empty((len(lower), 2), np.int64)
    counts = np.zeros((int((upper[:, 0].max() - origin_y) / cell) + 1) * columns + 1, np.int64)
    for i in range(len(lower)):
        first[i, 0], first[i, 1] = int((lower[i, 0] - origin_y) / cell), int((lower[i, 1] - origin_x) / cell)
        last[i, 0], last[i, 1] = int((upper[i, 0] - origin_y) / cell), int((upper[i, 1] - origin_x) / cell)
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                counts[row * columns + column + 1] += 1
    starts = np.cumsum(counts)
    filled, members = starts.copy(), np.empty(starts[-1], np.int64)
    for i in range(len(lower)):
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                members[filled[row * columns + column]] = i
                filled[row * columns + column] += 1
    return lower, upper, first, last, columns, starts, members


@compiled
def _suppress(polygons, centers, rays, areas, inner_radii, threshold, buckets):
    lower, upper, first, last, columns, starts, members = buckets
    kept = np.ones(len(polygons), np.bool_)
    last_compared = np.full(len(polygons), -1)
    for i in range(len(polygons)):
        if not kept[i]:
            continue
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                for m in range(starts[row * columns + column], starts[row * columns + column + 1]):
                    j = members[m]
                    if j > i and kept[j] and last_compared[j] < i:
                        last_compared[j] = i  # a polygon may touch several cells
                        limit = (threshold + EPS) * min(areas[i], areas[j])  # sums of areas are not exact
                        height = min(upper[i, 0], upper[j, 0]) - max(lower[i, 0], lower[j, 0])
                        width = min(upper[i, 1], upper[j, 1]) - max(lower[i, 1], lower[j, 1])
                        if height <= 0 or width <= 0 or height * width <= limit:
                            continue  # not even their bounding boxes overlap enough
                        distance = math.hypot(centers[i, 0] - centers[j, 0], centers[i, 1] - centers[j, 1])
                        intersection = _circles(distance, inner_radii[i], inner_radii[j])
                        if intersection <= limit:  # otherwise, the circles inside both overlap enough
                            intersection = _intersection(polygons[i], centers[i], rays, polygons[j])
                        kept[j] = intersection <= limit
    return kept


@compiled
def _circles(distance, a, b):
    """Intersection area of two circles with radii a and b, and the distance of their centres."""
    small = min(a, b)
    if distance <= abs(a - b):
        return math.pi * small * small
    if distance >= a + b:
        return 0.0
    along = (distance * distance + a * a - b * b) / (2 * distance)
    across = math.sqrt(max(a * a - along * along, 0.0))
    return a * a * math.atan2(across, along) + b * b * math.atan2(across, distance - along) - distance * across
