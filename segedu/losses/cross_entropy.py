"""Cross-entropy with class weights, pixel weights and ignored pixels.

The rule for weights and half precision is that of ``segedu.losses.reduction``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.reduction import full_precision, reduce_loss, true_class_weight
from segedu.validation.targets import check_logits_and_target, check_soft_target, check_weights


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of each pixel, ``-log softmax(logits)[target]``.

    With ``pixel_weights`` and ``reduction="sum"``, this is the energy of U-Net (Ronneberger et al. 2015, equation 1).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target have loss 0 and weight 0.
        class_weights: (K,) at least 0, by ground-truth class.
        pixel_weights: (B, H, W) at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each pixel.

    Returns:
        A scalar, or (B, H, W) for "none". If every pixel is ignored, the mean and its gradient are 0.

    Example:
        >>> logits = torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1)
        >>> cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.int64))  # log 2
        tensor(0.6931)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    weight = true_class_weight(target, valid, class_weights, logits)
    check_weights("pixel_weights", pixel_weights, tuple(target.shape))
    safe_target = torch.where(valid, target, 0)  # 255 is not a valid index; its pixels get weight 0 below
    log_p = torch.log_softmax(full_precision(logits), dim=1)  # (B, K, H, W); no overflow, unlike log(softmax)
    loss = -log_p.gather(1, safe_target[:, None])[:, 0]  # (B, H, W)
    if pixel_weights is not None:
        weight = weight * pixel_weights.to(loss)
    return reduce_loss(loss, weight, reduction)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    pixel_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy ``-(t log p + (1 - t) log(1 - p))`` with ``p = sigmoid(logits)``.

    Args:
        logits: one logit per pixel, before the sigmoid, of any shape, for example (B, H, W).
        target: the same shape: bools, integers 0 and 1, or floats in [0, 1].
        ignore_index: pixels with this target have loss 0 and weight 0.
        pixel_weights: the same shape, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each pixel.

    Returns:
        A scalar, or the shape of ``logits`` for "none". If every pixel is ignored, the mean and its gradient are 0.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.0, 0.0]), torch.tensor([1, 255]))  # log 2
        tensor(0.6931)
    """
    soft_target, valid = check_soft_target(logits, target, ignore_index)
    logits = full_precision(logits)
    check_weights("pixel_weights", pixel_weights, tuple(target.shape))
    loss = -(
        soft_target * F.logsigmoid(logits) + (1 - soft_target) * F.logsigmoid(-logits)
    )  # log(1 - p) = logsigmoid(-z)
    weight = valid.to(loss.dtype)
    if pixel_weights is not None:
        weight = weight * pixel_weights.to(loss)
    return reduce_loss(loss, weight, reduction)
