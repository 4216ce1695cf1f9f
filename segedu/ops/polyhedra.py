"""Star polyhedra: a point, how far the surface is from it along given rays, and triangles between their ends.

Volumes are exact. What two polyhedra share is counted in voxels: a voxel belongs to a polyhedron if its centre does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled

EPS = 1e-6


def polyhedron_volumes(distances: Tensor, rays: Tensor, faces: Tensor) -> Tensor:
    """Volumes: one tetrahedron a face, from the point that the rays start from.

    Args:
        distances: (N, R) in voxels, at least 0.
        rays: (R, 3), (z, y, x) of each direction.
        faces: (F, 3) integers, the three rays of each triangle.

    Returns:
        (N,) float64, in voxels.

    Raises:
        TypeError: not tensors of numbers of the right kind.
        ValueError: the shapes do not fit, a distance is negative or not finite, or a face names no ray.

    >>> rays = torch.cat([torch.eye(3), -torch.ones(1, 3) / 3**0.5])
    >>> faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    >>> polyhedron_volumes(torch.tensor([[1.0, 1.0, 1.0, 3**0.5]]), rays, faces).round(decimals=4)
    tensor([0.6667], dtype=torch.float64)
    """
    _check_stars(distances, rays, faces)
    ends = (distances.double()[..., None] * rays.double())[:, faces.long()]  # (N, F, 3, 3)
    return torch.linalg.det(ends).abs().sum(dim=1) / 6


def rasterize_polyhedra(distances: Tensor, points: Tensor, rays: Tensor, faces: Tensor, size: Sequence[int]) -> Tensor:
    """Paint star polyhedra, one over the other: the last stays whole.

    Args:
        distances: (N, R) in voxels, at least 0.
        points: (N, 3), (z, y, x).
        rays: (R, 3), (z, y, x) of each direction.
        faces: (F, 3) integers, the three rays of each triangle.
        size: D, H and W of the label map.

    Returns:
        (D, H, W) int32: number of the polyhedron that was painted last, the first has 1; 0 is background.

    Raises:
        TypeError: as `polyhedron_volumes`.
        ValueError: as `polyhedron_volumes`, or a size below 1.

    >>> rays = torch.cat([torch.eye(3), -torch.ones(1, 3) / 3**0.5])
    >>> faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    >>> rasterize_polyhedra(torch.full((1, 4), 1.0), torch.zeros(1, 3), rays, faces, (1, 2, 3))
    tensor([[[1, 1, 0],
             [1, 0, 0]]], dtype=torch.int32)
    """
    _check_stars(distances, rays, faces, points)
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected three numbers of at least 1")
    label_map = np.zeros(tuple(size), np.int32)
    ends = distances.double()[..., None] * rays.double()
    _paint(label_map, _numpy(ends), _numpy(points), faces.cpu().numpy().astype(np.int64))
    return torch.from_numpy(label_map).to(distances.device)


def suppress_polyhedra(
    distances: Tensor, points: Tensor, rays: Tensor, faces: Tensor, overlap_threshold: float
) -> Tensor:
    """Greedy suppression: from the first to the last, each polyhedron that is still there removes those like it.

    The overlap is the shared volume over the smaller of both volumes. Boxes around the polyhedra and spheres inside
    of them decide what they can; what is left is painted, and the voxels that are in both are counted.

    Args:
        distances: (N, R) in voxels, at least 0, the best candidate first.
        points: (N, 3), (z, y, x).
        rays: (R, 3), (z, y, x) of each direction, of length 1.
        faces: (F, 3) integers, the three rays of each triangle.
        overlap_threshold: a candidate goes if it overlaps a better one by more than this.

    Returns:
        (N,) bool, True for what stays.

    Raises:
        TypeError: as `polyhedron_volumes`.
        ValueError: as `polyhedron_volumes`, or a threshold outside [0, 1].

    >>> rays = torch.cat([torch.eye(3), -torch.eye(3)])
    >>> faces = torch.tensor([[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)])
    >>> distances = torch.tensor([[9.0] * 6, [2.0] * 6, [2.0] * 6])
    >>> points = torch.tensor([[9, 9, 9], [9, 9, 12], [9, 9, 40]])
    >>> suppress_polyhedra(distances, points, rays, faces, 0.5)
    tensor([ True, False,  True])
    """
    _check_stars(distances, rays, faces, points)
    if not 0 <= overlap_threshold <= 1:
        raise ValueError(f"overlap_threshold is {overlap_threshold}, expected a number in [0, 1]")
    volumes = _numpy(polyhedron_volumes(distances, rays, faces))
    ends, corners = _numpy(distances.double()[..., None] * rays.double()), faces.cpu().numpy().astype(np.int64)
    return torch.from_numpy(_suppress(ends, _numpy(points), corners, volumes, overlap_threshold)).to(distances.device)


def _numpy(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().double().numpy(force=True))  # numpy knows no bfloat16


def _check_stars(distances: Tensor, rays: Tensor, faces: Tensor, points: Tensor | None = None) -> None:
    for name, values in (("distances", distances), ("rays", rays)):
        if not isinstance(values, Tensor) or not values.is_floating_point():
            given = getattr(values, "dtype", type(values).__name__)
            raise TypeError(f"{name} has type {given}, expected a Tensor of floating-point numbers")
    if not isinstance(faces, Tensor) or faces.is_floating_point() or faces.dtype == torch.bool:
        raise TypeError(
            f"faces has type {getattr(faces, 'dtype', type(faces).__name__)}, expected a Tensor of integers"
        )
    if rays.ndim != 2 or rays.shape[1] != 3 or len(rays) < 4:
        raise ValueError(f"rays has shape {tuple(rays.shape)}, expected (R, 3) with R >= 4")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) < 4:
        raise ValueError(f"faces has shape {tuple(faces.shape)}, expected (F, 3) with F >= 4")
    if faces.min() < 0 or faces.max() >= len(rays):
        raise ValueError(f"faces has {int(faces.min())} to {int(faces.max())}, expected numbers of {len(rays)} rays")
    if distances.ndim != 2 or distances.shape[1] != len(rays):
        raise ValueError(f"distances has shape {tuple(distances.shape)}, expected (N, {len(rays)})")
    if not torch.isfinite(distances).all() or (len(distances) and distances.min() < 0):
        raise ValueError("distances has a number below 0, infinite or NaN, expected finite numbers of at least 0")
    if points is not None:
        if not isinstance(points, Tensor) or points.dtype == torch.bool:
            given = getattr(points, "dtype", type(points).__name__)
            raise TypeError(f"points has type {given}, expected a Tensor of numbers")
        if points.shape != (len(distances), 3):
            raise ValueError(f"points has shape {tuple(points.shape)}, expected {(len(distances), 3)}")
        if not torch.isfinite(points).all():
            raise ValueError("points has a number that is infinite or NaN, expected finite numbers")


@compiled
def _fill(box, value, low, ends, center, faces):
    """Write `value` into the voxels of a polyhedron; `box` begins at voxel `low`."""
    for face in range(len(faces)):
        a, b, c = ends[faces[face, 0]], ends[faces[face, 1]], ends[faces[face, 2]]
        # A voxel is alpha a + beta b + gamma c: the rows that give the three weights.
        ry, rx, rz = b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0], b[1] * c[2] - b[2] * c[1]
        sy, sx, sz = c[2] * a[0] - c[0] * a[2], c[0] * a[1] - c[1] * a[0], c[1] * a[2] - c[2] * a[1]
        ty, tx, tz = a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0], a[1] * b[2] - a[2] * b[1]
        volume = a[0] * rz + a[1] * ry + a[2] * rx
        if volume == 0:
            continue
        first, last = np.empty(3, np.int64), np.empty(3, np.int64)
        for axis in range(3):
            least = min(min(a[axis], b[axis]), min(c[axis], 0.0)) + center[axis]
            most = max(max(a[axis], b[axis]), max(c[axis], 0.0)) + center[axis]
            # cut before rounded: what reaches farther than an int64 can say would have no voxel
            first[axis] = math.ceil(max(least - EPS, float(low[axis]))) - low[axis]
            last[axis] = math.floor(min(most + EPS, low[axis] + box.shape[axis] - 1.0)) - low[axis]
        for i in range(first[0], last[0] + 1):
            z = i + low[0] - center[0]
            for j in range(first[1], last[1] + 1):
                y = j + low[1] - center[1]
                for k in range(first[2], last[2] + 1):
                    x = k + low[2] - center[2]
                    alpha = (z * rz + y * ry + x * rx) / volume
                    beta = (z * sz + y * sy + x * sx) / volume
                    gamma = (z * tz + y * ty + x * tx) / volume
                    if min(alpha, beta, gamma) >= -EPS and alpha + beta + gamma <= 1 + EPS:
                        box[i, j, k] = value


@compiled
def _paint(label_map, ends, centers, faces):
    for n in range(len(ends)):
        _fill(label_map, n + 1, np.zeros(3, np.int64), ends[n], centers[n], faces)


@compiled
def _inner_radius(ends, faces):
    """Radius of a sphere around the centre that is inside of the polyhedron."""
    least = np.inf
    for face in range(len(faces)):
        a, b, c = ends[faces[face, 0]], ends[faces[face, 1]], ends[faces[face, 2]]
        normal = np.cross(b - a, c - a)
        length = math.sqrt((normal * normal).sum())
        least = min(least, abs((normal * a).sum()) / length) if length > 0 else 0.0
    return least


@compiled
def _spheres(apart, a, b):
    """Volume that two spheres share."""
    if apart >= a + b:
        return 0.0
    if apart <= abs(a - b):
        return 4 / 3 * math.pi * min(a, b) ** 3
    along = a + b - apart
    return math.pi * along**2 * (apart**2 + 2 * apart * (a + b) - 3 * (a - b) ** 2) / (12 * apart)


@compiled
def _suppress(ends, centers, faces, volumes, threshold):
    count = len(ends)
    kept = np.ones(count, np.bool_)
    low, high, inner = np.empty((count, 3)), np.empty((count, 3)), np.empty(count)
    for n in range(count):
        for axis in range(3):
            low[n, axis] = ends[n, :, axis].min() + centers[n, axis]
            high[n, axis] = ends[n, :, axis].max() + centers[n, axis]
        inner[n] = _inner_radius(ends[n], faces)
    for i in range(count):
        if not kept[i]:
            continue
        corner = np.ceil(low[i] - EPS).astype(np.int64)
        shape = np.floor(high[i] + EPS).astype(np.int64) - corner + 1
        voxels = np.zeros((shape[0], shape[1], shape[2]), np.uint8)
        _fill(voxels, 1, corner, ends[i], centers[i], faces)
        other = np.zeros_like(voxels)
        for j in range(i + 1, count):
            sides = np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])
            most = min(volumes[i], volumes[j]) * threshold
            if not kept[j] or sides.min() <= 0:
                continue
            shared = _spheres(math.sqrt(((centers[i] - centers[j]) ** 2).sum()), inner[i], inner[j])
            if shared <= most:  # else spheres inside of both decide
                other[:] = 0
                _fill(other, 1, corner, ends[j], centers[j], faces)
                shared = (voxels * other).sum()
            kept[j] = shared <= most
    return kept
