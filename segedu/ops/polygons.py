"""Star polygons: a point, and how far the outline is from it along equally spaced rays.

Ray k of n has the angle 2 pi k / n; in (y, x) it points to (sin, cos), so ray 0 goes right and the next ones turn
towards larger y. Areas and overlaps are exact, not counted in pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled

EPS = 1e-10


def star_rays(n_rays: int) -> Tensor:
    """Directions of equally spaced rays.

    Args:
        n_rays: R, at least 3.

    Returns:
        (R, 2) float64, (y, x) of each, of length 1.

    Raises:
        ValueError: fewer than 3 rays.

    >>> star_rays(4).round(decimals=3).abs()
    tensor([[0., 1.],
            [1., 0.],
            [0., 1.],
            [1., 0.]], dtype=torch.float64)
    """
    if n_rays < 3:
        raise ValueError(f"n_rays is {n_rays}, expected at least 3")
    angles = torch.arange(n_rays, dtype=torch.float64) * (2 * math.pi / n_rays)
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def star_polygons(distances: Tensor, points: Tensor) -> Tensor:
    """Corners of star polygons.

    Args:
        distances: (N, R) in pixels, at least 0.
        points: (N, 2), (y, x) of the points that the rays start from.

    Returns:
        (N, R, 2), (y, x) of each corner, in the dtype of `distances`.

    Raises:
        TypeError: not tensors of numbers, or distances that are no floating-point numbers.
        ValueError: the shapes do not fit, fewer than 3 rays, a negative distance, or a number that is not finite.

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
    """Areas, by the shoelace formula.

    Args:
        polygons: (N, V, 2) corners in order, either way round, without crossing edges.

    Returns:
        (N,) in square pixels.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: another shape, or fewer than 3 corners.

    >>> polygon_areas(torch.tensor([[[0.0, 0.0], [0.0, 3.0], [2.0, 3.0], [2.0, 0.0]]]))
    tensor([6.])
    """
    if not isinstance(polygons, Tensor) or not polygons.is_floating_point():
        given = getattr(polygons, "dtype", type(polygons).__name__)
        raise TypeError(f"polygons has type {given}, expected a Tensor of floating-point numbers")
    if polygons.ndim != 3 or polygons.shape[2] != 2 or polygons.shape[1] < 3:
        raise ValueError(f"polygons has shape {tuple(polygons.shape)}, expected (N, V, 2) with V >= 3")
    y, x = (polygons - polygons[:, :1]).unbind(dim=2)  # relative to a corner: large coordinates cost digits
    return 0.5 * (x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum(dim=1).abs()


def polygon_intersections(distances: Tensor, points: Tensor, other_distances: Tensor, other_points: Tensor) -> Tensor:
    """Areas that each star polygon shares with each other one, exact although they need not be convex.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        other_distances: (M, R').
        other_points: (M, 2).

    Returns:
        (N, M) float64, in square pixels.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`.

    >>> square, points = torch.full((2, 4), 2.0), torch.tensor([[0, 0], [1, 1]])
    >>> polygon_intersections(square, points, square, points).round(decimals=6)
    tensor([[8., 4.],
            [4., 8.]], dtype=torch.float64)
    """
    _check_stars(distances, points)
    _check_stars(other_distances, other_points)
    rays = star_rays(distances.shape[1]).numpy()
    shared = _intersections(
        _numpy(star_polygons(distances.double(), points)),
        _numpy(points),
        rays,
        _numpy(star_polygons(other_distances.double(), other_points)),
    )
    return torch.from_numpy(shared).to(distances.device)


def polygon_iou(distances: Tensor, points: Tensor, other_distances: Tensor, other_points: Tensor) -> Tensor:
    """Intersection over union of each star polygon with each other one.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        other_distances: (M, R').
        other_points: (M, 2).

    Returns:
        (N, M) float64; 0 where both areas are 0.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`.

    >>> square = torch.full((1, 4), 2.0)
    >>> polygon_iou(square, torch.tensor([[0, 0]]), square, torch.tensor([[1, 1]])).round(decimals=4)
    tensor([[0.3333]], dtype=torch.float64)
    """
    shared = polygon_intersections(distances, points, other_distances, other_points)
    areas = polygon_areas(star_polygons(distances.double(), points))
    others = polygon_areas(star_polygons(other_distances.double(), other_points))
    union = areas[:, None] + others.to(areas.device) - shared
    return torch.where(union > 0, shared / union.clamp(min=EPS), 0.0)


def rasterize_polygons(distances: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Paint star polygons, one over the other: the last stays whole.

    A pixel is painted if its centre is inside or on the outline; what is outside of the map is left out.

    Args:
        distances: (N, R) in pixels.
        points: (N, 2), (y, x).
        size: H and W of the label map.

    Returns:
        (H, W) int32: number of the polygon that was painted last, the first has 1; 0 is background.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`, or a size below 1.

    >>> rasterize_polygons(torch.full((1, 4), 1.0), torch.tensor([[1, 1]]), (3, 4))
    tensor([[0, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 0, 0]], dtype=torch.int32)
    """
    _check_stars(distances, points)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected two numbers of at least 1")
    label_map = np.zeros(tuple(size), np.int32)
    rays = star_rays(distances.shape[1]).numpy()
    _paint(label_map, _numpy(star_polygons(distances.double(), points)), _numpy(points), rays)
    return torch.from_numpy(label_map).to(distances.device)


def suppress_polygons(distances: Tensor, points: Tensor, overlap_threshold: float) -> Tensor:
    """Greedy suppression: from the first to the last, each polygon that is still there removes those like it.

    The overlap is the shared area over the smaller of both areas, as StarDist's own code has it: a small polygon
    inside of a large one overlaps it fully, though their intersection over union is small.

    Args:
        distances: (N, R) in pixels, the best candidate first.
        points: (N, 2), (y, x).
        overlap_threshold: a candidate goes if it overlaps a better one by more than this.

    Returns:
        (N,) bool, True for what stays.

    Raises:
        TypeError: as `star_polygons`.
        ValueError: as `star_polygons`, or a threshold outside [0, 1].

    >>> distances, points = torch.tensor([[9.0] * 8, [2.0] * 8, [2.0] * 8]), torch.tensor([[9, 9], [9, 12], [9, 40]])
    >>> suppress_polygons(distances, points, 0.5)
    tensor([ True, False,  True])
    """
    _check_stars(distances, points)
    if not 0 <= overlap_threshold <= 1:
        raise ValueError(f"overlap_threshold is {overlap_threshold}, expected a number in [0, 1]")
    if len(distances) == 0:
        return torch.zeros(0, dtype=torch.bool, device=distances.device)
    polygons = star_polygons(distances.double(), points)
    radii, rays = _numpy(distances), star_rays(distances.shape[1]).numpy()
    # Between two rays the outline may come nearer than both ends, no nearer than by this factor.
    inner = radii.min(axis=1) * math.cos(math.pi / radii.shape[1])
    areas, corners, centers = _numpy(polygon_areas(polygons)), _numpy(polygons), _numpy(points)
    cell = max(2 * radii.max(axis=1).mean(), 1.0)
    buckets = _buckets(corners.min(axis=1), corners.max(axis=1), cell)
    kept = _suppress(corners, centers, rays, areas, inner, overlap_threshold, buckets)
    return torch.from_numpy(kept).to(distances.device)


def _numpy(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().double().numpy(force=True))  # numpy knows no bfloat16


def _check_stars(distances: Tensor, points: Tensor) -> None:
    if not isinstance(distances, Tensor) or not distances.is_floating_point():
        given = getattr(distances, "dtype", type(distances).__name__)
        raise TypeError(f"distances has type {given}, expected a Tensor of floating-point numbers")
    if not isinstance(points, Tensor) or points.dtype == torch.bool or points.is_complex():
        raise TypeError(
            f"points has type {getattr(points, 'dtype', type(points).__name__)}, expected a Tensor of numbers"
        )
    if distances.ndim != 2 or distances.shape[1] < 3:
        raise ValueError(f"distances has shape {tuple(distances.shape)}, expected (N, R) with R >= 3")
    if points.shape != (len(distances), 2):
        raise ValueError(f"points has shape {tuple(points.shape)}, expected {(len(distances), 2)}")
    if not (torch.isfinite(distances).all() and torch.isfinite(points).all()):
        raise ValueError("distances or points has a number that is infinite or NaN, expected finite numbers")
    if len(distances) and distances.min() < 0:
        raise ValueError(f"distances has {distances.min():.4g}, expected at least 0")


@compiled
def _sector(angle, n_rays):
    return int(math.floor(angle * n_rays / (2 * math.pi)))


@compiled
def _intersection(star, center, rays, polygon):
    """Area that a star polygon shares with any polygon.

    Both are cut into triangles with one corner in the star's centre, one for each edge; those of the other polygon
    count as negative where its outline runs clockwise around that centre. Two such triangles share what lies in
    the angles of both, out to the nearer of two straight lines: that area has a closed form.
    """
    n_rays, n_corners, total = len(star), len(polygon), 0.0
    for j in range(n_corners):
        after = j + 1 if j + 1 < n_corners else 0
        y0, x0 = polygon[j, 0] - center[0], polygon[j, 1] - center[1]
        y1, x1 = polygon[after, 0] - center[0], polygon[after, 1] - center[1]
        turn = x0 * y1 - y0 * x1  # twice the signed area of the triangle
        if turn == 0:
            continue
        if turn < 0:
            y0, x0, y1, x1 = y1, x1, y0, x0
        start = math.atan2(y0, x0)
        wide = abs(math.atan2(y1, x1) - start)
        wide = min(wide, 2 * math.pi - wide)  # the edge is seen under less than half a turn
        first, last = _sector(start, n_rays), _sector(start + wide, n_rays)
        area, yp, xp = 0.0, y0, x0
        for sector in range(first, last + 1):
            k = sector % n_rays
            k1 = k + 1 if k + 1 < n_rays else 0
            yq, xq = y1, x1
            if sector < last:  # where the edge leaves this sector, on ray k + 1
                left, right = x0 * rays[k1, 0] - y0 * rays[k1, 1], x1 * rays[k1, 0] - y1 * rays[k1, 1]
                t = left / (left - right) if left > right else 1.0
                t = min(max(t, 0.0), 1.0)
                yq, xq = y0 + t * (y1 - y0), x0 + t * (x1 - x0)
            ay, ax = star[k, 0] - center[0], star[k, 1] - center[1]
            ey, ex = star[k1, 0] - star[k, 0], star[k1, 1] - star[k, 1]
            area += _nearer(ax * ey - ay * ex, xp * ey - yp * ex, xq * ey - yq * ex, xp * yq - yp * xq)
            yp, xp = yq, xq
        total += area if turn > 0 else -area
    return max(0.5 * total, 0.0)


@compiled
def _nearer(line, before, behind, turn):
    """Twice the area of a wedge, out to the nearer of two lines.

    `turn` is twice the area out to the one; `before / line` and `behind / line` are how much farther than the
    other it lies, where the wedge begins and where it ends.
    """
    if line <= 0:
        return 0.0  # the star has no area here
    begin, end = before / line, behind / line
    if begin <= 1 and end <= 1:
        return turn
    if begin >= 1 and end >= 1:
        return turn / (begin * end)
    t = (1 - begin) / (end - begin)  # they cross
    return turn * (t + (1 - t) / end) if begin < 1 else turn * (t / begin + 1 - t)


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
        # cut before rounded: what reaches farther than an int64 can say would have no pixel
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
def _buckets(low, high, cell):
    """Cells of a square grid, and who touches each: candidates of cell c are members[starts[c] : starts[c + 1]]."""
    origin_y, origin_x = low[:, 0].min(), low[:, 1].min()
    cell = max(cell, max(high[:, 0].max() - origin_y, high[:, 1].max() - origin_x) / 4096)
    columns = int((high[:, 1].max() - origin_x) / cell) + 1
    first = np.empty((len(low), 2), np.int64)
    last = np.empty((len(low), 2), np.int64)
    counts = np.zeros((int((high[:, 0].max() - origin_y) / cell) + 1) * columns + 1, np.int64)
    for i in range(len(low)):
        first[i, 0], first[i, 1] = int((low[i, 0] - origin_y) / cell), int((low[i, 1] - origin_x) / cell)
        last[i, 0], last[i, 1] = int((high[i, 0] - origin_y) / cell), int((high[i, 1] - origin_x) / cell)
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                counts[row * columns + column + 1] += 1
    starts = np.cumsum(counts)
    filled, members = starts.copy(), np.empty(starts[-1], np.int64)
    for i in range(len(low)):
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                members[filled[row * columns + column]] = i
                filled[row * columns + column] += 1
    return low, high, first, last, columns, starts, members


@compiled
def _suppress(polygons, centers, rays, areas, inner, threshold, buckets):
    low, high, first, last, columns, starts, members = buckets
    kept = np.ones(len(polygons), np.bool_)
    seen = np.full(len(polygons), -1)
    for i in range(len(polygons)):
        if not kept[i]:
            continue
        for row in range(first[i, 0], last[i, 0] + 1):
            for column in range(first[i, 1], last[i, 1] + 1):
                for m in range(starts[row * columns + column], starts[row * columns + column + 1]):
                    j = members[m]
                    if j > i and kept[j] and seen[j] < i:
                        seen[j] = i  # it may touch several cells
                        most = (threshold + EPS) * min(areas[i], areas[j])  # sums of cut areas end in noise
                        tall = min(high[i, 0], high[j, 0]) - max(low[i, 0], low[j, 0])
                        wide = min(high[i, 1], high[j, 1]) - max(low[i, 1], low[j, 1])
                        if tall <= 0 or wide <= 0 or tall * wide <= most:
                            continue  # not even their boxes overlap enough
                        apart = math.hypot(centers[i, 0] - centers[j, 0], centers[i, 1] - centers[j, 1])
                        shared = _circles(apart, inner[i], inner[j])
                        if shared <= most:  # else circles inside of both decide
                            shared = _intersection(polygons[i], centers[i], rays, polygons[j])
                        kept[j] = shared <= most
    return kept


@compiled
def _circles(apart, a, b):
    """Area that two circles share."""
    small = min(a, b)
    if apart <= abs(a - b):
        return math.pi * small * small
    if apart >= a + b:
        return 0.0
    along = (apart * apart + a * a - b * b) / (2 * apart)
    across = math.sqrt(max(a * a - along * along, 0.0))
    return a * a * math.atan2(across, along) + b * b * math.atan2(across, apart - along) - apart * across
