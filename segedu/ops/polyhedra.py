"""Star polyhedra: a centre point, its distances to the surface along given rays, and triangles between their ends.

Volumes are exact. Intersections are counted in voxels: a voxel belongs to a polyhedron if its centre does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled, float64_array
from segedu.validation.numbers import check_number, check_size
from segedu.validation.tensors import check_finite, check_floats, check_integer_tensor, check_numeric

EPS = 1e-6


def polyhedron_volumes(distances: Tensor, rays: Tensor, faces: Tensor) -> Tensor:
    """Volumes of star polyhedra: the sum of one tetrahedron per face.

    Args:
        distances: (N, R) floats in voxels, at least 0.
        rays: (R, 3) floats, (z, y, x) of each direction.
        faces: (F, 3) integers, the three rays of each triangle.

    Returns:
        (N,) float64, in voxels.

    >>> rays = torch.cat([torch.eye(3), -torch.ones(1, 3) / 3**0.5])
    >>> faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    >>> polyhedron_volumes(torch.tensor([[1.0, 1.0, 1.0, 3**0.5]]), rays, faces).round(decimals=4)
    tensor([0.6667], dtype=torch.float64)
    """
    _check_stars(distances, rays, faces)
    ends = (distances.double()[..., None] * rays.double())[:, faces.long()]  # (N, F, 3, 3)
    return torch.linalg.det(ends).abs().sum(dim=1) / 6


def rasterize_polyhedra(distances: Tensor, points: Tensor, rays: Tensor, faces: Tensor, size: Sequence[int]) -> Tensor:
    """Rasterise star polyhedra into a label map; later polyhedra cover earlier ones.

    Args:
        distances: (N, R) floats in voxels, at least 0.
        points: (N, 3), (z, y, x).
        rays: (R, 3) floats, (z, y, x) of each direction.
        faces: (F, 3) integers, the three rays of each triangle.
        size: (D, H, W) of the label map.

    Returns:
        (D, H, W) int32: label of each voxel: i + 1 for polyhedron i, the last one that covers it; 0 is background.

    >>> rays = torch.cat([torch.eye(3), -torch.ones(1, 3) / 3**0.5])
    >>> faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    >>> rasterize_polyhedra(torch.full((1, 4), 1.0), torch.zeros(1, 3), rays, faces, (1, 2, 3))
    tensor([[[1, 1, 0],
             [1, 0, 0]]], dtype=torch.int32)
    """
    _check_stars(distances, rays, faces, points)
    size = check_size("size", size, axes=3)
    label_map = np.zeros(size, np.int32)
    ends = distances.double()[..., None] * rays.double()
    _paint(label_map, float64_array(ends), float64_array(points), faces.cpu().numpy().astype(np.int64))
    return torch.from_numpy(label_map).to(distances.device)


def suppress_polyhedra(
    distances: Tensor, points: Tensor, rays: Tensor, faces: Tensor, overlap_threshold: float
) -> Tensor:
    """Greedy suppression: from the first to the last, each polyhedron that is kept removes later ones that overlap it.

    The overlap is the intersection over the smaller of both volumes. Most pairs are decided by their bounding boxes, or
    by spheres inside the polyhedra; the others are rasterised, and the voxels of their intersection are counted.

    Args:
        distances: (N, R) floats in voxels, at least 0, the most confident candidate first.
        points: (N, 3), (z, y, x).
        rays: (R, 3) floats, (z, y, x) of each direction, of length 1.
        faces: (F, 3) integers, the three rays of each triangle.
        overlap_threshold: in [0, 1]. A candidate is removed if its overlap with a kept polyhedron is above it.

    Returns:
        (N,) bool, True for the polyhedra that are kept.

    >>> rays = torch.cat([torch.eye(3), -torch.eye(3)])
    >>> faces = torch.tensor([[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)])
    >>> distances = torch.tensor([[9.0] * 6, [2.0] * 6, [2.0] * 6])
    >>> points = torch.tensor([[9, 9, 9], [9, 9, 12], [9, 9, 40]])
    >>> suppress_polyhedra(distances, points, rays, faces, 0.5)
    tensor([ True, False,  True])
    """
    _check_stars(distances, rays, faces, points)
    check_number("overlap_threshold", overlap_threshold, maximum=1)
    volumes = float64_array(polyhedron_volumes(distances, rays, faces))
    ends, corners = float64_array(distances.double()[..., None] * rays.double()), faces.cpu().numpy().astype(np.int64)
    return torch.from_numpy(_suppress(ends, float64_array(points), corners, volumes, overlap_threshold)).to(
        distances.device
    )


def _check_stars(distances: Tensor, rays: Tensor, faces: Tensor, points: Tensor | None = None) -> None:
    sizes = check_floats("rays", rays, "R 3")
    if sizes["R"] < 4:
        raise ValueError(f"rays has shape {tuple(rays.shape)}, expected (R, 3) with R >= 4")
    if check_integer_tensor("faces", faces, "F 3")["F"] < 4:
        raise ValueError(f"faces has shape {tuple(faces.shape)}, expected (F, 3) with F >= 4")
    if faces.min() < 0 or faces.max() >= len(rays):
        lowest, highest = int(faces.min()), int(faces.max())
        raise ValueError(f"faces has indices from {lowest} to {highest}, expected indices of {len(rays)} rays")
    sizes = check_floats("distances", distances, "N? R", sizes)
    check_finite("distances", distances)
    if len(distances) and distances.min() < 0:
        raise ValueError(f"distances has the value {distances.min():.4g}, expected at least 0")
    if points is not None:
        check_numeric("points", points, "N? 3", sizes)
        check_finite("points", points)


@compiled
def _fill(box, value, lower, ends, center, faces):
    """Write `value` into the voxels of a polyhedron; `box` starts at voxel `lower`."""
    for face in range(len(faces)):
        a, b, c = ends[faces[face, 0]], ends[faces[face, 1]], ends[faces[face, 2]]
        # A voxel is alpha a + beta b + gamma c; these rows of the inverse matrix give the three weights.
        ry, rx, rz = b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0], b[1] * c[2] - b[2] * c[1]
        sy, sx, sz = c[2] * a[0] - c[0] * a[2], c[0] * a[1] - c[1] * a[0], c[1] * a[2] - c[2] * a[1]
        ty, tx, tz = a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0], a[1] * b[2] - a[2] * b[1]
        volume = a[0] * rz + a[1] * ry + a[2] * rx
        if volume == 0:
            continue
        first, last = np.empty(3, np.int64), np.empty(3, np.int64)
        for axis in range(3):
            lowest = min(min(a[axis], b[axis]), min(c[axis], 0.0)) + center[axis]
            highest = max(max(a[axis], b[axis]), max(c[axis], 0.0)) + center[axis]
            # Clamp before rounding: an int64 cannot hold coordinates that are too far away.
            first[axis] = math.ceil(max(lowest - EPS, float(lower[axis]))) - lower[axis]
            last[axis] = math.floor(min(highest + EPS, lower[axis] + box.shape[axis] - 1.0)) - lower[axis]
        for i in range(first[0], last[0] + 1):
            z = i + lower[0] - center[0]
            for j in range(first[1], last[1] + 1):
                y = j + lower[1] - center[1]
                for k in range(first[2], last[2] + 1):
                    x = k + lower[2] - center[2]
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
    """Radius of a sphere around the centre that lies inside the polyhedron."""
    radius = np.inf
    for face in range(len(faces)):
        a, b, c = ends[faces[face, 0]], ends[faces[face, 1]], ends[faces[face, 2]]
        normal = np.cross(b - a, c - a)
        length = math.sqrt((normal * normal).sum())
        radius = min(radius, abs((normal * a).sum()) / length) if length > 0 else 0.0
    return radius


@compiled
def _spheres(distance, a, b):
    """Intersection volume of two spheres with radii a and b, and the distance of their centres."""
    if distance >= a + b:
        return 0.0
    if distance <= abs(a - b):
        return 4 / 3 * math.pi * min(a, b) ** 3
    depth = a + b - distance
    return math.pi * depth**2 * (distance**2 + 2 * distance * (a + b) - 3 * (a - b) ** 2) / (12 * distance)


@compiled
def _suppress(ends, centers, faces, volumes, threshold):
    count = len(ends)
    kept = np.ones(count, np.bool_)
    lower, upper, inner_radii = np.empty((count, 3)), np.empty((count, 3)), np.empty(count)
    for n in range(count):
        for axis in range(3):
            lower[n, axis] = ends[n, :, axis].min() + centers[n, axis]
            upper[n, axis] = ends[n, :, axis].max() + centers[n, axis]
        inner_radii[n] = _inner_radius(ends[n], faces)
    for i in range(count):
        if not kept[i]:
            continue
        corner = np.ceil(lower[i] - EPS).astype(np.int64)
        shape = np.floor(upper[i] + EPS).astype(np.int64) - corner + 1
        voxels = np.zeros((shape[0], shape[1], shape[2]), np.uint8)
        _fill(voxels, 1, corner, ends[i], centers[i], faces)
        other = np.zeros_like(voxels)
        for j in range(i + 1, count):
            sides = np.minimum(upper[i], upper[j]) - np.maximum(lower[i], lower[j])
            limit = min(volumes[i], volumes[j]) * threshold
            if not kept[j] or sides.min() <= 0:
                continue
            intersection = _spheres(math.sqrt(((centers[i] - centers[j]) ** 2).sum()), inner_radii[i], inner_radii[j])
            if intersection <= limit:  # otherwise, the spheres inside both overlap enough
                other[:] = 0
                _fill(other, 1, corner, ends[j], centers[j], faces)
                intersection = (voxels * other).sum()
            kept[j] = intersection <= limit
    return kept
