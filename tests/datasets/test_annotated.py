"""Labelled masks in the files of COCO and CVAT: others read them, we read them back, and bad ones are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import gaussian_filter
from torch import Tensor

from segedu.datasets.coco import CocoInstances, to_coco
from segedu.datasets.cvat import from_cvat, to_cvat
from segedu.datasets.shapes import CLASSES, draw_shapes

NAMES = ["background", "cat", 'a "dog" <&> Ünsinn']


def blobs(seed: int, size: tuple[int, int], count: int) -> dict[str, Tensor]:
    """Overlapping, in pieces, with holes, and one of a single pixel."""
    rng = np.random.default_rng(seed)
    masks = gaussian_filter(rng.standard_normal((count, *size)), (0, 2, 2)) > 0.1
    masks[0], masks[0, -1, 0] = False, True
    return {"labels": torch.from_numpy(rng.integers(1, 3, count)), "masks": torch.from_numpy(masks)}


def annotated() -> dict[str, dict[str, Tensor]]:
    nothing = {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 9, 14, dtype=torch.bool)}
    return {"b/two.png": blobs(0, (17, 30), 3), "a one.png": blobs(1, (31, 22), 4), "nothing.png": nothing}


def assert_same(got: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> None:
    assert set(got) == set(expected)
    for name, instances in expected.items():
        assert torch.equal(got[name]["labels"], instances["labels"]), name
        assert torch.equal(got[name]["masks"], instances["masks"]), name


# --- COCO ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_the_same_masks(polygons: bool, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(to_coco(annotated(), NAMES, polygons=polygons)), encoding="utf-8")
    theirs = COCO(str(file))
    assert [c["name"] for c in theirs.loadCats(theirs.getCatIds())] == NAMES[1:]
    for image in theirs.loadImgs(theirs.getImgIds()):
        truths, expected = theirs.loadAnns(theirs.getAnnIds(image["id"])), annotated()[image["file_name"]]
        assert (image["height"], image["width"]) == expected["masks"].shape[1:]
        assert [truth["category_id"] for truth in truths] == expected["labels"].tolist()
        for truth, mask in zip(truths, expected["masks"].numpy(), strict=True):
            assert isinstance(truth["segmentation"], list) == polygons
            assert np.array_equal(theirs.annToMask(truth).astype(bool), mask) and truth["area"] == mask.sum()
            y, x = np.nonzero(mask)
            assert truth["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]


@pytest.mark.parametrize("polygons", [False, True])
def test_our_data_set_of_coco_reads_scenes_back(polygons: bool, tmp_path: Path) -> None:
    scenes = {f"{i}.png": draw_shapes((3, i), (48, 64)) for i in range(3)}
    for name, scene in scenes.items():
        Image.fromarray((255 * scene["image"]).byte().permute(1, 2, 0).numpy()).save(tmp_path / name)
    (tmp_path / "instances.json").write_text(json.dumps(to_coco(scenes, CLASSES, polygons=polygons)))
    data = CocoInstances(tmp_path, tmp_path / "instances.json")
    assert tuple(data.classes) == tuple(CLASSES)
    assert_same(dict(zip(scenes, data, strict=True)), scenes)
    for scene, sample in zip(scenes.values(), data, strict=True):
        assert torch.equal(scene["boxes"], sample["boxes"])


def test_scores_of_predictions_are_kept() -> None:
    instances = {**blobs(0, (9, 9), 2), "scores": torch.tensor([0.25, 0.5])}
    coco = to_coco({"a.png": instances}, NAMES)
    assert [truth["score"] for truth in coco["annotations"]] == [0.25, 0.5]
    assert [truth["id"] for truth in coco["annotations"]] == [1, 2]


# --- CVAT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polygons", [False, True])
def test_what_cvat_is_given_is_read_back(polygons: bool) -> None:
    text = to_cvat(annotated(), NAMES, polygons=polygons)
    got, classes = from_cvat(text)
    assert classes == NAMES
    assert_same(got, annotated())
    assert ("<mask" in text) != ("<polygon" in text) == polygons


def test_layout_is_that_of_cvat_for_images() -> None:
    """By the format's description; images in the order of their names, numbered from 0."""
    root = ElementTree.fromstring(to_cvat(annotated(), NAMES, task="two rooms").encode())
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    assert root.findtext("meta/task/name") == "two rooms" and root.findtext("meta/task/size") == "3"
    assert root.findtext("meta/task/mode") == "annotation"
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == NAMES[1:]
    images = [(i.get("id"), i.get("name"), i.get("width"), i.get("height")) for i in root.findall("image")]
    assert images == [("0", "a one.png", "22", "31"), ("1", "b/two.png", "30", "17"), ("2", "nothing.png", "14", "9")]
    mask = root.find("image/mask")
    assert mask.keys() == ["label", "source", "occluded", "rle", "left", "top", "width", "height", "z_order"]


