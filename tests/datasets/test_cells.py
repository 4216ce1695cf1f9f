"""Cells: truth that agrees with itself, closed-form areas, seeds, bad input."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from segedu.datasets import cells
from segedu.datasets.cells import CLASSES, Cells, Nucleus, draw_cells

from .test_shapes import assert_truth_agrees


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 64), (97, 65)])
def test_truth_agrees(size: tuple[int, int]) -> None:
    for seed in range(6):
        sample = draw_cells(seed, size)
        assert_truth_agrees(sample, len(CLASSES))
        assert (sample["image"] == sample["image"][:1]).all(), "three equal channels"


def test_ellipse_and_wavy_areas() -> None:
    plain = Nucleus(50.3, 49.8, 31.0, 22.0, 0.7, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert plain.area == pytest.approx(math.pi * 31 * 22)
    wavy = Nucleus(50.3, 49.8, 31.0, 22.0, 0.7, (0.06, 0.05, 0.04), (0.3, 1.0, 2.0))
    grid = np.mgrid[:1000, :1000] / 10 + 0.05  # a tenth of a pixel, to see the formula and not the raster
    for nucleus in (plain, wavy):
        assert (nucleus.depth(*grid) < 1).sum() / 100 == pytest.approx(nucleus.area, rel=1e-3)


def test_pixel_counts_follow_closed_forms() -> None:
    for seed in range(4):
        sample = draw_cells(seed, (160, 160), radius=(14.0, 18.0))
        counts = sample["masks"].sum((1, 2)).float()
        assert torch.allclose(counts, sample["areas"] * sample["visible"], rtol=0.02, atol=8)
        assert (sample["visible"] > 0).all() and (sample["visible"] <= 1).all()


def test_nuclei_touch() -> None:
    """With touching=0.9 most nuclei have a neighbour without background between; with few nuclei none need."""
    ids = draw_cells(1, touching=0.9)["label_map"].numpy()
    pairs = np.concatenate(
        [np.stack([ids[1:], ids[:-1]]).reshape(2, -1), np.stack([ids[:, 1:], ids[:, :-1]]).reshape(2, -1)], 1
    )
    meet = (pairs[0] != pairs[1]) & (pairs > 0).all(axis=0)
    assert len(np.unique(pairs[:, meet])) > 0.5 * ids.max()


def test_image_depends_on_seed_and_index_only() -> None:
    forward = [Cells(3, seed=3, size=(48, 48))[i] for i in range(3)]
    np.random.seed(1)
    torch.manual_seed(1)
    for i in reversed(range(3)):
        for key, value in Cells(9, seed=3, size=(48, 48))[i].items():
            assert torch.equal(forward[i][key], value), key
    assert not torch.equal(forward[0]["image"], Cells(3, seed=4, size=(48, 48))[0]["image"])


def test_no_nuclei_and_no_noise() -> None:
    sample = draw_cells(0, (20, 31), count=0)
    assert sample["masks"].shape == (0, 20, 31) and sample["boxes"].shape == (0, 4)
    assert sample["labels"].shape == sample["areas"].shape == sample["visible"].shape == (0,)
    flat = draw_cells(0, (20, 31), count=0, noise=0, unevenness=0)
    assert flat["image"].std() < 1e-4
    assert len(draw_cells(0, count=(5, 5), touching=0)["labels"]) == 5


def test_dataset() -> None:
    data = Cells(2, size=(32, 48), transforms=lambda sample: tuple(sample["image"].shape), count=2)
    assert len(data) == 2 and data[1] == (3, 32, 48)
    with pytest.raises(IndexError, match="index is 2"):
        data[2]


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise CELLS_VERSION and measure again whatever was trained on them."""
    sample = draw_cells((0, 0), (64, 64))
    assert cells.CELLS_VERSION == 1
    assert sample["masks"].sum((1, 2)).tolist() == GOLDEN["pixels"]
    assert float(sample["image"].mean()) == pytest.approx(GOLDEN["mean"], abs=1e-4)


def test_label_maps_are_the_same_to_the_last_pixel() -> None:
    """Of scenes of all kinds of arguments, so that code can move without a scene noticing."""
    digest, brightness = hashlib.sha256(), 0.0
    for i, arguments in enumerate(({}, {"count": 3}, {"radius": (4.0, 12.0)}, {"touching": 0.9, "noise": 3.0})):
        sample = draw_cells((9, i), (64, 80), **arguments)
        digest.update(sample["label_map"].numpy().astype("<i4").tobytes())
        brightness += float((sample["image"][0] * torch.linspace(-1, 1, 80)).double().sum())
    assert digest.hexdigest()[:16] == DIGEST
    assert brightness == pytest.approx(BRIGHTNESS, abs=0.05)


DIGEST, BRIGHTNESS = "73fd26834e336cbc", -507.126
GOLDEN = {"pixels": [144, 113, 301, 239, 306, 136, 283, 82, 144], "mean": 0.40243}

BAD = [
    ({"seed": "a"}, TypeError, "seed is 'a'"),
    ({"seed": (1, -2)}, ValueError, "seed is"),
    ({"size": (8, 64)}, ValueError, "at least 16"),
    ({"size": "big"}, TypeError, "size is 'big'"),
    ({"count": -3}, ValueError, "count is -3"),
    ({"count": "many"}, TypeError, "count is 'many'"),
    ({"radius": 5.0}, TypeError, "radius is 5.0"),
    ({"radius": (9.0, 5.0)}, ValueError, "radius is"),
    ({"radius": (0.0, 5.0)}, ValueError, "radius is 0.0"),
    ({"radius": (5.0, math.inf)}, ValueError, "radius is inf"),
    ({"touching": 1.5}, ValueError, "touching is 1.5"),
    ({"touching": None}, TypeError, "touching is None"),
    ({"noise": -1}, ValueError, "noise is -1"),
    ({"noise": math.nan}, ValueError, "noise is nan"),
    ({"unevenness": 2}, ValueError, "unevenness is 2"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_cells(**({"seed": 0} | arguments))
