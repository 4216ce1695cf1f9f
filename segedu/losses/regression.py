"""Losses of numbers: what networks that predict distances, flows or boxes minimise.

Against classes they are a poor choice: behind a softmax, the slope of a squared error vanishes where the network is
sure and wrong, while that of cross-entropy is at its largest there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.reduction import full_precision, reduce_loss
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_weights


def l1_loss(preds: Tensor, target: Tensor, *, weights: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """``|preds - target|``: the median is the best constant; the slope is 1 however small the error.

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        weights: weight of each number, at least 0, the same shape: 0 where a number does not count.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each number.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0.

    Raises:
        TypeError: an argument is no tensor of floats.
        ValueError: the shapes differ, a weight is negative, the reduction is unknown, or there is no number.

    Example:
        >>> l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]))
        tensor(1.5000)
    """
    error, weight = _error(preds, target, weights)
    return reduce_loss(error.abs(), weight, reduction)


def l2_loss(preds: Tensor, target: Tensor, *, weights: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """``(preds - target)²``: the mean is the best constant; one large error outweighs many small ones.

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        weights: weight of each number, at least 0, the same shape: 0 where a number does not count.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each number.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0. No factor 1/2.

    Raises:
        TypeError: as ``l1_loss``.
        ValueError: as ``l1_loss``.

    Example:
        >>> l2_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]))
        tensor(2.5000)
    """
    error, weight = _error(preds, target, weights)
    return reduce_loss(error.square(), weight, reduction)


def smooth_l1_loss(
    preds: Tensor, target: Tensor, *, beta: float = 1.0, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """``e²/2β`` for errors below β, ``|e| - β/2`` above: squared near 0, L1 far away (Girshick 2015, equation 3).

    Args:
        preds: floats of any shape.
        target: floats of the same shape.
        beta: β, at least 0; 0 gives ``l1_loss``. Fast R-CNN has 1.
        weights: weight of each number, at least 0, the same shape: 0 where a number does not count.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none"
            gives the weighted loss of each number.

    Returns:
        A scalar, or the shape of ``preds`` for "none". If all weights are 0, the mean is 0.

    Raises:
        TypeError: as ``l1_loss``.
        ValueError: as ``l1_loss``; β is negative.

    Example:
        >>> smooth_l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.5]), reduction="none")
        tensor([1.5000, 0.1250])
    """
    error, weight = _error(preds, target, weights)
    check_number("beta", beta)
    if beta == 0:
        return reduce_loss(error.abs(), weight, reduction)
    size = error.abs()
    near = size.clamp(max=beta)  # e²/2β and |e| - β/2 in one: near · (|e| - near/2) / β
    return reduce_loss(near * (size - near / 2) / beta, weight, reduction)


def _error(preds: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    for value, name in ((preds, "preds"), (target, "target")):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} has type {type(value).__name__}, expected a torch.Tensor of floats")
        if not value.is_floating_point():
            raise TypeError(f"{name} has dtype {value.dtype}, expected floats")
    if preds.shape != target.shape or preds.numel() == 0:
        raise ValueError(
            f"preds has shape {tuple(preds.shape)}, expected at least one number and the shape of target,"
            f" {tuple(target.shape)}"
        )
    check_weights("weights", weights, tuple(preds.shape))
    preds, target = full_precision(preds), full_precision(target)
    weight = torch.ones_like(preds) if weights is None else weights.to(preds)
    if weights is not None:
        target = torch.where(weight > 0, target, preds.detach())  # 0 · NaN: what does not count may be anything
    return preds - target, weight
