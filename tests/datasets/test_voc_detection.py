"""VOC's boxes, on a tree of images made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from segedu.datasets.voc import CLASSES
from segedu.datasets.voc_detection import VOCDetection

WIDTH, HEIGHT = 13, 10


def annotation(*objects: str) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC2012</folder>{size}{''.join(objects)}</annotation>"


def thing(
    name: str, box: tuple, flags: str = "<truncated>0</truncated><difficult>0</difficult>", part: str = ""
) -> str:
    xmin, ymin, xmax, ymax = box  # the order of VOC's own files is not always this one
    corners = f"<xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin>"
    return f"<object><name>{name}</name>{flags}{part}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A cat and a person with a head, who is difficult and truncated; an image of nothing."""
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("2007_000032\n2007_000039\n")
    head = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>2</ymin><xmax>6</xmax><ymax>3</ymax></bndbox></part>"
    objects = (
        thing("cat", (1, 1, WIDTH, HEIGHT)),
        thing("person", (4.5, 2, 7, 9), "<truncated>1</truncated><difficult>1</difficult>", head),
        thing("tvmonitor", (3, 3, 3, 3), flags=""),
    )
    for name, content in (("2007_000032", annotation(*objects)), ("2007_000039", annotation())):
        Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(content)
    return tmp_path


def test_boxes_from_first_and_last_pixel(voc: Path) -> None:
    data = VOCDetection(voc)
    sample = data[0]
    assert len(data) == 2 and sample["image"].shape == (3, HEIGHT, WIDTH) and sample["image"].dtype == torch.float32
    assert sample["boxes"].tolist() == [[0, 0, WIDTH, HEIGHT], [3.5, 1, 7, 9], [2, 2, 3, 3]]
    assert [CLASSES[label] for label in sample["labels"]] == ["cat", "person", "tvmonitor"]
    assert sample["difficult"].tolist() == sample["truncated"].tolist() == [False, True, False]
    empty = data[-1]
    assert empty["boxes"].shape == (0, 4) and empty["labels"].dtype == torch.int64
    assert empty["difficult"].dtype == empty["truncated"].dtype == torch.bool and not len(empty["difficult"])


def test_difficult_objects_can_be_left_out(voc: Path) -> None:
    assert VOCDetection(voc, keep_difficult=False)[0]["labels"].tolist() == [8, 20]
    only = annotation(thing("dog", (1, 1, 2, 2), "<difficult>1</difficult>"))
    (voc / "Annotations/2007_000039.xml").write_text(only)
    assert VOCDetection(voc, keep_difficult=False)[1]["boxes"].shape == (0, 4)


def test_a_box_is_cut_at_the_image(voc: Path) -> None:
    (voc / "Annotations/2007_000039.xml").write_text(annotation(thing("dog", (0, 0, WIDTH + 1, 4))))
    assert VOCDetection(voc)[1]["boxes"].tolist() == [[0, 0, WIDTH, 4]]


def test_transforms_are_called(voc: Path) -> None:
    assert VOCDetection(voc, transforms=lambda sample: len(sample["labels"]))[0] == 3


def test_what_is_missing(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no ImageSets/Main/val.txt; expected VOCdevkit/VOC2012 with"):
        VOCDetection(voc, "val")
    with pytest.raises(FileNotFoundError, match="expected VOCdevkit/VOC2012 with"):
        VOCDetection(tmp_path / "nowhere")
    (voc / "ImageSets/Main/empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty.txt lists no images"):
        VOCDetection(voc, "empty")
    with pytest.raises(IndexError, match="index is 2, expected an index into 2"):
        VOCDetection(voc)[2]
    (voc / "Annotations/2007_000039.xml").unlink()
    with pytest.raises(FileNotFoundError, match="2007_000039.xml is missing, expected an XML file of VOC"):
        VOCDetection(voc)[1]
    (voc / "JPEGImages/2007_000039.jpg").write_bytes(b"\xff\xd8 cut short")
    with pytest.raises(ValueError, match="is not a readable image"):
        VOCDetection(voc)[1]
    for path in (voc / "Annotations").iterdir():
        path.unlink()
    (voc / "Annotations").rmdir()
    with pytest.raises(FileNotFoundError, match="has no Annotations; expected"):
        VOCDetection(voc)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation><object>", "is not XML, expected an annotation of VOC"),
        ("", "is not XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "is not XML"),
        ("<html></html>", "has the root <html>, expected <annotation>"),
        (annotation(thing("unicorn", (1, 1, 2, 2))), "of the class 'unicorn', expected one of aeroplane"),
        (annotation(thing("background", (1, 1, 2, 2))), "of the class 'background'"),
        (annotation("<object/>"), "of the class '', expected"),
        (annotation(thing("cat", ("left", 1, 2, 2))), "has the xmin 'left', expected a number of pixels"),
        (annotation(thing("cat", (1, 1, 2, "nan"))), "has the ymax 'nan', expected"),
        (annotation("<object><name>cat</name></object>"), "has the xmin None, expected"),
        (annotation(thing("cat", (3, 1, 2, 2))), r"has the box \[3.0, 1.0, 2.0, 2.0\], expected .* of 13 x 10"),
        (annotation(thing("cat", (14, 1, 20, 2))), r"has the box \[14.0, 1.0, 20.0, 2.0\], expected"),
        (annotation(thing("cat", (1, 1, 2, 2), "<difficult>yes</difficult>")), "has difficult 'yes', expected 0 or 1"),
    ],
)
def test_what_is_wrong(voc: Path, content: str, words: str) -> None:
    (voc / "Annotations/2007_000032.xml").write_text(content)
    with pytest.raises(ValueError, match=words):
        VOCDetection(voc)[0]
