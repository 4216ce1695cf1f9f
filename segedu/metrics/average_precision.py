"""Average precision, step by step: match detections, follow precision and recall, summarise the curve.

These are the readable steps for one class and one IoU threshold. In an image, detections of a class are matched
in the order of their scores; over all images, they are ranked by their scores, which gives precision and recall;
a convention turns that curve into one number. Three conventions are in use, and they give three numbers:

- VOC 2007: mean of the best precision at 11 recalls (Everingham et al. 2010);
- VOC 2010 and later: area under the envelope of the curve;
- COCO: mean of the best precision at 101 recalls, and then over IoU thresholds 0.50, 0.55, ... 0.95 and classes.

`segedu.metrics.coco` does the same for whole data sets, and fast.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Numbers = Tensor | np.ndarray


def match_detections(
    iou: Numbers,
    iscrowd: Numbers | None = None,
    iou_threshold: float = 0.5,
    ignore: Numbers | None = None,
) -> tuple[Tensor, Tensor]:
    """Match the detections of one image and one class to its true objects, as COCO does it.

    The detections choose one after the other, the most confident first. Each takes, of the true objects that are
    still free, the one with the largest IoU, if that is at least ``iou_threshold``. (Of two with equal IoU, it
    takes the later one.) Only if there is none it looks among the ignored objects. A crowd, one region that stands
    for many objects, never counts as taken. A detection that takes a crowd or an ignored object is itself ignored:
    neither right nor wrong.

    Args:
        iou: (P, N) IoU of each detection, in the order of falling scores, with each true object. For a crowd COCO
            uses intersection / area of the detection.
        iscrowd: (N,) bool (or 0 and 1), which true objects are crowds; None: none is.
        iou_threshold: a detection can take an object if their IoU is at least this, in (0, 1].
        ignore: (N,) bool, which true objects need not be found, for instance for their size. They can be taken
            once. Crowds are ignored too, whether named here or not.

    Returns:
        ``matched``, (P,) int64: the column of the object that each detection took, -1 for none.
        ``ignored``, (P,) bool: the detections that count neither as true nor as false positives.

    Raises:
        TypeError: an argument is not an array of numbers, or ``iou_threshold`` is not a number.
        ValueError: a shape or a value is wrong.

    Example:
        Two detections of one object: the second finds it taken. The third lies on a crowd.

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
    if isinstance(iou_threshold, bool) or not isinstance(iou_threshold, int | float | np.number):
        raise TypeError(f"iou_threshold has type {type(iou_threshold).__name__}, expected a number")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a number in (0, 1]")
    enough = iou >= min(iou_threshold, 1 - 1e-10)  # (P, N); as in COCO, a threshold of 1 forgives the last bits
    free = torch.ones(N, dtype=torch.bool)
    matched = torch.full((P,), -1)
    for p in range(P):
        for group in (~optional, optional):
            candidates = torch.nonzero(group & free & enough[p])[:, 0]
            if len(candidates):
                matched[p] = candidates[_last_argmax(iou[p, candidates])]
                free[matched[p]] = crowd[matched[p]]
                break
    ignored = (matched >= 0) & optional[matched] if N else torch.zeros(P, dtype=torch.bool)
    return matched, ignored


def precision_recall_curve(
    scores: Numbers, matched: Numbers, num_target: int, ignored: Numbers | None = None
) -> tuple[Tensor, Tensor]:
    """Precision and recall after each detection of a data set, the most confident first.

    Detections with equal scores keep the order in which they are given (a stable sort), as in COCO. That gives
    one point a detection. scikit-learn gives one point a threshold instead.

    Args:
        scores: (P,) confidence of the detections of one class, from all images.
        matched: (P,) bool: which detections found a true object.
        num_target: true objects of the class in all images, without crowds and ignored ones.
        ignored: (P,) bool: detections to leave out; None: none.

    Returns:
        ``precision`` and ``recall``, both (P',) float64, where P' detections are not ignored: after the k most
        confident, TP / k and TP / num_target. Without detections both are empty. Without a true object recall is
        0/0, so NaN: such a class has no average precision, and means leave it out.

    Raises:
        TypeError: an argument is not an array of numbers, or ``num_target`` is not a whole number.
        ValueError: a shape is wrong, a score is NaN, or more detections are matched than there are objects.

    Example:
        Right, wrong, right; one of three objects is never found.

        >>> scores, matched = torch.tensor([0.9, 0.3, 0.8]), torch.tensor([True, True, False])
        >>> precision, recall = precision_recall_curve(scores, matched, num_target=3)
        >>> [round(p, 3) for p in precision.tolist()], [round(r, 3) for r in recall.tolist()]
        ([1.0, 0.5, 0.667], [0.333, 0.333, 0.667])
    """
    scores = _floats(scores, "scores", "(P,)")
    if scores.isnan().any():
        raise ValueError("scores holds NaN, expected numbers")
    matched = _flags(matched, "matched", len(scores))
    counted = ~_flags(ignored, "ignored", len(scores))
    if isinstance(num_target, bool) or not isinstance(num_target, int | np.integer):
        raise TypeError(f"num_target has type {type(num_target).__name__}, expected a whole number")
    found = int((matched & counted).sum())
    if num_target < found:
        raise ValueError(f"num_target is {num_target}, expected at least {found}, the number of matched detections")
    order = torch.argsort(scores[counted], descending=True, stable=True)
    true_positive = matched[counted][order].double().cumsum(0)
    precision = true_positive / torch.arange(1, len(order) + 1)
    return precision, true_positive / num_target


