"""Region losses from soft true and false positives: IoU, Tversky, and sensitivity with specificity.

All are means over classes and images of one number a class. Half-precision logits are computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.overlap import class_probabilities, mean_over_classes, power_from_zero, ratio_or_one, soft_counts
from segedu.validation.numbers import check_number


def iou_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``1 - (TP + s) / (TP + FP + FN + s)``: soft intersection over soft union (Rahman and Wang 2016).

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s, at least 0.
        per_image: sums over each image, then the mean over images. False: sums over the whole batch.
        include_background: False leaves class 0 out of the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. A class that is neither there nor predicted, and an image whose pixels are all
        ignored, have loss 0 (with s = 0 too) and no gradient.

    Raises:
        TypeError: ``logits`` are no floats, ``target`` is not int64, or ``smooth`` is not a number.
        ValueError: the shapes do not fit, a class is outside [0, K), ``smooth`` or a weight is negative; an empty
            batch.

    Example:
        Two pixels of class 0 with p = 1/2. Class 0: 1 - 1/2. Class 1: 1 - 0/1.

        >>> iou_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64), smooth=0)
        tensor(0.7500)
    """
    check_number("smooth", smooth)
    tp, fp, fn = soft_counts(logits, target, ignore_index, per_image)
    iou = ratio_or_one(tp + smooth, tp + fp + fn + smooth)
    return mean_over_classes(1 - iou, include_background, class_weights)


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``1 - (TP + s) / (TP + α FP + β FN + s)``: false positives and false negatives at different prices.

    Salehi et al. 2017 (arXiv 1706.05721, equation 3). α = β = 1/2 is Dice (with s of its half), α = β = 1 is IoU.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        alpha: α, the price of false positives, at least 0.
        beta: β, the price of false negatives, at least 0.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s, at least 0.
        per_image: sums over each image, then the mean over images. False: sums over the whole batch.
        include_background: False leaves class 0 out of the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. A class that is neither there nor predicted, and an image whose pixels are all
        ignored, have loss 0 (with s = 0 too) and no gradient.

    Raises:
        TypeError: as ``iou_loss``.
        ValueError: as ``iou_loss``; α or β is negative.

    Example:
        Two pixels of class 0 with p = 1/2. Class 0: 1 - 1 / 1.7. Class 1: 1.

        >>> tversky_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64), smooth=0)
        tensor(0.7059)
    """
    counts = soft_counts(logits, target, ignore_index, per_image)
    return mean_over_classes(tversky_error(counts, alpha, beta, smooth), include_background, class_weights)


def focal_tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``(1 - Tversky)^(1/γ)`` of each class: with γ > 1, classes that are nearly right keep a steep slope.

    Abraham and Khan 2018 (arXiv 1810.07842): the power is taken for each class, before the mean, and is
    one over γ. The paper sums over classes; we take the mean, so that the loss stays in [0, 1]. Its α is the price of
    false negatives; here, as in ``tversky_loss``, that is β.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        alpha: α, the price of false positives, at least 0.
        beta: β, the price of false negatives, at least 0.
        gamma: γ, above 0; 1 gives ``tversky_loss``.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s, at least 0.
        per_image: sums over each image, then the mean over images. False: sums over the whole batch.
        include_background: False leaves class 0 out of the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]; 0 and no gradient where ``tversky_loss`` is exactly 0 (the slope there is infinite).

    Raises:
        TypeError: as ``iou_loss``.
        ValueError: as ``iou_loss``; α or β is negative, or γ is not above 0.

    Example:
        Class 0: (1 - 1 / 1.7)^(3/4) = 0.5140. Class 1: 1.

        >>> focal_tversky_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64), smooth=0)
        tensor(0.7570)
    """
    check_number("gamma", gamma, exclusive=True)
    counts = soft_counts(logits, target, ignore_index, per_image)
    loss = power_from_zero(tversky_error(counts, alpha, beta, smooth), 1 / gamma)
    return mean_over_classes(loss, include_background, class_weights)


def tversky_error(counts: tuple[Tensor, Tensor, Tensor], alpha: float, beta: float, smooth: float) -> Tensor:
    """One minus the Tversky index, ``(α FP + β FN) / (TP + α FP + β FN + s)``: no digits are lost near 0.

    Args:
        counts: TP, FP and FN, of any one shape.
        alpha: α, the price of false positives, at least 0.
        beta: β, the price of false negatives, at least 0.
        smooth: s, at least 0.

    Returns:
        The shape of TP, in [0, 1]; 0 for 0/0.

    Raises:
        TypeError: α, β or s is not a number.
        ValueError: one of them is negative.

    Example:
        >>> tversky_error((torch.tensor(2.0), torch.tensor(1.0), torch.tensor(0.0)), alpha=0.5, beta=0.5, smooth=0)
        tensor(0.2000)
    """
    for value, name in ((alpha, "alpha"), (beta, "beta"), (smooth, "smooth")):
        check_number(name, value)
    tp, fp, fn = counts
    wrong = alpha * fp + beta * fn
    return _fraction(wrong, tp + wrong + smooth)


def sensitivity_specificity_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: float = 0.05,
    ignore_index: int | None = 255,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``w Σ (y - p)² y / Σ y + (1 - w) Σ (y - p)² (1 - y) / Σ (1 - y)``: errors on the object and off it, apart.

    Brosch et al. 2015 (MICCAI): the squared error of the pixels of the class (sensitivity) and of all
    others (specificity), each a mean of its own, so that a small object counts as much as a large background.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        weight: w of the sensitivity, in [0, 1]; the paper's 0.05.
        ignore_index: pixels with this target are left out of every sum.
        per_image: sums over each image, then the mean over images. False: sums over the whole batch.
        include_background: False leaves class 0 out of the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. The term of an empty set of pixels (a class that is not there, or is everywhere) is 0.

    Raises:
        TypeError: as ``iou_loss``.
        ValueError: as ``iou_loss``; ``weight`` is outside [0, 1].

    Example:
        A pixel of class 0 with p = 1/2: (1/2)² on the object of class 0, and off that of class 1.

        >>> sensitivity_specificity_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), weight=0.5)
        tensor(0.1250)
    """
    check_number("weight", weight, maximum=1)
    p, y = class_probabilities(logits, target, ignore_index)
    pixels = 2 if per_image else (0, 2)
    off = y.sum(1, keepdim=True) - y  # 1 where the pixel counts and is of another class
    error = (y - p) ** 2
    sensitivity = _fraction((error * y).sum(pixels), y.sum(pixels))
    specificity = _fraction((error * off).sum(pixels), off.sum(pixels))
    return mean_over_classes(weight * sensitivity + (1 - weight) * specificity, include_background, class_weights)


def _fraction(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 for 0/0."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)
