"""Folders of one's own boxes, in COCO's and VOC's format: reading, inspecting, and a sentence for every fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from segedu.cli import app
from segedu.datasets.box_folder import BoxFolder, is_box_folder
from segedu.recipes.own_box_inspection import inspect_boxes
from segedu.recipes.own_boxes import OtsuBoxes, box_window, cropped, mirrored, rescaled

SIZE = (40, 60)
BOXES = ((5, 6, 20, 10), (30, 20, 12, 12))  # x, y, width and height


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 100, (4, 6, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    pixels[6:16, 5:25] += 150
    pixels[20:32, 30:42, 0] += 120
    return pixels


def coco_of(count: int) -> dict[str, Any]:
    images = [{"id": 7 + i, "file_name": f"p{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(count)]
    annotations = [
        {"id": 2 * i + k, "image_id": 7 + i, "category_id": (9, 4)[k], "bbox": list(box), "area": box[2] * box[3],
         "iscrowd": 0, "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3],
                                         box[0], box[1] + box[3]]]}
        for i in range(count) for k, box in enumerate(BOXES)
    ]  # fmt: skip
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 9, "name": "car"}, {"id": 4, "name": "dog"}],
    }


VOC = """<annotation><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>car</name><difficult>{difficult}</difficult>
<bndbox><xmin>6</xmin><ymin>7</ymin><xmax>25</xmax><ymax>16</ymax></bndbox></object>
<object><name>dog</name>
<bndbox><xmin>31</xmin><ymin>21</ymin><xmax>42</xmax><ymax>32</ymax></bndbox></object></annotation>"""


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four images with two objects each, of which three are in the split train."""
    root = tmp_path / "coco"
    for i in range(4):
        save(root / "images" / f"p{i}.png", image(i))
    (root / "annotations.json").write_text(json.dumps(coco_of(4)))
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("p0\np1\np2.png\n")
    (root / "splits" / "val.txt").write_text("p3\n")
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """The same images and boxes in VOC's format; in the first one, the car is difficult."""
    root = tmp_path / "voc"
    for i in range(4):
        save(root / "JPEGImages" / f"p{i}.png", image(i))
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"p{i}.xml").write_text(VOC.format(difficult=int(i == 0)))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, names in {"train": "p0\np1\np2\n", "val": "p3\n", "trainval": "p0\n"}.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
    return root


