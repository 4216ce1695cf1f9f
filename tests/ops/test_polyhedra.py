"""Star polyhedra against closed forms, convex hulls and a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay

from segedu.ops.polyhedra import polyhedron_volumes, rasterize_polyhedra, suppress_polyhedra


def sphere_rays(n_rays: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ends = np.random.default_rng(seed).normal(size=(n_rays, 3))
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    return torch.from_numpy(ends), torch.from_numpy(ConvexHull(ends).simplices)


def test_volumes_of_convex_polyhedra() -> None:
    rays, faces = sphere_rays(60)
    distances = torch.tensor([[2.0] * 60, [5.0] * 60, [0.0] * 60])
    unit = ConvexHull(rays.numpy()).volume
    torch.testing.assert_close(polyhedron_volumes(distances, rays, faces), unit * torch.tensor([8.0, 125, 0]).double())


def test_painting_equals_the_points_in_a_convex_hull() -> None:
    rays, faces = sphere_rays(40)
    center = np.array([7.3, 5.8, 9.1])
    painted = rasterize_polyhedra(torch.full((1, 40), 6.0), torch.from_numpy(center)[None], rays, faces, (15, 11, 19))
    voxels = np.stack(np.meshgrid(*map(np.arange, (15, 11, 19)), indexing="ij"), axis=-1)
    inside = Delaunay(center + 6 * rays.numpy()).find_simplex(voxels.reshape(-1, 3)) >= 0
    assert (painted.numpy().ravel() == inside).all() and 300 < inside.sum() < 900


def test_the_last_stays_whole_and_the_rest_is_cut() -> None:
    rays, faces = sphere_rays(50)
    reach, points = torch.full((2, 50), 4.0), torch.tensor([[6, 6, 6], [6, 6, 9]])
    both = rasterize_polyhedra(reach, points, rays, faces, (13, 13, 16))
    alone = [rasterize_polyhedra(reach[n : n + 1], points[n : n + 1], rays, faces, (13, 13, 16)) for n in (0, 1)]
    assert torch.equal(both, torch.where(alone[1] > 0, 2, alone[0]).int())
    cut = rasterize_polyhedra(reach, points, rays, faces, (7, 7, 7))  # at the border
    assert torch.equal(cut, both[:7, :7, :7])


@pytest.mark.parametrize("threshold", [0.1, 0.4])
def test_suppression_without_short_cuts(threshold: float) -> None:
    rays, faces = sphere_rays(30)
    rng = np.random.default_rng(1)
    distances, points = torch.from_numpy(rng.uniform(3, 7, (40, 30))), torch.from_numpy(rng.integers(8, 24, (40, 3)))
    volumes, kept = polyhedron_volumes(distances, rays, faces), []
    masks = [
        rasterize_polyhedra(distances[n : n + 1], points[n : n + 1], rays, faces, (32, 32, 32)) > 0 for n in range(40)
    ]
    for n in range(40):
        shared = [(masks[m] & masks[n]).sum() / min(volumes[m], volumes[n]) for m in range(n) if kept[m]]
        kept.append(all(part <= threshold for part in shared))
    assert suppress_polyhedra(distances, points, rays, faces, threshold).tolist() == kept
    assert 3 < sum(kept) < 37


def test_inner_spheres_decide_as_voxels_do() -> None:
    rays, faces = sphere_rays(200)
    for apart in range(1, 13):
        points = torch.tensor([[20, 20, 20], [20, 20, 20 + apart]])
        kept = suppress_polyhedra(torch.full((2, 200), 6.0), points, rays, faces, 0.3)
        part = (1 - apart / 12) ** 2 * (1 + apart / 24)  # of two spheres of radius 6
        assert abs(part - 0.3) < 0.03 or kept[1].item() == (part <= 0.3)


def test_a_polyhedron_of_any_size_paints_what_it_covers() -> None:
    """1e25 voxels are more than an int64 can count."""
    rays = torch.cat([torch.eye(3), -torch.eye(3)])
    faces = torch.tensor([[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)])
    for dtype, reach in ((torch.float32, 30.0), (torch.float32, 1e25), (torch.bfloat16, 32.0)):
        distances, points = torch.full((1, 6), reach, dtype=dtype), torch.ones(1, 3, dtype=dtype)
        assert rasterize_polyhedra(distances, points, rays, faces, (3, 4, 5)).eq(1).all()
