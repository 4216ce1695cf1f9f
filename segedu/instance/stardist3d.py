"""StarDist 3D: polyhedra instead of polygons, with rays spread evenly over a sphere.

Paper: Weigert, Schmidt, Haase, Sugawara, Myers, "Star-convex Polyhedra for 3D Object Detection and Segmentation in
    Microscopy", WACV 2020, arXiv 1908.03636.
Idea: As in 2D, each voxel predicts an object probability and its distance to the border along rays. A Fibonacci lattice
    spreads any number of rays evenly over the sphere, and the faces of their convex hull make a surface of triangles.
    Where voxels are taller than wide, the lattice is squeezed, so that rays are dense where voxels are.
Simplified: overlaps are computed one at a time. Boxes and inner spheres decide most of them; for the rest the shared
    volume is counted in voxels, as StarDist's code does in the end, after spheres, kernels and convex hulls.
Shapes: volumes (B, C, D, H, W) -> `logits` (B, 1, d, h, w) and `distances` (B, R, d, h, w), d = ceil(D / grid).
    `postprocess`: outputs -> B label maps (D, H, W) int32.
Quality: label maps turned into 96 distances at their objects' centres and rendered again: mean IoU 0.842 on the 51
    nuclei of StarDist's sample volume.
Course: 09-distances
Lab: 09_distances
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor

from segedu.backbones.stardist_unet import StarDistUNet
from segedu.instance.stardist import (
    StarDist,
    candidates,
    check_grid,
    check_pair,
    object_probability,
    order_of_scores,
    stardist_loss,
)
from segedu.ops.polyhedra import rasterize_polyhedra, suppress_polyhedra
from segedu.ops.rays import ray_lengths
from segedu.validation.label_maps import check_label_map
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_no_nan

stardist3d_loss = stardist_loss


def fibonacci_rays(n_rays: int = 96, anisotropy: Sequence[float] = (1.0, 1.0, 1.0)) -> tuple[Tensor, Tensor]:
    """Directions on a Fibonacci lattice: from pole to pole in equal steps of z, each rotated by a further golden angle.

    Args:
        n_rays: R, at least 4.
        anisotropy: size of a voxel along z, y and x: (2, 1, 1) if slices are twice as thick as pixels are wide.

    Returns:
        rays: (R, 3) float32, (z, y, x) of length 1.
        faces: (F, 3) int64, the rays of each triangle of their convex hull.

    >>> rays, faces = fibonacci_rays(32)
    >>> rays[0], len(faces)
    (tensor([-1.,  0.,  0.]), 60)
    """
    check_integer("n_rays", n_rays, minimum=4)
    if len(anisotropy) != 3 or min(anisotropy) <= 0:
        raise ValueError(f"anisotropy is {tuple(anisotropy)}, expected three numbers above 0")
    angles = np.arange(n_rays) * (3 - math.sqrt(5)) * math.pi
    z = np.linspace(-1, 1, n_rays)
    radius = np.sqrt(1 - z**2)
    ends = np.stack([z, radius * np.sin(angles), radius * np.cos(angles)], axis=1) / np.asarray(anisotropy)
    faces = ConvexHull(ends).simplices.astype(np.int64)
    rays = ends / np.linalg.norm(ends, axis=1, keepdims=True)
    return torch.from_numpy(rays.astype(np.float32)), torch.from_numpy(faces)


def star_distances3d(label_map: Tensor, rays: Tensor, grid: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Distance from each voxel to the first voxel along each ray that is not of its object.

    The ray is followed in steps of length 1. As in StarDist's code, the distance is that between the centres of both
    voxels: up to a voxel longer than to the border, where 2D distances are corrected.

    Args:
        label_map: (D, H, W) integers, 0 is background.
        rays: (R, 3), (z, y, x) of each direction, of length 1.
        grid: distances are computed at every grid-th voxel of each axis, from voxel 0.

    Returns:
        (R, d, h, w) float32 in voxels, d = ceil(D / grid); 0 in the background.

    >>> rays = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> star_distances3d(torch.tensor([[[0, 7, 7, 7, 0]]]), rays)[:, 0, 0, 1]
    tensor([3., 1.])
    """
    check_label_map("label_map", label_map, (3,))
    return ray_lengths(label_map, rays, grid, to_center=True)


