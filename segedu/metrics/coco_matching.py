"""COCO's matching and precision-recall curves, for all images, area ranges and IoU thresholds at once.

`segedu.metrics.average_precision` has the same steps in a readable form, for one image, one class and one threshold.
Here the loop runs over ranks: step r matches the detections of rank r in all images and classes, for A = 4 area ranges
and T = 10 thresholds at once. This is possible because detections of different images or classes never compete for an
object.
"""

from __future__ import annotations

import itertools

import numpy as np

from segedu.validation.numbers import check_length

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
MAX_DETECTIONS = (1, 10, 100)

# `rank` is the index of a detection among those of its image and class, the most confident first.
DETECTION = np.dtype([("label", np.int64), ("rank", np.int64), ("score", np.float64), ("area", np.float64)])
TARGET = np.dtype([("label", np.int64), ("area", np.float64), ("crowd", np.bool_)])


def outside_area_ranges(area: np.ndarray) -> np.ndarray:
    """For each area range, which objects are too small or too large for it; both limits belong to a range.

    Args:
        area: (N,) in pixels.

    Returns:
        (N, A) bool, the ranges in the order all, small (up to 32²), medium (up to 96²), large.

    >>> outside_area_ranges(np.array([1024.0, 50.0])).astype(int)
    array([[0, 0, 0, 1],
           [0, 0, 1, 1]])
    """
    if area.ndim != 1:
        raise ValueError(f"area has shape {area.shape}, expected (N,)")
    low, high = np.array(list(AREA_RANGES.values())).T
    return (area[:, None] < low) | (area[:, None] > high)


