"""Metrics of instance segmentation for label maps, in which 0 is background and every other label is one object.

A predicted and a ground-truth object can match if their IoU is at least a threshold; the matching is one to one. With
TP matched pairs, FP unmatched predicted objects and FN unmatched ground-truth objects,

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
from segedu.validation.numbers import check_number

THRESHOLDS = tuple(i / 20 for i in range(10, 19))  # 0.5, 0.55, ..., 0.9


def instance_accuracy(preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_threshold: float = 0.5) -> float:
    """``TP / (TP + FP + FN)`` over the objects of two label maps.

    StarDist calls this accuracy, Cellpose "average precision". It is not the area under a curve.

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) ground-truth label map.
        iou_threshold: smallest IoU of a matched pair, in (0, 1].

    Returns:
        A number in [0, 1]; 1 if neither map has objects, 0 if only one has.

    One object is predicted exactly, one is missed, and one prediction is wrong.

    >>> instance_accuracy(torch.tensor([[1, 1, 0, 2, 0]]), torch.tensor([[7, 7, 0, 0, 9]]))
    0.3333333333333333
    """
    true_positive, false_positive, false_negative = match_instances(preds, target, iou_threshold)
    total = true_positive + false_positive + false_negative
    return true_positive / total if total else 1.0


def match_instances(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_threshold: float = 0.5
) -> tuple[int, int, int]:
    """Match objects one to one and count them. For several images, add the counts before dividing.

    The matching has as many pairs with IoU at least `iou_threshold` as possible and, among those, the
    largest sum of the IoUs of all pairs, those below the threshold included (Hungarian algorithm).

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) ground-truth label map.
        iou_threshold: smallest IoU of a matched pair, in (0, 1].

    Returns:
        TP, FP, FN: matched pairs, unmatched predicted objects, unmatched ground-truth objects.

    >>> match_instances(torch.tensor([[1, 1, 0, 2, 0]]), torch.tensor([[7, 7, 0, 0, 9]]))
    (1, 1, 1)
    """
    _check_threshold("iou_threshold", iou_threshold)
    overlap = _overlap(preds, target)
    true_positive = len(_matched_ious(overlap, iou_threshold))
    return true_positive, overlap.n_preds - true_positive, overlap.n_target - true_positive


def instance_metrics(
    preds: Tensor | np.ndarray, target: Tensor | np.ndarray, iou_thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Tensor]:
    """All metrics of this module at several thresholds. For several images, use `InstanceMetrics`.

    Args:
        preds: (H, W) predicted label map, integers, 0 is background.
        target: (H, W) ground-truth label map.
        iou_thresholds: T numbers in (0, 1].

    Returns:
        See `InstanceMetrics.compute`.

    One object with IoU 3/4, and one that is missed.

    >>> target = torch.tensor([[1, 1, 1, 1, 0, 2]])
    >>> result = instance_metrics(torch.tensor([[3, 3, 3, 0, 0, 0]]), target, iou_thresholds=[0.5, 0.9])
    >>> result["accuracy"].tolist(), result["precision"].tolist(), result["mean_matched_iou"].tolist()
    ([0.5, 0.0], [1.0, 0.0], [0.75, 0.0])
    """
    total = InstanceMetrics(iou_thresholds)
    total.update(preds, target)
    return total.compute()


class InstanceMetrics:
    """Counts of matched objects, accumulated over images: TP, FP, FN and a sum of IoUs for each threshold.

    >>> total = InstanceMetrics(iou_thresholds=[0.5])
    >>> total.update(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 1, 0]]))
    >>> total.update(torch.tensor([[0, 0, 0]]), torch.tensor([[1, 2, 3]]))
    >>> total.compute()["accuracy"]  # 1 of 4 objects; the mean over images would be 1/2
    tensor([0.2500], dtype=torch.float64)
    """

    def __init__(self, iou_thresholds: Sequence[float] = THRESHOLDS):
        """Start without images, with T thresholds in (0, 1]."""
        if not isinstance(iou_thresholds, list | tuple | np.ndarray):
            raise TypeError(f"iou_thresholds has type {type(iou_thresholds).__name__}, expected a list of numbers")
        if len(iou_thresholds) == 0:
            raise ValueError("iou_thresholds is empty, expected at least one number in (0, 1]")
        for i, threshold in enumerate(iou_thresholds):
            _check_threshold(f"iou_thresholds[{i}]", threshold)
        self.iou_thresholds = tuple(float(threshold) for threshold in iou_thresholds)
        self.reset()

    def update(self, preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Add one image: a predicted and a ground-truth label map, (H, W) each."""
        overlap = _overlap(preds, target)
        for i, threshold in enumerate(self.iou_thresholds):
            ious = _matched_ious(overlap, threshold)
            self._iou_sum[i] += ious.sum()
            matched = len(ious)
            self._counts[:, i] += torch.tensor([matched, overlap.n_preds - matched, overlap.n_target - matched])

    def compute(self) -> dict[str, Tensor]:
        """The metrics over the objects of all images together.

        Returns:
            (T,) float64 each: ``accuracy``, ``precision``, ``recall``, ``f1``, ``mean_matched_iou``; (T,) int64 each:
            ``true_positive``, ``false_positive``, ``false_negative``. Without any object, the first four are 1;
            otherwise 0/0 is 0, and the mean IoU of no pair is 0.
        """
        tp, fp, fn = self._counts
        no_objects = (self._counts.sum(dim=0) == 0).double()

        def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
            return numerator.double() / denominator.clamp(min=1) + no_objects

        return {
            "accuracy": ratio(tp, tp + fp + fn),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "mean_matched_iou": self._iou_sum / tp.clamp(min=1),
            "true_positive": tp.clone(),
            "false_positive": fp.clone(),
            "false_negative": fn.clone(),
        }

    def reset(self) -> None:
        """Remove all images."""
        self._counts = torch.zeros(3, len(self.iou_thresholds), dtype=torch.int64)  # TP, FP, FN
        self._iou_sum = torch.zeros(len(self.iou_thresholds), dtype=torch.float64)

    def merge(self, other: InstanceMetrics) -> None:
        """Add the images of another accumulator, for example of another process.

        Raises:
            TypeError: `other` is not an `InstanceMetrics`.
            ValueError: `other` has other thresholds.
        """
        if not isinstance(other, InstanceMetrics):
            raise TypeError(f"other has type {type(other).__name__}, expected an InstanceMetrics")
        if other.iou_thresholds != self.iou_thresholds:
            raise ValueError(f"other has iou_thresholds {other.iou_thresholds}, expected {self.iou_thresholds}")
        self._counts += other._counts
        self._iou_sum += other._iou_sum


