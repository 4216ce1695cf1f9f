"""All ranges and thresholds at once equal the readable steps, one class and one threshold at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segedu.metrics.average_precision import average_precision_101_point, match_detections, precision_recall_curve
from segedu.metrics.coco_matching import (
    AREA_RANGES,
    DETECTION,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALLS,
    TARGET,
    match_ranks,
    outside_area_ranges,
    precision_and_recall,
)
from segedu.metrics.coco_overlap import PAIR


def test_the_numbers_of_coco():
    assert IOU_THRESHOLDS[0] == 0.5 and IOU_THRESHOLDS[5] == 0.75 and len(IOU_THRESHOLDS) == 10
    assert len(RECALLS) == 101 and MAX_DETECTIONS == (1, 10, 100)
    assert list(AREA_RANGES) == ["all", "small", "medium", "large"]


def test_both_ends_belong_to_a_range():
    outside = outside_area_ranges(np.array([1024.0, 1024.5, 9216.0, 9217.0]))
    assert (~outside[:, 1:]).tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]]


def random_images(seed, count=4):
    """Of each image an IoU matrix, areas and crowds; IoUs are multiples of 0.05, so that many are equal."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        P, N = rng.integers(0, 9), rng.integers(0, 6)
        iou = rng.integers(0, 21, (P, N)) / 20
        areas = [rng.choice([500.0, 1024.0, 5000.0, 20000.0], n) for n in (P, N)]
        yield iou, *areas, rng.random(N) < 0.2


def records(images):
    """Records of `coco_matching` for images of one class; detections stand in the order of falling scores."""
    detections, targets, pairs = [], [], []
    for iou, area, true_area, crowd in images:
        rows, columns = np.nonzero(iou >= 0.5)
        places = zip(rows + len(detections), columns + len(targets), iou[rows, columns], strict=True)
        pairs += list(places)
        detections += [(1, rank, 1 - 0.01 * rank, a) for rank, a in enumerate(area)]
        targets += [(1, a, c) for a, c in zip(true_area, crowd, strict=True)]
    return np.array(detections, DETECTION), np.array(targets, TARGET), np.array(pairs, PAIR)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_readable_steps(seed):
    images = list(random_images(seed))
    detections, targets, pairs = records(images)
    matched, ignored = match_ranks(detections, targets, pairs)
    _, precision, recall = precision_and_recall(detections, targets, matched, ignored)
    for a in range(4):
        for t, threshold in enumerate(IOU_THRESHOLDS):
            expected = [], []
            for iou, area, true_area, crowd in images:
                taken, set_aside = match_detections(iou, crowd, threshold, outside_area_ranges(true_area)[:, a])
                outside = torch.from_numpy(outside_area_ranges(area)[:, a])
                expected[0].append(taken >= 0)
                expected[1].append(set_aside | (outside & (taken < 0)))
            hit, leave = map(torch.cat, expected)
            assert matched[:, a, t].tolist() == hit.tolist() and ignored[:, a, t].tolist() == leave.tolist()
            required = int((~outside_area_ranges(targets["area"])[:, a] & ~targets["crowd"]).sum())
            curve = precision_recall_curve(torch.tensor(detections["score"]), hit, required, leave)
            if required == 0:
                assert np.isnan(precision[t, :, 0, a]).all() and np.isnan(recall[t, 0, a]).all()
                continue
            assert precision[t, :, 0, a].mean() == pytest.approx(average_precision_101_point(*curve), abs=1e-12)
            assert recall[t, 0, a, 2] == pytest.approx(float(curve[1][-1]) if len(curve[1]) else 0.0)


@given(st.integers(0, 2**32 - 1))
def test_bounds(seed):
    detections, targets, pairs = records(random_images(seed))
    matched, ignored = match_ranks(detections, targets, pairs)
    _, precision, recall = precision_and_recall(detections, targets, matched, ignored)
    for values in (precision[~np.isnan(precision)], recall[~np.isnan(recall)]):
        assert (values >= 0).all() and (values <= 1).all()
    assert (np.diff(precision, axis=1) <= 0)[~np.isnan(precision[:, 1:])].all()  # an envelope falls along recall
    assert (np.diff(recall, axis=3) >= 0)[~np.isnan(recall[..., 1:])].all()  # more detections, more recall
    matches = (matched & ~ignored).sum(axis=0)  # (A, T): each object once
    required = ~(outside_area_ranges(targets["area"]) | targets["crowd"][:, None])
    assert (matches <= required.sum(axis=0)[:, None]).all()
