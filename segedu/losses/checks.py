"""What every loss asks of its input, and how the loss of each pixel becomes one number.

One rule for every kind of weight: with the weight ``w`` of a pixel (that of its true class times its own), the
``"sum"`` is ``Σ w · loss`` and the ``"mean"`` is ``Σ w · loss / Σ w``. An ignored pixel has weight 0.
Half-precision logits are computed, and the loss returned, in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def check_logits(logits: Tensor) -> None:
    """Check that there are scores at all.

    Args:
        logits: floats of any shape, at least one.

    Raises:
        TypeError: ``logits`` are no tensor of floats.
        ValueError: there is none.

    Example:
        >>> check_logits(torch.zeros(1))
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits are a {type(logits).__name__}, expected a torch.Tensor of floats")
    if not logits.is_floating_point():
        raise TypeError(f"logits have dtype {logits.dtype}, expected floats")
    if logits.numel() == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, expected at least one image and one pixel")


def check_logits_and_target(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """Check class scores against a map of true classes, and find the pixels that count.

    Args:
        logits: (B, K, H, W), K >= 2, floats.
        target: (B, H, W), int64.
        ignore_index: pixels with this target do not count.

    Returns:
        (B, H, W) bool, true where a pixel counts.

    Raises:
        TypeError: ``logits`` are no floats or ``target`` is not int64.
        ValueError: the shapes do not fit, a class is outside [0, K), or the batch is empty.

    Example:
        >>> target = torch.tensor([[[0, 255]]])
        >>> check_logits_and_target(torch.zeros(1, 2, 1, 2), target, ignore_index=255)
        tensor([[[ True, False]]])
    """
    check_logits(logits)
    if not isinstance(target, Tensor):
        raise TypeError(f"target is a {type(target).__name__}, expected a torch.Tensor of shape (B, H, W)")
    if target.dtype != torch.int64:
        raise TypeError(f"target has dtype {target.dtype}, expected torch.int64 (use .long())")
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, expected (B, K, H, W) with at least K=2 classes"
            " (for a single score see binary_cross_entropy)"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, expected {expected} for logits {tuple(logits.shape)}"
        )
    counted = counted_pixels(target, ignore_index)
    classes = torch.where(counted, target, 0)
    if classes.min() < 0 or classes.max() >= logits.shape[1]:
        outside = target[counted & ((target < 0) | (target >= logits.shape[1]))]
        raise ValueError(
            f"target has the value {int(outside[0])}, expected classes 0 to {logits.shape[1] - 1}"
            f" or ignore_index={ignore_index}"
        )
    return counted


def check_soft_target(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Check one score a pixel against a target between 0 and 1, and find the pixels that count.

    Args:
        logits: scores before the sigmoid, any shape.
        target: the same shape: 0 and 1 as bools or integers, or floats in [0, 1].
        ignore_index: pixels with this target do not count.

    Returns:
        The target as floats of the dtype of ``full_precision(logits)``, 0 where ignored; and a bool map, true
        where a pixel counts.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: the shapes differ, a target is outside [0, 1], or there is no pixel.

    Example:
        >>> check_soft_target(torch.zeros(2), torch.tensor([1, 255]), ignore_index=255)
        (tensor([1., 0.]), tensor([ True, False]))
    """
    check_logits(logits)
    if not isinstance(target, Tensor):
        raise TypeError(f"target is a {type(target).__name__}, expected a torch.Tensor")
    if target.shape != logits.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected that of logits, {tuple(logits.shape)}")
    counted = counted_pixels(target, ignore_index)
    soft = torch.where(counted, target, 0).to(full_precision(logits).dtype)
    if not (soft.min() >= 0 and soft.max() <= 1):  # NaN too
        outside = soft[~((soft >= 0) & (soft <= 1))]
        raise ValueError(f"target has the value {outside[0].item():g}, expected values in [0, 1]")
    return soft, counted


def counted_pixels(target: Tensor, ignore_index: int | None) -> Tensor:
    """Which pixels count.

    Args:
        target: any shape.
        ignore_index: pixels with this target do not count; None: all do.

    Returns:
        Bool, the shape of ``target``.

    Example:
        >>> counted_pixels(torch.tensor([0, 255]), 255)
        tensor([ True, False])
    """
    if ignore_index is None:
        return torch.ones_like(target, dtype=torch.bool)
    # as int64, for torch takes a uint8 of 255 to be equal to -1
    return (target if target.is_floating_point() else target.long()) != ignore_index


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
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, expected one of {', '.join(REDUCTIONS)}")
    weighted = loss * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    total = weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)  # nothing counts: 0 / 1, not 0 / 0


def check_weights(weights: Tensor | None, shape: tuple[int, ...], name: str) -> None:
    """Check weights of classes or pixels.

    Args:
        weights: at least 0, or None.
        shape: what their shape must be.
        name: the argument's name, for the message.

    Raises:
        TypeError: ``weights`` is no tensor.
        ValueError: the shape is another, or a weight is negative, infinite or NaN.

    Example:
        >>> check_weights(torch.ones(2), (2,), "class_weights")
    """
    if weights is None:
        return
    if not isinstance(weights, Tensor):
        raise TypeError(f"{name} is a {type(weights).__name__}, expected a torch.Tensor of shape {shape}")
    if tuple(weights.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(weights.shape)}, expected {shape}")
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"{name} has a negative or NaN or infinite value, expected finite weights of at least 0")


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
    check_weights(class_weights, (logits.shape[1],), "class_weights")
    weight = counted.to(full_precision(logits).dtype)
    return weight if class_weights is None else weight * class_weights.to(weight)[torch.where(counted, target, 0)]


def check_number(value: float, name: str, low: float = 0.0, high: float = math.inf, above: bool = False) -> None:
    """Check a parameter of a loss.

    Args:
        value: a finite number.
        name: the argument's name, for the message.
        low: the smallest allowed.
        high: the largest allowed.
        above: ``low`` itself is refused.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is outside the bounds, infinite or NaN.

    Example:
        >>> check_number(0.25, "alpha", high=1)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a number")
    if not (low < value if above else low <= value) or not value <= high or math.isinf(value):
        bounds = f"{'above' if above else 'of at least'} {low:g}" + (
            f" and at most {high:g}" if high < math.inf else ""
        )
        raise ValueError(f"{name} is {value}, expected a finite number {bounds}")
