"""Cross-entropy of pixels, with classes and pixels that weigh more, and pixels that do not count.

One rule for every kind of weight: with the weight ``w`` of a pixel (that of its true class times its own), the
``"sum"`` is ``Σ w · loss`` and the ``"mean"`` is ``Σ w · loss / Σ w``. An ignored pixel has weight 0.
Half-precision logits are computed, and the loss returned, in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


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
    num_classes = logits.shape[1]
    _check_weights(class_weights, (num_classes,), "class_weights")
    _check_weights(pixel_weights, tuple(target.shape), "pixel_weights")
    safe_target = torch.where(counted, target, 0)  # 255 is no index; its pixels get weight 0 below
    log_probability = torch.log_softmax(full_precision(logits), dim=1)  # (B, K, H, W); no overflow, unlike log(softmax)
    loss = -log_probability.gather(1, safe_target[:, None])[:, 0]  # (B, H, W)
    weight = counted.to(loss.dtype)
    if class_weights is not None:
        weight = weight * class_weights.to(loss)[safe_target]
    if pixel_weights is not None:
        weight = weight * pixel_weights.to(loss)
    return _reduce(loss, weight, reduction)


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
    _check_logits(logits)
    if not isinstance(target, Tensor):
        raise TypeError(f"target is a {type(target).__name__}, expected a torch.Tensor")
    if target.shape != logits.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected that of logits, {tuple(logits.shape)}")
    logits = full_precision(logits)
    counted = _counted(target, ignore_index)
    soft = torch.where(counted, target, 0).to(logits.dtype)
    outside = soft[~((soft >= 0) & (soft <= 1))]
    if outside.numel():
        raise ValueError(f"target has the value {outside[0].item():g}, expected values in [0, 1]")
    _check_weights(pixel_weights, tuple(target.shape), "pixel_weights")
    loss = -(soft * F.logsigmoid(logits) + (1 - soft) * F.logsigmoid(-logits))  # log(1 - p) = logsigmoid(-z)
    weight = counted.to(loss.dtype)
    if pixel_weights is not None:
        weight = weight * pixel_weights.to(loss)
    return _reduce(loss, weight, reduction)


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
    _check_logits(logits)
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
    counted = _counted(target, ignore_index)
    outside = target[counted & ((target < 0) | (target >= logits.shape[1]))]
    if outside.numel():
        raise ValueError(
            f"target has the value {int(outside[0])}, expected classes 0 to {logits.shape[1] - 1}"
            f" or ignore_index={ignore_index}"
        )
    return counted


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


def _counted(target: Tensor, ignore_index: int | None) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index


def _reduce(loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, expected one of {', '.join(REDUCTIONS)}")
    weighted = loss * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    total = weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)  # nothing counts: 0 / 1, not 0 / 0


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits are a {type(logits).__name__}, expected a torch.Tensor of floats")
    if not logits.is_floating_point():
        raise TypeError(f"logits have dtype {logits.dtype}, expected floats")
    if logits.numel() == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, expected at least one image and one pixel")


def _check_weights(weights: Tensor | None, shape: tuple[int, ...], name: str) -> None:
    if weights is None:
        return
    if not isinstance(weights, Tensor):
        raise TypeError(f"{name} is a {type(weights).__name__}, expected a torch.Tensor of shape {shape}")
    if tuple(weights.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(weights.shape)}, expected {shape}")
    if not bool((weights >= 0).all()):
        raise ValueError(f"{name} has a negative or NaN value, expected weights of at least 0")