def match_ranks(detections: np.ndarray, targets: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to ground-truth objects in every area range and at every IoU threshold.

    An object that is a crowd or outside the area range is optional: a detection is matched to it only if no other
    object is available, and is then ignored. A crowd can be matched any number of times. Of equal IoUs, the later
    object is taken.

    Args:
        detections: (P,) records DETECTION.
        targets: (N,) records TARGET.
        pairs: records ``detection``, ``target``, ``iou`` of all pairs with an IoU of at least 0.5.

    Returns:
        ``matched`` and ``ignored``, both (P, A, T) bool. An unmatched detection is ignored if its own area is outside
        the range.

    Two detections of one object, IoU 0.6 and 0.8: the first is the more confident.

    >>> detections = np.array([(1, 0, 0.9, 500.0), (1, 1, 0.7, 500.0)], DETECTION)
    >>> targets = np.array([(1, 500.0, False)], TARGET)
    >>> pairs = np.rec.fromarrays([[0, 1], [0, 0], [0.6, 0.8]], names="detection,target,iou")
    >>> matched, ignored = match_ranks(detections, targets, pairs)
    >>> matched[:, 0].astype(int)
    array([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
           [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]])
    """
    _check_indices(pairs["detection"], len(detections), "detection")
    _check_indices(pairs["target"], len(targets), "target")
    optional = outside_area_ranges(targets["area"]) | targets["crowd"][:, None]  # (N, A)
    A, T = optional.shape[1], len(IOU_THRESHOLDS)
    matched = np.zeros((len(detections), A, T), bool)
    ignored = np.repeat(outside_area_ranges(detections["area"])[:, :, None], T, axis=2)
    is_taken = np.zeros((len(targets), A, T), bool)
    # From here on, pairs are sorted by rank, and by detection within a rank.
    rank = detections["rank"][pairs["detection"]]
    pairs = pairs[np.lexsort((pairs["detection"], rank))]
    priority, pair_of_priority = _priorities(pairs, optional)
    above_threshold = pairs["iou"][:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # (pairs, T)
    ranges = np.arange(A)[:, None]
    for start, stop in itertools.pairwise([0, *np.cumsum(np.bincount(rank)).tolist()]):
        if start == stop:
            continue
        step = slice(start, stop)
        target, detection = pairs["target"][step], pairs["detection"][step]
        available = ~is_taken[target] & above_threshold[step, None]  # (step, A, T)
        first = np.flatnonzero(np.diff(detection, prepend=-1))
        best = np.maximum.reduceat(priority[step, :, None] * available, first)  # (detections, A, T), 0: none
        has_match = best > 0
        winner = pairs["target"][pair_of_priority[ranges, best]]
        matched[detection[first]] = has_match
        ignored[detection[first]] = np.where(has_match, optional[winner, ranges], ignored[detection[first]])
        d, a, t = np.nonzero(has_match & ~targets["crowd"][winner])
        is_taken[winner[d, a, t], a, t] = True
    return matched, ignored


def _priorities(pairs: np.ndarray, optional: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Priorities (pairs, A) from 1, of which the largest is matched, and the pair of each priority, (A, pairs + 1)."""
    count, A = len(pairs), optional.shape[1]
    priority = np.empty((count, A), np.int64)
    pair_of_priority = np.zeros((A, count + 1), np.int64)
    for a in range(A):
        required = ~optional[pairs["target"], a]
        pair_of_priority[a, 1:] = np.lexsort((pairs["target"], pairs["iou"], required))
        priority[pair_of_priority[a, 1:], a] = np.arange(1, count + 1)
    return priority, pair_of_priority


def precision_and_recall(
    detections: np.ndarray, targets: np.ndarray, matched: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision at 101 recalls and the maximum recall of every class that has a ground-truth object.

    Args:
        detections: (P,) records DETECTION.
        targets: (N,) records TARGET.
        matched: (P, A, T) bool, from `match_ranks`.
        ignored: (P, A, T) bool, from `match_ranks`.

    Returns:
        ``labels`` (K,); ``precision`` (T, R, K, A), of at most 100 detections per image and class; ``recall``
        (T, K, A, M), of at most 1, 10 and 100 detections. NaN without required objects.

    One of two objects is detected.

    >>> detections = np.array([(1, 0, 0.9, 500.0)], DETECTION)
    >>> targets = np.array([(1, 500.0, False), (1, 500.0, False)], TARGET)
    >>> yes = np.ones((1, 4, 10), bool)
    >>> labels, precision, recall = precision_and_recall(detections, targets, yes, ~yes)
    >>> labels, recall[0, 0, 0], round(float(precision[0, :, 0, 0].mean()), 4)
    (array([1]), array([0.5, 0.5, 0.5]), 0.505)
    """
    check_length("matched", matched, len(detections), of="detection")
    check_length("ignored", ignored, len(detections), of="detection")
    labels, of_label = np.unique(targets["label"], return_inverse=True)
    T, A, K = len(IOU_THRESHOLDS), len(AREA_RANGES), len(labels)
    required = ~(outside_area_ranges(targets["area"]) | targets["crowd"][:, None])
    positives = np.zeros((K, A), np.int64)
    np.add.at(positives, of_label, required)
    precision = np.full((T, len(RECALLS), K, A), np.nan)
    recall = np.full((T, K, A, len(MAX_DETECTIONS)), np.nan)
    order = np.argsort(-detections["score"], kind="stable")
    order = order[np.argsort(detections["label"][order], kind="stable")]
    sorted_labels = detections["label"][order]
    bounds = [np.searchsorted(sorted_labels, labels, side=side) for side in ("left", "right")]
    for k, (start, stop) in enumerate(zip(*bounds, strict=True)):
        rows = order[start:stop]
        valid = ~ignored[rows]
        tp = matched[rows] & valid  # (n, A, T)
        for m, max_detections in enumerate(MAX_DETECTIONS):
            with np.errstate(invalid="ignore", divide="ignore"):
                recall[:, k, :, m] = tp[detections["rank"][rows] < max_detections].sum(axis=0).T / positives[k]
        for a in np.flatnonzero(positives[k]):
            precision[:, :, k, a] = _precision_at_recalls(tp[:, a], valid[:, a], positives[k, a])
    return labels, precision, recall


def _precision_at_recalls(tp: np.ndarray, valid: np.ndarray, positives: int) -> np.ndarray:
    """(T, R): the best precision at each recall or above, 0 if a recall is not reached; tp and valid are (n, T)."""
    cumulative_tp = np.cumsum(tp, axis=0)
    precision = cumulative_tp / (np.cumsum(valid, axis=0) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    envelope = np.concatenate([envelope, np.zeros((1, tp.shape[1]))])
    recall = cumulative_tp / positives
    indices = [np.searchsorted(column, RECALLS) for column in recall.T]
    return np.stack([column[index] for column, index in zip(envelope.T, indices, strict=True)])


def _check_indices(indices: np.ndarray, count: int, name: str) -> None:
    invalid = indices[(indices < 0) | (indices >= count)]
    if len(invalid):
        raise ValueError(f"pairs has the {name} {invalid[0]}, expected 0 to {count - 1}")
