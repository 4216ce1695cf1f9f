"""Metrics of semantic segmentation, each a short function of the confusion matrix.

Every metric has two forms: ``mean_iou(preds, target, num_classes)`` for class maps, and
``mean_iou_from_confusion(matrix)`` for a confusion matrix (K, K) that was accumulated over a data set, with one row per
ground-truth class. With TP, FP and FN of one class:

    IoU = TP / (TP + FP + FN)        Dice = 2 TP / (2 TP + FP + FN)

The value of a class that occurs neither in the ground truth nor in the prediction is 0/0, so NaN, and means skip it.
Report how many classes a mean covers: `present_classes`. If every pixel is ignored, every value is NaN.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.confusion import confusion_matrix, label_pair, mask_pair
from segedu.validation.tensors import check_tensor

Map = Tensor | np.ndarray


def pixel_accuracy(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Fraction of correctly classified pixels, in [0, 1], without ignored ones. Arguments as for `confusion_matrix`.

    >>> pixel_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=2)
    0.75
    """
    return pixel_accuracy_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def pixel_accuracy_from_confusion(matrix: Tensor) -> float:
    """`pixel_accuracy` of a confusion matrix (K, K).

    >>> pixel_accuracy_from_confusion(torch.tensor([[2, 0], [1, 1]]))
    0.75
    """
    matrix = _counts(matrix)
    return float(matrix.diagonal().sum() / matrix.sum())


