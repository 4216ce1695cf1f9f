"""Cell metrics over thresholds against StarDist's matching, and the accumulator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segedu.metrics.instance import (
    THRESHOLDS,
    InstanceMetrics,
    instance_accuracy,
    instance_metrics,
    label_map_iou,
    match_instances,
)

COUNTS = {"true_positive": "tp", "false_positive": "fp", "false_negative": "fn"}
RATIOS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1"}
LOW = (0.1, 0.25, 0.4, 0.5, *THRESHOLDS)


def cells(seed, shape, count=40):
    """Discs that touch, and a prediction that shifts, splits, merges, loses and invents some."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    target, preds = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    names = rng.choice(10 * count, size=(2, count), replace=False) + 1  # gaps, in no order
    for true_name, pred_name in names.T:
        (cy, cx), r = rng.uniform(0, shape), rng.uniform(2, 7)
        target[(y - cy) ** 2 + (x - cx) ** 2 <= r**2] = true_name
        fate, (dy, dx) = rng.random(), rng.normal(0, 0.15 * r, 2)
        disc = (y - cy - dy) ** 2 + (x - cx - dx) ** 2 <= (r * rng.uniform(0.85, 1.15)) ** 2
        preds[disc if fate < 0.9 else np.zeros_like(disc)] = pred_name
        if fate < 0.25:  # cut in two
            preds[disc & (x > cx + rng.uniform(-1, 1) * r / 2)] = 10 * count + pred_name
        elif fate < 0.4 and (preds > 0).any():  # swallowed by another
            preds[disc] = rng.choice(preds[preds > 0])
    return preds, target


IMAGES = [cells(seed, shape) for seed, shape in enumerate([(48, 64), (37, 51), (60, 60)] * 4)]


def one_pass(images, thresholds):
    total = InstanceMetrics(thresholds)
    for preds, target in images:
        total.update(preds, target)
    return total.compute()


def compare(ours):
    stardist = pytest.importorskip("stardist.matching")
    for images in ([IMAGES[0]], [IMAGES[1]], IMAGES):
        result = ours(images, LOW)
        pairs = tuple((target, preds) for preds, target in images)
        theirs = stardist.matching_dataset_lazy(pairs, thresh=LOW, show_progress=False)
        for name, peer in COUNTS.items():
            assert result[name].tolist() == [getattr(m, peer) for m in theirs]
        for name, peer in RATIOS.items():
            np.testing.assert_allclose(result[name], [getattr(m, peer) for m in theirs], rtol=1e-14)
        # their IoUs are float32
        means = [m.mean_matched_score for m in theirs]
        np.testing.assert_allclose(result["mean_matched_iou"], means, rtol=2e-7)


def test_equals_stardist():
    compare(one_pass)


def test_the_comparison_has_contested_objects():
    """At 0.25 some object has two possible partners: the Hungarian algorithm decides."""
    assert any(_possible(*pair, 0.25) > match_instances(*pair, 0.25)[0] for pair in IMAGES)
    assert not any(_possible(*pair, 0.55) > match_instances(*pair, 0.55)[0] for pair in IMAGES)


def _possible(preds, target, threshold):
    return int((label_map_iou(preds, target) >= threshold).sum())


def scaled(name, factor):
    def perturbed(images, thresholds):
        result = one_pass(images, thresholds)
        return {**result, name: result[name] * factor}

    return perturbed


PERTURBED = {
    **{name: scaled(name, 1 + 1e-6) for name in (*RATIOS, "mean_matched_iou")},
    **{name: scaled(name, 2) for name in COUNTS},
    "other thresholds": lambda images, thresholds: one_pass(images, [t * 0.98 for t in thresholds]),
    "roles exchanged": lambda images, thresholds: one_pass([(t, p) for p, t in images], thresholds),
    "one image left out": lambda images, thresholds: one_pass(images[1:], thresholds),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    pytest.importorskip("stardist.matching")
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


def test_thresholds_are_those_of_the_paper():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def test_no_object_anywhere_is_agreement():
    nothing, one = torch.zeros(2, 3, dtype=torch.int32), torch.ones(2, 3, dtype=torch.int32)
    both = instance_metrics(nothing, nothing, [0.5])
    assert [both[name].item() for name in RATIOS] == [1, 1, 1, 1]
    for maps in ((nothing, one), (one, nothing)):
        result = instance_metrics(*maps, [0.5])
        assert [result[name].item() for name in (*RATIOS, "mean_matched_iou")] == [0] * 5


def test_fresh_and_reset_accumulators_are_equal():
    total = InstanceMetrics([0.5, 0.7])
    fresh = total.compute()
    total.update(*IMAGES[0])
    assert total.compute()["true_positive"][0] > 0
    fresh["true_positive"].fill_(7)  # a copy
    total.reset()
    assert total.compute()["true_positive"].tolist() == [0, 0]


def test_very_large_labels():
    preds, target = IMAGES[0]
    far = [np.where(m > 0, m.astype(np.int64) + 2**40, 0) for m in (preds, target)]
    assert match_instances(*far, 0.25) == match_instances(preds, target, 0.25)


MAPS = arrays(np.int64, (2, 4, 6), elements=st.integers(0, 5))


@given(MAPS, st.sampled_from(LOW))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_symmetry_bounds_and_names(maps, threshold):
    preds, target = maps
    result, exchanged = (instance_metrics(*pair, [threshold]) for pair in ((preds, target), (target, preds)))
    assert result["true_positive"] == exchanged["true_positive"]
    assert result["precision"] == exchanged["recall"]
    for name in ("accuracy", "f1"):
        assert result[name] == exchanged[name]
        assert 0 <= result["accuracy"] <= result["f1"] <= 1
    assert result["accuracy"].item() == instance_accuracy(preds, target, threshold)
    if result["true_positive"]:
        assert threshold <= result["mean_matched_iou"] <= 1
    order = np.array([0, 40, 3, 17, 9, 2])
    assert match_instances(order[preds], target, threshold)[0] == result["true_positive"]
    assert match_instances(preds[::-1], target[::-1], threshold)[0] == result["true_positive"]
    assert instance_metrics(preds, order[preds], [threshold])["accuracy"] == 1


@given(st.lists(MAPS, min_size=2, max_size=4), st.integers(0, 4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_merge_equals_one_pass(images, cut):
    whole = one_pass(images, [0.3, 0.5])
    parts = InstanceMetrics([0.3, 0.5]), InstanceMetrics([0.3, 0.5])
    for i, (preds, target) in enumerate(images):
        parts[i >= cut].update(preds, target)
    parts[0].merge(parts[1])
    for name, values in parts[0].compute().items():
        torch.testing.assert_close(values, whole[name], rtol=1e-14, atol=0)
