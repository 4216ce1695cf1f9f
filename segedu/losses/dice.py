"""Dice loss, one minus the soft Dice coefficient, and two of its variants.

The numerator and the denominator are sums over pixels. The mean of a fraction per pixel is a different quantity, and
not useful. Half-precision logits are converted to float32 first, and the loss is returned in float32.
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
    """Soft Dice loss ``1 - (2 Σ y p + s) / (Σ y + Σ p + s)`` with ``p = softmax(logits)``, averaged over classes.

    ``smooth`` does more than avoid 0/0: it lowers the loss of small objects. With s = 1 and hard predictions, a missed
    object of one pixel costs 1/2, and one of 100 pixels costs 100/101.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: s, at least 0.
        squared: square the terms of the denominator, ``Σ y² + Σ p²`` (V-Net, Milletari et al. 2016).
        per_image: sum over each image, then take the mean over images. False: sum over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean, at least 0.

    Returns:
        A scalar in [0, 1]. A class that neither occurs nor is predicted, and an image that is ignored entirely, have
        loss 0 (also with s = 0) and no gradient.

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
    """Log-cosh Dice loss ``log cosh(Dice loss)``, whose gradient approaches 0 smoothly (Jadon 2020, arXiv 2006.14822).

    Near 0 it behaves like half the square of the Dice loss. Its gradient is ``tanh(Dice loss)`` times that of the Dice
    loss, so it is smaller everywhere.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: s of ``dice_loss``.
        per_image: sum over each image, not over the whole batch.
        include_background: False excludes class 0 from the mean.
        class_weights: (K,) weight of each class in the mean of the Dice losses, at least 0.

    Returns:
        A scalar in [0, log cosh 1 = 0.4338]; 0 where ``dice_loss`` is 0.

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
    """Dice loss in which a confusion of two classes costs as much as their distance.

    Fidon et al. 2017 (arXiv 1707.00478). The Wasserstein distance between the ground truth l(i) of pixel i and the
    prediction is ``W_i = Σ_k M[l(i), k] p_ik``. With class 0 as the background b, the loss is

        ``1 - 2 Σ_i M[l(i), b] (1 - W_i) / (2 Σ_i M[l(i), b] (1 - W_i) + Σ_i W_i)``

    MONAI replaces ``M[l, b]`` by 1 for all objects, which is the same if all classes are equally far from the
    background.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        class_distances: (K, K) M, symmetric, at least 0, with 0 on the diagonal, not all 0. It is divided by its
            maximum.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: added to numerator and denominator, at least 0.

    Returns:
        A scalar in [0, 1], mean over images. An image without objects and without predicted objects, or one that is
        ignored entirely, has loss 0.

    Example:
        One pixel of class 1, with p = 1/2 for both classes: W = 1/2, 1 - 1 / (1 + 1/2).

        >>> M = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> generalized_wasserstein_dice_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).long(), M, smooth=0)
        tensor(0.3333)
    """
    valid = check_logits_and_target(logits, target, ignore_index).flatten(1)  # (B, P)
    check_number("smooth", smooth)
    check_weights("class_distances", class_distances, (logits.shape[1], logits.shape[1]))
    p = torch.softmax(full_precision(logits).flatten(2), dim=1)  # (B, K, P)
    maximum = class_distances.max()
    if bool(class_distances.diagonal().any()) or not torch.equal(class_distances, class_distances.T) or maximum == 0:
        raise ValueError("class_distances is not a distance, expected a symmetric matrix, not all 0, with diagonal 0")
    distances = (class_distances / maximum).to(p)
    safe_target = torch.where(valid, target.flatten(1), 0)
    cost = (distances[safe_target].movedim(-1, 1) * p).sum(1) * valid  # (B, P): W
    correct = (distances[safe_target, 0] * (1 - cost) * valid).sum(1)  # 0 for background pixels
    return (1 - ratio_or_one(2 * correct + smooth, 2 * correct + cost.sum(1) + smooth)).mean()
