"""COCO's matching and its curves, for all images, area ranges and IoU thresholds at once.

`segedu.metrics.average_precision` has the same steps in a readable form, for one image, one class and one
threshold. Here the loop runs over ranks: in step r, the detection of rank r in every image and class chooses,
40 times (A = 4 area ranges, T = 10 thresholds). Detections of different images or classes cannot take the same
object, so they need not wait for each other.
"""

from __future__ import annotations

import itertools

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
MAX_DETECTIONS = (1, 10, 100)

# `rank` is the place of a detection among those of its image and class, the most confident first.
DETECTION = np.dtype([("label", np.int64), ("rank", np.int64), ("score", np.float64), ("area", np.float64)])
TARGET = np.dtype([("label", np.int64), ("area", np.float64), ("crowd", np.bool_)])


def outside_area_ranges(area: np.ndarray) -> np.ndarray:
    """For each area range, which objects are too small or too large for it; both ends belong to a range.

    Args:
        area: (N,) in pixels.

    Returns:
        (N, A) bool, the ranges in the order all, small (up to 32²), medium (up to 96²), large.

    Raises:
        ValueError: ``area`` has not one dimension.

    Example:
        >>> outside_area_ranges(np.array([1024.0, 50.0])).astype(int)
        array([[0, 0, 0, 1],
               [0, 0, 1, 1]])
    """
    if area.ndim != 1:
        raise ValueError(f"area has shape {area.shape}, expected (N,)")
    low, high = np.array(list(AREA_RANGES.values())).T
    return (area[:, None] < low) | (area[:, None] > high)


