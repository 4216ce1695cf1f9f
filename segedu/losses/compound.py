"""Compound losses: a distribution loss and a region loss, weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.dice import dice_loss
from segedu.losses.focal import focal_loss
from segedu.losses.overlap import class_masks, power_from_zero, soft_counts
from segedu.losses.reduction import full_precision, reduce_loss, true_class_weight
from segedu.losses.region import tversky_error
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target, valid_pixels


def combo_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    include_background: bool = False,
) -> Tensor:
    """Combo loss ``α · CE_β + (1 - α) · Dice loss``, where β weights false negatives and 1 - β false positives.

    Taghanaki et al. 2018 (arXiv 1805.02798), ``CE_β = -mean(β y log p + (1 - β)(1 - y) log(1 - p))`` over pixels and
    classes.

    Paper: its equation prints ``t - ln p`` for ``t ln p`` and subtracts the Dice coefficient. We add the Dice loss,
    which differs by the constant 1 - α, so that a perfect prediction costs 0.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        alpha: α, in [0, 1].
        beta: β, in [0, 1]: above 1/2, false negatives cost more.
        ignore_index: pixels with this target are excluded.
        smooth: s of the Dice loss, at least 0.
        include_background: class 0 is one of the classes in both terms. With two classes β then cancels: a false
            negative of one class is a false positive of the other.

    Returns:
        A scalar of at least 0. If every pixel is ignored, it is 0 and so is its gradient.

    Example:
        A pixel of class 1 with p = 1/2: 0.5 · 0.5 · log 2 + 0.5 · (1 - 2 / 2.5).

        >>> combo_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).long())
        tensor(0.2733)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("alpha", alpha, maximum=1)
    check_number("beta", beta, maximum=1)
    first = 0 if include_background else 1
    log_p, log_not_p = (x[:, first:] for x in log_probabilities(logits))
    masks = class_masks(target, logits.shape[1], valid)[0][:, first:]
    ce = -torch.where(masks, beta * log_p, (1 - beta) * log_not_p)  # (B, K, H, W)
    ce = reduce_loss(ce, valid[:, None].expand_as(ce).to(ce.dtype), "mean")
    options = {"ignore_index": ignore_index, "smooth": smooth, "include_background": include_background}
    return alpha * ce + (1 - alpha) * dice_loss(logits, target, **options)


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log(1 - p)`` of ``p = softmax(logits)``, without loss of precision where p is close to 1.

    Args:
        logits: (B, K, ...), K >= 2.

    Returns:
        Two tensors of that shape.

    Example:
        >>> log_probabilities(torch.tensor([[1e4, 0.0]]))[1].tolist()
        [[-10000.0, -0.0]]
    """
    log_p = torch.log_softmax(full_precision(logits), dim=1)
    largest = log_p.argmax(1, keepdim=True)
    log_p_others = log_p.scatter(1, largest, -torch.inf)
    # For the largest p, 1 - p is the sum of all others. All others are at most 1/2, so 1 - p is precise for them.
    log_not_largest = log_p_others.logsumexp(dim=1, keepdim=True)
    return log_p, torch.log1p(-log_p_others.exp()).scatter(1, largest, log_not_largest)


def exponential_logarithmic_loss(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 0.8,
    gamma: float = 0.3,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Powers of log Dice and of cross-entropy, which emphasise structures that are segmented poorly.

    Wong et al. 2018 (arXiv 1809.00076): ``w mean_k (-log Dice_k)^γ + (1 - w) mean_i w_{l(i)} (-log p_i)^γ``. The
    logarithm is steep where the Dice of a class is small, and γ < 1 flattens both terms where it is neither small nor
    near 1.

    Paper: its class weights are ``(Σ f / f_l)^½`` with the frequencies f of labels in the training set; pass them as
    ``class_weights``. Its mean over pixels divides by their number; ours, as everywhere in segedu, by the sum of
    weights.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        dice_weight: w of the Dice term, in [0, 1]; 1 - w is that of cross-entropy.
        gamma: γ of both terms, above 0.
        ignore_index: pixels with this target are excluded.
        smooth: s of the Dice coefficient, above 0 (log 0 would be infinite).
        class_weights: (K,) weights of cross-entropy by ground-truth class, at least 0.

    Returns:
        A scalar of at least 0. If every pixel is ignored, it is 0 and so is its gradient. For a pixel or class that is
        exactly right, the gradient of the power (infinite for γ < 1) is set to 0.

    Example:
        A pixel of class 0 with p = 1/2, γ = 1. Dice (1 + 1) / (1.5 + 1) of class 0 and 1 / 1.5 of class 1.

        >>> exponential_logarithmic_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), gamma=1)
        tensor(0.3901)
    """
    check_number("dice_weight", dice_weight, maximum=1)
    check_number("gamma", gamma, exclusive=True)
    check_number("smooth", smooth, exclusive=True)
    valid = check_logits_and_target(logits, target, ignore_index)
    weight = true_class_weight(target, valid, class_weights, logits)
    tp, fp, fn = soft_counts(logits, target, ignore_index)
    minus_log_dice = torch.log1p((fp + fn) / (2 * tp + smooth))  # -log((2 TP + s) / (2 TP + FP + FN + s))
    ce = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    ce = reduce_loss(power_from_zero(ce, gamma), weight, "mean")
    return dice_weight * power_from_zero(minus_log_dice, gamma).mean() + (1 - dice_weight) * ce