def change(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((root / "annotations.json").read_text())
    edit(content)
    (root / "annotations.json").write_text(json.dumps(content))


# --- reading ------------------------------------------------------------------------------------------------------


def test_both_formats_give_the_same_objects(coco: Path, voc: Path) -> None:
    first, second = BoxFolder(coco), BoxFolder(voc)
    assert is_box_folder(coco) and is_box_folder(voc)
    assert first.classes == ("background", "dog", "car") and second.classes == ("background", "car", "dog")
    for folder in (first, second):
        assert {k: len(v) for k, v in folder.splits.items()} == {"all": 4, "train": 3, "val": 1}
        objects = folder.objects("p1", SIZE)
        assert objects.boxes.tolist() == [[5, 6, 25, 16], [30, 20, 42, 32]]
        assert [folder.classes[label] for label in objects.labels] == ["car", "dog"]
    assert first.has_masks and not second.has_masks
    assert second.objects("p0", SIZE).iscrowd.tolist() == [True, False]
    masks = first.objects("p1", SIZE).masks(SIZE)
    assert masks.sum(dim=(1, 2)).tolist() == [200, 144] and masks[0, 6:16, 5:25].all()


def test_several_coco_files_are_the_splits(coco: Path) -> None:
    content = coco_of(4)
    (coco / "annotations.json").unlink()
    (coco / "annotations").mkdir()
    for name, chosen in (("instances_train2017", (7, 8, 9)), ("instances_val2017", (10,))):
        part = content | {"images": [one for one in content["images"] if one["id"] in chosen]}
        part["annotations"] = [one for one in content["annotations"] if one["image_id"] in chosen]
        (coco / "annotations" / f"{name}.json").write_text(json.dumps(part))
    assert BoxFolder(coco).splits == {"all": ["p0", "p1", "p2", "p3"], "train": ["p0", "p1", "p2"], "val": ["p3"]}


def test_masks_and_label_maps_come_first(coco: Path) -> None:
    (coco / "labels").mkdir()
    assert not is_box_folder(coco)


# --- inspecting ---------------------------------------------------------------------------------------------------


def test_a_good_folder_is_described(coco: Path, voc: Path) -> None:
    report = inspect_boxes(coco, progress=False)
    text = " ".join(report.facts)
    assert report.problems == [] and "4 annotated images, of which 4 can be used" in text
    assert "Splits: train 3, val 1; 0 images in none" in text and "Class 2 (car): 4 objects, in 4 images" in text
    assert "8 boxes, of which 8 have a mask, and 0 are crowds" in text
    assert "5 % are below 12 pixels, half below" in text and "95 % below 14" in text
    drawn = report.figure.axes[0].patches
    assert [(p.get_width(), p.get_height()) for p in drawn] == [(20, 10), (12, 12)]
    assert "8 boxes, of which 0 have a mask, and 1 are crowds" in " ".join(inspect_boxes(voc, progress=False).facts)


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][0]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lambda c: first(c).update(bbox=[5, 6, 0, 10]),
            "1 boxes have no area inside their image, and a training leaves",
        ),
        (lambda c: first(c).update(bbox=[70, 6, 9, 9]), "p0 (70, 6, 79, 15)"),
        (lambda c: first(c).update(bbox=[0.1, 0.2, 0.5, 0.4]), "look like fractions of the image: multiply"),
        (lambda c: first(c).update(bbox=[50, 6, 20, 9]), "1 boxes extend beyond their image by 2 pixels or more"),
        (lambda c: first(c).update(bbox=[1, 2, 3]), "annotation 0 has the bbox [1, 2, 3], expected x, y, width"),
        (lambda c: first(c).update(bbox=None), "has the bbox None, expected x, y, width"),
        (lambda c: first(c).update(category_id=5), "has the category 5, expected one of 4, 9"),
        (lambda c: first(c).update(image_id=1), "is of the image 1, expected an id of the list images"),
        (lambda c: first(c).pop("category_id"), "has no image_id or no category_id"),
        (lambda c: first(c).update(segmentation=[[1, 2, 3]]), "1 masks cannot be read: p0 (polygons[0] is"),
        (lambda c: first(c).update(segmentation=c["annotations"][1]["segmentation"]), "1 boxes differ much from their"),
        (lambda c: c["images"].append({"id": 99, "file_name": "x.png"}), "1 annotated images are not in the folder of"),
        (lambda c: c["categories"].append({"id": 11, "name": "cat"}), "Class 3 (cat) has no object"),
        (lambda c: c["images"][0].update(width=30), "p0.png has 40 x 60 pixels, expected 40 x 30"),
        (lambda c: [a.update(category_id=4) for a in c["annotations"][:6]], "is in no image of the split train"),
    ],
)
def test_each_fault_of_coco_gets_a_sentence(coco: Path, edit: Callable, sentence: str) -> None:
    change(coco, edit)
    assert sentence in " ".join(inspect_boxes(coco, progress=False).problems)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "Annotations/p1.xml").write_text("<annotation>"), "p1.xml is not XML, expected an"),
        (lambda root: (root / "Annotations/p1.xml").write_text("<a/>"), "has the root <a>, expected <annotation>"),
        (
            lambda root: (root / "Annotations/p1.xml").write_text(VOC.replace("<xmin>6", "<xmin>six")),
            "p1.xml has an object of the class 'car' with the corners [None, 7.0, 25.0, 16.0], expected numbers",
        ),
        (lambda root: (root / "classes.txt").write_text("car\n"), "4 objects of the class 'dog', expected one of car"),
        (lambda root: (root / "JPEGImages/p1.png").unlink(), "1 annotated images are not in the folder of images: p1"),
        (lambda root: (root / "JPEGImages/p1.png").write_text("no image"), "p1.png is not a readable image"),
        (lambda root: save(root / "JPEGImages/p1.png", image(0)), "nearly equal"),
    ],
)
def test_each_fault_of_voc_gets_a_sentence(voc: Path, break_it: Callable, sentence: str) -> None:
    (voc / "ImageSets/Main/train.txt").write_text("p0\np2\n")
    (voc / "ImageSets/Main/val.txt").write_text("p1\np3\n")
    break_it(voc)
    report = inspect_boxes(voc, progress=False)
    assert sentence in " ".join(report.problems)


