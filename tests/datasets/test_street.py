"""Street: void borders, perspective, context, what `variety` does, versions, speed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.datasets import street
from segedu.datasets.street import CLASSES, THINGS, VOID, draw_street


def test_void_lies_around_things_and_nowhere_else() -> None:
    """Each pixel beside a thing in sight belongs to a nearer thing or is void; void is at most a speck from a thing."""
    cross = ndimage.generate_binary_structure(2, 1)
    for seed in range(6):
        scene = draw_street(seed)
        semantic, ids = scene["semantic"].numpy(), scene["label_map"].numpy()
        assert (semantic == VOID).any()
        for number in range(1, ids.max() + 1):
            ring = ndimage.binary_dilation(ids == number, cross) & (ids != number)
            beside = ids[ring] == 0
            assert (semantic[ring][beside] == VOID).all()
        near = ndimage.binary_dilation(ids > 0, np.ones((3, 3)), iterations=3)
        assert (semantic[near] == VOID).sum() >= 0.8 * (semantic == VOID).sum()


def test_sky_is_above_and_ground_below() -> None:
    rows = torch.arange(96.0)[:, None].expand(96, 160)
    mean = {name: [] for name in ("sky", "building", "road")}
    for seed in range(10):
        semantic = draw_street(seed)["semantic"]
        for name in mean:
            here = semantic == CLASSES.index(name)
            if here.sum() > 50:
                mean[name].append(rows[here].mean().item())
    averages = [np.mean(mean[name]) for name in ("sky", "building", "road")]
    assert averages == sorted(averages) and averages[2] - averages[0] > 25


def test_near_things_are_larger() -> None:
    """The lower a car's box ends, the nearer it stands: a strong rank correlation with its height."""
    low, tall = [], []
    for seed in range(40):
        scene = draw_street(seed)
        boxes = scene["boxes"][scene["labels"] == CLASSES.index("car")]
        whole = boxes[(boxes[:, 0] > 0) & (boxes[:, 2] < 160) & (boxes[:, 3] < 96)]
        low += (whole[:, 3]).tolist()
        tall += (whole[:, 3] - whole[:, 1]).tolist()
    ranks = [np.argsort(np.argsort(values)) for values in (low, tall)]
    assert len(low) > 30 and np.corrcoef(ranks)[0, 1] > 0.5


def test_boats_float_and_cars_drive() -> None:
    """Below a boat there is water or what hides it; below a car there is none."""
    water, below = CLASSES.index("water"), {"boat": [], "car": []}
    for seed in range(25):
        scene = draw_street((5, seed))
        for label, (x1, _, x2, y2) in zip(scene["labels"].tolist(), scene["boxes"].int().tolist(), strict=True):
            if CLASSES[label] in below and y2 + 2 < 96:
                below[CLASSES[label]].append(bool((scene["semantic"][y2 + 1, x1:x2] == water).any()))
    assert np.mean(below["boat"]) > 0.5 and np.mean(below["car"]) < 0.1


def test_variety_is_of_colours_only() -> None:
    """Class means of colour lie further apart between scenes at full variety; geometry is the same."""
    spread = {}
    for variety in (0.0, 1.0):
        scenes = [draw_street((1, i), (48, 80), variety=variety, noise=0) for i in range(12)]
        means = [s["image"][:, s["semantic"] == 0].mean(1) for s in scenes if (s["semantic"] == 0).sum() > 20]
        spread[variety] = torch.stack(means).std(0).mean().item()
    assert spread[1.0] > 2 * spread[0.0]
    truths = [draw_street(3, variety=variety)["label_map"] for variety in (0.0, 0.35, 1.0)]
    assert torch.equal(truths[0], truths[1]) and torch.equal(truths[0], truths[2])


def test_things_are_those_named() -> None:
    assert [CLASSES[i] for i in THINGS] == ["person", "car", "bus", "boat"]
    assert len(CLASSES) == len(set(CLASSES)) == 10


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise STREET_VERSION and measure again whatever was trained on them."""
    scene = draw_street((0, 0))
    assert street.STREET_VERSION == 2
    assert scene["labels"].tolist() == GOLDEN["labels"]
    assert scene["image"].mean((1, 2)).tolist() == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"labels": [7, 7, 7, 7, 6], "mean": [0.49208, 0.48502, 0.45409]}


@pytest.mark.parametrize(("variety", "error"), [(-1, ValueError), (1.5, ValueError), ("all", TypeError)])
def test_bad_variety(variety: object, error: type) -> None:
    with pytest.raises(error, match="variety is"):
        draw_street(0, variety=variety)