def stardist3d_targets(
    label_map: Tensor, rays: Tensor, grid: Sequence[int] = (1, 2, 2), spacing: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The targets of one volume, `probability` (1, d, h, w) and `distances` (R, d, h, w), float32; d = ceil(D / grid).

    Args:
        label_map: (D, H, W) integers, 0 is background.
        rays: (R, 3), from `fibonacci_rays`.
        grid: step between the voxels that predict, along each axis.
        spacing: size of a voxel along each axis, for the object probability. None: 1.
    """
    distances = star_distances3d(label_map, rays, grid)
    grid_slices = tuple(slice(None, None, step) for step in grid)
    return {"probability": object_probability(label_map, spacing)[grid_slices][None], "distances": distances}


def stardist3d(
    n_rays: int = 96,
    in_channels: int = 1,
    grid: Sequence[int] = (1, 2, 2),
    base_channels: int = 32,
    depth: int = 2,
    normalize: Callable | None = None,
) -> StarDist:
    """The network of the paper, with a 3D U-Net and random weights.

    Args:
        n_rays: R.
        in_channels: C of the volumes.
        grid: how much coarser the predictions are than the volume, along each axis; powers of 2.
        base_channels: channels at the grid's resolution, doubled at every pooling.
        depth: number of poolings after the grid.
        normalize: applied to the volumes first.
    """
    if len(grid) != 3:
        raise ValueError(f"grid is {tuple(grid)}, expected three powers of 2")
    return StarDist(StarDistUNet(in_channels, base_channels, depth, grid), n_rays, normalize=normalize)


def polyhedron_nms(
    distances: Tensor, points: Tensor, scores: Tensor, rays: Tensor, faces: Tensor, overlap_threshold: float = 0.4
) -> Tensor:
    """Of star polyhedra that overlap, keep the one with the highest score; see `suppress_polyhedra`.

    Args:
        distances: (N, R) in voxels, at least 0.
        points: (N, 3), (z, y, x).
        scores: (N,). Among equal scores the first polyhedron comes first.
        rays: (R, 3), from `fibonacci_rays`.
        faces: (F, 3), from `fibonacci_rays`.
        overlap_threshold: in [0, 1]; a polyhedron is removed if it shares more than this part of the smaller of both
            volumes with a better one that is kept.

    Returns:
        (K,) int64: the polyhedra that are kept, the highest score first.

    >>> points, scores = torch.tensor([[9, 9, 9], [9, 9, 10], [9, 9, 30]]), torch.tensor([0.5, 0.9, 0.7])
    >>> polyhedron_nms(torch.full((3, 32), 4.0), points, scores, *fibonacci_rays(32))
    tensor([1, 2])
    """
    order = order_of_scores(scores, len(distances))
    kept = suppress_polyhedra(distances[order], points[order], rays, faces, overlap_threshold)
    return order[kept.to(order.device)]


def render_polyhedra(
    distances: Tensor,
    points: Tensor,
    rays: Tensor,
    faces: Tensor,
    size: Sequence[int],
    scores: Tensor | None = None,
) -> Tensor:
    """Paint star polyhedra into a label map; where two overlap, the one with the higher score is visible.

    Args:
        distances: (N, R) in voxels, at least 0.
        points: (N, 3), (z, y, x).
        rays: (R, 3), from `fibonacci_rays`.
        faces: (F, 3), from `fibonacci_rays`.
        size: D, H and W.
        scores: (N,). None: the later one is visible.

    Returns:
        (D, H, W) int32: polyhedron n has the label n + 1, 0 is background.
    """
    if scores is not None and scores.shape != (len(points),):
        raise ValueError(f"scores has shape {tuple(scores.shape)}, expected {(len(points),)}")
    order = torch.arange(len(points), device=points.device) if scores is None else scores.argsort(stable=True)
    rendered = rasterize_polyhedra(distances[order], points[order], rays, faces, size)
    return torch.cat([order.new_zeros(1), order + 1]).int()[rendered.long()]


@torch.no_grad()
def postprocess(
    outputs: Mapping[str, Tensor],
    size: Sequence[int],
    rays: Tensor,
    faces: Tensor,
    grid: Sequence[int] = (1, 2, 2),
    score_threshold: float = 0.5,
    overlap_threshold: float = 0.4,
) -> list[Tensor]:
    """Label maps: candidates, non-maximum suppression, painting.

    Args:
        outputs: `logits` (B, 1, d, h, w) and `distances` (B, R, d, h, w), of `StarDist.forward`.
        size: D, H and W of the volumes.
        rays: (R, 3), those of the targets.
        faces: (F, 3), those of the targets.
        grid: of the model.
        score_threshold: smallest object probability of a candidate.
        overlap_threshold: see `polyhedron_nms`.

    Returns:
        B label maps (D, H, W) int32, on the device of the outputs; labels 1, 2, ... in the order of decreasing scores.
    """
    check_pair("outputs", outputs, "logits")
    check_no_nan("outputs", outputs, ("logits",))  # distances count only where there are objects
    check_grid(outputs["logits"], size, grid)
    rays, faces = (tensor.to(outputs["logits"].device) for tensor in (rays, faces))
    label_maps = []
    for logits, distance_map in zip(outputs["logits"], outputs["distances"], strict=True):
        distances, points, scores = candidates(logits, distance_map, grid, score_threshold)
        keep = polyhedron_nms(distances, points, scores, rays, faces, overlap_threshold)
        label_maps.append(render_polyhedra(distances[keep], points[keep], rays, faces, size, scores[keep]))
    return label_maps
