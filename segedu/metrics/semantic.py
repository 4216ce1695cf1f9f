"""Metrics of semantic segmentation, each a short function of the confusion matrix.

Every metric comes twice: from maps, ``mean_iou(preds, target, num_classes)``, and from a matrix that was
accumulated over a data set, ``mean_iou_from_confusion(matrix)``. With TP, FP and FN of one class:

    IoU = TP / (TP + FP + FN)        Dice = 2 TP / (2 TP + FP + FN)

A class that occurs neither in the truth nor in the prediction has 0/0: its value is NaN, and means skip it.
Say how many classes a mean is over: ``present_classes``. If every pixel is ignored, all is NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import confusion_matrix, label_pair, mask_pair

Map = Tensor | np.ndarray


def pixel_accuracy(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Share of the counted pixels whose class is right.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        A number in [0, 1]; NaN if every pixel is ignored.

    Example:
        >>> pixel_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=2)
        0.75
    """
    return pixel_accuracy_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def pixel_accuracy_from_confusion(matrix: Tensor) -> float:
    """``pixel_accuracy`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        A number in [0, 1]; NaN if nothing was counted.

    Example:
        >>> pixel_accuracy_from_confusion(torch.tensor([[2, 0], [1, 1]]))
        0.75
    """
    matrix = _counts(matrix)
    return float(matrix.diagonal().sum() / matrix.sum())