@pytest.mark.parametrize(
    ("break_it", "error", "sentence"),
    [
        (lambda root: (root / "annotations.json").write_text("{"), ValueError, "is not JSON, expected a COCO file"),
        (lambda root: (root / "annotations.json").write_text("[]"), ValueError, "expected the lists images, annot"),
        (lambda root: change(root, lambda c: c.update(categories=[])), ValueError, "expected at least one with id"),
        (lambda root: change(root, lambda c: c["images"][0].pop("id")), ValueError, "expected the keys id and file"),
        (lambda root: change(root, lambda c: c["images"][0].update(id=8)), ValueError, "more than once"),
        (lambda root: change(root, lambda c: c["categories"][0].update(name="dog")), ValueError, "different names"),
        (lambda root: (root / "images").rename(root / "photos"), FileNotFoundError, "expected images too"),
        (lambda root: [p.unlink() for p in (root / "images").iterdir()], ValueError, "contains no image"),
        (
            lambda root: (root / "boxes_x.json").write_text(
                json.dumps(coco_of(1) | {"categories": [{"id": 4, "name": "a"}]})
            ),
            ValueError,
            "expected the same in all: annotations.json, boxes_x.json",
        ),
        (lambda root: (root / "splits/val.txt").write_text("p9"), ValueError, "lists 'p9'"),
        (lambda root: save(root / "images/train/p0.png", image(0)), ValueError, "have the same name"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(coco: Path, break_it: Callable, error: type, sentence: str) -> None:
    break_it(coco)
    with pytest.raises(error, match=sentence):
        inspect_boxes(coco, progress=False)


def test_the_command_inspects_boxes(coco: Path, tmp_path: Path) -> None:
    words = ["inspect", str(coco), "--out", str(tmp_path / "sheet.png")]
    good = CliRunner().invoke(app, words)
    assert good.exit_code == 0 and "No problem found." in good.output and (tmp_path / "sheet.png").is_file()
    change(coco, lambda c: first(c).update(category_id=5))
    bad = CliRunner().invoke(app, words)
    assert bad.exit_code == 1 and "Problems (1):" in bad.output
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = CliRunner().invoke(app, ["inspect", str(empty)])
    assert nothing.exit_code != 0 and "expected images/<name>.png" in " ".join(nothing.output.split())


def test_real_annotations_have_the_numbers_of_their_description(shared_data: Path) -> None:
    report = inspect_boxes(shared_data / "bccd", progress=False)
    text = " ".join(report.facts)
    assert "363 annotated images, of which 363 can be used" in text and "Splits: test 72, train 205, val 86" in text
    for label, name, number in ((1, "RBC", 2381 + 940 + 805), (2, "WBC", 371), (3, "Platelets", 209 + 81 + 69)):
        assert f"Class {label} ({name}): {number} objects" in text


# --- windows ------------------------------------------------------------------------------------------------------


def objects_with_masks() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """An image that is bright exactly inside its two objects."""
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in BOXES]).float()
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    objects = {"boxes": boxes, "labels": torch.tensor([2, 1]), "iscrowd": torch.zeros(2, dtype=torch.bool)}
    return masks.any(dim=0).float().expand(3, -1, -1), objects | {"masks": masks}


def test_a_crop_moves_clips_and_drops_objects() -> None:
    view, objects = cropped(*objects_with_masks(), (10, 14, 40, 30))  # rows 10 to 50, columns 14 to 44
    assert view.shape == (3, 40, 30) and (view[:, 30:] == 0).all()
    assert objects["boxes"].tolist() == [[0, 0, 11, 6], [16, 10, 28, 22]]  # 66 of 200 pixels of the first are left
    assert objects["masks"].sum(dim=(1, 2)).tolist() == [66, 144]
    _, objects = cropped(*objects_with_masks(), (10, 16, 40, 30))  # 54 of 200 pixels
    assert objects["labels"].tolist() == [1] and len(objects["masks"]) == len(objects["iscrowd"]) == 1


@pytest.mark.parametrize("whole", [False, True])
def test_views_keep_boxes_on_their_objects(whole: bool) -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        view, objects = mirrored(*box_window(*objects_with_masks(), 64, (0.6, 1.6), whole))
        assert view.shape == (3, 64, 64) and objects["masks"].shape[1:] == (64, 64)
        for box, mask in zip(objects["boxes"].round().int().tolist(), objects["masks"], strict=True):
            left, top, right, bottom = box
            assert (
                mask[top:bottom, left:right].float().mean() > 0.8 and mask.sum() == mask[top:bottom, left:right].sum()
            )
            assert ((view[0] > 0.5) & mask).sum() > 0.8 * mask.sum()


def test_rescaling_there_and_back() -> None:
    _, objects = objects_with_masks()
    there = rescaled(objects, SIZE, (80, 30))
    assert there["boxes"][0].tolist() == [2.5, 12, 12.5, 32] and there["masks"].shape == (2, 80, 30)
    assert torch.equal(rescaled(there, (80, 30), SIZE)["boxes"], objects["boxes"])


def test_the_baseline_finds_bright_rectangles() -> None:
    view, objects = objects_with_masks()
    (found,) = OtsuBoxes([(view, objects)] * 2, 3)(view[None])
    assert found["labels"].tolist() == [2, 1] and found["boxes"].sub(objects["boxes"]).abs().max() <= 2
    (nothing,) = OtsuBoxes([(view, objects)], 3)(torch.zeros(1, 3, *SIZE))
    assert len(nothing["boxes"]) == len(nothing["labels"]) == len(nothing["scores"]) == 0