def average_precision_11_point(precision: Numbers, recall: Numbers) -> float:
    """VOC 2007: the mean, over the recalls 0, 0.1, ... 1, of the best precision at that recall or above.

    A recall that is never reached counts 0. So one right detection on top already earns the point at recall 0.

    Args:
        precision: (P,) after each detection, from ``precision_recall_curve``.
        recall: (P,) after each detection, rising.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN where recall is NaN (no true object).

    Raises:
        TypeError: an argument is not an array of numbers.
        ValueError: the shapes differ, a value is outside [0, 1], or recall falls.

    Example:
        Precision is 1 up to recall 1/3 (4 points) and 2/3 up to recall 2/3 (3 points).

        >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
        >>> round(average_precision_11_point(*curve), 4)
        0.5455
    """
    # i / 10 is the float that 3 found of 10 gives; 0.1 * i is not (0.1 * 3 > 0.3) and would miss that point
    return _mean_precision_at(precision, recall, torch.arange(11, dtype=torch.float64) / 10)


def average_precision_101_point(precision: Numbers, recall: Numbers) -> float:
    """COCO: the mean, over the recalls 0, 0.01, ... 1, of the best precision at that recall or above.

    A recall that is never reached counts 0. The thresholds are ``numpy.linspace(0, 1, 101)``, as in pycocotools,
    to the last bit.

    Args:
        precision: (P,) after each detection, from ``precision_recall_curve``.
        recall: (P,) after each detection, rising.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN where recall is NaN (no true object).

    Raises:
        TypeError: an argument is not an array of numbers.
        ValueError: the shapes differ, a value is outside [0, 1], or recall falls.

    Example:
        Precision is 1 up to recall 1/3 (34 points) and 2/3 up to recall 2/3 (33 points).

        >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
        >>> round(average_precision_101_point(*curve), 4)
        0.5545
    """
    return _mean_precision_at(precision, recall, torch.from_numpy(np.linspace(0, 1, 101)))


def average_precision_area(precision: Numbers, recall: Numbers) -> float:
    """VOC 2010 and later: the area under the envelope of the curve.

    The envelope at a recall is the best precision at that recall or above: a staircase that never rises. The area
    is a sum of rectangles, without any interpolation between points.

    Args:
        precision: (P,) after each detection, from ``precision_recall_curve``.
        recall: (P,) after each detection, rising.

    Returns:
        A number in [0, 1]; 0 for an empty curve; NaN where recall is NaN (no true object).

    Raises:
        TypeError: an argument is not an array of numbers.
        ValueError: the shapes differ, a value is outside [0, 1], or recall falls.

    Example:
        A rectangle of 1/3 by 1 and one of 1/3 by 2/3.

        >>> curve = torch.tensor([1.0, 0.5, 2 / 3]), torch.tensor([1 / 3, 1 / 3, 2 / 3])
        >>> round(average_precision_area(*curve), 4)
        0.5556
    """
    precision, recall = _curve(precision, recall)
    steps = torch.diff(recall, prepend=recall.new_zeros(1))
    return float((steps * _envelope(precision)).sum())


def _mean_precision_at(precision: Numbers, recall: Numbers, thresholds: Tensor) -> float:
    precision, recall = _curve(precision, recall)
    if recall.isnan().any():
        return float("nan")
    # the first point that reaches the threshold; none does: the zero at the end
    reached = torch.searchsorted(recall, thresholds)
    return float(torch.cat([_envelope(precision), precision.new_zeros(1)])[reached].mean())


def _envelope(precision: Tensor) -> Tensor:
    """At each point the best precision there or later."""
    return precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision


def _last_argmax(values: Tensor) -> int:
    return int(torch.nonzero(values == values.max())[-1])


def _curve(precision: Numbers, recall: Numbers) -> tuple[Tensor, Tensor]:
    precision, recall = _floats(precision, "precision", "(P,)"), _floats(recall, "recall", "(P,)")
    if recall.shape != precision.shape:
        raise ValueError(f"recall has shape {tuple(recall.shape)}, expected {tuple(precision.shape)}, as precision")
    _check_range(precision, "precision")
    if not recall.isnan().all():
        _check_range(recall, "recall")
    if (torch.diff(recall) < 0).any():
        raise ValueError("recall falls along the curve, expected that it never does")
    return precision, recall


def _floats(values: Numbers, name: str, shape: str) -> Tensor:
    """Check the kind and the number of axes; float64 on the CPU."""
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
    bad = values[~((values >= 0) & (values <= 1 + 1e-9))]
    if len(bad):
        raise ValueError(f"{name} has the value {float(bad[0]):g}, expected numbers in [0, 1]")


def _flags(flags: Numbers | None, name: str, count: int) -> Tensor:
    """Bool (count,) on the CPU; None stands for nowhere."""
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
