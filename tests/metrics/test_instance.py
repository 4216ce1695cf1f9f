"""Objects of two label maps, matched one to one, against brute force over all matchings."""

import csv
import os
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.io import imread
from skimage.measure import label
from skimage.segmentation import watershed

from segedu.metrics.instance import instance_accuracy, label_map_iou, match_instances

DATA = os.environ.get("SEGEDU_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
NUCLEI = Path(DATA) / "nuclei_grouped"


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
    # IoU: (1, 1) 0.6, (1, 2) and (2, 1) 0.25, (2, 2) 0. Two matches of 0.25 count more than one of 0.6.
    preds = np.array([[1] * 6 + [1] * 2 + [2] * 2])
    target = np.array([[1] * 6 + [2] * 2 + [1] * 2])
    np.testing.assert_allclose(label_map_iou(preds, target), [[0.6, 0.25], [0.25, 0]])
    assert match_instances(preds, target, 0.25) == (2, 0, 0)


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


def otsu_watershed(image):
    """The classical baseline: Gaussian, Otsu, watershed of the distance; objects are merged, split and missed."""
    smooth = gaussian(image.astype(float), 1)
    mask = smooth > threshold_otsu(smooth)
    distance = distance_transform_edt(mask)
    peaks = peak_local_max(gaussian(distance, 1), min_distance=5, labels=label(mask))
    markers = np.zeros(mask.shape, dtype=int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=mask)


def count_pairs(preds, target):
    """Pairs with IoU above 1/2, by loops. Above 1/2 an object has at most one partner: counting is matching."""
    pairs = 0
    for i in np.setdiff1d(preds, [0]):
        ids, overlaps = np.unique(target[preds == i], return_counts=True)
        unions = [(preds == i).sum() + (target == j).sum() - n for j, n in zip(ids, overlaps, strict=True)]
        pairs += sum(j != 0 and n / u > 0.5 for j, n, u in zip(ids, overlaps, unions, strict=True))
    return pairs


@pytest.mark.skipif(not NUCLEI.is_dir(), reason=f"no real nuclei at {NUCLEI} (set SEGEDU_DATA)")
def test_real_nuclei_agree_with_counting():
    """12 fluorescence images of the test split."""
    rows = csv.DictReader((NUCLEI / "items.csv").open())
    files = [(r["name"], r["file"]) for r in rows if r["split"] == "test" and r["kind"].startswith("fluo")][:12]
    assert len(files) == 12
    found = 0
    for name, file in files:
        image, target = imread(NUCLEI / "images" / file), imread(NUCLEI / "labels" / f"{name}.png")
        preds = otsu_watershed(image if image.ndim == 2 else image[..., 0])
        hits = count_pairs(preds, target)
        n_preds, n_target = len(np.unique(preds)) - 1, len(np.unique(target)) - 1
        assert match_instances(preds, target, 0.5 + 1e-9) == (hits, n_preds - hits, n_target - hits)
        found += hits
    assert found > 100
