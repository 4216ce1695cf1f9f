"""Average precision in three readable steps: match detections, compute precision and recall, summarise the curve.

These functions are meant to be read; each handles one class and one IoU threshold. In an image, detections are matched
in descending order of their scores. Over all images, they are ranked by their scores, which gives precision and recall.
A convention reduces this curve to one value. Three conventions are in use, and their values differ:

- VOC 2007: mean of the best precision at 11 recalls (Everingham et al. 2010);
- VOC 2010 and later: area under the envelope of the curve;
- COCO: mean of the best precision at 101 recalls, and then over IoU thresholds 0.50, 0.55, ... 0.95 and classes.

`segedu.metrics.coco` computes the same for whole data sets, and is much faster.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.validation.numbers import check_integer, check_number

Array = Tensor | np.ndarray


def match_detections(
    iou: Array,
    iscrowd: Array | None = None,
    iou_threshold: float = 0.5,
    ignore: Array | None = None,
) -> tuple[Tensor, Tensor]:
    """Match the detections of one image and one class to its ground-truth objects, as COCO does.

    Detections are processed in descending order of confidence. Each is matched to the unmatched object with the largest
    IoU, if that is at least `iou_threshold`. (Of two objects with equal IoU, it takes the later one.) Only if there is
    none, ignored objects are considered. A crowd, one region that stands for many objects, can be matched any number of
    times. A detection that is matched to a crowd or an ignored object is itself ignored: neither a true nor a false
    positive.

    Args:
        iou: (P, N) IoU of each detection, the most confident first, with each ground-truth object. For a crowd, COCO
            uses intersection / area of the detection.
        iscrowd: (N,) bool (or 0 and 1), whether an object is a crowd; None: no crowds.
        iou_threshold: smallest IoU of a match, in (0, 1].
        ignore: (N,) bool, objects that need not be detected, for example because of their size. They can be matched
            once. Crowds are always ignored.

    Returns:
        ``matched``, (P,) int64: the column of the object that each detection is matched to, -1 for none.
        ``ignored``, (P,) bool: the detections that count neither as true nor as false positives.

    Two detections of one object: the second finds it matched already. The third is matched to a crowd.

    >>> iou = torch.tensor([[0.7, 0.0], [0.9, 0.0], [0.0, 0.8]])
    >>> matched, ignored = match_detections(iou, iscrowd=torch.tensor([False, True]))
    >>> matched.tolist(), ignored.tolist()
    ([0, -1, 1], [False, False, True])
    """
    iou = _floats(iou, "iou", "(P, N)")
    P, N = iou.shape
    _check_range(iou, "iou")
    crowd = _flags(iscrowd, "iscrowd", N)
    optional = crowd | _flags(ignore, "ignore", N)
    check_number("iou_threshold", iou_threshold, maximum=1, exclusive=True)
    # as in COCO, a threshold of 1 tolerates rounding errors
    above_threshold = iou >= min(iou_threshold, 1 - 1e-10)  # (P, N)
    available = torch.ones(N, dtype=torch.bool)
    matched = torch.full((P,), -1)
    for p in range(P):
        for eligible in (~optional, optional):
            candidates = torch.nonzero(eligible & available & above_threshold[p])[:, 0]
            if len(candidates):
                matched[p] = candidates[_last_argmax(iou[p, candidates])]
                available[matched[p]] = crowd[matched[p]]
                break
    ignored = (matched >= 0) & optional[matched] if N else torch.zeros(P, dtype=torch.bool)
    return matched, ignored


def precision_recall_curve(
    scores: Array, matched: Array, num_target: int, ignored: Array | None = None
) -> tuple[Tensor, Tensor]:
    """Precision and recall after each detection of a data set, the most confident first.

    Detections with equal scores keep their order (a stable sort), as in COCO. The curve has one point per detection;
    scikit-learn's curve has one point per threshold.

    Args:
        scores: (P,) confidence of the detections of one class, from all images.
        matched: (P,) bool: detections that are matched to a ground-truth object.
        num_target: ground-truth objects of the class in all images, without crowds and ignored ones.
        ignored: (P,) bool: detections that do not count; None: all count.

    Returns:
        ``precision`` and ``recall``, both (P',) float64, where P' detections are not ignored: after the k most
        confident, TP / k and TP / num_target. Without detections, both are empty. Without ground-truth objects, recall
        is 0/0, so NaN: such a class has no average precision, and means skip it.

    True positive, false positive, true positive; one of three objects is not detected.

    >>> scores, matched = torch.tensor([0.9, 0.3, 0.8]), torch.tensor([True, True, False])
    >>> precision, recall = precision_recall_curve(scores, matched, num_target=3)
    >>> [round(p, 3) for p in precision.tolist()], [round(r, 3) for r in recall.tolist()]
    ([1.0, 0.5, 0.667], [0.333, 0.333, 0.667])
    """
    scores = _floats(scores, "scores", "(P,)")
    if scores.isnan().any():
        raise ValueError("scores contains NaN, expected finite values")
    matched = _flags(matched, "matched", len(scores))
    valid = ~_flags(ignored, "ignored", len(scores))
    check_integer("num_target", num_target, minimum=int((matched & valid).sum()))
    order = torch.argsort(scores[valid], descending=True, stable=True)
    true_positive = matched[valid][order].double().cumsum(0)
    precision = true_positive / torch.arange(1, len(order) + 1)
    return precision, true_positive / num_target


def average_precision_11_point(precision: Array, recall: Array) -> float:
    """VOC 2007: the mean, over the recalls 0, 0.1, ... 1, of the best precision at that recall or above.

    The precision at a recall that is not reached is 0. A single true positive at the top already determines the value
    at recall 0.

    Args:
        precision: (P,) after each detection, from `precision_recall_curve`.
        recall: (P,) after each detection, ascending.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN if recall is NaN (no ground-truth object).

    Precision is 1 up to recall 1/3 (4 points) and 2/3 up to recall 2/3 (3 points).

    >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
    >>> round(average_precision_11_point(*curve), 4)
    0.5455
    """
    # i / 10 equals the recall after 3 of 10 objects; 0.1 * i does not (0.1 * 3 > 0.3) and would miss that point.
    return _mean_precision_at(precision, recall, torch.arange(11, dtype=torch.float64) / 10)


def average_precision_101_point(precision: Array, recall: Array) -> float:
    """COCO: the mean, over the recalls 0, 0.01, ... 1, of the best precision at that recall or above.

    The precision at a recall that is not reached is 0. The thresholds are ``numpy.linspace(0, 1, 101)``, equal to those
    of pycocotools to the last bit.

    Args:
        precision: (P,) after each detection, from `precision_recall_curve`.
        recall: (P,) after each detection, ascending.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN if recall is NaN (no ground-truth object).

    Precision is 1 up to recall 1/3 (34 points) and 2/3 up to recall 2/3 (33 points).

    >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
    >>> round(average_precision_101_point(*curve), 4)
    0.5545
    """
    return _mean_precision_at(precision, recall, torch.from_numpy(np.linspace(0, 1, 101)))


def average_precision_area(precision: Array, recall: Array) -> float:
    """VOC 2010 and later: the area under the envelope of the curve.

    The envelope at a recall is the best precision at that recall or above: a step function that never increases. The
    area is a sum of rectangles, without interpolation between points.

    Args:
        precision: (P,) after each detection, from `precision_recall_curve`.
        recall: (P,) after each detection, ascending.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN if recall is NaN (no ground-truth object).

    A rectangle of 1/3 by 1 and one of 1/3 by 2/3.

    >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
    >>> round(average_precision_area(*curve), 4)
    0.5556
    """
    precision, recall = _curve(precision, recall)
    steps = torch.diff(recall, prepend=recall.new_zeros(1))
    return float((steps * _envelope(precision)).sum())


def _mean_precision_at(precision: Array, recall: Array, thresholds: Tensor) -> float:
    precision, recall = _curve(precision, recall)
    if recall.isnan().any():
        return float("nan")
    # the first point that reaches the threshold, or else the zero at the end
    reached = torch.searchsorted(recall, thresholds)
    return float(torch.cat([_envelope(precision), precision.new_zeros(1)])[reached].mean())


def _envelope(precision: Tensor) -> Tensor:
    """At each point, the best precision at that point or later."""
    return precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision


def _last_argmax(values: Tensor) -> int:
    return int(torch.nonzero(values == values.max())[-1])


def _curve(precision: Array, recall: Array) -> tuple[Tensor, Tensor]:
    precision, recall = _floats(precision, "precision", "(P,)"), _floats(recall, "recall", "(P,)")
    if recall.shape != precision.shape:
        raise ValueError(f"recall has shape {tuple(recall.shape)}, expected {tuple(precision.shape)}, as precision")
    _check_range(precision, "precision")
    if not recall.isnan().all():
        _check_range(recall, "recall")
    if (torch.diff(recall) < 0).any():
        raise ValueError("recall decreases along the curve, expected ascending values")
    return precision, recall


def _floats(values: Array, name: str, shape: str) -> Tensor:
    """Check the dtype and the number of axes, and convert to float64 on the CPU."""
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{name} has type {type(values).__name__}, expected a tensor or an array of shape {shape}")
    tensor = values if isinstance(values, Tensor) else _as_tensor(values, name)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected numbers")
    if tensor.ndim != shape.count(",") + (shape[-2] != ","):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    return tensor.detach().cpu().double()


def _as_tensor(values: np.ndarray, name: str) -> Tensor:
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {values.dtype}, expected numbers")
    return torch.from_numpy(np.array(values))


def _check_range(values: Tensor, name: str) -> None:
    outside = values[~((values >= 0) & (values <= 1 + 1e-9))]
    if len(outside):
        raise ValueError(f"{name} has the value {float(outside[0]):g}, expected values in [0, 1]")


def _flags(flags: Array | None, name: str, count: int) -> Tensor:
    """Check bools (count,), or 0 and 1, and convert to bool on the CPU; None stands for all False."""
    if flags is None:
        return torch.zeros(count, dtype=torch.bool)
    if not isinstance(flags, Tensor | np.ndarray):
        raise TypeError(f"{name} has type {type(flags).__name__}, expected a tensor or an array of bools")
    tensor = (flags if isinstance(flags, Tensor) else _as_tensor(flags, name)).detach().cpu()
    if tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected bools")
    if tensor.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({count},)")
    if ((tensor != 0) & (tensor != 1)).any():
        raise ValueError(f"{name} has other values than 0 and 1, expected bools")
    return tensor.bool()
