"""Cross-entropy of pixels, with classes and pixels that weigh more, and pixels that do not count.

One rule for every kind of weight: with the weight ``w`` of a pixel (that of its true class times its own), the
``"sum"`` is ``Σ w · loss`` and the ``"mean"`` is ``Σ w · loss / Σ w``. An ignored pixel has weight 0.
Half-precision logits are computed, and the loss returned, in float32.
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
    """``-log softmax(logits)[target]`` of every pixel: how little the true class was expected.

    ``pixel_weights`` with ``reduction="sum"`` is the energy of U-Net (Ronneberger et al. 2015, equation 1).

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target do not count: loss 0, weight 0.
        class_weights: (K,) weight of each true class, at least 0.
        pixel_weights: (B, H, W) weight of each pixel, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each pixel.

    Returns:
        A scalar, or (B, H, W) for "none". If no pixel counts, the mean is 0 and so is its gradient.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: a shape, a class, a weight or the reduction is not one of those above; an empty batch.

    Example:
        >>> logits = torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1)
        >>> cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.int64))  # log 2
        tensor(0.6931)
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    weight = true_class_weight(target, counted, class_weights, logits)
    check_weights("pixel_weights", pixel_weights, tuple(target.shape))
    safe_target = torch.where(counted, target, 0)  # 255 is no index; its pixels get weight 0 below
    log_probability = torch.log_softmax(full_precision(logits), dim=1)  # (B, K, H, W); no overflow, unlike log(softmax)
    loss = -log_probability.gather(1, safe_target[:, None])[:, 0]  # (B, H, W)
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
    """``-(t log p + (1 - t) log(1 - p))`` with ``p = sigmoid(logits)``: two classes, one score.

    Args:
        logits: scores before the sigmoid, any shape, for instance (B, H, W).
        target: the same shape: 0 and 1 as bools or integers, or floats in [0, 1].
        ignore_index: pixels with this target do not count: loss 0, weight 0.
        pixel_weights: weight of each pixel, at least 0, the same shape.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each pixel.

    Returns:
        A scalar, or the shape of ``logits`` for "none". If no pixel counts, the mean is 0 and so is its
        gradient.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: the shapes differ, a target is outside [0, 1], a weight is negative; an empty batch.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.0, 0.0]), torch.tensor([1, 255]))  # log 2
        tensor(0.6931)
    """
    soft, counted = check_soft_target(logits, target, ignore_index)
    logits = full_precision(logits)
    check_weights("pixel_weights", pixel_weights, tuple(target.shape))
    loss = -(soft * F.logsigmoid(logits) + (1 - soft) * F.logsigmoid(-logits))  # log(1 - p) = logsigmoid(-z)
    weight = counted.to(loss.dtype)
    if pixel_weights is not None:
        weight = weight * pixel_weights.to(loss)
    return reduce_loss(loss, weight, reduction)
