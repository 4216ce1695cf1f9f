"""Metrics of instance segmentation on label maps (0 is background, every other number one object).

A predicted and a true object can match if their IoU is at least a threshold; the matching is one to one. With TP
pairs, FP predicted objects without a pair and FN true objects without one,

    accuracy = TP / (TP + FP + FN)    precision = TP / (TP + FP)    recall = TP / (TP + FN)
    F1 = 2 TP / (2 TP + FP + FN)      mean matched IoU = sum of the IoUs of the pairs / TP

StarDist (Schmidt et al., MICCAI 2018, arXiv 1806.03535) reports them at thresholds from 0.5 to 0.9 (its table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from segedu.metrics.confusion import label_overlaps

THRESHOLDS = tuple(i / 20 for i in range(10, 19))  # 0.5, 0.55, ..., 0.9


def instance_accuracy(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_threshold: float = 0.5) -> float:
    """``TP / (TP + FP + FN)`` over the objects of two label maps.

    StarDist calls this accuracy, Cellpose "average precision". It is no area under a curve.

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) true label map.
        iou_threshold: a pair of objects can match if its IoU is at least this, in (0, 1].

    Returns:
        A number in [0, 1]. Two maps without objects agree: 1. One object map against none: 0.

    Raises:
        TypeError: a map is not an array of integers, or ``iou_threshold`` is not a number.
        ValueError: the shapes differ, a label is negative, or ``iou_threshold`` is outside (0, 1].

    Example:
        One object is found exactly, one is missed, one is invented.

        >>> instance_accuracy(torch.tensor([[1, 1, 0, 2, 0]]), torch.tensor([[7, 7, 0, 0, 9]]))
        0.3333333333333333
    """
    true_positive, false_positive, false_negative = match_instances(preds, target, iou_threshold)
    total = true_positive + false_positive + false_negative
    return true_positive / total if total else 1.0


def match_instances(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_threshold: float = 0.5
) -> tuple[int, int, int]:
    """Match objects one to one and count; add the counts of many images before dividing.

    The matching has as many pairs with IoU at least ``iou_threshold`` as possible and, among those, the
    largest sum of the IoUs of all pairs, those below the threshold included (Hungarian algorithm).

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) true label map.
        iou_threshold: a pair of objects can match if its IoU is at least this, in (0, 1].

    Returns:
        TP, FP, FN: pairs, predicted objects without a pair, true objects without a pair.

    Raises:
        TypeError: a map is not an array of integers, or ``iou_threshold`` is not a number.
        ValueError: the shapes differ, a label is negative, or ``iou_threshold`` is outside (0, 1].

    Example:
        >>> match_instances(torch.tensor([[1, 1, 0, 2, 0]]), torch.tensor([[7, 7, 0, 0, 9]]))
        (1, 1, 1)
    """
    _check_threshold(iou_threshold, "iou_threshold")
    overlap = _overlap(preds, target)
    true_positive = len(_matched_ious(overlap, iou_threshold))
    return true_positive, overlap.n_preds - true_positive, overlap.n_target - true_positive


def instance_metrics(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Tensor]:
    """All measures of this module at several thresholds; for many images add them up with ``InstanceMetrics``.

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) true label map.
        iou_thresholds: T numbers in (0, 1].

    Returns:
        See ``InstanceMetrics.compute``.

    Raises:
        TypeError: a map is not an array of integers, or a threshold is not a number.
        ValueError: the shapes differ, a label is negative, or a threshold is outside (0, 1].

    Example:
        One object with IoU 3/4, one that is missed.

        >>> target = torch.tensor([[1, 1, 1, 1, 0, 2]])
        >>> result = instance_metrics(torch.tensor([[3, 3, 3, 0, 0, 0]]), target, iou_thresholds=[0.5, 0.9])
        >>> result["accuracy"].tolist(), result["precision"].tolist(), result["mean_matched_iou"].tolist()
        ([0.5, 0.0], [1.0, 0.0], [0.75, 0.0])
    """
    total = InstanceMetrics(iou_thresholds)
    total.update(preds, target)
    return total.compute()


class InstanceMetrics:
    """Counts of matched objects that grow image by image: three numbers and a sum for each threshold.

    Example:
        >>> total = InstanceMetrics(iou_thresholds=[0.5])
        >>> total.update(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 1, 0]]))
        >>> total.update(torch.tensor([[0, 0, 0]]), torch.tensor([[1, 2, 3]]))
        >>> total.compute()["accuracy"]  # 1 of 4 objects; the mean over images would be 1/2
        tensor([0.2500], dtype=torch.float64)
    """

    def __init__(self, iou_thresholds: Sequence[float] = THRESHOLDS):
        """Start with no image.

        Args:
            iou_thresholds: T numbers in (0, 1].

        Raises:
            TypeError: ``iou_thresholds`` is not a sequence of numbers.
            ValueError: there is no threshold, or one is outside (0, 1].
        """
        if not isinstance(iou_thresholds, list | tuple | np.ndarray):
            raise TypeError(f"iou_thresholds has type {type(iou_thresholds).__name__}, expected a list of numbers")
        if len(iou_thresholds) == 0:
            raise ValueError("iou_thresholds is empty, expected at least one number in (0, 1]")
        for i, threshold in enumerate(iou_thresholds):
            _check_threshold(threshold, f"iou_thresholds[{i}]")
        self.iou_thresholds = tuple(float(threshold) for threshold in iou_thresholds)
        self.reset()

    def update(self, preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Add one image. Arguments and errors are those of ``match_instances``.

        Args:
            preds: (H, W) predicted label map.
            target: (H, W) true label map.
        """
        overlap = _overlap(preds, target)
        for i, threshold in enumerate(self.iou_thresholds):
            ious = _matched_ious(overlap, threshold)
            self._iou_sum[i] += ious.sum()
            hits = len(ious)
            self._counts[:, i] += torch.tensor([hits, overlap.n_preds - hits, overlap.n_target - hits])

    def compute(self) -> dict[str, Tensor]:
        """The measures of all objects of all images together.

        Returns:
            (T,) float64 each: ``accuracy``, ``precision``, ``recall``, ``f1``, ``mean_matched_iou``; (T,) int64 each:
            ``true_positive``, ``false_positive``, ``false_negative``. Without any object the first four are 1;
            0/0 is 0 otherwise, and the mean IoU of no pair is 0.
        """
        hits, extra, missed = self._counts
        nothing = (self._counts.sum(dim=0) == 0).double()  # no object at all: all agree

        def ratio(part: Tensor, whole: Tensor) -> Tensor:
            return part.double() / whole.clamp(min=1) + nothing

        return {
            "accuracy": ratio(hits, hits + extra + missed),
            "precision": ratio(hits, hits + extra),
            "recall": ratio(hits, hits + missed),
            "f1": ratio(2 * hits, 2 * hits + extra + missed),
            "mean_matched_iou": self._iou_sum / hits.clamp(min=1),
            "true_positive": hits.clone(),
            "false_positive": extra.clone(),
            "false_negative": missed.clone(),
        }

    def reset(self) -> None:
        """Forget all images."""
        self._counts = torch.zeros(3, len(self.iou_thresholds), dtype=torch.int64)  # TP, FP, FN
        self._iou_sum = torch.zeros(len(self.iou_thresholds), dtype=torch.float64)

    def merge(self, other: InstanceMetrics) -> None:
        """Add the images of another accumulator, for instance of another process.

        Args:
            other: it is left as it is.

        Raises:
            TypeError: ``other`` is not an ``InstanceMetrics``.
            ValueError: ``other`` has other thresholds.
        """
        if not isinstance(other, InstanceMetrics):
            raise TypeError(f"other has type {type(other).__name__}, expected an InstanceMetrics")
        if other.iou_thresholds != self.iou_thresholds:
            raise ValueError(f"other has iou_thresholds {other.iou_thresholds}, expected {self.iou_thresholds}")
        self._counts += other._counts
        self._iou_sum += other._iou_sum


