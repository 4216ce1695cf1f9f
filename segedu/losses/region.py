"""Region losses from soft counts: IoU, Tversky, focal Tversky, and sensitivity-specificity.

Each is a mean over classes and images. Half-precision logits are converted to float32 first.
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
    """Soft IoU loss ``1 - (TP + s) / (TP + FP + FN + s)`` (Rahman and Wang 2016).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: s, at least 0.
        per_image: sum over each image, then take the mean over images. False: sum over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. A class that neither occurs nor is predicted, and an image that is ignored entirely, have
        loss 0 (also with s = 0) and no gradient.

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
    """Tversky loss ``1 - (TP + s) / (TP + α FP + β FN + s)``, with weights for false positives and false negatives.

    Salehi et al. 2017 (arXiv 1706.05721, equation 3). α = β = 1/2 is Dice (with half its s), α = β = 1 is IoU.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        alpha: α, weight of false positives, at least 0.
        beta: β, weight of false negatives, at least 0.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: s, at least 0.
        per_image: sum over each image, then take the mean over images. False: sum over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1], 0 in the cases in which ``iou_loss`` is 0.

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
    """Focal Tversky loss ``(1 - Tversky)^(1/γ)``: with γ > 1, classes that are nearly right keep a steep gradient.

    Abraham and Khan 2018 (arXiv 1810.07842): the power 1/γ is applied to each class, before the mean. The paper sums
    over classes; we take the mean, so that the loss stays in [0, 1]. Its α is the weight of false negatives; here, as
    in ``tversky_loss``, that is β.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        alpha: α, weight of false positives, at least 0.
        beta: β, weight of false negatives, at least 0.
        gamma: γ, above 0; 1 gives ``tversky_loss``.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: s, at least 0.
        per_image: sum over each image, then take the mean over images. False: sum over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. Where ``tversky_loss`` is exactly 0, it is 0 without a gradient, which would be infinite
        there.

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
    """One minus the Tversky index, ``(α FP + β FN) / (TP + α FP + β FN + s)``, computed without cancellation near 0.

    Args:
        counts: TP, FP and FN, all of the same shape.
        alpha: α, weight of false positives, at least 0.
        beta: β, weight of false negatives, at least 0.
        smooth: s, at least 0.

    Returns:
        The shape of TP, in [0, 1]; 0 for 0/0.

    Example:
        >>> tversky_error((torch.tensor(2.0), torch.tensor(1.0), torch.tensor(0.0)), alpha=0.5, beta=0.5, smooth=0)
        tensor(0.2000)
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_number(name, value)
    tp, fp, fn = counts
    errors = alpha * fp + beta * fn
    return _ratio_or_zero(errors, tp + errors + smooth)


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
    """Squared errors on a class and off it: ``w Σ (y - p)² y / Σ y + (1 - w) Σ (y - p)² (1 - y) / Σ (1 - y)``.

    Brosch et al. 2015 (MICCAI): the squared errors of the pixels of a class (sensitivity) and of all other pixels
    (specificity) are averaged separately, so a small object counts as much as a large background.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        weight: w of the sensitivity, in [0, 1]; the paper's 0.05.
        ignore_index: pixels with this target are excluded from every sum.
        per_image: sum over each image, then take the mean over images. False: sum over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. The term of an empty set of pixels (a class that does not occur, or that fills the image) is
        0.

    Example:
        A pixel of class 0 with p = 1/2: the error is (1/2)² on class 0, and off class 1.

        >>> sensitivity_specificity_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), weight=0.5)
        tensor(0.1250)
    """
    check_number("weight", weight, maximum=1)
    p, y = class_probabilities(logits, target, ignore_index)
    pixels = 2 if per_image else (0, 2)
    others = y.sum(1, keepdim=True) - y  # 1 for pixels of other classes that are not ignored
    error = (y - p) ** 2
    sensitivity = _ratio_or_zero((error * y).sum(pixels), y.sum(pixels))
    specificity = _ratio_or_zero((error * others).sum(pixels), others.sum(pixels))
    return mean_over_classes(weight * sensitivity + (1 - weight) * specificity, include_background, class_weights)


def _ratio_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A ratio in which 0/0 is 0."""
    return numerator / torch.where(denominator == 0, 1.0, denominator)
