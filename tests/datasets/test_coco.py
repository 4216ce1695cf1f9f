"""COCO's formats, on files made here, and its annotations where they are present."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segedu.datasets.coco import CocoInstances, CocoPanoptic
from segedu.ops.masks import compress_rle, rle_encode

CATEGORIES = [
    {"id": 90, "name": "toothbrush", "isthing": 1},
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 149, "name": "road", "isthing": 0},
]


@pytest.fixture
def files(tmp_path):
    """A car as a polygon, a crowd of toothbrushes as run lengths (in both forms), and an image without objects."""
    crowd = torch.zeros(8, 11).bool()
    crowd[5:7, 2:9] = True
    runs, packed = rle_encode(crowd), compress_rle(rle_encode(crowd))
    one = {"image_id": 7, "iscrowd": 0, "area": 12.0, "bbox": [1, 1, 4, 3]}
    annotations = [
        {**one, "id": 1, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]},
        {**one, "id": 2, "category_id": 90, "iscrowd": 1, "bbox": [2, 5, 7, 2], "segmentation": runs},
        {**one, "id": 3, "category_id": 90, "bbox": [2, 5, 7, 2]}
        | {"segmentation": {**packed, "counts": packed["counts"].decode()}},
    ]
    images = [{"id": n, "file_name": f"{n:012}.jpg", "height": 8, "width": 11} for n in (9, 7)]
    for image in images:
        Image.new("L" if image["id"] == 9 else "RGB", (11, 8)).save(tmp_path / image["file_name"])
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (tmp_path / "instances.json").write_text(json.dumps(content))

    numbers = np.zeros((8, 11), np.int64)
    numbers[:4], numbers[4:], numbers[0, 0] = 3_226_956, 77, 0
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
    (tmp_path / "segments").mkdir()
    Image.fromarray(colours).save(tmp_path / "segments" / "000000000007.png")
    info = [{"id": 3_226_956, "category_id": 149, "iscrowd": 0, "area": 43, "bbox": [0, 0, 11, 4]}]
    info += [{"id": 77, "category_id": 3, "iscrowd": 1, "area": 44, "bbox": [0, 4, 11, 4]}]
    truth = {"image_id": 7, "file_name": "000000000007.png", "segments_info": info}
    content = {"images": images, "annotations": [truth], "categories": CATEGORIES}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return tmp_path


def test_polygons_crowds_and_empty_images(files, capsys):
    data = CocoInstances(files, files / "instances.json")
    assert capsys.readouterr().out == ""
    assert data.classes == ["background", "car", "toothbrush", "road"] and data.category_ids == [0, 3, 90, 149]
    assert [int(sample["image_id"]) for sample in data] == [7, 9]
    sample = data[0]
    assert sample["labels"].tolist() == [1, 2, 2] and sample["iscrowd"].tolist() == [False, True, False]
    assert sample["boxes"].tolist() == [[1, 1, 5, 4], [2, 5, 9, 7], [2, 5, 9, 7]]
    assert int(sample["masks"][0].sum()) == 12 and sample["masks"][0, 1:4, 1:5].all()
    assert torch.equal(sample["masks"][1], sample["masks"][2]) and int(sample["masks"][1].sum()) == 14
    empty = data[1]
    assert empty["masks"].shape == (0, 8, 11) and empty["boxes"].shape == (0, 4) and empty["image"].shape == (3, 8, 11)


def test_numbers_from_colours(files):
    data = CocoPanoptic(files, files / "segments", files / "panoptic.json")
    sample = data[0]
    assert len(data) == 1 and sample["panoptic_seg"].dtype == torch.int32
    assert sample["panoptic_seg"].unique().tolist() == [0, 77, 3_226_956] and sample["panoptic_seg"][0, 0] == 0
    road, car = sample["segments_info"]
    assert road == {"id": 3_226_956, "category_id": 149, "isthing": False, "iscrowd": False}
    assert car["isthing"] and car["iscrowd"]


def test_what_is_missing_or_wrong(files):
    with pytest.raises(FileNotFoundError, match="expected a COCO JSON file"):
        CocoInstances(files, files / "nothing.json")
    (files / "list.json").write_text("[1]")
    (files / "cut.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="expected the keys images, annotations, categories"):
        CocoInstances(files, files / "list.json")
    with pytest.raises(ValueError, match="expected JSON"):
        CocoPanoptic(files, files / "segments", files / "cut.json")
    (files / "000000000009.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="000000000009.jpg is missing"):
        CocoInstances(files, files / "instances.json")[1]
    Image.new("RGB", (11, 8)).save(files / "segments" / "000000000007.png")
    with pytest.raises(ValueError, match="has no pixel of segment"):
        CocoPanoptic(files, files / "segments", files / "panoptic.json")[0]


def test_real_annotations(shared_data):
    data = CocoInstances("no images here", shared_data / "coco_eval" / "instances_val2014_100.json")
    assert len(data) == 100 and len(data.classes) == 81
    assert sum(len(data.coco.imgToAnns.get(number, [])) for number in data.ids) == 839
    with pytest.raises(FileNotFoundError, match="COCO_val2014"):
        data[0]


def test_a_category_of_number_0_is_no_background(files):
    content = json.loads((files / "instances.json").read_text())
    for record, key in [(c, "id") for c in content["categories"]] + [
        (a, "category_id") for a in content["annotations"]
    ]:
        record[key] = 0 if record[key] == 3 else record[key]
    (files / "instances.json").write_text(json.dumps(content))
    data = CocoInstances(files, files / "instances.json")
    assert [data.classes[label] for label in data[0]["labels"]] == ["car", "toothbrush", "toothbrush"]


def test_an_image_of_another_size_is_refused(files):
    Image.new("RGB", (12, 8)).save(files / "000000000007.jpg")
    with pytest.raises(ValueError, match=r"has the size \(8, 12\), expected \(8, 11\)"):
        CocoInstances(files, files / "instances.json")[0]


def changed(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_category_that_the_file_does_not_list(files):
    changed(files / "instances.json", lambda content: content["annotations"][0].update(category_id=4))
    with pytest.raises(
        ValueError, match=r"annotation 1 of 000000000007.jpg has the category 4, expected .*\[3, 90, 149\]"
    ):
        CocoInstances(files, files / "instances.json")[0]
    changed(
        files / "panoptic.json", lambda content: content["annotations"][0]["segments_info"][0].update(category_id=4)
    )
    with pytest.raises(ValueError, match="000000000007.png has a segment 3226956 of category 4, expected"):
        CocoPanoptic(files, files / "segments", files / "panoptic.json")[0]


def test_a_mask_of_another_size(files):
    """All masks of an image may have one wrong size, and would be taken."""

    def smaller(content):
        runs = {"size": [4, 5], "counts": [3, 17]}
        content["annotations"] = [{**content["annotations"][1], "segmentation": runs}]

    changed(files / "instances.json", smaller)
    with pytest.raises(ValueError, match=r"annotation 2 of 000000000007.jpg is \(4, 5\), expected \(8, 11\)"):
        CocoInstances(files, files / "instances.json")[0]


def test_pixels_of_a_segment_that_nobody_named(files):
    changed(files / "panoptic.json", lambda content: content["annotations"][0]["segments_info"].pop())
    with pytest.raises(ValueError, match="has pixels of segment 77, expected only segments that the annotations list"):
        CocoPanoptic(files, files / "segments", files / "panoptic.json")[0]


def test_annotations_of_an_image_that_is_not_listed(files):
    changed(files / "panoptic.json", lambda content: content["annotations"][0].update(image_id=8))
    with pytest.raises(ValueError, match="panoptic.json'.* lists no image 8"):
        CocoPanoptic(files, files / "segments", files / "panoptic.json")