def test_run_lengths_go_row_by_row_inside_the_rectangle() -> None:
    """Decoded as CVAT's maintainers describe it, pixel by pixel (cvat-ai/cvat, issue 6487)."""
    mask = blobs(4, (13, 11), 2)["masks"][1]
    text = to_cvat({"a.png": {"labels": torch.tensor([1]), "masks": mask[None]}}, NAMES)
    shape = ElementTree.fromstring(text.encode()).find("image/mask")
    left, top, width = (int(shape.get(key)) for key in ("left", "top", "width"))
    decoded, offset = torch.zeros_like(mask), 0
    for i, count in enumerate(shape.get("rle").split(",")):
        for _ in range(int(count)):
            y, x = divmod(offset, width)
            decoded[top + y, left + x], offset = bool(i % 2), offset + 1
    assert torch.equal(decoded, mask) and offset == width * int(shape.get("height"))


def test_a_file_that_people_made() -> None:
    """A project's labels, tags, attributes, a group of two polygons, half pixels, a mask that starts with its pixels."""
    text = """<?xml version="1.0" encoding="utf-8"?>
    <annotations><version>1.1</version><meta><project><labels>
      <label><name>car</name><attributes/></label><label><name>person</name></label></labels></project></meta>
      <image id="7" name="x.jpg" subset="default" width="8" height="6">
        <tag label="car" source="manual"/>
        <polygon label="person" occluded="1" points="0.0,0.0;2.00,0.00;2,2;0,2" z_order="1" group_id="3"></polygon>
        <mask label="car" rle="0,2,1,3" left="5" top="4" width="3" height="2" z_order="0">
          <attribute name="parked">true</attribute></mask>
        <polygon label="person" points="4.00,0.00;6.50,0.00;6.50,1.00;4.00,1.00" group_id="3"/>
        <polygon label="person" points="0,4;1,4;1,5;0,5"/>
        <polygon label="person" points="0,5;1,5;1,6;0,6"/>
      </image></annotations>"""
    got, classes = from_cvat(text)
    assert classes == ["background", "car", "person"] and list(got) == ["x.jpg"]
    assert got["x.jpg"]["labels"].tolist() == [2, 1, 2, 2]
    first, second = got["x.jpg"]["masks"][:2]
    assert first[:2, :2].all() and first[0, 4:6].all() and int(first.sum()) in (6, 7)
    assert second.nonzero().tolist() == [[4, 5], [4, 6], [5, 5], [5, 6], [5, 7]]
    assert got["x.jpg"]["boxes"][1].tolist() == [5, 4, 8, 6]


# --- what cannot be written or read -------------------------------------------------------------------------------

GOOD = {"labels": torch.tensor([1, 2]), "masks": torch.ones(2, 3, 4, dtype=torch.bool)}
BAD = [
    (TypeError, "annotated has type list, expected a dict", [GOOD], NAMES),
    (ValueError, "annotated is empty, expected the instances of at least one image", {}, NAMES),
    (ValueError, "annotated has the key '', expected the name", {"": GOOD}, NAMES),
    (ValueError, "annotated has the key 3, expected the name", {3: GOOD}, NAMES),
    (ValueError, "annotated['a'] has the keys ['labels'], expected labels and masks", {"a": {"labels": None}}, NAMES),
    (ValueError, "annotated['a'] has the keys list, expected labels and masks", {"a": [GOOD]}, NAMES),
    (TypeError, "annotated['a']['labels'] is list", {"a": {**GOOD, "labels": [1, 2]}}, NAMES),
    (
        TypeError,
        "annotated['a']['masks'] is torch.uint8",
        {"a": {**GOOD, "masks": GOOD["masks"].byte()}},
        NAMES,
    ),
    (ValueError, "annotated['a']['masks'] has shape (3, 4)", {"a": {**GOOD, "masks": GOOD["masks"][0]}}, NAMES),
    (ValueError, "annotated['a']['masks'] has shape (2, 0, 4)", {"a": {**GOOD, "masks": GOOD["masks"][:, :0]}}, NAMES),
    (
        ValueError,
        "annotated['a']['labels'] has shape (1,), expected (2,)",
        {"a": {**GOOD, "labels": torch.tensor([1])}},
        NAMES,
    ),
    (
        ValueError,
        "annotated['a']['scores'] has shape (3,), expected (2,)",
        {"a": {**GOOD, "scores": torch.ones(3)}},
        NAMES,
    ),
    (
        ValueError,
        "annotated['a']['labels'] has 2, expected labels with a name in classes: 1 cat",
        {"a": GOOD},
        NAMES[:2],
    ),
    (ValueError, "annotated['a']['labels'] has 0, expected", {"a": {**GOOD, "labels": torch.tensor([1, 0])}}, NAMES),
    (ValueError, "annotated['a']['masks'][0] has no pixel", {"a": {**GOOD, "masks": ~GOOD["masks"]}}, NAMES),
    (TypeError, "classes is 'cat', expected a list of names", {"a": GOOD}, "cat"),
    (TypeError, "classes is ['background', 3]", {"a": GOOD}, ["background", 3]),
    (TypeError, "classes is ['background', 'a\\nb']", {"a": GOOD}, ["background", "a\nb"]),
    (
        ValueError,
        "classes is ['background'], expected the background and at least one class",
        {"a": GOOD},
        ["background"],
    ),
    (ValueError, "classes is ['background', 'cat', 'cat']", {"a": GOOD}, ["background", "cat", "cat"]),
]


