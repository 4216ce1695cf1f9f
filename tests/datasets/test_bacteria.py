"""Bacteria: truth that agrees with itself, closed-form areas, rods that no star describes, seeds, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.draw import polygon2mask

from segedu.datasets import bacteria
from segedu.datasets.bacteria import CLASSES, Bacteria, Rod, draw_bacteria
from segedu.datasets.cells import draw_cells

from .test_shapes import assert_truth_agrees


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 64), (97, 65)])
def test_truth_agrees(size: tuple[int, int]) -> None:
    for seed in range(4):
        sample = draw_bacteria(seed, size)
        assert_truth_agrees(sample, len(CLASSES))
        assert (sample["image"] == sample["image"][:1]).all(), "three equal channels"
        assert all(ndimage.label(mask)[1] == 1 for mask in sample["masks"]), "in one piece"


def test_area_of_a_bent_rod() -> None:
    turn = np.linspace(0, 2.5, 400)
    rod = Rod(np.stack([60 + 40 * np.sin(turn), 60 + 40 * np.cos(turn)], 1), 7.0)
    assert rod.area == pytest.approx(2 * 7 * 100 + math.pi * 49, rel=1e-4)  # an arc of 2.5 radians at radius 40
    grid = np.mgrid[:240, :240] / 2 + 0.25
    assert (rod.depth(*grid) < 1).sum() / 4 == pytest.approx(rod.area, rel=5e-3)


def test_pixel_counts_follow_closed_forms() -> None:
    sample = draw_bacteria(2, (160, 160), rod_width=(10.0, 12.0), rod_length=(30.0, 60.0))
    ids = sample["label_map"]
    whole = sample["visible"] > 0.9
    counts = sample["masks"].sum((1, 2)).float()
    assert whole.sum() >= 5 and (sample["visible"] > 0).all() and (sample["visible"] <= 1).all()
    assert torch.allclose(counts[whole], sample["areas"][whole], rtol=0.1) and ids.max() == len(sample["areas"])


def star_iou(mask: np.ndarray) -> float:
    """The best IoU of a mask with a polygon of 32 rays from one of its pixels, each ray as long as it stays inside."""
    mask = np.pad(mask, 2)
    inner = ndimage.distance_transform_edt(mask)
    centres = np.argwhere(inner >= 0.7 * inner.max())
    turn, steps = np.arange(32) * 2 * np.pi / 32, np.arange(0, 100, 0.5)[:, None, None]
    best = 0.0
    for centre in centres[:: max(1, len(centres) // 12)]:
        walk = centre + steps * np.stack([np.sin(turn), np.cos(turn)], 1)
        at = np.clip(np.rint(walk).astype(int), 0, np.array(mask.shape) - 1)
        reach = 0.5 * np.argmin(mask[at[..., 0], at[..., 1]], axis=0)
        star = polygon2mask(mask.shape, centre + reach[:, None] * np.stack([np.sin(turn), np.cos(turn)], 1))
        best = max(best, (star & mask).sum() / (star | mask).sum())
    return best


def test_stars_fail_where_they_serve_for_nuclei() -> None:
    rods, nuclei = (
        np.array([star_iou(mask.numpy()) for i in range(3) for mask in draw((4, i))["masks"] if mask.sum() > 60])
        for draw in (draw_bacteria, draw_cells)
    )
    for name, best in (("bacteria", rods), ("nuclei", nuclei)):
        print(f"{name}: the best star has IoU {best.mean():.3f}, below 0.9 for {(best < 0.9).mean():.2f} of them")
    assert (nuclei < 0.9).mean() < 0.02
    assert (rods < 0.9).mean() > 0.3 and (rods < 0.75).mean() > 0.1


def test_rods_differ_in_length_and_lie_side_by_side() -> None:
    sample = draw_bacteria(6, touching=1.0)
    ids = sample["label_map"].numpy()
    assert sample["areas"].max() > 2.5 * sample["areas"].min()
    shared = [  # pixels of background between two rods, or of another rod, right beside each
        np.isin(ids[ndimage.binary_dilation(ids == k, iterations=2)], np.setdiff1d(np.unique(ids), (0, k))).sum()
        for k in range(1, ids.max() + 1)
    ]
    assert np.mean(np.array(shared) > 10) > 0.5


def test_dark_rods_in_a_bright_halo() -> None:
    sample = draw_bacteria(3, noise=0, unevenness=0, count=1)
    grey, mask = sample["image"][0].numpy(), sample["masks"][0].numpy()
    far = ndimage.distance_transform_edt(~mask)
    rim, away = grey[(far > 2) & (far < 5)].mean(), np.median(grey[far > 30])
    assert grey[mask].mean() < away - 0.1 and rim > away + 0.02


def test_counts() -> None:
    assert [len(draw_bacteria(seed, count=n)["labels"]) for seed in range(4) for n in (1, 5)] == [1, 5] * 4
    sample = draw_bacteria(0, (20, 31), count=0)
    assert sample["masks"].shape == (0, 20, 31) and sample["boxes"].shape == (0, 4)
    assert sample["labels"].shape == sample["areas"].shape == sample["visible"].shape == (0,)
    assert draw_bacteria(0, (20, 31), count=0, noise=0, unevenness=0)["image"].std() < 1e-4
    assert 0 < len(draw_bacteria(0, (32, 32), count=200)["labels"]) < 20, "as many as fit"
    equal = draw_bacteria(0, rod_length=(20.0, 20.0), rod_width=(6.0, 6.0))["areas"]
    assert torch.allclose(equal, torch.tensor(6 * 14 + math.pi * 9), rtol=5e-3)


def test_dataset() -> None:
    data = Bacteria(2, size=(32, 48), transforms=lambda sample: tuple(sample["image"].shape), count=2)
    assert len(data) == 2 and data[1] == (3, 32, 48)
    with pytest.raises(IndexError, match="index is 2"):
        data[2]


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise BACTERIA_VERSION and measure again whatever was trained on them."""
    sample = draw_bacteria((0, 0), (64, 64))
    assert bacteria.BACTERIA_VERSION == 1
    assert sample["masks"].sum((1, 2)).tolist() == GOLDEN["pixels"]
    assert float(sample["image"].mean()) == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"pixels": [79, 90, 355, 236, 133, 124, 202], "mean": 0.41729}

BAD = [
    ({"seed": "a"}, TypeError, "seed is 'a'"),
    ({"seed": (1, -2)}, ValueError, "seed is"),
    ({"size": (8, 64)}, ValueError, "at least 16"),
    ({"size": "big"}, TypeError, "size is 'big'"),
    ({"count": -3}, ValueError, "count is -3"),
    ({"rod_width": 5.0}, TypeError, "rod_width is 5.0"),
    ({"rod_width": (1.0, 5.0)}, ValueError, "rod_width is 1.0"),
    ({"rod_length": (30.0, 20.0)}, ValueError, "rod_length is"),
    ({"rod_length": (30.0, math.inf)}, ValueError, "rod_length is inf"),
    ({"touching": None}, TypeError, "touching is None"),
    ({"noise": -1}, ValueError, "noise is -1"),
    ({"unevenness": 2}, ValueError, "unevenness is 2"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_bacteria(**({"seed": 0} | arguments))
