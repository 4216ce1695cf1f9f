"""The confusion matrix against scikit-learn and torchmetrics: counts are equal or they are wrong."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from segedu.metrics.confusion import ConfusionMatrix, confusion_matrix

SHAPES = [(2, 8, 10), (1, 7, 13), (5,)]


def random_maps(shape, num_classes, seed=0, ignored=0.0):
    rng = np.random.default_rng(seed)
    preds, target = rng.integers(0, num_classes, (2, *shape))
    target[rng.random(shape) < ignored] = 255
    return torch.from_numpy(preds), torch.from_numpy(target)


def compare(ours):
    for shape in SHAPES:
        for num_classes in (2, 5):
            preds, target = random_maps(shape, num_classes, ignored=0.3)
            matrix = ours(preds, target, num_classes, ignore_index=255)
            counted = target != 255
            expected = sklearn.metrics.confusion_matrix(target[counted], preds[counted], labels=range(num_classes))
            assert matrix.dtype == torch.int64
            assert torch.equal(matrix, torch.from_numpy(expected))
            peer = multiclass_confusion_matrix(preds, target, num_classes, ignore_index=255)
            assert torch.equal(matrix, peer)


def test_equals_sklearn_and_torchmetrics():
    compare(confusion_matrix)


def counts_ignored(preds, target, num_classes, ignore_index):
    return confusion_matrix(preds, target.clamp(max=num_classes - 1), num_classes)


PERTURBED = {
    "transposed": lambda p, t, k, ignore_index: confusion_matrix(p, t, k, ignore_index).T,
    "one more": lambda p, t, k, ignore_index: confusion_matrix(p, t, k, ignore_index) + torch.eye(k).long(),
    "float": lambda p, t, k, ignore_index: confusion_matrix(p, t, k, ignore_index).double(),
    "ignored counted": counts_ignored,
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


def test_absent_classes_keep_their_rows():
    matrix = confusion_matrix(torch.tensor([1, 1]), torch.tensor([1, 0]), num_classes=4)
    assert matrix.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_prediction_at_an_ignored_pixel_may_be_anything():
    preds, target = torch.tensor([0, 255, -7]), torch.tensor([0, 255, 255])
    assert confusion_matrix(preds, target, 2, ignore_index=255).tolist() == [[1, 0], [0, 0]]


def test_ignored_class_inside_the_range():
    preds, target = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])
    assert confusion_matrix(preds, target, 2, ignore_index=0).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, bool])
def test_arrays_of_any_integer_type(dtype):
    preds, target = np.array([1, 0, 1]).astype(dtype)[::-1], np.array([1, 1, 0]).astype(dtype)
    assert confusion_matrix(preds, target, 2).tolist() == [[0, 1], [1, 1]]


def test_uint8_does_not_overflow():
    values = torch.arange(200, dtype=torch.uint8)
    assert torch.equal(confusion_matrix(values, values, 200), torch.eye(200, dtype=torch.int64))


def test_permuting_classes_permutes_the_matrix():
    preds, target = random_maps((9, 11), 4)
    order = torch.tensor([2, 0, 3, 1])
    permuted = confusion_matrix(order[preds], order[target], 4)
    assert torch.equal(permuted[order][:, order], confusion_matrix(preds, target, 4))
    assert torch.equal(confusion_matrix(target, preds, 4), confusion_matrix(preds, target, 4).T)


def test_accumulator_equals_one_pass():
    preds, target = random_maps((6, 7, 9), 3, ignored=0.2)
    whole = confusion_matrix(preds, target, 3, ignore_index=255)
    first, second = ConfusionMatrix(3, ignore_index=255), ConfusionMatrix(3, ignore_index=255)
    first.update(preds[:1], target[:1])
    second.update(preds[1:4], target[1:4])
    second.update(preds[4:], target[4:])
    first.merge(second)
    assert torch.equal(first.compute(), whole)
    assert int(second.compute().sum()) == int((target[1:] != 255).sum())
    first.compute().zero_()  # a copy
    assert torch.equal(first.compute(), whole)
    first.reset()
    assert first.compute().tolist() == [[0] * 3] * 3


def test_a_refused_update_counts_nothing():
    total = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="target has the value 2"):
        total.update(torch.tensor([0, 0]), torch.tensor([0, 2]))
    assert int(total.compute().sum()) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    preds, target = random_maps((3, 20, 21), 4, ignored=0.2)
    matrix = confusion_matrix(preds.cuda(), target.cuda(), 4, ignore_index=255)
    assert matrix.is_cuda
    assert torch.equal(matrix.cpu(), confusion_matrix(preds, target, 4, ignore_index=255))