@pytest.mark.parametrize("write", [to_coco, to_cvat])
@pytest.mark.parametrize(("error", "words", "bad", "classes"), BAD)
def test_what_cannot_be_written(
    error: type[Exception], words: str, bad: object, classes: list[str], write: Callable
) -> None:
    with pytest.raises(error) as caught:
        write(bad, classes)
    assert str(caught.value).startswith(words) and ", expected " in str(caught.value)


def test_an_object_without_a_pixel_is_absent() -> None:
    shapes = '<polygon label="cat" points="0.1,0.1;0.2,0.1;0.2,0.2"/>' + MASK.format("6", 0) + MASK.format("0, 6", 0)
    got = from_cvat(cvat_file(shapes))[0]["a.png"]
    assert got["masks"].shape == (1, 3, 4) and got["labels"].tolist() == [1] and got["boxes"].tolist() == [[0, 0, 2, 3]]


def cvat_file(shape: str, size: str = 'width="4" height="3"') -> str:
    labels = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    return f'<annotations><version>1.1</version>{labels}<image id="0" name="a.png" {size}>{shape}</image></annotations>'


MASK = '<mask label="cat" rle="{}" left="{}" top="0" width="2" height="3"/>'
BAD_FILES = [
    ("nothing", "text is not XML, expected a file of CVAT for images 1.1"),
    ("<html/>", "text is <html>, expected"),
    ("<annotations><track/></annotations>", "text is of a video, expected"),
    (cvat_file('<box label="cat"/>'), "image 'a.png' has a <box>, expected <mask> and <polygon> only"),
    (
        cvat_file('<polygon label="dog" points="0,0;1,0;1,1"/>'),
        "image 'a.png' has the label 'dog', expected one of cat",
    ),
    (cvat_file('<polygon label="cat" points="0,0;1,0"/>'), "image 'a.png' has the points '0,0;1,0', expected x,y;"),
    (cvat_file('<polygon label="cat" points="0,0;1,x;1,1"/>'), "image 'a.png' has the points"),
    (cvat_file('<polygon label="cat" points="0,0;1,nan;1,1"/>'), "image 'a.png' has the points"),
    (cvat_file(MASK.format("5", 0)), "image 'a.png' has runs of 5 pixels, expected 2 * 3"),
    (cvat_file(MASK.format("2, -4", 0)), "image 'a.png' has the runs '2, -4', expected integers"),
    (cvat_file(MASK.format("2, 4.0", 0)), "image 'a.png' has the runs '2, 4.0', expected integers"),
    (cvat_file(MASK.format("6", 3)), "image 'a.png' has a mask from (3, 0), 2 wide and 3 high, expected one inside"),
    (cvat_file(MASK.format("6", "x")), "image 'a.png' has the left 'x' of <mask>, expected an integer"),
    (cvat_file("", 'width="4"'), "image 'a.png' has the height '' of <image>, expected an integer"),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES)
def test_what_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_cvat(text)
    assert str(caught.value).startswith(words) and ", expected " in str(caught.value)


def test_a_path_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="^text has type (Posix|Windows)Path, expected the content of the file"):
        from_cvat(tmp_path)
