"""The accumulator: images one by one, merged, in any order, in little memory."""

import math
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics import coco_scenes as scenes

from segedu.metrics.coco import METRIC_NAMES, CocoEvaluation
from segedu.metrics.coco_files import evaluate_coco
from segedu.ops.masks import rle_decode


def images_of(annotations, results, key, dense=False):
    """For each image the arguments of `update`."""
    for page in annotations["images"]:
        records = [[r for r in rs if r["image_id"] == page["id"]] for rs in (results, annotations["annotations"])]
        both = []
        for own in records:
            objects = {"labels": torch.tensor([r["category_id"] for r in own], dtype=torch.int64)}
            if key == "bbox":
                boxes = torch.tensor([r["bbox"] for r in own], dtype=torch.float64).reshape(-1, 4)
                objects["boxes"] = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
            elif dense:
                masks = [rle_decode(r["segmentation"]) for r in own]
                objects["masks"] = torch.stack(masks) if masks else torch.zeros(0, page["height"], page["width"]).bool()
            else:
                objects["masks"] = [r["segmentation"] for r in own]
            both.append(objects)
        both[0]["scores"] = torch.tensor([r["score"] for r in records[0]], dtype=torch.float64)
        both[1]["iscrowd"] = torch.tensor([r["iscrowd"] for r in records[1]], dtype=torch.int64)
        both[1]["area"] = torch.tensor([r["area"] for r in records[1]], dtype=torch.float64)
        yield tuple(both)


def evaluate(images, **options):
    evaluation = CocoEvaluation(**options)
    for predictions, target in images:
        evaluation.update(predictions, target)
    return evaluation


def twelve(result):
    return np.array([result[name] for name in METRIC_NAMES])


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize(
    ("iou_type", "key"), [("bbox", "bbox"), ("segm", "segmentation"), ("boundary", "segmentation")]
)
def test_image_by_image_equals_the_files(iou_type, key, class_agnostic):
    """Whole coordinates, so that the way over corners costs no bit."""
    annotations, results = scenes.scene(0, ties=True)
    options = {"iou_type": iou_type, "class_agnostic": class_agnostic}
    expected = evaluate_coco(annotations, results, **options)
    assert expected["AP"] > 0.05
    for dense in (False, True):
        ours = evaluate(images_of(annotations, results, key, dense), **options).compute()
        np.testing.assert_array_equal(twelve(ours), twelve(expected))
        assert ours["AP_per_class"] == pytest.approx(expected["AP_per_class"], rel=0, abs=0, nan_ok=True)


BOX = torch.tensor([[10.0, 10.0, 60.0, 60.0]])  # medium
ONE = {"boxes": BOX, "labels": torch.tensor([2])}
FOUND = ONE | {"scores": torch.tensor([0.9])}
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


def test_a_perfect_detector():
    result = evaluate([(FOUND, ONE), (NONE, NONE)]).compute()
    for name in METRIC_NAMES:
        small_or_large = name in ("APs", "APl", "ARs", "ARl")
        assert math.isnan(result[name]) if small_or_large else result[name] == pytest.approx(1)
    assert result["AP_per_class"] == {2: pytest.approx(1)}


def test_without_an_image_or_an_object_all_is_undefined():
    for images in ([], [(NONE, NONE)], [(FOUND, NONE)]):
        result = evaluate(images).compute()
        assert all(math.isnan(result[name]) for name in METRIC_NAMES) and result["AP_per_class"] == {}


def test_a_missed_object_and_a_wrong_class_count_zero():
    for predictions in (NONE, FOUND | {"labels": torch.tensor([3])}):
        assert evaluate([(predictions, ONE)]).compute()["AP"] == 0
    assert evaluate([(FOUND | {"labels": torch.tensor([3])}, ONE)], class_agnostic=True).compute()[
        "AP"
    ] == pytest.approx(1)


def test_a_detection_in_a_crowd_is_no_error():
    crowd = {"boxes": torch.cat([BOX, torch.tensor([[100.0, 0, 200, 100]])]), "labels": torch.tensor([2, 2])}
    inside = torch.cat([torch.tensor([[110.0, 10, 120, 20], [150.0, 50, 170, 70]]), BOX])
    found = {"boxes": inside, "labels": torch.tensor([2, 2, 2]), "scores": torch.tensor([0.9, 0.8, 0.7])}
    assert evaluate([(found, crowd | {"iscrowd": torch.tensor([0, 1])})]).compute()["AP"] == pytest.approx(1)
    assert evaluate([(found, crowd)]).compute()["AP"] < 0.2


def test_the_area_given_takes_the_place_of_the_box():
    result = evaluate([(FOUND, ONE | {"area": torch.tensor([900.0])})]).compute()
    assert result["APs"] == pytest.approx(1) and math.isnan(result["APm"])


