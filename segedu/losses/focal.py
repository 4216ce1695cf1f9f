"""Focal loss: cross-entropy that gives pixels which are already classified well a small weight.

Lin et al. 2017 (arXiv 1708.02002, equation 5): ``-α_t (1 - p_t)^γ log p_t``, where ``p_t`` is the predicted probability
of the ground truth. At ``p_t = 0.9`` and γ = 2 the loss is 100 times smaller than cross-entropy. The exponent γ reduces
the loss of *easy* pixels; α balances the classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.overlap import power_from_zero
from segedu.losses.reduction import full_precision, reduce_loss, true_class_weight
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target, check_soft_target


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    ignore_index: int | None = 255,
    reduction: str = "mean",
) -> Tensor:
    """Focal loss ``-α_t (1 - p_t)^γ log p_t`` of each logit independently, with ``p = sigmoid(logits)``.

    ``p_t = p`` and ``α_t = α`` where the target is 1; ``p_t = 1 - p`` and ``α_t = 1 - α`` where it is 0. The factor α_t
    belongs to the loss: unlike a weight, it does not enter the divisor of the mean. RetinaNet divides the sum over all
    anchors by the number of positive anchors: use ``reduction="sum"`` and divide.

    Args:
        logits: before the sigmoid, of any shape: (B, H, W), or (N, K) if classes do not exclude each other.
        target: the same shape: bools, integers 0 and 1, or floats in [0, 1] (``p_t`` is then ``t p + (1 - t)(1 - p)``,
            as in torchvision).
        alpha: α of the positives, in [0, 1]; None omits the factor α_t.
        gamma: γ, at least 0; 0 gives α-weighted cross-entropy.
        ignore_index: logits with this target are excluded.
        reduction: "mean" over the logits that are not ignored, "sum" or "none".

    Returns:
        A scalar, or the shape of ``logits`` for "none". If every target is ignored, the mean and its gradient are 0.

    Example:
        A positive with p = 1/2: 1/4 · 1/4 · log 2.

        >>> sigmoid_focal_loss(torch.tensor([0.0]), torch.tensor([1]))
        tensor(0.0433)
    """
    soft_target, valid = check_soft_target(logits, target, ignore_index)
    check_number("gamma", gamma)
    logits = full_precision(logits)
    ce = F.binary_cross_entropy_with_logits(logits, soft_target, reduction="none")
    # sigmoid(-z), because 1 - sigmoid(z) is rounded to 0 for large z
    error = (1 - soft_target) * torch.sigmoid(logits) + soft_target * torch.sigmoid(-logits)  # 1 - p_t
    loss = power_from_zero(error, gamma) * ce
    if alpha is not None:
        check_number("alpha", alpha, maximum=1)
        loss = (soft_target * alpha + (1 - soft_target) * (1 - alpha)) * loss
    return reduce_loss(loss, valid.to(loss.dtype), reduction)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int | None = 255,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Focal loss ``-α_t (1 - p_t)^γ log p_t`` with ``p = softmax(logits)``, for K classes that exclude each other.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        gamma: γ, at least 0; 0 gives cross-entropy.
        ignore_index: pixels with this target have loss 0 and weight 0.
        class_weights: (K,) α by ground-truth class, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each pixel.

    Returns:
        A scalar, or (B, H, W) for "none". If every pixel is ignored, the mean and its gradient are 0.

    Example:
        p_t = 1/2: (1/2)² log 2.

        >>> focal_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
        tensor(0.1733)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("gamma", gamma)
    weight = true_class_weight(target, valid, class_weights, logits)
    safe_target = torch.where(valid, target, 0)[:, None]  # (B, 1, H, W)
    log_p = torch.log_softmax(full_precision(logits), dim=1)  # (B, K, H, W)
    # log(1 - p_t) from the other classes, because 1 - p_t itself is rounded to 0 for confident predictions
    log_error = log_p.scatter(1, safe_target, -torch.inf).logsumexp(dim=1)  # (B, H, W)
    loss = (gamma * log_error).exp() * -log_p.gather(1, safe_target)[:, 0]
    return reduce_loss(loss, weight, reduction)
