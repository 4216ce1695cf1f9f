"""Pixel metrics against scikit-learn and torchmetrics, by hand, and where classes or pixels are missing."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_jaccard_index

from segedu.metrics import semantic
from segedu.metrics.confusion import ConfusionMatrix, confusion_matrix

SHAPES = [(2, 8, 10), (1, 7, 13)]


def random_maps(shape, num_classes, seed=0, ignored=0.2):
    rng = np.random.default_rng(seed)
    preds, target = rng.integers(0, num_classes, (2, *shape))
    target[rng.random(shape) < ignored] = 255
    return torch.from_numpy(preds), torch.from_numpy(target)


def by_sklearn(name, preds, target, num_classes):
    labels = range(num_classes)
    iou = sklearn.metrics.jaccard_score(target, preds, labels=labels, average=None)
    frequency = np.bincount(target, minlength=num_classes) / len(target)
    return {
        "pixel_accuracy": lambda: sklearn.metrics.accuracy_score(target, preds),
        "class_accuracy": lambda: sklearn.metrics.recall_score(target, preds, labels=labels, average=None),
        "iou_per_class": lambda: iou,
        "dice_per_class": lambda: sklearn.metrics.f1_score(target, preds, labels=labels, average=None),
        "mean_iou": lambda: iou.mean(),
        "frequency_weighted_iou": lambda: (frequency * iou).sum(),
    }[name]()


NAMES = [
    "pixel_accuracy",
    "class_accuracy",
    "iou_per_class",
    "dice_per_class",
    "mean_iou",
    "frequency_weighted_iou",
]


def compare(ours, name):
    for shape in SHAPES:
        for num_classes in (2, 3):
            preds, target = random_maps(shape, num_classes)
            counted = target != 255
            expected = by_sklearn(name, preds[counted].numpy(), target[counted].numpy(), num_classes)
            got = np.asarray(ours(preds, target, num_classes, ignore_index=255))
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_equals_sklearn(name):
    compare(getattr(semantic, name), name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("perturb", ["scaled", "percent", "one pixel", "ignored counted"])
def test_comparison_refuses_a_perturbed_function(name, perturb):
    metric = getattr(semantic, name)

    def one_pixel(preds, target, num_classes, ignore_index):
        preds = preds.clone()
        where = tuple(torch.nonzero(target != 255)[0])
        preds[where] = (preds[where] + 1) % num_classes
        return metric(preds, target, num_classes, ignore_index)

    perturbed = {
        "scaled": lambda *a, **k: metric(*a, **k) * (1 + 1e-12),
        "percent": lambda *a, **k: metric(*a, **k) * 100,
        "one pixel": one_pixel,
        "ignored counted": lambda p, t, k, ignore_index: metric(p, t.clamp(max=k - 1), k),
    }[perturb]
    with pytest.raises(AssertionError):
        compare(perturbed, name)


@pytest.mark.parametrize("average", ["macro", "none"])
def test_iou_equals_torchmetrics(average):
    for shape in SHAPES:
        preds, target = random_maps(shape, 4)
        ours = semantic.mean_iou if average == "macro" else semantic.iou_per_class
        theirs = multiclass_jaccard_index(preds, target, 4, average=average, ignore_index=255)
        np.testing.assert_allclose(ours(preds, target, 4, 255), theirs, atol=1e-6)  # theirs is float32


@pytest.mark.parametrize("name", [*NAMES, "present_classes"])
def test_twin_takes_the_matrix(name):
    preds, target = random_maps((3, 5, 7), 4)
    total = ConfusionMatrix(4, ignore_index=255)
    for p, t in zip(preds, target, strict=True):
        total.update(p, t)
    twin = getattr(semantic, f"{name}_from_confusion")(total.compute())
    np.testing.assert_array_equal(twin, getattr(semantic, name)(preds, target, 4, 255))


def test_absent_classes_are_nan_and_skipped():
    preds, target = torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0])
    iou = semantic.iou_per_class(preds, target, 4)  # 1 and 3 occur nowhere, 2 only in the prediction
    np.testing.assert_allclose(iou, [2 / 3, math.nan, 0, math.nan])
    assert semantic.mean_iou(preds, target, 4) == pytest.approx(1 / 3)
    assert semantic.present_classes(preds, target, 4).tolist() == [True, False, True, False]
    np.testing.assert_allclose(semantic.class_accuracy(preds, target, 4), [2 / 3] + [math.nan] * 3)
    assert semantic.frequency_weighted_iou(preds, target, 4) == pytest.approx(2 / 3)


def test_all_ignored_is_nan():
    preds, target = torch.zeros(2, 3, 3, dtype=torch.int64), torch.full((2, 3, 3), 255)
    for name in NAMES:
        assert np.isnan(np.asarray(getattr(semantic, name)(preds, target, 3, 255))).all(), name
    assert math.isnan(semantic.mean_iou_per_image(preds, target, 3, 255))
    assert not semantic.present_classes(preds, target, 3, 255).any()


def test_per_image_and_data_set_differ():
    preds = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    target = torch.tensor([[[0, 1, 0, 0]], [[1, 1, 1, 1]], [[255, 255, 255, 255]]])
    # image 1: class 0 2/4, class 1 0/2, mean 1/4; image 2: class 1 alone, 1; image 3: skipped
    assert semantic.mean_iou_per_image(preds, target, 2, 255) == (0.25 + 1) / 2
    # all together: class 0 2/4, class 1 4/6
    assert semantic.mean_iou(preds, target, 2, 255) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_accuracy_misleads_where_the_background_is_large():
    target = torch.zeros(10, 10, dtype=torch.int64)
    target[0, 0] = 1
    nothing = torch.zeros_like(target)
    assert semantic.pixel_accuracy(nothing, target, 2) == 0.99
    assert semantic.mean_iou(nothing, target, 2) == pytest.approx(0.495)


def test_binary_values_by_hand():
    a, b = torch.zeros(4, 5, dtype=torch.bool), torch.zeros(4, 5, dtype=torch.bool)
    assert semantic.binary_iou(a, b) == semantic.binary_dice(a, b) == 1
    a[:2, :2] = True  # the homework as masks: 4 and 6 pixels, 1 in common
    assert semantic.binary_iou(a, b) == semantic.binary_dice(a, b) == 0
    b[1:4, 1:3] = True
    assert semantic.binary_iou(a, b) == 1 / 9
    assert semantic.binary_dice(a, b) == 2 / 10
    assert semantic.binary_iou(a.numpy().astype(np.uint8), b.int()) == 1 / 9


MASKS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20)


@given(MASKS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bounds_symmetry_permutation_and_dice_of_iou(pixels):
    preds, target = torch.tensor(pixels).T
    iou, dice = semantic.iou_per_class(preds, target, 3), semantic.dice_per_class(preds, target, 3)
    present = semantic.present_classes(preds, target, 3)
    assert torch.equal(present, ~iou.isnan())
    assert ((iou[present] >= 0) & (iou[present] <= dice[present]) & (dice[present] <= 1)).all()
    torch.testing.assert_close(dice, 2 * iou / (1 + iou), equal_nan=True)
    torch.testing.assert_close(iou, semantic.iou_per_class(target, preds, 3), equal_nan=True)
    order = torch.tensor([1, 2, 0])
    permuted = semantic.iou_per_class(order[preds], order[target], 3)
    torch.testing.assert_close(permuted[order], iou, equal_nan=True)
    foreground = semantic.binary_iou(preds == 1, target == 1)
    assert foreground == (iou[1] if present[1] else 1)
    assert semantic.mean_iou_from_confusion(confusion_matrix(target, target, 3)) == 1
