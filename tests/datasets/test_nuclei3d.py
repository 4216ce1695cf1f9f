"""Nuclei in volumes: truth that agrees with itself, closed-form volumes, blur in depth, seeds, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets import nuclei3d
from segedu.datasets.batch import semantic_batch
from segedu.datasets.nuclei3d import CLASSES, Ellipsoid, Nuclei3d, draw_nuclei3d


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 17, 33), (16, 48, 64)])
def test_truth_agrees(size: tuple[int, int, int]) -> None:
    for seed in range(3):
        sample = draw_nuclei3d(seed, size)
        image, ids, count = sample["image"], sample["label_map"], len(sample["labels"])
        assert image.dtype == torch.float32 and image.shape == (1, *size) and 0 <= image.min() <= image.max() <= 1
        assert ids.dtype == torch.int32 and ids.shape == size and sample["spacing"] == (2.0, 1.0, 1.0)
        assert sorted(set(ids.unique().tolist()) | {0}) == list(range(count + 1))
        assert sample["semantic"].dtype == torch.int64 and torch.equal(sample["semantic"], (ids > 0).long())
        assert sample["labels"].tolist() == [1] * count and len(CLASSES) == 2
        assert all(ndimage.label(ids == k)[1] == 1 for k in range(1, count + 1)), "in one piece"


def test_volume_of_an_ellipsoid() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    nucleus = Ellipsoid(np.array([16.2, 15.7, 16.4]), np.array([14.0, 9.0, 7.0]), turn)
    grid = np.mgrid[:64, :64, :64] / 2 + 0.25
    assert nucleus.volume == pytest.approx(4 / 3 * math.pi * 14 * 9 * 7)
    assert (nucleus.depth(grid) < 1).sum() / 8 == pytest.approx(nucleus.volume, rel=5e-3)


@pytest.mark.parametrize("step", [1.0, 2.5])
def test_voxel_counts_follow_closed_forms(step: float) -> None:
    sample = draw_nuclei3d(1, (24, 64, 64), step=step)
    counts = torch.bincount(sample["label_map"].flatten())[1:].float()
    assert torch.allclose(counts, sample["volumes"] * sample["visible"], rtol=0.06)
    assert (sample["visible"] > 0).all() and (sample["visible"] <= 1).all()


def test_nuclei_touch_along_all_axes() -> None:
    ids = draw_nuclei3d(1, touching=1.0)["label_map"].numpy()
    for axis in range(3):
        low, high = (np.moveaxis(ids, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        assert ((low != high) & (low > 0) & (high > 0)).any()


def test_blur_is_longer_in_depth() -> None:
    """Of one bright ball, without noise, what spills out spills out above and below."""
    sample = draw_nuclei3d(4, (33, 65, 65), count=1, radius=(8.0, 8.0), step=1.0, noise=0, unevenness=0)
    inside = sample["label_map"].numpy() > 0
    image = sample["image"][0].numpy()
    deep = ndimage.binary_dilation(inside, np.ones((5, 1, 1))) & ~inside
    across = ndimage.binary_dilation(inside, np.ones((1, 1, 5))) & ~inside
    assert image[deep & ~across].mean() > 1.15 * image[across & ~deep].mean()


def test_scene_depends_on_seed_and_index_only() -> None:
    size = (8, 24, 32)
    forward = [Nuclei3d(3, seed=3, size=size)[i] for i in range(3)]
    np.random.seed(1)
    torch.manual_seed(1)
    longer = Nuclei3d(9, seed=3, size=size)
    for i in (2, 0, 1):
        for key, value in forward[i].items():
            assert torch.equal(value, longer[i][key]) if torch.is_tensor(value) else value == longer[i][key]
    assert not torch.equal(forward[0]["image"], Nuclei3d(3, seed=4, size=size)[0]["image"])
    images, target = semantic_batch(forward)
    assert images.shape == (3, 1, *size) and target.shape == (3, *size)


def test_counts() -> None:
    assert [len(draw_nuclei3d(seed, count=n)["labels"]) for seed in range(3) for n in (1, 4)] == [1, 4] * 3
    sample = draw_nuclei3d(0, (8, 20, 31), count=0)
    assert not sample["label_map"].any() and sample["labels"].shape == sample["visible"].shape == (0,)
    assert draw_nuclei3d(0, (8, 20, 31), count=0, noise=0, unevenness=0)["image"].std() < 1e-4
    assert 0 < len(draw_nuclei3d(0, (8, 24, 24), count=60)["labels"]) < 30, "as many as fit"


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise NUCLEI3D_VERSION and measure again whatever was trained on them."""
    sample = draw_nuclei3d((0, 0), (8, 32, 32))
    assert nuclei3d.NUCLEI3D_VERSION == 1
    assert torch.bincount(sample["label_map"].flatten())[1:].tolist() == GOLDEN["voxels"]
    assert float(sample["image"].mean()) == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"voxels": [507, 407, 232], "mean": 0.16634}

BAD = [
    ({"seed": "a"}, TypeError, "seed is 'a'"),
    ({"size": (7, 64, 64)}, ValueError, "at least 8"),
    ({"size": (64, 64)}, TypeError, "expected \\(D, H, W\\), integers"),
    ({"count": -3}, ValueError, "count is -3"),
    ({"radius": 5.0}, TypeError, "radius is 5.0"),
    ({"radius": (9.0, 5.0)}, ValueError, "radius is"),
    ({"step": 0}, ValueError, "step is 0"),
    ({"touching": 1.5}, ValueError, "touching is 1.5"),
    ({"noise": math.nan}, ValueError, "noise is nan"),
    ({"unevenness": "none"}, TypeError, "unevenness is 'none'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_nuclei3d(**({"seed": 0} | arguments))