def label_map_iou(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> Tensor:
    """IoU of every predicted object with every ground-truth object.

    Args:
        preds: predicted label map, integers, 0 is background, any shape.
        target: ground-truth label map, the same shape.

    Returns:
        (P, N) float64 on the CPU: P predicted objects by N ground-truth objects, each in the order of their labels.

    >>> label_map_iou(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[7, 7, 7, 9]])).tolist()
    [[0.6666666666666666, 0.0], [0.0, 1.0]]
    """
    overlap = _overlap(preds, target)
    iou = torch.zeros(overlap.n_preds, overlap.n_target, dtype=torch.float64)
    iou[overlap.rows, overlap.columns] = torch.from_numpy(overlap.iou)
    return iou


@dataclass
class _Overlap:
    """The M pairs of objects that overlap."""

    n_preds: int
    n_target: int
    rows: np.ndarray  # (M,) index of the predicted object
    columns: np.ndarray  # (M,) index of the ground-truth object
    iou: np.ndarray  # (M,)


def _overlap(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> _Overlap:
    pred_labels, gt_labels, counts = (values.cpu().numpy() for values in label_overlaps(preds, target))
    pred_ids, rows = np.unique(pred_labels, return_inverse=True)
    gt_ids, columns = np.unique(gt_labels, return_inverse=True)
    areas = np.bincount(rows, weights=counts)[rows] + np.bincount(columns, weights=counts)[columns]
    objects = (pred_labels > 0) & (gt_labels > 0)
    iou = counts / (areas - counts)
    # If the background, 0, occurs, it has index 0, and objects start at index 1.
    rows, columns = rows - (0 in pred_ids[:1]), columns - (0 in gt_ids[:1])
    n_preds, n_target = (int((ids > 0).sum()) for ids in (pred_ids, gt_ids))
    return _Overlap(n_preds, n_target, rows[objects], columns[objects], iou[objects])


def _matched_ious(overlap: _Overlap, threshold: float) -> np.ndarray:
    """IoUs of the matched pairs.

    Above 1/2, an object has at most one possible partner, and below 1/2 mostly too. Only connected groups in which an
    object has two possible partners need the Hungarian algorithm.
    """
    above_threshold = overlap.iou >= threshold
    rows, columns = overlap.rows[above_threshold], overlap.columns[above_threshold]
    ambiguous = np.concatenate([rows[_repeated(rows)], columns[_repeated(columns)] + overlap.n_preds])
    if len(ambiguous) == 0:
        return overlap.iou[above_threshold]
    size = overlap.n_preds + overlap.n_target
    edges = coo_array((overlap.iou, (overlap.rows, overlap.columns + overlap.n_preds)), shape=(size, size))
    component_of_object = connected_components(edges, directed=False)[1]
    component = component_of_object[overlap.rows]  # (M,), of each pair
    contested = np.isin(component, component_of_object[ambiguous])
    matched = [overlap.iou[above_threshold & ~contested]]
    for number in np.unique(component[contested]):
        matched.append(_match_component(overlap, component == number, threshold))
    return np.concatenate(matched)


def _match_component(overlap: _Overlap, selected: np.ndarray, threshold: float) -> np.ndarray:
    """IoUs of the matched pairs of one connected group."""
    unique = [np.unique(values[selected], return_inverse=True) for values in (overlap.rows, overlap.columns)]
    iou = np.zeros([len(ids) for ids, _ in unique])
    iou[unique[0][1], unique[1][1]] = overlap.iou[selected]
    # A pair above the threshold counts 1; the scaled IoUs of all pairs add up to at most 1/2.
    gain = (iou >= threshold) + iou / (2 * min(iou.shape))
    matched = iou[linear_sum_assignment(gain, maximize=True)]
    return matched[matched >= threshold]


def _repeated(values: np.ndarray) -> np.ndarray:
    return (np.bincount(values) > 1)[values] if len(values) else np.zeros(0, dtype=bool)


def _check_threshold(name: str, iou_threshold: float) -> None:
    check_number(name, iou_threshold, maximum=1, exclusive=True)
