"""Focal loss: cross-entropy in which a pixel that is already right hardly counts.

Lin et al. 2017 (arXiv 1708.02002, equation 5): ``-α_t (1 - p_t)^γ log p_t``, where ``p_t`` is the probability of
what is true. At ``p_t = 0.9`` and γ = 2 the loss is 100 times smaller than cross-entropy. The exponent turns
*easy* pixels down; it is α that balances classes.
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
    """``-α_t (1 - p_t)^γ log p_t`` of every score by itself, with ``p = sigmoid(logits)``.

    ``p_t = p`` and ``α_t = α`` where the target is 1; ``p_t = 1 - p`` and ``α_t = 1 - α`` where it is 0. The
    factor α_t belongs to the loss: unlike a weight, it does not enter the divisor of the mean. RetinaNet takes the
    sum over all anchors and divides it by the number of positive ones: ``reduction="sum"`` and divide.

    Args:
        logits: scores before the sigmoid, any shape: (B, H, W), or (N, K) where each class is a yes or a no.
        target: the same shape: 0 and 1 as bools or integers, or floats in [0, 1] (``p_t`` is then
            ``t p + (1 - t)(1 - p)``, as in torchvision).
        alpha: α of the positives, in [0, 1]; None leaves α_t out.
        gamma: γ, at least 0; 0 gives α-weighted cross-entropy.
        ignore_index: scores with this target do not count.
        reduction: "mean" over the scores that count, "sum" or "none".

    Returns:
        A scalar, or the shape of ``logits`` for "none". If nothing counts, the mean is 0 and so is its gradient.

    Raises:
        TypeError: an argument is not of the right kind.
        ValueError: the shapes differ, a target is outside [0, 1], α or γ out of bounds; an empty batch.

    Example:
        p = 1/2 for a positive: 1/4 · 1/4 · log 2.

        >>> sigmoid_focal_loss(torch.tensor([0.0]), torch.tensor([1]))
        tensor(0.0433)
    """
    soft, counted = check_soft_target(logits, target, ignore_index)
    check_number("gamma", gamma)
    logits = full_precision(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    # 1 - p_t from sigmoid(-z), not from 1 - sigmoid(z), which is rounded to 0 where the network is sure
    wrong = (1 - soft) * torch.sigmoid(logits) + soft * torch.sigmoid(-logits)
    loss = power_from_zero(wrong, gamma) * entropy
    if alpha is not None:
        check_number("alpha", alpha, maximum=1)
        loss = (soft * alpha + (1 - soft) * (1 - alpha)) * loss
    return reduce_loss(loss, counted.to(loss.dtype), reduction)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int | None = 255,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-α_t (1 - p_t)^γ log p_t`` with ``p = softmax(logits)``: one true class among K.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        gamma: γ, at least 0; 0 gives cross-entropy.
        ignore_index: pixels with this target do not count.
        class_weights: (K,) α of each true class, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each pixel.

    Returns:
        A scalar, or (B, H, W) for "none". If no pixel counts, the mean is 0 and so is its gradient.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: a shape, a class, a weight, γ or the reduction is not one of those above; an empty batch.

    Example:
        p_t = 1/2: (1/2)² log 2.

        >>> focal_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
        tensor(0.1733)
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    check_number("gamma", gamma)
    weight = true_class_weight(target, counted, class_weights, logits)
    safe_target = torch.where(counted, target, 0)[:, None]  # (B, 1, H, W)
    log_p = torch.log_softmax(full_precision(logits), dim=1)  # (B, K, H, W)
    # log(1 - p_t) from the other classes: 1 - p_t itself is rounded to 0 where the network is sure
    log_wrong = log_p.scatter(1, safe_target, -torch.inf).logsumexp(dim=1)  # (B, H, W)
    loss = (gamma * log_wrong).exp() * -log_p.gather(1, safe_target)[:, 0]
    return reduce_loss(loss, weight, reduction)
