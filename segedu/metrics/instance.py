"""Metrics of instance segmentation on label maps (0 is background, every other number one object)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segedu.metrics.confusion import label_pair


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
    largest sum of IoUs (Hungarian algorithm).

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
    if isinstance(iou_threshold, bool) or not isinstance(iou_threshold, int | float | np.number):
        raise TypeError(f"iou_threshold is a {type(iou_threshold).__name__}, expected a number")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a number in (0, 1]")
    iou = label_map_iou(preds, target).cpu().numpy()  # (P, N)
    n_preds, n_target = iou.shape
    if n_preds == 0 or n_target == 0:
        return 0, n_preds, n_target
    enough = iou >= iou_threshold
    # A pair above the threshold is worth 1; the IoUs of all pairs together, so divided, at most 1/2.
    worth = enough + iou / (2 * min(n_preds, n_target))
    rows, columns = linear_sum_assignment(worth, maximize=True)
    true_positive = int(enough[rows, columns].sum())
    return true_positive, n_preds - true_positive, n_target - true_positive


def label_map_iou(preds: Tensor | np.ndarray, target: Tensor | np.ndarray) -> Tensor:
    """IoU of every predicted object with every true object.

    Args:
        preds: predicted label map, integers, 0 is background, any shape.
        target: true label map, the same shape.

    Returns:
        (P, N) float64: P predicted objects by N true ones, each in the order of their labels.

    Raises:
        TypeError: a map is not an array of integers.
        ValueError: the shapes differ, or a label is negative.

    Example:
        >>> label_map_iou(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[7, 7, 7, 9]])).tolist()
        [[0.6666666666666666, 0.0], [0.0, 1.0]]
    """
    preds, target = label_pair(preds, target)
    pred_ids, pred_index = _objects(preds, "preds")
    true_ids, true_index = _objects(target, "target")
    rows, columns = len(pred_ids), len(true_ids)
    pairs = torch.bincount(columns * pred_index + true_index, minlength=rows * columns)
    overlap = pairs.reshape(rows, columns).double()  # background is row 0 and column 0
    union = overlap.sum(dim=1, keepdim=True) + overlap.sum(dim=0, keepdim=True) - overlap
    return (overlap / union.clamp(min=1))[1:, 1:]


def _objects(label_map: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The labels, background first, and for every pixel the place of its label among them."""
    if (label_map < 0).any():
        raise ValueError(f"{name} has the label {int(label_map.min())}, expected 0 (background) and above")
    # The zero in front makes sure that background exists, even where every pixel has an object.
    flat = torch.cat([label_map.new_zeros(1), label_map.flatten()])
    ids, index = torch.unique(flat, return_inverse=True)
    return ids, index[1:]