def class_accuracy(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Recall of each class: the fraction of its ground-truth pixels that are predicted as this class.

    Arguments as for `confusion_matrix`.

    Returns:
        (K,) float64; NaN for a class without a ground-truth pixel.

    >>> class_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
    [1.0, 0.5, nan]
    """
    return class_accuracy_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def class_accuracy_from_confusion(matrix: Tensor) -> Tensor:
    """`class_accuracy` (K,) of a confusion matrix (K, K).

    >>> class_accuracy_from_confusion(torch.tensor([[2, 0], [1, 1]])).tolist()
    [1.0, 0.5]
    """
    matrix = _counts(matrix)
    return matrix.diagonal() / matrix.sum(dim=1)  # (K,), 0/0 is NaN


def iou_per_class(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Intersection over union (Jaccard index) of each class, over all pixels together.

    Arguments as for `confusion_matrix`.

    Returns:
        (K,) float64; NaN for a class that occurs neither in `target` nor in `preds`.

    >>> iou_per_class(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
    [0.6666666666666666, 0.5, nan]
    """
    return iou_per_class_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def iou_per_class_from_confusion(matrix: Tensor) -> Tensor:
    """`iou_per_class` (K,) of a confusion matrix (K, K).

    >>> iou_per_class_from_confusion(torch.tensor([[6, 2], [2, 2]])).tolist()
    [0.6, 0.3333333333333333]
    """
    true_positive, errors = _true_positives_and_errors(matrix)
    return true_positive / (true_positive + errors)  # (K,), 0/0 is NaN


def dice_per_class(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Dice coefficient (F1) of each class, over all pixels together: ``2 IoU / (1 + IoU)``.

    Arguments as for `confusion_matrix`.

    Returns:
        (K,) float64; NaN for a class that occurs neither in `target` nor in `preds`.

    >>> dice_per_class(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3).tolist()
    [0.8, 0.6666666666666666, nan]
    """
    return dice_per_class_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def dice_per_class_from_confusion(matrix: Tensor) -> Tensor:
    """`dice_per_class` (K,) of a confusion matrix (K, K).

    >>> dice_per_class_from_confusion(torch.tensor([[6, 2], [2, 2]])).tolist()
    [0.75, 0.5]
    """
    true_positive, errors = _true_positives_and_errors(matrix)
    return 2 * true_positive / (2 * true_positive + errors)  # (K,), 0/0 is NaN


def mean_iou(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean over classes of the IoU of all pixels together (data-set level).

    Pass a whole data set, or accumulate a `ConfusionMatrix`. The mean of the mIoU of single images is a different
    metric, `mean_iou_per_image`. Arguments as for `confusion_matrix`.

    Returns:
        A number in [0, 1]; classes that do not occur are skipped. NaN if every pixel is ignored.

    Class 2 does not occur, so the mean is over 2/3 and 1/2.

    >>> round(mean_iou(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), num_classes=3), 4)
    0.5833
    """
    return mean_iou_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def mean_iou_from_confusion(matrix: Tensor) -> float:
    """`mean_iou` of a confusion matrix (K, K).

    >>> round(mean_iou_from_confusion(torch.tensor([[6, 2], [2, 2]])), 4)
    0.4667
    """
    return float(iou_per_class_from_confusion(matrix).nanmean())


def present_classes(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """The classes that `mean_iou` covers: (K,) bool, True if a class occurs in the ground truth or the prediction.

    Arguments as for `confusion_matrix`.

    >>> present_classes(torch.tensor([0, 1]), torch.tensor([0, 0]), num_classes=3).tolist()
    [True, True, False]
    """
    return present_classes_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def present_classes_from_confusion(matrix: Tensor) -> Tensor:
    """`present_classes` (K,) of a confusion matrix (K, K).

    >>> int(present_classes_from_confusion(torch.tensor([[6, 2, 0], [2, 2, 0], [0, 0, 0]])).sum())
    2
    """
    true_positive, errors = _true_positives_and_errors(matrix)
    return true_positive + errors > 0


def mean_iou_per_image(preds: Map, target: Map, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean over images of each image's `mean_iou`; small images and rare classes have a larger weight.

    Args:
        preds: (B, H, W) predicted classes, integers; the first axis is that of the images.
        target: ground-truth classes, the same shape.
        num_classes: K.
        ignore_index: pixels with this target are not counted.

    Returns:
        A number in [0, 1]; images whose pixels are all ignored are skipped. NaN if all images are.

    The first image has only class 0 (IoU 1), the second is the example of `mean_iou` (7/12).

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
    """Mean over classes of the IoU, weighted by the frequency of each class among the ground-truth pixels.

    Arguments as for `confusion_matrix`. The result is a number in [0, 1], or NaN if every pixel is ignored.

    >>> round(frequency_weighted_iou(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 1]), 2), 4)
    1.0
    """
    return frequency_weighted_iou_from_confusion(confusion_matrix(preds, target, num_classes, ignore_index))


def frequency_weighted_iou_from_confusion(matrix: Tensor) -> float:
    """`frequency_weighted_iou` of a confusion matrix (K, K).

    8/12 of the pixels have IoU 0.6, 4/12 have IoU 1/3.

    >>> round(frequency_weighted_iou_from_confusion(torch.tensor([[6, 2], [2, 2]])), 4)
    0.5111
    """
    frequency = _counts(matrix).sum(dim=1) / _counts(matrix).sum()  # (K,)
    # A class without a ground-truth pixel has weight 0, and an IoU of 0 or NaN.
    return float((frequency * iou_per_class_from_confusion(matrix).nan_to_num()).sum())


def binary_iou(preds: Map, target: Map) -> float:
    """Intersection over union of two masks of the same shape, bool (or 0 and 1).

    Returns:
        A number in [0, 1]; 1 if both masks are empty.

    >>> binary_iou(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    0.5
    >>> binary_iou(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))
    1.0
    """
    preds, target = mask_pair(preds, target)
    union = int((preds | target).sum())
    return int((preds & target).sum()) / union if union else 1.0


def binary_dice(preds: Map, target: Map) -> float:
    """Dice coefficient of two masks of the same shape, bool (or 0 and 1): 2 * intersection / sum of both areas.

    Returns:
        A number in [0, 1]; 1 if both masks are empty.

    >>> round(binary_dice(torch.tensor([True, True, False]), torch.tensor([True, False, False])), 4)
    0.6667
    """
    preds, target = mask_pair(preds, target)
    areas = int(preds.sum()) + int(target.sum())
    return 2 * int((preds & target).sum()) / areas if areas else 1.0


def _counts(matrix: Tensor) -> Tensor:
    check_tensor("matrix", matrix, "K K")
    if (matrix < 0).any():
        raise ValueError(f"matrix has the value {matrix.min().item()}, expected counts of at least 0")
    return matrix.double()


def _true_positives_and_errors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    matrix = _counts(matrix)
    true_positive = matrix.diagonal()  # (K,)
    errors = matrix.sum(dim=0) + matrix.sum(dim=1) - 2 * true_positive  # FP + FN, (K,)
    return true_positive, errors
