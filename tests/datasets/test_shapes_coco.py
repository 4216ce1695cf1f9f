"""Drawn shapes in COCO's files: what is written is read back, and crowds are what touches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from segedu.datasets.coco import CocoInstances
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.datasets.shapes_coco import merge_crowds, write_shapes_coco
from segedu.metrics.coco import CocoEvaluation


def squares(*places: tuple[int, int], kinds: list[int]) -> dict[str, torch.Tensor]:
    masks = torch.zeros(len(places), 30, 30, dtype=torch.bool)
    for mask, (row, column) in zip(masks, places, strict=True):
        mask[row : row + 5, column : column + 5] = True
    return {"masks": masks, "labels": torch.tensor(kinds, dtype=torch.int64)}


def test_chains_of_one_class_are_a_crowd_and_others_stay() -> None:
    """The third touches the second only; the fourth touches at no side, the fifth is of another class."""
    sample = squares((2, 2), (2, 7), (7, 9), (20, 20), (7, 4), kinds=[1, 1, 1, 1, 2])
    merged = merge_crowds(sample)
    assert merged["labels"].tolist() == [1, 2, 1] and merged["iscrowd"].tolist() == [False, False, True]
    assert torch.equal(merged["masks"][2], sample["masks"][:3].any(dim=0))
    assert merged["boxes"][2].tolist() == [2, 2, 14, 12]
    assert not merge_crowds(sample, smallest=4)["iscrowd"].any()


def test_parts_of_one_object_join_what_they_touch() -> None:
    """An object that another class hides in the middle has two parts, with a neighbour at each."""
    sample = squares((2, 2), (2, 17), (2, 0), kinds=[1, 1, 1])
    sample["masks"][2] = False
    sample["masks"][2, 3, 7:10] = sample["masks"][2, 3, 14:17] = True
    merged = merge_crowds(sample)
    assert merged["iscrowd"].tolist() == [True] and merged["boxes"][0].tolist() == [2, 2, 22, 7]


def test_nothing_in_the_image() -> None:
    merged = merge_crowds(draw_shapes(0, (32, 32), count=0))
    assert {key: tuple(value.shape) for key, value in merged.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 32, 32),
        "iscrowd": (0,),
    }
    with pytest.raises(ValueError, match="smallest is 1, expected at least 2"):
        merge_crowds(draw_shapes(0, (32, 32)), smallest=1)


def test_what_is_written_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_shapes_coco(tmp_path / "new", 12, seed=5)
    data = CocoInstances(tmp_path / "new" / "images", file)
    assert tuple(data.classes) == CLASSES and len(data) == 12 and not list(tmp_path.glob("*/*.part"))
    crowds = 0
    for index, sample in enumerate(data):
        drawn = draw_shapes((5, index), (96, 96), count=(6, 16))
        expected = merge_crowds(drawn)
        assert torch.equal(sample["masks"], expected["masks"]) and torch.equal(sample["labels"], expected["labels"])
        assert torch.equal(sample["iscrowd"], expected["iscrowd"]) and torch.equal(sample["boxes"], expected["boxes"])
        assert (sample["image"] - drawn["image"]).abs().max() < 1 / 255
        crowds += int(sample["iscrowd"].sum())
    assert crowds >= 3
    theirs = COCO(str(file))  # pycocotools reads it too
    assert len(theirs.getImgIds()) == 12 and len(theirs.getAnnIds(iscrowd=True)) == crowds
    assert write_shapes_coco(tmp_path / "again", 12, seed=5).read_text() == file.read_text()


def test_detections_in_a_crowd_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    """All single objects found, and every member of a crowd on its own: precision 1, though the crowd is no match."""
    data = CocoInstances(tmp_path / "images", write_shapes_coco(tmp_path, 12, seed=5))
    evaluation = CocoEvaluation("segm")
    for index, truth in enumerate(data):
        drawn = draw_shapes((5, index), (96, 96), count=(6, 16))
        found = {"masks": drawn["masks"], "labels": drawn["labels"], "scores": torch.ones(len(drawn["labels"]))}
        evaluation.update(found, truth)
    assert evaluation.compute()["AP50"] == pytest.approx(1.0)
