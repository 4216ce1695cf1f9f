"""COCO's evaluation and run lengths on COCO's own example: 100 images, 839 objects, 734 detections."""

import json

import numpy as np
import pytest
import torch

from segedu.metrics.coco import METRIC_NAMES
from segedu.metrics.coco_files import evaluate_coco
from segedu.ops.masks import (
    boxes_from_masks,
    compress_rle,
    decompress_rle,
    polygons_to_rle,
    rle_area,
    rle_decode,
    rle_encode,
)


@pytest.fixture(scope="module")
def folder(shared_data):
    if not (shared_data / "coco_eval").is_dir():
        pytest.skip("no coco_eval in the folder of real data")
    return shared_data / "coco_eval"


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected_pycocotools.json").read_text())


@pytest.fixture(scope="module")
def annotations(folder):
    return json.loads((folder / "instances_val2014_100.json").read_text())


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_twelve_numbers(folder, annotations, expected, iou_type, class_agnostic):
    results = folder / "results" / f"instances_val2014_fake{iou_type}100_results.json"
    ours = evaluate_coco(folder / "instances_val2014_100.json", results, iou_type, class_agnostic)
    key = "useCats0_stats" if class_agnostic else "stats"
    np.testing.assert_allclose([ours[name] for name in METRIC_NAMES], expected[iou_type][key], rtol=0, atol=1e-12)
    if not class_agnostic:
        names = {category["id"]: category["name"] for category in annotations["categories"]}
        per_class = {names[label]: ap for label, ap in ours["AP_per_class"].items()}
        assert per_class == pytest.approx(expected[iou_type]["per_class_AP"], rel=0, abs=1e-12)


def test_all_839_masks_there_and_back(annotations, expected):
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    reference = {row[0]: row[1:] for row in expected["gt_mask_rle"]}
    assert len(annotations["annotations"]) == len(reference) == 839
    for annotation in annotations["annotations"]:
        area, box, counts = reference[annotation["id"]]
        segmentation, size = annotation["segmentation"], sizes[annotation["image_id"]]
        rle = compress_rle(segmentation) if isinstance(segmentation, dict) else polygons_to_rle(segmentation, size)
        assert rle["counts"].decode() == counts and tuple(rle["size"]) == size
        mask = rle_decode(rle)
        runs = rle_encode(mask)  # our own counts
        assert decompress_rle(rle) == runs and compress_rle(runs)["counts"].decode() == counts
        assert torch.equal(rle_decode(runs), mask)
        assert rle_area(rle) == rle_area(runs) == int(mask.sum()) == area
        x, y, w, h = box
        assert boxes_from_masks(mask[None]).tolist() == [[x, y, x + w, y + h]]
