"""COCO's evaluation against pycocotools, on random sets with crowds, ties, empty images and absent classes."""

import copy
import json

import numpy as np
import pytest
from metrics import coco_scenes as scenes

from segedu.metrics.coco import METRIC_NAMES
from segedu.metrics.coco_files import evaluate_coco
from segedu.ops.masks import decompress_rle

KEYS = {"bbox": "bbox", "segm": "segmentation"}


def twelve(result):
    """As pycocotools prints them: -1 where nothing is to be found."""
    return np.nan_to_num([result[name] for name in METRIC_NAMES], nan=-1.0)


def assert_equal(ours, peer, class_agnostic):
    np.testing.assert_allclose(twelve(ours), peer.stats, rtol=0, atol=1e-12)
    labels = ours["labels"].tolist()
    for place, category in enumerate([0] if class_agnostic else peer.params.catIds):
        precision, recall = peer.eval["precision"][:, :, place, :, 2], peer.eval["recall"][:, place]
        if category not in labels:
            assert (precision == -1).all() and (recall == -1).all()
            continue
        k = labels.index(category)
        np.testing.assert_allclose(np.nan_to_num(ours["precision"][:, :, k], nan=-1), precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.nan_to_num(ours["recall"][:, k], nan=-1), recall, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou_type", KEYS)
@pytest.mark.parametrize("seed", range(20))
def test_equals_pycocotools(seed, iou_type):
    annotations, results = scenes.scene(seed, ties=seed % 2 == 0)
    results = scenes.only(KEYS[iou_type], results)
    for class_agnostic in (False, True):
        peer = scenes.pycocotools_evaluation(annotations, results, iou_type, class_agnostic)
        assert_equal(evaluate_coco(annotations, results, iou_type, class_agnostic), peer, class_agnostic)


def test_the_sets_hold_what_they_should():
    """Else the test above would pass for want of a case."""
    sets = [scenes.scene(seed, ties=seed % 2 == 0, masks=False) for seed in range(20)]
    crowds = [sum(a["iscrowd"] for a in annotations["annotations"]) for annotations, _ in sets]
    tied = [len(results) - len({r["score"] for r in results}) for _, results in sets]
    assert min(crowds) >= 0 and sum(crowds) > 40 and sum(tied) > 200
    with_objects = [{a["image_id"] for a in annotations["annotations"]} for annotations, _ in sets]
    with_detections = [{r["image_id"] for r in results} for _, results in sets]
    assert any(len(images) < 6 for images in with_objects) and any(len(images) < 6 for images in with_detections)
    absent = [
        {r["category_id"] for r in results} - {a["category_id"] for a in an["annotations"]} for an, results in sets
    ]
    assert all(12 in categories for categories in absent)
    areas = np.array([a["area"] for annotations, _ in sets for a in annotations["annotations"]])
    assert min((areas < 32**2).sum(), ((areas > 32**2) & (areas < 96**2)).sum(), (areas > 96**2).sum()) > 10


def test_more_than_100_detections_an_image():
    annotations, results = scenes.scene(3, images=2, classes=2, objects=20, detections=260, masks=False)
    per_image = [sum(r["image_id"] == image and r["category_id"] == 3 for r in results) for image in (1, 2)]
    assert max(per_image) > 120
    for class_agnostic in (False, True):
        peer = scenes.pycocotools_evaluation(annotations, results, "bbox", class_agnostic)
        assert_equal(evaluate_coco(annotations, results, "bbox", class_agnostic), peer, class_agnostic)


@pytest.mark.parametrize("categories", [(3, 6), (6, 3)])
def test_of_equal_ious_the_object_of_the_higher_category_is_taken(categories):
    """The first detection lies halfway between two objects; the second fits one of them only."""
    boxes = [[0, 0, 10, 10], [4, 0, 10, 10]]
    true = [{"bbox": box, "category_id": c, "area": 100} for box, c in zip(boxes, categories, strict=True)]
    true = [{**t, "image_id": 1, "iscrowd": 0, "id": i} for i, t in enumerate(true, start=1)]
    found = [{"bbox": [2, 0, 10, 10], "score": 0.9}, {"bbox": boxes[0], "score": 0.8}]
    found = [{**f, "image_id": 1, "category_id": 3} for f in found]
    annotations = {"images": [{"id": 1}], "categories": [{"id": 3}, {"id": 6}], "annotations": true}
    peer = scenes.pycocotools_evaluation(annotations, found, "bbox", class_agnostic=True)
    ours = evaluate_coco(annotations, found, class_agnostic=True)
    assert_equal(ours, peer, class_agnostic=True)
    assert ours["recall"][0, 0, 0, 2] == (1.0 if categories == (3, 6) else 0.5)


def test_a_result_moved_by_a_pixel_changes_the_numbers():
    annotations, results = scenes.scene(1, ties=False, masks=False)
    before = twelve(evaluate_coco(annotations, results))
    for result in results:
        result["bbox"][0] += 1
    assert np.abs(twelve(evaluate_coco(annotations, results)) - before).max() > 1e-3


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_faster_coco_eval(seed, class_agnostic):
    faster = pytest.importorskip("faster_coco_eval")
    annotations, results = scenes.scene(seed, ties=seed % 2 == 0)
    results = scenes.only("segmentation", results)
    truth = faster.COCO(copy.deepcopy(annotations))
    found = truth.loadRes(copy.deepcopy(results))
    peer = faster.COCOeval_faster(truth, found, "boundary", print_function=lambda *_: None)
    peer.params.useCats = int(not class_agnostic)
    peer.evaluate()
    peer.accumulate()
    peer.summarize()
    ours = evaluate_coco(annotations, results, "boundary", class_agnostic)
    np.testing.assert_allclose(twelve(ours), peer.stats[:12], rtol=0, atol=1e-12)
    assert ours["AP"] < evaluate_coco(annotations, results, "segm", class_agnostic)["AP"]


def test_forms_of_a_mask_and_of_the_arguments(tmp_path):
    """Compressed as text or bytes, as a list of runs; as objects in memory or files."""
    annotations, results = scenes.scene(2)
    results = scenes.only("segmentation", results)
    expected = twelve(evaluate_coco(annotations, results, "segm"))
    (tmp_path / "instances.json").write_text(json.dumps(annotations))
    (tmp_path / "results.json").write_text(json.dumps(results))
    from_files = evaluate_coco(tmp_path / "instances.json", str(tmp_path / "results.json"), "segm")
    np.testing.assert_array_equal(twelve(from_files), expected)
    for record in annotations["annotations"]:
        record["segmentation"] = decompress_rle(record["segmentation"])
    for record in results:
        record["segmentation"]["counts"] = record["segmentation"]["counts"].encode()
    np.testing.assert_array_equal(twelve(evaluate_coco(annotations, results, "segm")), expected)


def test_nothing_there():
    empty = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    assert all(np.isnan(evaluate_coco(empty, [])[name]) for name in METRIC_NAMES)
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600}
    missed = evaluate_coco(empty | {"annotations": [box]}, [])
    assert missed["AP"] == missed["APm"] == missed["AR100"] == 0 and np.isnan(missed["APs"])
    invented = evaluate_coco(empty, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 1.0}])
    assert all(np.isnan(invented[name]) for name in METRIC_NAMES) and invented["AP_per_class"] == {}