def class_accuracy(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Share of each class's true pixels that were found (the recall of each class).

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        (K,) float64; NaN for a class without a true pixel.

    Example:
        >>> class_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
        [1.0, 0.5, nan]
    """
    return class_accuracy_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def class_accuracy_from_confusion(matrix: Tensor) -> Tensor:
    """``class_accuracy`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        (K,) float64; NaN for a class without a true pixel.

    Example:
        >>> class_accuracy_from_confusion(torch.tensor([[2, 0], [1, 1]])).tolist()
        [1.0, 0.5]
    """
    matrix = _counts(matrix)
    return matrix.diagonal() / matrix.sum(dim=1)  # (K,), 0/0 is NaN


def iou_per_class(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Intersection over union (Jaccard index) of each class over all pixels given.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        (K,) float64; NaN for a class that occurs neither in ``target`` nor in ``preds``.

    Example:
        >>> iou_per_class(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
        [0.6666666666666666, 0.5, nan]
    """
    return iou_per_class_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def iou_per_class_from_confusion(matrix: Tensor) -> Tensor:
    """``iou_per_class`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        (K,) float64; NaN for a class that occurs nowhere.

    Example:
        >>> iou_per_class_from_confusion(torch.tensor([[6, 2], [2, 2]])).tolist()
        [0.6, 0.3333333333333333]
    """
    true_positive, wrong = _true_positive_and_wrong(matrix)
    return true_positive / (true_positive + wrong)  # (K,), 0/0 is NaN


def dice_per_class(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Dice coefficient (F1) of each class over all pixels given: ``2 IoU / (1 + IoU)``.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        (K,) float64; NaN for a class that occurs neither in ``target`` nor in ``preds``.

    Example:
        >>> dice_per_class(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
        [0.8, 0.6666666666666666, nan]
    """
    return dice_per_class_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def dice_per_class_from_confusion(matrix: Tensor) -> Tensor:
    """``dice_per_class`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        (K,) float64; NaN for a class that occurs nowhere.

    Example:
        >>> dice_per_class_from_confusion(torch.tensor([[6, 2], [2, 2]])).tolist()
        [0.75, 0.5]
    """
    true_positive, wrong = _true_positive_and_wrong(matrix)
    return 2 * true_positive / (2 * true_positive + wrong)  # (K,), 0/0 is NaN


def mean_iou(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean over classes of the IoU of all pixels together (data set level).

    Pass a whole data set, or accumulate a ``ConfusionMatrix``: the mean of the values of single images is
    another number, ``mean_iou_per_image``.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        A number in [0, 1]; classes that occur nowhere are skipped. NaN if every pixel is ignored.

    Example:
        Class 2 occurs nowhere: the mean is over 2/3 and 1/2.

        >>> round(mean_iou(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3), 4)
        0.5833
    """
    return mean_iou_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def mean_iou_from_confusion(matrix: Tensor) -> float:
    """``mean_iou`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        A number in [0, 1]; NaN if nothing was counted.

    Example:
        >>> round(mean_iou_from_confusion(torch.tensor([[6, 2], [2, 2]])), 4)
        0.4667
    """
    return float(iou_per_class_from_confusion(matrix).nanmean())


def present_classes(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Which classes occur in the truth or in the prediction: those that ``mean_iou`` is over.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        (K,) bool; its sum is the number of classes in the mean.

    Example:
        >>> present_classes(torch.tensor([0, 1]), torch.tensor([0, 0]), num_classes=3).tolist()
        [True, True, False]
    """
    return present_classes_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def present_classes_from_confusion(matrix: Tensor) -> Tensor:
    """``present_classes`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        (K,) bool.

    Example:
        >>> int(present_classes_from_confusion(torch.tensor([[6, 2, 0], [2, 2, 0], [0, 0, 0]])).sum())
        2
    """
    true_positive, wrong = _true_positive_and_wrong(matrix)
    return true_positive + wrong > 0


def mean_iou_per_image(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean over images of each image's ``mean_iou``; small images and rare classes weigh more.

    Args:
        preds: (B, H, W) predicted classes, integers; the first axis counts images.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        A number in [0, 1]; images whose pixels are all ignored are skipped. NaN if all are.

    Raises:
        ValueError: there is no axis of images, or no image, or an error of ``confusion_matrix``.

    Example:
        The first image has only class 0 (IoU 1), the second is the example of ``mean_iou`` (7/12).

        >>> preds = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [0, 1]]])
        >>> target = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 1]]])
        >>> round(mean_iou_per_image(preds, target, num_classes=2), 4)
        0.7917
    """
    preds, target = label_pair(preds, target)
    if target.ndim < 2 or len(target) == 0:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected (B, H, W) with B at least 1")
    values = [mean_iou(p, t, num_classes, ignore_index) for p, t in zip(preds, target, strict=True)]
    return float(torch.tensor(values, dtype=torch.float64).nanmean())


def frequency_weighted_iou(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean over classes of the IoU, weighted by the share of each class among the true pixels.

    Args:
        preds: predicted classes, integers of any shape.
        target: true classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        A number in [0, 1]; NaN if every pixel is ignored.

    Example:
        >>> round(frequency_weighted_iou(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 1]), 2), 4)
        1.0
    """
    return frequency_weighted_iou_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def frequency_weighted_iou_from_confusion(matrix: Tensor) -> float:
    """``frequency_weighted_iou`` of accumulated counts.

    Args:
        matrix: (K, K) counts, rows truth.

    Returns:
        A number in [0, 1]; NaN if nothing was counted.

    Example:
        8/12 of the pixels have IoU 0.6, 4/12 have IoU 1/3.

        >>> round(frequency_weighted_iou_from_confusion(torch.tensor([[6, 2], [2, 2]])), 4)
        0.5111
    """
    frequency = _counts(matrix).sum(dim=1) / _counts(matrix).sum()  # (K,)
    # A class without a true pixel has weight 0, and an IoU of 0 or NaN.
    return float((frequency * iou_per_class_from_confusion(matrix).nan_to_num()).sum())


def binary_iou(preds: Map, target: Map) -> float:
    """Intersection over union of two masks.

    Args:
        preds: predicted mask, bool (or 0 and 1), any shape.
        target: true mask, the same shape.

    Returns:
        A number in [0, 1]. Two empty masks agree: 1.

    Raises:
        TypeError: a mask is not an array of bools or integers.
        ValueError: the shapes differ, or there are other values than 0 and 1.

    Example:
        >>> binary_iou(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
        0.5
        >>> binary_iou(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))
        1.0
    """
    preds, target = mask_pair(preds, target)
    union = int((preds | target).sum())
    return int((preds & target).sum()) / union if union else 1.0


def binary_dice(preds: Map, target: Map) -> float:
    """Dice coefficient of two masks, twice the intersection over the sum of both areas.

    Args:
        preds: predicted mask, bool (or 0 and 1), any shape.
        target: true mask, the same shape.

    Returns:
        A number in [0, 1]. Two empty masks agree: 1.

    Raises:
        TypeError: a mask is not an array of bools or integers.
        ValueError: the shapes differ, or there are other values than 0 and 1.

    Example:
        >>> round(binary_dice(torch.tensor([True, True, False]), torch.tensor([True, False, False])), 4)
        0.6667
    """
    preds, target = mask_pair(preds, target)
    areas = int(preds.sum()) + int(target.sum())
    return 2 * int((preds & target).sum()) / areas if areas else 1.0


def _counts(matrix: Tensor) -> Tensor:
    if not isinstance(matrix, Tensor):
        raise TypeError(f"matrix has type {type(matrix).__name__}, expected a torch.Tensor of shape (K, K)")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"matrix has shape {tuple(matrix.shape)}, expected (K, K)")
    if (matrix < 0).any():
        raise ValueError(f"matrix has the value {matrix.min().item()}, expected counts, at least 0")
    return matrix.double()


def _true_positive_and_wrong(matrix: Tensor) -> tuple[Tensor, Tensor]:
    matrix = _counts(matrix)
    true_positive = matrix.diagonal()  # (K,)
    wrong = matrix.sum(dim=0) + matrix.sum(dim=1) - 2 * true_positive  # FP + FN, (K,)
    return true_positive, wrong