def unified_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    ignore_index: int | None = 255,
    smooth: float = 1e-6,
) -> Tensor:
    """Asymmetric unified focal loss: emphasises rare classes and suppresses easy background.

    Yeung et al. 2021 (arXiv 2102.04525): ``λ · asymmetric focal + (1 - λ) · asymmetric focal Tversky``, with class 0 as
    background and all others as rare:

    - focal: ``-δ log p_t`` on pixels of rare classes, ``-(1 - δ)(1 - p_t)^γ log p_t`` on background, mean over pixels;
    - Tversky, with ``T = TP / (TP + δ FN + (1 - δ) FP)``: ``(1 - T)^(1-γ)`` of rare classes and ``1 - T`` of
      background, mean over classes and images.

    Paper: it sums over classes in the second term. We take the mean, so that λ means the same for any K (so does
    MONAI, which takes the mean over classes in the first term as well).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        weight: λ, in [0, 1].
        delta: δ, in [0, 1]: the weight of rare classes, and of false negatives.
        gamma: γ, at least 0 and below 1.
        ignore_index: pixels with this target are excluded.
        smooth: added to numerator and denominator of T, at least 0.

    Returns:
        A scalar of at least 0. A class that neither occurs nor is predicted has T = 1. If every pixel is ignored, the
        loss and its gradient are 0.

    Example:
        A pixel of class 1 with p = 1/2, γ = 0: 0.6 log 2 / 2 + ((1 - 0.5 / 0.8) + 1) / 4.

        >>> unified_focal_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).long(), gamma=0, smooth=0)
        tensor(0.5517)
    """
    check_number("weight", weight, maximum=1)
    check_number("delta", delta, maximum=1)
    check_number("gamma", gamma, maximum=1)
    if gamma == 1:
        raise ValueError("gamma is 1, expected a number below 1")
    foreground_loss = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    background_loss = focal_loss(logits, target, gamma=gamma, ignore_index=ignore_index, reduction="none")
    loss = torch.where(target == 0, (1 - delta) * background_loss, delta * foreground_loss)
    focal = reduce_loss(loss, valid_pixels(target, ignore_index).to(loss.dtype), "mean")
    counts = soft_counts(logits, target, ignore_index)
    error = tversky_error(counts, alpha=1 - delta, beta=delta, smooth=smooth)  # (B, K)
    tversky = torch.cat([error[:, :1], power_from_zero(error[:, 1:], 1 - gamma)], dim=1).mean()
    return weight * focal + (1 - weight) * tversky