def match_ranks(detections: np.ndarray, targets: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to true objects in every area range and at every IoU threshold.

    An object that is a crowd or outside the area range is optional: a detection takes it only where it finds no
    other, and is then ignored. A crowd is never used up. Of equal IoUs the later object is taken.

    Args:
        detections: (P,) records DETECTION.
        targets: (N,) records TARGET.
        pairs: records ``detection``, ``target``, ``iou`` of all pairs with an IoU of at least 0.5.

    Returns:
        ``matched`` and ``ignored``, both (P, A, T) bool. A detection without a match is ignored where its own
        area is outside the range.

    Raises:
        ValueError: a pair names a detection or a target that is not there.

    Example:
        Two detections of one object, IoU 0.6 and 0.8: the first is the more confident.

        >>> detections = np.array([(1, 0, 0.9, 500.0), (1, 1, 0.7, 500.0)], DETECTION)
        >>> targets = np.array([(1, 500.0, False)], TARGET)
        >>> pairs = np.rec.fromarrays([[0, 1], [0, 0], [0.6, 0.8]], names="detection,target,iou")
        >>> matched, ignored = match_ranks(detections, targets, pairs)
        >>> matched[:, 0].astype(int)
        array([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
               [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]])
    """
    _check_places(pairs["detection"], len(detections), "detection")
    _check_places(pairs["target"], len(targets), "target")
    optional = outside_area_ranges(targets["area"]) | targets["crowd"][:, None]  # (N, A)
    A, T = optional.shape[1], len(IOU_THRESHOLDS)
    matched = np.zeros((len(detections), A, T), bool)
    ignored = np.repeat(outside_area_ranges(detections["area"])[:, :, None], T, axis=2)
    taken = np.zeros((len(targets), A, T), bool)
    # From here on pairs stand in the order of the steps: rank, and in a rank detection by detection.
    rank = detections["rank"][pairs["detection"]]
    pairs = pairs[np.lexsort((pairs["detection"], rank))]
    worth, pair_of_worth = _worth(pairs, optional)
    enough = pairs["iou"][:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # (pairs, T)
    ranges = np.arange(A)[:, None]
    for start, stop in itertools.pairwise([0, *np.cumsum(np.bincount(rank)).tolist()]):
        if start == stop:
            continue
        step = slice(start, stop)
        target, detection = pairs["target"][step], pairs["detection"][step]
        free = ~taken[target] & enough[step, None]  # (step, A, T)
        first = np.flatnonzero(np.diff(detection, prepend=-1))
        best = np.maximum.reduceat(worth[step, :, None] * free, first)  # (detections, A, T), 0: none
        found = best > 0
        winner = pairs["target"][pair_of_worth[ranges, best]]
        matched[detection[first]] = found
        ignored[detection[first]] = np.where(found, optional[winner, ranges], ignored[detection[first]])
        d, a, t = np.nonzero(found & ~targets["crowd"][winner])
        taken[winner[d, a, t], a, t] = True
    return matched, ignored


def _worth(pairs: np.ndarray, optional: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, A) numbers from 1: the larger, the sooner a detection takes this pair. And the way back, (A, worth)."""
    count, A = len(pairs), optional.shape[1]
    worth = np.empty((count, A), np.int64)
    pair_of_worth = np.zeros((A, count + 1), np.int64)
    for a in range(A):
        required = ~optional[pairs["target"], a]
        pair_of_worth[a, 1:] = np.lexsort((pairs["target"], pairs["iou"], required))
        worth[pair_of_worth[a, 1:], a] = np.arange(1, count + 1)
    return worth, pair_of_worth


def precision_and_recall(
    detections: np.ndarray, targets: np.ndarray, matched: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision at 101 recalls and the recall reached, of every class that has a true object.

    Args:
        detections: (P,) records DETECTION.
        targets: (N,) records TARGET.
        matched: (P, A, T) bool, from ``match_ranks``.
        ignored: (P, A, T) bool, from ``match_ranks``.

    Returns:
        ``labels`` (K,); ``precision`` (T, R, K, A), of at most 100 detections an image and class; ``recall``
        (T, K, A, M), of at most 1, 10 and 100. NaN where there is no object to find.

    Raises:
        ValueError: ``matched`` or ``ignored`` has another length than ``detections``.

    Example:
        One of two objects is found.

        >>> detections = np.array([(1, 0, 0.9, 500.0)], DETECTION)
        >>> targets = np.array([(1, 500.0, False), (1, 500.0, False)], TARGET)
        >>> yes = np.ones((1, 4, 10), bool)
        >>> labels, precision, recall = precision_and_recall(detections, targets, yes, ~yes)
        >>> labels, recall[0, 0, 0], round(float(precision[0, :, 0, 0].mean()), 4)
        (array([1]), array([0.5, 0.5, 0.5]), 0.505)
    """
    for name, flags in (("matched", matched), ("ignored", ignored)):
        if len(flags) != len(detections):
            raise ValueError(f"{name} has length {len(flags)}, expected {len(detections)}: one for each detection")
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
        counted = ~ignored[rows]
        true = matched[rows] & counted  # (n, A, T)
        for m, most in enumerate(MAX_DETECTIONS):
            with np.errstate(invalid="ignore", divide="ignore"):
                recall[:, k, :, m] = true[detections["rank"][rows] < most].sum(axis=0).T / positives[k]
        for a in np.flatnonzero(positives[k]):
            precision[:, :, k, a] = _precision_at_recalls(true[:, a], counted[:, a], positives[k, a])
    return labels, precision, recall


def _precision_at_recalls(true: np.ndarray, counted: np.ndarray, positives: int) -> np.ndarray:
    """(T, R): the best precision at each recall or above, 0 where a recall is not reached; true, counted (n, T)."""
    found = np.cumsum(true, axis=0)
    precision = found / (np.cumsum(counted, axis=0) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    envelope = np.concatenate([envelope, np.zeros((1, true.shape[1]))])
    recall = found / positives
    places = [np.searchsorted(column, RECALLS) for column in recall.T]
    return np.stack([column[place] for column, place in zip(envelope.T, places, strict=True)])


def _check_places(places: np.ndarray, count: int, name: str) -> None:
    wrong = places[(places < 0) | (places >= count)]
    if len(wrong):
        raise ValueError(f"pairs has the {name} {wrong[0]}, expected 0 to {count - 1}")
