"""Objects of two label maps, matched one to one, against brute force over all matchings."""

from itertools import permutations

import numpy as np
import pytest
import torch

from segedu.metrics.instance import instance_accuracy, label_map_iou, match_instances


def brute_force(preds, target, iou_threshold):
    """TP / (TP + FP + FN) from loops: every object pair, every matching."""
    first, second = (np.setdiff1d(np.unique(m), [0]) for m in (preds, target))
    iou = np.array(
        [[((preds == i) & (target == j)).sum() / ((preds == i) | (target == j)).sum() for j in second] for i in first]
    )
    if len(first) > len(second):
        iou = iou.T
    few, many = iou.shape
    hits = max(sum(iou[i, j] >= iou_threshold for i, j in enumerate(p)) for p in permutations(range(many), few))
    return hits / (few + many - hits)


def random_maps(shape, seed):
    """Strips of objects and a prediction that shifts, splits and loses some of them."""
    rng = np.random.default_rng(seed)
    target = np.repeat(rng.integers(0, 6, (shape[0] // 2 + 1, shape[1])), 2, axis=0)[: shape[0]]
    noise = rng.integers(0, 5, shape)
    return np.where(rng.random(shape) < 0.35, noise, target * 3), target


def compare(ours):
    for shape in [(4, 6), (3, 7)]:
        for seed in range(5):
            preds, target = random_maps(shape, seed)
            for threshold in (0.1, 0.25, 0.5):
                assert ours(preds, target, threshold) == brute_force(preds, target, threshold)


def test_equals_brute_force():
    compare(instance_accuracy)


def greedy_by_first(preds, target, threshold):
    """The mistake to refuse: an object may be matched twice."""
    enough = label_map_iou(preds, target) >= threshold
    hits = int(enough.any(dim=1).sum())
    return hits / (sum(enough.shape) - hits)


@pytest.mark.parametrize(
    "perturbed",
    [
        greedy_by_first,
        lambda p, t, threshold: instance_accuracy(p, t, threshold * 1.3),
        lambda p, t, threshold: instance_accuracy(p + 1, t, threshold),
        lambda p, t, threshold: instance_accuracy(p, t, threshold) * (1 + 1e-12),
    ],
)
def test_comparison_refuses_a_perturbed_function(perturbed):
    with pytest.raises(AssertionError):
        compare(perturbed)


def test_threshold_itself_is_a_match():
    preds, target = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 1]])  # IoU exactly 1/2
    assert instance_accuracy(preds, target, 0.5) == 1
    assert instance_accuracy(preds, target, 0.51) == 0


def test_more_matches_win_over_a_better_match():
    preds = np.array([[1, 1, 1, 1, 0, 2]])
    target = np.array([[1, 2, 2, 2, 2, 1]])  # IoU: (1,1) 1/5, (1,2) 3/5, (2,1) 1/2, (2,2) 0
    assert match_instances(preds, target, 0.2) == (2, 0, 0)


def test_no_objects():
    nothing, two = torch.zeros(2, 4, dtype=torch.int32), torch.tensor([[1, 0, 2, 2], [1, 0, 2, 2]])
    assert instance_accuracy(nothing, nothing) == 1
    assert instance_accuracy(nothing, two) == instance_accuracy(two, nothing) == 0
    assert match_instances(nothing, two) == (0, 0, 2)
    assert label_map_iou(nothing, two).shape == (0, 2)


def test_labels_may_have_gaps_and_no_background():
    preds, target = np.array([[900, 900, 4]]), np.array([[1, 1, 2]])
    assert label_map_iou(preds, target).tolist() == [[0, 1], [1, 0]]
    assert instance_accuracy(preds, target, 1.0) == 1
