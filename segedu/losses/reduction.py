"""Weights and reduction of losses per pixel.

All weights follow one rule. If ``w`` is the weight of a pixel (its class weight times its pixel weight), ``"sum"`` is
``Σ w · loss`` and ``"mean"`` is ``Σ w · loss / Σ w``. An ignored pixel has weight 0. Half-precision logits are
converted to float32 first, and the loss is returned in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.numbers import check_choice
from segedu.validation.targets import check_weights

REDUCTIONS = ("none", "mean", "sum")


def full_precision(logits: Tensor) -> Tensor:
    """Convert half-precision logits to float32.

    Sums over the pixels of an image may exceed the float16 maximum, 65504. Other dtypes are returned unchanged.

    Example:
        >>> full_precision(torch.zeros(1, dtype=torch.float16))
        tensor([0.])
    """
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def reduce_loss(loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Apply weights to a loss and reduce it to a scalar.

    Args:
        loss: any shape.
        weight: the same shape, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each pixel.

    Returns:
        A scalar, or the shape of ``loss`` for "none". If all weights are 0, the mean and its gradient are 0.

    Example:
        >>> reduce_loss(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]), "mean")
        tensor(2.)
    """
    check_choice("reduction", reduction, REDUCTIONS)
    weighted = loss * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    total = weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)  # avoids 0 / 0


def true_class_weight(target: Tensor, valid: Tensor, class_weights: Tensor | None, logits: Tensor) -> Tensor:
    """The class weight of each pixel's ground truth, 0 for ignored pixels.

    Args:
        target: (B, H, W) int64.
        valid: (B, H, W) bool, False where ignored.
        class_weights: (K,) at least 0; None stands for weights of 1.
        logits: (B, K, H, W), for K and the dtype of the result.

    Returns:
        (B, H, W) floats.

    Example:
        >>> target = torch.tensor([[[0, 1, 255]]])
        >>> true_class_weight(target, target != 255, torch.tensor([0.5, 2.0]), torch.zeros(1, 2, 1, 3))
        tensor([[[0.5000, 2.0000, 0.0000]]])
    """
    check_weights("class_weights", class_weights, (logits.shape[1],))
    weight = valid.to(full_precision(logits).dtype)
    return weight if class_weights is None else weight * class_weights.to(weight)[torch.where(valid, target, 0)]