def label_map_iou(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> Tensor:
    """IoU of every predicted object with every true object.

    Args:
        preds: predicted label map, integers, 0 is background, any shape.
        target: true label map, the same shape.

    Returns:
        (P, N) float64 on the CPU: P predicted objects by N true ones, each in the order of their labels.

    Raises:
        TypeError: a map is not an array of integers.
        ValueError: the shapes differ, or a label is negative.

    Example:
        >>> label_map_iou(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[7, 7, 7, 9]])).tolist()
        [[0.6666666666666666, 0.0], [0.0, 1.0]]
    """
    overlap = _overlap(preds, target)
    iou = torch.zeros(overlap.n_preds, overlap.n_target, dtype=torch.float64)
    iou[overlap.rows, overlap.columns] = torch.from_numpy(overlap.iou)
    return iou


@dataclass
class _Overlap:
    """The M pairs of objects that share pixels."""

    n_preds: int
    n_target: int
    rows: np.ndarray  # (M,) the predicted object, from 0
    columns: np.ndarray  # (M,) the true object
    iou: np.ndarray  # (M,)


def _overlap(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> _Overlap:
    pred_labels, true_labels, counts = (values.cpu().numpy() for values in label_overlaps(preds, target))
    pred_ids, rows = np.unique(pred_labels, return_inverse=True)
    true_ids, columns = np.unique(true_labels, return_inverse=True)
    areas = np.bincount(rows, weights=counts)[rows] + np.bincount(columns, weights=counts)[columns]
    objects = (pred_labels > 0) & (true_labels > 0)
    iou = counts / (areas - counts)
    # where 0, the background, is among the labels it is the first, and objects count from the second
    rows, columns = rows - (0 in pred_ids[:1]), columns - (0 in true_ids[:1])
    n_preds, n_target = (int((ids > 0).sum()) for ids in (pred_ids, true_ids))
    return _Overlap(n_preds, n_target, rows[objects], columns[objects], iou[objects])


def _matched_ious(overlap: _Overlap, threshold: float) -> np.ndarray:
    """IoUs of the matched pairs.

    Above 1/2 an object has at most one partner, and below mostly too: then there is nothing to choose. Only the
    connected groups of objects in which one has two possible partners go through the Hungarian algorithm.
    """
    enough = overlap.iou >= threshold
    rows, columns = overlap.rows[enough], overlap.columns[enough]
    several = np.concatenate([rows[_repeated(rows)], columns[_repeated(columns)] + overlap.n_preds])
    if len(several) == 0:
        return overlap.iou[enough]
    size = overlap.n_preds + overlap.n_target
    edges = coo_array((overlap.iou, (overlap.rows, overlap.columns + overlap.n_preds)), shape=(size, size))
    group_of_object = connected_components(edges, directed=False)[1]
    group = group_of_object[overlap.rows]  # (M,), of each pair
    contested = np.isin(group, group_of_object[several])
    matched = [overlap.iou[enough & ~contested]]
    for number in np.unique(group[contested]):
        matched.append(_hungarian(overlap, group == number, threshold))
    return np.concatenate(matched)


def _hungarian(overlap: _Overlap, chosen: np.ndarray, threshold: float) -> np.ndarray:
    """IoUs of the matched pairs of one connected group."""
    names = [np.unique(values[chosen], return_inverse=True) for values in (overlap.rows, overlap.columns)]
    iou = np.zeros([len(ids) for ids, _ in names])
    iou[names[0][1], names[1][1]] = overlap.iou[chosen]
    # A pair above the threshold is worth 1; the IoUs of all pairs together, so divided, at most 1/2.
    worth = (iou >= threshold) + iou / (2 * min(iou.shape))
    matched = iou[linear_sum_assignment(worth, maximize=True)]
    return matched[matched >= threshold]


def _repeated(values: np.ndarray) -> np.ndarray:
    return (np.bincount(values) > 1)[values] if len(values) else np.zeros(0, dtype=bool)


def _check_threshold(iou_threshold: float, name: str) -> None:
    if isinstance(iou_threshold, bool) or not isinstance(iou_threshold, int | float | np.number):
        raise TypeError(f"{name} has type {type(iou_threshold).__name__}, expected a number")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"{name} is {iou_threshold}, expected a number in (0, 1]")
