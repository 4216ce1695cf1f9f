"""Photographs with masks by two annotators: complete, without overlap, and in agreement where an outline is clear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from segedu.datasets import photos
from segedu.datasets.photos import NAMES, Photos, read_photo


@pytest.mark.parametrize("annotator", photos.FILES)
@pytest.mark.parametrize("name", NAMES)
def test_targets_agree_with_each_other(name: str, annotator: str) -> None:
    images = Photos([name], annotator)
    item = images[0]
    size = read_photo(name).shape[:2]
    assert item["image"].shape == (3, *size) and 0 <= item["image"].min() and item["image"].max() <= 1
    assert item["masks"].shape == (len(item["labels"]), *size) and item["masks"].any((1, 2)).all()
    assert (item["masks"].sum(0) <= 1).all()
    assert all(images.is_thing[label] for label in item["labels"].tolist())
    for label in item["semantic"].unique().tolist():
        assert label == photos.VOID or 0 <= label < len(images.classes)
    things = torch.tensor([*images.is_thing, *[False] * (256 - len(images.is_thing))])[item["semantic"]]
    assert things.equal(item["label_map"] > 0)
    assert (item["panoptic_seg"] == 0).equal(item["semantic"] == photos.VOID)


@pytest.mark.parametrize("file", photos.FILES.values())
def test_files_are_coco_files(file: str) -> None:
    coco = COCO()
    coco.dataset = photos.json.loads((photos.Path(photos.__file__).parent / file).read_text())
    coco.createIndex()
    for annotation in coco.dataset["annotations"]:
        mask = coco.annToMask(annotation)
        y, x = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]


def test_counts_that_anybody_can_check() -> None:
    count = {name: len(Photos([name])[0]["masks"]) for name in ("coins", "coffee", "page", "flower", "camera")}
    assert count == {"coins": 24, "coffee": 3, "page": 8, "flower": 2, "camera": 2}


@pytest.mark.parametrize(
    ("name", "lowest"),
    [("coins", 0.95), ("chelsea", 0.97), ("astronaut", 0.94), ("grace_hopper", 0.97), ("cell", 0.95)],
)
def test_annotators_agree_on_clear_outlines(name: str, lowest: float) -> None:
    first, second = (Photos([name], annotator)[0]["semantic"] for annotator in photos.FILES)
    valid = (first != photos.VOID) & (second != photos.VOID)
    for label in set(first[valid].tolist()) | set(second[valid].tolist()):
        a, b = first[valid] == label, second[valid] == label
        assert (a & b).sum() / (a | b).sum() >= lowest


def test_annotators_worked_apart() -> None:
    """Two copies of one set of polygons would agree in every pixel."""
    for name in NAMES:
        first, second = (Photos([name], annotator)[0]["label_map"] for annotator in photos.FILES)
        assert not first.equal(second)


def test_what_is_not_annotated_is_void() -> None:
    tissue, cat = (Photos([name])[0]["semantic"] for name in ("ihc", "chelsea"))
    outside = torch.ones_like(tissue, dtype=torch.bool)
    outside[180:340, 180:340] = False
    assert (tissue[outside] == photos.VOID).float().mean() > 0.99  # but for nuclei that reach beyond the window
    assert not (tissue[~outside] == photos.VOID).any() and (tissue[~outside] == 0).any()
    assert 0 < (cat == photos.VOID).sum() < 0.1 * cat.numel()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="names has 'lena', expected some of astronaut"):
        Photos(["lena"])
    with pytest.raises(ValueError, match="annotator is 'third', expected one of first, second"):
        Photos(annotator="third")
    with pytest.raises(ValueError, match="name is 'lena'"):
        read_photo("lena")