def test_only_100_detections_count():
    """The right one is the 101st of its class; of another class 101 do not push it out, but class-agnostically they do."""
    many = {"boxes": torch.tensor([[200.0, 200.0, 220.0, 220.0]]).repeat(100, 1), "scores": torch.full((100,), 0.95)}
    for label, agnostic, expected in ((2, False, 0.0), (3, False, 1.0), (3, True, 0.0)):
        noise = many | {"labels": torch.full((100,), label)}
        both = {key: torch.cat([noise[key], FOUND[key]]) for key in FOUND}
        assert evaluate([(both, ONE)], class_agnostic=agnostic).compute()["AR100"] == pytest.approx(expected)


def scene_images(seed, key="bbox"):
    annotations, results = scenes.scene(seed, images=5, ties=False, masks=key != "bbox")
    return list(images_of(annotations, results, key))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.booleans())
def test_merge_equals_one_pass(seed, cut, class_agnostic):
    images = scene_images(seed)
    whole = evaluate(images, class_agnostic=class_agnostic).compute()
    first = evaluate(images[:cut], class_agnostic=class_agnostic)
    second = evaluate(images[cut:], class_agnostic=class_agnostic)
    before = second.compute()
    first.merge(pickle.loads(pickle.dumps(second)))  # as it arrives from another process
    np.testing.assert_array_equal(twelve(first.compute()), twelve(whole))
    np.testing.assert_array_equal(first.compute()["precision"], whole["precision"])
    np.testing.assert_array_equal(twelve(second.compute()), twelve(before))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(5)))
def test_order_of_images_and_of_objects_does_not_matter(seed, order):
    images = scene_images(seed)
    expected = twelve(evaluate(images).compute())
    shuffled = []
    rng = np.random.default_rng(seed)
    for index in order:
        places = [torch.from_numpy(rng.permutation(len(objects["labels"]))) for objects in images[index]]
        objects = zip(images[index], places, strict=True)
        shuffled.append([{key: value[place] for key, value in o.items()} for o, place in objects])
    np.testing.assert_allclose(twelve(evaluate(shuffled).compute()), expected, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_bounds_and_perfect_boxes(seed):
    images = scene_images(seed)
    result = evaluate(images).compute()
    values = twelve(result)[~np.isnan(twelve(result))]
    assert ((values >= 0) & (values <= 1)).all()
    if not math.isnan(result["AP"]):
        assert result["AP75"] <= result["AP50"] + 1e-12 and result["AR1"] <= result["AR10"] <= result["AR100"]
    objects = [{k: v[target["iscrowd"] == 0] for k, v in target.items()} for _, target in images]
    perfect = evaluate([({**o, "scores": torch.ones(len(o["labels"]))}, o) for o in objects]).compute()
    some = any(len(o["labels"]) for o in objects)
    assert [perfect["AP"], perfect["AR100"]] == pytest.approx([1, 1] if some else [math.nan] * 2, nan_ok=True)


def test_reset():
    evaluation = evaluate([(NONE, ONE)])
    assert evaluation.compute()["AP"] == 0
    evaluation.reset()
    evaluation.update(FOUND, ONE)
    assert evaluation.compute()["AP"] == pytest.approx(1)


def test_half_precision_and_gradients_are_taken():
    predictions = FOUND | {"scores": torch.tensor([0.9], dtype=torch.float16, requires_grad=True)}
    assert evaluate([(predictions, ONE)]).compute()["AP"] == pytest.approx(1)


def size_of(evaluation):
    return len(pickle.dumps(evaluation))


def test_memory_grows_with_detections_not_with_pixels():
    """The state after images of 64 x 64 and of 1024 x 1024 has the same size; 100 objects add some kilobytes."""
    sizes = []
    for side in (64, 1024):
        masks = torch.zeros(3, side, side, dtype=torch.bool)
        masks[:, : side // 2] = True
        labels = torch.tensor([1, 2, 3])
        evaluation = CocoEvaluation("segm")
        for _ in range(16):
            evaluation.update(
                {"masks": masks, "labels": labels, "scores": torch.rand(3)}, {"masks": masks, "labels": labels}
            )
        sizes.append(size_of(evaluation))
    assert sizes[0] == sizes[1] < 16 * 3 * 250


def test_memory_stays_flat():
    """Of 200 images with 4 masks of 128 x 128, 12.5 MiB of pixels, less than 160 kB stay."""
    masks = torch.zeros(4, 128, 128, dtype=torch.bool)
    masks[:, 20:100, 40:60] = True
    labels, evaluation = torch.arange(4), CocoEvaluation("segm")
    target = {"masks": masks, "labels": labels}
    evaluation.update({**target, "scores": torch.rand(4)}, target)
    tracemalloc.start()
    for _ in range(199):
        evaluation.update({**target, "scores": torch.rand(4)}, target)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 800 * 200  # bytes: a detection, its target, their pair, and room to grow
