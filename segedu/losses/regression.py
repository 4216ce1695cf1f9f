"""Regression losses, for networks that predict distances, flows or boxes.

They are a poor choice for classes: after a softmax, the gradient of a squared error vanishes for confident wrong
predictions, where that of cross-entropy is largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.reduction import full_precision, reduce_loss
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_weights
from segedu.validation.tensors import check_floats


def l1_loss(preds: Tensor, target: Tensor, *, weights: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """L1 loss ``|preds - target|``, whose gradient is 1 for every error; the best constant prediction is the median.

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        weights: weight of each value, at least 0, the same shape. Values with weight 0 are ignored.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each value.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0.

    Example:
        >>> l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]))
        tensor(1.5000)
    """
    error, weight = _error(preds, target, weights)
    return reduce_loss(error.abs(), weight, reduction)


def l2_loss(preds: Tensor, target: Tensor, *, weights: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """L2 loss ``(preds - target)²``, dominated by large errors; the best constant prediction is the mean.

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        weights: weight of each value, at least 0, the same shape. Values with weight 0 are ignored.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each value.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0. There is no factor 1/2.

    Example:
        >>> l2_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]))
        tensor(2.5000)
    """
    error, weight = _error(preds, target, weights)
    return reduce_loss(error.square(), weight, reduction)


def smooth_l1_loss(
    preds: Tensor, target: Tensor, *, beta: float = 1.0, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Smooth L1 loss: ``e²/2β`` for errors below β and ``|e| - β/2`` above (Girshick 2015, equation 3).

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        beta: β, at least 0; 0 gives ``l1_loss``. Fast R-CNN uses 1.
        weights: weight of each value, at least 0, the same shape. Values with weight 0 are ignored.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each value.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0.

    Example:
        >>> smooth_l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.5]), reduction="none")
        tensor([1.5000, 0.1250])
    """
    error, weight = _error(preds, target, weights)
    check_number("beta", beta)
    if beta == 0:
        return reduce_loss(error.abs(), weight, reduction)
    size = error.abs()
    clamped = size.clamp(max=beta)  # clamped · (|e| - clamped/2) / β is e²/2β below β, and |e| - β/2 above
    return reduce_loss(clamped * (size - clamped / 2) / beta, weight, reduction)


def _error(preds: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    check_floats("preds", preds)
    check_floats("target", target)
    if preds.shape != target.shape or preds.numel() == 0:
        shape = tuple(target.shape)
        raise ValueError(f"preds has shape {tuple(preds.shape)}, expected that of target, {shape}, with no axis empty")
    check_weights("weights", weights, tuple(preds.shape))
    preds, target = full_precision(preds), full_precision(target)
    weight = torch.ones_like(preds) if weights is None else weights.to(preds)
    if weights is not None:
        target = torch.where(weight > 0, target, preds.detach())  # 0 · NaN is NaN, but ignored values may be NaN
    return preds - target, weight
