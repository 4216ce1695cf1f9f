"""StarDist in 3D against StarDist's code."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from instance.star_maps import blobs, centers_of, mean_iou_of_objects
from torch import Tensor

from segedu.instance.stardist import object_probability
from segedu.instance.stardist3d import (
    fibonacci_rays,
    polyhedron_nms,
    postprocess,
    render_polyhedra,
    star_distances3d,
    stardist3d,
    stardist3d_loss,
    stardist3d_targets,
)
from segedu.ops.polyhedra import polyhedron_volumes


@pytest.fixture(scope="module")
def nuclei(shared_data) -> Tensor:
    path = shared_data / "stardist_sample" / "mask3d.tif"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return torch.from_numpy(tifffile.imread(path).astype(np.int32))


@pytest.mark.parametrize("anisotropy", [(1, 1, 1), (2, 1, 1)])
@pytest.mark.parametrize("n_rays", [4, 32, 96])
def test_rays_equal_stardist(n_rays: int, anisotropy: tuple[float, ...]) -> None:
    theirs = pytest.importorskip("stardist").Rays_GoldenSpiral(n_rays, anisotropy)
    rays, faces = fibonacci_rays(n_rays, anisotropy)
    np.testing.assert_allclose(rays.numpy(), theirs.vertices, atol=1e-6)
    assert {tuple(sorted(face)) for face in faces.tolist()} == {tuple(sorted(face)) for face in theirs.faces.tolist()}
    reach = torch.rand(3, n_rays, generator=torch.Generator().manual_seed(0)) + 1
    np.testing.assert_allclose(polyhedron_volumes(reach, rays, faces).numpy(), theirs.volume(reach.numpy()), rtol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 2, 4)])
def test_distances_equal_stardist(nuclei: Tensor, grid: tuple[int, ...]) -> None:
    stardist = pytest.importorskip("stardist")
    rays, _ = fibonacci_rays(33)
    for label_map in (blobs((15, 25, 22), 0, 12, 9), blobs((24, 13, 18), 1, 12, 9), nuclei):
        expected = stardist.geometry.star_dist3D(label_map.numpy(), stardist.Rays_GoldenSpiral(33), grid=grid)
        got = star_distances3d(label_map, rays, grid).numpy()
        np.testing.assert_allclose(got, np.moveaxis(expected, -1, 0), rtol=0, atol=1e-5)


def test_one_voxel_and_nothing() -> None:
    rays, faces = fibonacci_rays(32)
    label_map = torch.zeros(5, 6, 7, dtype=torch.int32)
    assert not star_distances3d(label_map, rays).any() and not object_probability(label_map).any()
    label_map[2, 3, 4] = 1
    reach = star_distances3d(label_map, rays)
    assert reach.count_nonzero() == 32 and reach.max() <= 3**0.5 + 1e-6 and reach[reach > 0].min() == 1
    painted = render_polyhedra(reach[:, 2, 3, 4][None], torch.tensor([[2, 3, 4]]), rays, faces, label_map.shape)
    assert painted[2, 3, 4] == 1


def test_painting_equals_stardist(nuclei: Tensor) -> None:
    stardist = pytest.importorskip("stardist")
    rays, faces = fibonacci_rays(96)
    points, rng = centers_of(nuclei), np.random.default_rng(0)
    reach = star_distances3d(nuclei, rays)[:, points[:, 0], points[:, 1], points[:, 2]].T
    reach = (reach * torch.from_numpy(rng.uniform(0.8, 1.2, reach.shape))).float().clamp(min=1e-3)
    scores = torch.from_numpy(rng.random(len(points)))
    got = render_polyhedra(reach, points, rays, faces, nuclei.shape, scores).numpy()
    expected = stardist.geometry.polyhedron_to_label(
        reach.numpy(), points.numpy(), stardist.Rays_GoldenSpiral(96), nuclei.shape, prob=scores.numpy(), verbose=False
    )
    shared = ((got == expected) & (got > 0)).sum() / ((got > 0) | (expected > 0)).sum()
    assert shared >= 0.999


def test_round_trip_of_the_sample(nuclei: Tensor) -> None:
    stardist = pytest.importorskip("stardist")
    rays, faces = fibonacci_rays(96)
    points = centers_of(nuclei)
    reach = star_distances3d(nuclei, rays)[:, points[:, 0], points[:, 1], points[:, 2]].T.clamp(min=1e-3)
    ours = mean_iou_of_objects(nuclei, render_polyhedra(reach, points, rays, faces, nuclei.shape))
    relabelled = stardist.geometry.relabel_image_stardist3D(nuclei.numpy(), stardist.Rays_GoldenSpiral(96))
    theirs = mean_iou_of_objects(nuclei, torch.from_numpy(relabelled.astype(np.int64)))
    assert ours >= 0.75 and abs(ours - theirs) < 0.01


def test_suppression_equals_stardist() -> None:
    stardist = pytest.importorskip("stardist")
    nms = pytest.importorskip("stardist.nms").non_maximum_suppression_3d_inds
    rays, faces = fibonacci_rays(32)
    rng = np.random.default_rng(1)
    nuclei = rng.uniform(10, 50, (12, 3))
    points = np.round(nuclei[rng.integers(0, 12, 150)] + rng.normal(0, 1.5, (150, 3))).astype(np.int64)
    reach = (rng.uniform(7, 10, (150, 1)) * np.exp(rng.normal(0, 0.08, (150, 32)))).astype(np.float32)
    scores = np.sort(rng.random(150).astype(np.float32))[::-1].copy()
    theirs = nms(reach, points, stardist.Rays_GoldenSpiral(32), scores, thresh=0.4, verbose=0)
    ours = polyhedron_nms(torch.from_numpy(reach), torch.from_numpy(points), torch.from_numpy(scores), rays, faces)
    assert ours.tolist() == np.nonzero(theirs)[0].tolist() and 5 < len(ours) < 30


def test_postprocess_equals_stardist(nuclei: Tensor) -> None:
    """The ideal prediction with noise: the same polyhedra stay, and the label maps are the same."""
    stardist = pytest.importorskip("stardist")
    nms = pytest.importorskip("stardist.nms").non_maximum_suppression_3d
    lattice, (rays, faces) = stardist.Rays_GoldenSpiral(96), fibonacci_rays(96)
    part, rng = nuclei[:, :31, :30], np.random.default_rng(2)
    targets = stardist3d_targets(part, rays, (1, 2, 2))
    assert targets["probability"].shape == (1, 31, 16, 15) and targets["distances"].shape == (96, 31, 16, 15)
    probability = 0.9 * targets["probability"] + torch.from_numpy(rng.uniform(0.01, 0.09, (1, 31, 16, 15)))
    reach = (targets["distances"] * torch.from_numpy(rng.uniform(0.9, 1.1, (96, 31, 16, 15)))).float()
    outputs = {
        "logits": torch.stack([torch.logit(probability), torch.full((1, 31, 16, 15), -9.0)]),
        "distances": torch.stack([reach, reach]),
    }
    found, nothing = postprocess(outputs, part.shape, rays, faces, score_threshold=0.6)
    assert found.dtype == torch.int32 and found.shape == part.shape and not nothing.any()

    large = np.moveaxis(reach.clamp(min=1e-3).numpy(), 0, -1)
    points, scores, distances = nms(large, probability[0].numpy(), lattice, (1, 2, 2), 0, 0.4, 0.6)
    draw = stardist.geometry.polyhedron_to_label
    expected = draw(distances, points, lattice, part.shape, prob=scores, verbose=False)
    assert expected.max() == found.max() > 10
    assert (found.numpy() == expected).mean() >= 0.999


def test_network_and_loss() -> None:
    torch.manual_seed(0)
    model = stardist3d(8, base_channels=4, depth=1)
    volumes, rays = torch.rand(2, 1, 7, 13, 10), fibonacci_rays(8)[0]
    outputs = model(volumes)
    assert outputs["logits"].shape == (2, 1, 7, 7, 5) and outputs["distances"].shape == (2, 8, 7, 7, 5)
    made = [stardist3d_targets(blobs((7, 13, 10), seed, 12, 9), rays) for seed in (0, 1)]
    targets = {key: torch.stack([target[key] for target in made]) for key in made[0]}
    stardist3d_loss(outputs, targets)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


RAYS, FACES = fibonacci_rays(8)
OUTPUTS = {"logits": torch.zeros(1, 1, 4, 4, 4), "distances": torch.ones(1, 8, 4, 4, 4)}
ROWS = [
    (lambda: fibonacci_rays(3), ValueError, "n_rays is 3, expected"),
    (lambda: fibonacci_rays(8, (1, 0, 1)), ValueError, "anisotropy is .*, expected"),
    (lambda: star_distances3d(torch.zeros(2, 2).long(), RAYS), ValueError, r"label_map has shape \(2, 2\), expected"),
    (lambda: star_distances3d(torch.zeros(2, 2, 2), RAYS), TypeError, "label_map has dtype torch.float32, expected"),
    (lambda: star_distances3d(torch.zeros(2, 2, 2).long(), RAYS[:, :2]), ValueError, "directions has shape"),
    (lambda: stardist3d(grid=(2, 2)), ValueError, r"grid is \(2, 2\), expected three"),
    (lambda: polyhedron_nms(torch.ones(1, 8), torch.zeros(1, 3), torch.ones(2), RAYS, FACES), ValueError, "scores has"),
    (
        lambda: render_polyhedra(torch.ones(1, 8), torch.zeros(1, 3), RAYS, FACES, (3, 3, 3), torch.ones(2)),
        ValueError,
        "scores has shape",
    ),
    (lambda: postprocess(OUTPUTS, (4, 8, 9), RAYS, FACES), ValueError, r"outputs has \(4, 4, 4\) voxels, expected"),
    (lambda: postprocess(OUTPUTS, (4, 8, 8), RAYS[:5], FACES), ValueError, "faces has|distances has"),
]


@pytest.mark.parametrize(("call", "error", "words"), ROWS)
def test_what_is_wrong_is_said(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
