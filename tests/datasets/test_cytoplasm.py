"""Cells in two stains: cells and nuclei that agree, irregular outlines, touching cells, seeds, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets import cytoplasm
from segedu.datasets.cytoplasm import CLASSES, Cytoplasm, draw_cytoplasm

from .test_shapes import assert_truth_agrees


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 64), (97, 65)])
def test_truth_agrees(size: tuple[int, int]) -> None:
    for seed in range(4):
        sample = draw_cytoplasm(seed, size)
        assert_truth_agrees(sample, len(CLASSES))
        ids, nuclei = sample["label_map"], sample["nuclei_map"]
        assert nuclei.dtype == torch.int32 and nuclei.shape == ids.shape
        assert torch.equal(nuclei[nuclei > 0], ids[nuclei > 0]), "nucleus k lies in cell k"
        for labels in (ids, nuclei):
            assert all(ndimage.label(labels == k)[1] == 1 for k in labels.unique() if k > 0), "in one piece"


def test_stains_show_what_they_should() -> None:
    sample = draw_cytoplasm(3, noise=0, unevenness=0)
    red, green, blue = sample["image"]
    inside, nucleus = sample["label_map"] > 0, sample["nuclei_map"] > 0
    assert not red.any()
    assert green[inside & ~nucleus].mean() > 3 * green[~inside].mean()
    assert green[inside & ~nucleus].mean() > 1.25 * green[nucleus].mean(), "a nucleus is a hole in the green"
    assert blue[nucleus].mean() > 3 * blue[~nucleus].mean()


def test_cells_are_irregular_and_hold_one_nucleus_each() -> None:
    sample = draw_cytoplasm(5, (160, 160))
    ids, nuclei = sample["label_map"], sample["nuclei_map"]
    inner = set(range(1, len(sample["labels"]) + 1)) - set(torch.cat([ids[0], ids[-1], ids[:, 0], ids[:, -1]]).tolist())
    assert len(inner) >= 5 and inner <= set(nuclei.unique().tolist()), "whole cells have their nuclei"
    for k in inner:
        assert 0.1 < float((nuclei == k).sum() / (ids == k).sum()) < 0.5
    regular = []  # share of the ellipse of the same second moments that a cell covers alone: 1 for an ellipse
    for k in inner:
        places = np.argwhere((ids == k).numpy()).astype(float)
        away = places - places.mean(0)
        distance = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(away.T)), away)
        regular.append((distance <= 4).mean())
    assert np.mean(regular) < 0.97


def test_cells_touch() -> None:
    ids = draw_cytoplasm(1, touching=1.0)["label_map"].numpy()
    meet = [k for k in range(1, ids.max() + 1) if np.setdiff1d(ids[ndimage.binary_dilation(ids == k)], (0, k)).size]
    assert len(meet) > 0.7 * ids.max()


def test_counts() -> None:
    assert [len(draw_cytoplasm(seed, count=n)["labels"]) for seed in range(3) for n in (1, 4)] == [1, 4] * 3
    sample = draw_cytoplasm(0, (20, 31), count=0)
    assert sample["masks"].shape == (0, 20, 31) and sample["boxes"].shape == (0, 4) and not sample["nuclei_map"].any()
    assert draw_cytoplasm(0, (20, 31), count=0, noise=0, unevenness=0)["image"].std((1, 2)).max() < 1e-4
    assert 0 < len(draw_cytoplasm(0, (40, 40), count=500)["labels"]) < 30, "as many as fit"


def test_dataset() -> None:
    data = Cytoplasm(2, size=(32, 48), transforms=lambda sample: tuple(sample["nuclei_map"].shape), count=2)
    assert len(data) == 2 and data[1] == (32, 48)
    with pytest.raises(IndexError, match="index is 2"):
        data[2]


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise CYTOPLASM_VERSION and measure again whatever was trained on them."""
    sample = draw_cytoplasm((0, 0), (64, 64))
    assert cytoplasm.CYTOPLASM_VERSION == 1
    assert sample["masks"].sum((1, 2)).tolist() == GOLDEN["pixels"]
    assert float(sample["image"].mean()) == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"pixels": [237, 436, 296, 392, 308, 381, 417, 335, 302], "mean": 0.17353}

BAD = [
    ({"seed": "a"}, TypeError, "seed is 'a'"),
    ({"seed": (1, -2)}, ValueError, "seed is"),
    ({"size": (8, 64)}, ValueError, "at least 16"),
    ({"size": "big"}, TypeError, "size is 'big'"),
    ({"count": -3}, ValueError, "count is -3"),
    ({"count": "many"}, TypeError, "count is 'many'"),
    ({"radius": 5.0}, TypeError, "radius is 5.0"),
    ({"radius": (9.0, 5.0)}, ValueError, "radius is"),
    ({"radius": (2.0, 5.0)}, ValueError, "radius is 2.0"),
    ({"touching": 1.5}, ValueError, "touching is 1.5"),
    ({"noise": math.nan}, ValueError, "noise is nan"),
    ({"unevenness": 2}, ValueError, "unevenness is 2"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_cytoplasm(**({"seed": 0} | arguments))
