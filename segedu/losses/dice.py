"""Dice loss, one minus the soft Dice coefficient, from sums over pixels; and two of its descendants.

The sums are the point. The fraction of each pixel, averaged over pixels, is another (and useless) quantity.
Half-precision logits are computed, and the loss returned, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.overlap import class_probabilities, mean_over_classes, ratio_or_one, soft_counts
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target, check_weights


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    squared: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``1 - (2 Σ y p + s) / (Σ y + Σ p + s)`` with ``p = softmax(logits)``, mean over classes (and images).

    ``smooth`` is more than protection from 0/0: it pulls the loss of small objects down. With s = 1 and hard
    predictions, a missed object of one pixel costs 1/2, one of 100 pixels 100/101.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s, at least 0.
        squared: square the terms of the denominator, ``Σ y² + Σ p²`` (V-Net, Milletari et al. 2016).
        per_image: sum over the pixels of each image, then take the mean over images. False: sum over the
            pixels of the whole batch.
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
        Both pixels are class 0 and have p = 1/2. Class 0: 1 - 3/4. Class 1: 1 - 1/2.

        >>> dice_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
        tensor(0.3750)
    """
    check_number("smooth", smooth)
    if squared:
        p, y = class_probabilities(logits, target, ignore_index)
        pixels = 2 if per_image else (0, 2)
        intersection, sizes = (y * p).sum(pixels), (y + p * p).sum(pixels)  # y² = y
    else:
        intersection, fp, fn = soft_counts(logits, target, ignore_index, per_image)
        sizes = 2 * intersection + fp + fn
    dice = ratio_or_one(2 * intersection + smooth, sizes + smooth)  # (B, K), or one row for the whole batch
    return mean_over_classes(1 - dice, include_background, class_weights)


def log_cosh_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    per_image: bool = True,
    include_background: bool = True,
    class_weights: Tensor | None = None,
) -> Tensor:
    """``log cosh(Dice loss)``: like half the square of it near 0, so that the slope ends smoothly at 0.

    Jadon 2020 (arXiv 2006.14822). The slope is ``tanh(Dice loss)`` times that of Dice: smaller everywhere.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s of ``dice_loss``.
        per_image: sums over each image, not over the whole batch.
        include_background: False leaves class 0 out of the mean.
        class_weights: (K,) weight of each class in the mean of the Dice losses, at least 0.

    Returns:
        A scalar in [0, log cosh 1 = 0.4338]; 0 where ``dice_loss`` is 0.

    Raises:
        TypeError: as ``dice_loss``.
        ValueError: as ``dice_loss``.

    Example:
        The Dice loss is 3/8.

        >>> log_cosh_dice_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
        tensor(0.0687)
    """
    options = {"per_image": per_image, "include_background": include_background, "class_weights": class_weights}
    return dice_loss(logits, target, ignore_index=ignore_index, smooth=smooth, **options).cosh().log()


def generalized_wasserstein_dice_loss(
    logits: Tensor,
    target: Tensor,
    class_distances: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1e-5,
) -> Tensor:
    """Dice loss in which a confusion costs as much as the two classes are apart.

    Fidon et al. 2017 (arXiv 1707.00478). With one true class l(i) at pixel i, the Wasserstein
    distance to the prediction is ``W_i = Σ_k M[l(i), k] p_ik``, and with class 0 as background b

        ``1 - 2 Σ_i M[l(i), b] (1 - W_i) / (2 Σ_i M[l(i), b] (1 - W_i) + Σ_i W_i)``

    MONAI has 1 in place of ``M[l, b]`` for all objects: the same where all classes are equally far from background.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        class_distances: (K, K) M, symmetric, at least 0, 0 on the diagonal, not all 0; divided by its largest.
        ignore_index: pixels with this target are left out of every sum.
        smooth: added to numerator and denominator, at least 0.

    Returns:
        A scalar in [0, 1], mean over images. An image with no object and none predicted, or with all pixels
        ignored, has loss 0.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: a shape, a class or ``smooth`` is not one of those above, or M is no distance; an empty batch.

    Example:
        One pixel of class 1 with p = 1/2 there and 1/2 on background: W = 1/2, 1 - 1 / (1 + 1/2).

        >>> apart = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> generalized_wasserstein_dice_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).long(), apart, smooth=0)
        tensor(0.3333)
    """
    counted = check_logits_and_target(logits, target, ignore_index).flatten(1)  # (B, P)
    check_number("smooth", smooth)
    check_weights("class_distances", class_distances, (logits.shape[1], logits.shape[1]))
    p = torch.softmax(full_precision(logits).flatten(2), dim=1)  # (B, K, P)
    largest = class_distances.max()
    if bool(class_distances.diagonal().any()) or not torch.equal(class_distances, class_distances.T) or largest == 0:
        raise ValueError("class_distances is no distance, expected a symmetric matrix, not all 0, with diagonal 0")
    distances = (class_distances / largest).to(p)
    safe_target = torch.where(counted, target.flatten(1), 0)
    cost = (distances[safe_target].movedim(-1, 1) * p).sum(1) * counted  # (B, P): W
    correct = (distances[safe_target, 0] * (1 - cost) * counted).sum(1)  # 0 for pixels of background
    return (1 - ratio_or_one(2 * correct + smooth, 2 * correct + cost.sum(1) + smooth)).mean()
