"""Shapes: truth that agrees with itself, closed-form areas, seeds, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segedu.datasets import shapes
from segedu.datasets.shapes import CLASSES, Shapes, draw_shapes, shape_area

SIZES = [(16, 16), (17, 33), (64, 64), (65, 97)]


def assert_truth_agrees(sample: dict, num_classes: int) -> None:
    """Every kind of truth follows from the label map; labels are 1..N."""
    image, ids, masks = sample["image"], sample["label_map"], sample["masks"]
    height, width = ids.shape
    count = len(masks)
    assert image.dtype == torch.float32 and image.shape == (3, height, width)
    assert image.min() >= 0 and image.max() <= 1
    assert ids.dtype == torch.int32 and sample["semantic"].dtype == torch.int64
    assert masks.dtype == torch.bool and masks.shape == (count, height, width)
    assert sample["labels"].shape == (count,) and sample["boxes"].shape == (count, 4)
    assert sample["labels"].dtype == torch.int64 and sample["boxes"].dtype == torch.float32
    assert sorted(set(ids.unique().tolist()) | {0}) == list(range(count + 1))
    for k, mask in enumerate(masks):
        assert torch.equal(mask, ids == k + 1)
        rows, columns = torch.nonzero(mask, as_tuple=True)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert sample["boxes"][k].tolist() == [float(edge) for edge in tight]
        assert (sample["semantic"][mask] == sample["labels"][k]).all()
        assert 1 <= sample["labels"][k] < num_classes
    assert (sample["semantic"][ids == 0] == 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_truth_agrees(size: tuple[int, int]) -> None:
    for seed in range(10):
        assert_truth_agrees(draw_shapes(seed, size), len(CLASSES))


def test_pixel_counts_follow_closed_forms() -> None:
    for seed in range(20):
        sample = draw_shapes(seed, (200, 200))
        counts = sample["masks"].sum((1, 2))
        expected = sample["areas"] * sample["visible"]
        # Counting pixel centres errs by about the square root of the perimeter.
        assert torch.allclose(counts.float(), expected, rtol=0.01, atol=12)
        whole = sample["visible"] == 1
        assert torch.allclose(counts[whole].float(), sample["areas"][whole], rtol=0.01, atol=8)
        assert (sample["visible"] >= 0.49).all() and (sample["visible"] <= 1).all()


def test_areas_by_hand() -> None:
    assert shape_area(1, 2.0) == pytest.approx(4 * math.pi)
    assert shape_area(2, 2.0) == pytest.approx(4 * math.pi)
    assert shape_area(3, 2.0) == pytest.approx(4 * math.pi)


def test_all_kinds_and_hidden_shapes_occur() -> None:
    labels = torch.cat([draw_shapes(seed)["labels"] for seed in range(40)])
    assert labels.bincount(minlength=4)[1:].min() > 0.2 * len(labels)
    visible = torch.cat([draw_shapes(seed)["visible"] for seed in range(40)])
    assert (visible < 0.95).float().mean() > 0.2


def test_scene_depends_on_seed_and_index_only() -> None:
    forward = [Shapes(6, seed=3)[i] for i in range(6)]
    np.random.seed(1)
    torch.manual_seed(1)
    longer = Shapes(60, seed=3)
    for i in reversed(range(6)):
        for key, value in forward[i].items():
            assert torch.equal(longer[i][key], value), key
    assert torch.equal(forward[-1]["image"], Shapes(6, seed=3)[-1]["image"])
    assert not torch.equal(forward[0]["image"], Shapes(6, seed=4)[0]["image"])
    assert not torch.equal(forward[0]["image"], forward[1]["image"])


def test_no_shapes_is_a_scene() -> None:
    sample = draw_shapes(0, (20, 31), count=0)
    assert sample["masks"].shape == (0, 20, 31) and sample["boxes"].shape == (0, 4)
    assert sample["labels"].shape == sample["areas"].shape == sample["visible"].shape == (0,)
    assert_truth_agrees(sample, len(CLASSES))


def test_counts_and_transforms() -> None:
    assert {len(draw_shapes(seed, (128, 128), count=2)["labels"]) for seed in range(10)} == {2}
    assert {len(draw_shapes(seed)["labels"]) for seed in range(60)} <= set(range(8))
    assert Shapes(2, transforms=lambda sample: sorted(sample))[0][0] == "areas"
    assert len(Shapes(7, size=(32, 48), count=(0, 1))) == 7


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise SHAPES_VERSION and measure again whatever was trained on them."""
    sample = draw_shapes((0, 0))
    assert shapes.SHAPES_VERSION == 1
    assert sample["labels"].tolist() == GOLDEN["labels"]
    assert sample["masks"].sum((1, 2)).tolist() == GOLDEN["pixels"]
    assert sample["image"].mean((1, 2)).tolist() == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {
    "labels": [2, 2, 2, 3, 1, 2, 3],
    "pixels": [209, 244, 330, 220, 210, 394, 266],
    "mean": [0.54183, 0.49444, 0.49956],
}

BAD = [
    ({"seed": 1.5}, TypeError, "seed is 1.5"),
    ({"seed": True}, TypeError, "seed is True"),
    ({"seed": -1}, ValueError, "seed is -1"),
    ({"seed": ()}, ValueError, "seed is"),
    ({"size": 64}, TypeError, "size is 64"),
    ({"size": (64,)}, TypeError, "size is"),
    ({"size": (64.0, 64)}, TypeError, "size is"),
    ({"size": (15, 64)}, ValueError, "at least 16"),
    ({"size": (1, 1)}, ValueError, "at least 16"),
    ({"size": (0, 64)}, ValueError, "at least 16"),
    ({"count": -1}, ValueError, "count is -1"),
    ({"count": (5, 2)}, ValueError, "count is"),
    ({"count": 2.5}, TypeError, "count is 2.5"),
    ({"count": True}, TypeError, "count is True"),
    ({"count": (1, 2, 3)}, TypeError, "count is"),
    ({"noise": -0.1}, ValueError, "noise is -0.1"),
    ({"noise": 2}, ValueError, "noise is 2"),
    ({"noise": float("nan")}, ValueError, "noise is nan"),
    ({"noise": "loud"}, TypeError, "noise is 'loud'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        draw_shapes(**({"seed": 0} | arguments))


@pytest.mark.parametrize(("length", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_length(length: object, error: type) -> None:
    with pytest.raises(error):
        Shapes(length)
    with pytest.raises(IndexError, match="index is 3"):
        Shapes(3)[3]
