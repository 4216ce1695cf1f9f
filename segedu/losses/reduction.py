"""How the losses of the pixels are weighted and reduced to one number.

One rule for every kind of weight: with the weight ``w`` of a pixel (that of its true class times its own), the
``"sum"`` is ``Σ w · loss`` and the ``"mean"`` is ``Σ w · loss / Σ w``. An ignored pixel has weight 0.
Half-precision logits are computed, and the loss returned, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.numbers import check_choice
from segedu.validation.targets import check_weights

REDUCTIONS = ("none", "mean", "sum")


def full_precision(logits: Tensor) -> Tensor:
    """Half-precision scores as float32: the sum over an image's pixels is more than float16 can hold (65504).

    Args:
        logits: floats of any shape.

    Returns:
        float32 where ``logits`` are float16 or bfloat16, else ``logits`` as they are.

    Example:
        >>> full_precision(torch.zeros(1, dtype=torch.float16))
        tensor([0.])
    """
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def reduce_loss(loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """The loss of each pixel and its weight, made one number.

    Args:
        loss: any shape.
        weight: the same shape, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each pixel.

    Returns:
        A scalar, or the shape of ``loss`` for "none". If all weights are 0, the mean is 0 and so is its gradient.

    Raises:
        ValueError: the reduction is not one of those above.

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
    return weighted.sum() / torch.where(total > 0, total, 1.0)  # nothing counts: 0 / 1, not 0 / 0


def true_class_weight(target: Tensor, counted: Tensor, class_weights: Tensor | None, logits: Tensor) -> Tensor:
    """The weight of each pixel: that of its true class, 0 where it does not count.

    Args:
        target: (B, H, W) int64.
        counted: (B, H, W) bool, false where ignored.
        class_weights: (K,) at least 0; None: all 1.
        logits: (B, K, H, W): K, and the dtype of the result.

    Returns:
        (B, H, W) floats.

    Raises:
        TypeError: ``class_weights`` is no tensor.
        ValueError: its shape is not (K,), or a weight is negative or NaN.

    Example:
        >>> target = torch.tensor([[[0, 1, 255]]])
        >>> true_class_weight(target, target != 255, torch.tensor([0.5, 2.0]), torch.zeros(1, 2, 1, 3))
        tensor([[[0.5000, 2.0000, 0.0000]]])
    """
    check_weights("class_weights", class_weights, (logits.shape[1],))
    weight = counted.to(full_precision(logits).dtype)
    return weight if class_weights is None else weight * class_weights.to(weight)[torch.where(counted, target, 0)]
