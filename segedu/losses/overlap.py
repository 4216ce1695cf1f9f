"""Soft true positives, false positives and false negatives of each class, from which region losses are computed.

``TP = Σ y p``, ``FP = Σ (1 - y) p``, ``FN = Σ y (1 - p)`` over pixels, with the predicted probability ``p`` and the
target ``y`` (0 or 1) of a class. So ``Σ y + Σ p = 2 TP + FP + FN``, and the soft union is ``TP + FP + FN``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.reduction import full_precision
from segedu.validation.targets import check_logits_and_target, check_weights


def class_probabilities(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Probability and one-hot target of each class, with flattened pixels and 0 where a pixel is ignored.

    Args:
        logits: (B, K, H, W), K >= 2.
        target: (B, H, W) int64.
        ignore_index: pixels with this target are 0 in both results.

    Returns:
        ``p = softmax(logits)`` and the one-hot ``y``, both (B, K, P).

    Example:
        >>> p, y = class_probabilities(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]), 255)
        >>> p.tolist(), y.tolist()
        ([[[0.5, 0.0], [0.5, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]])
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    safe_target = torch.where(valid, target, 0).flatten(1)[:, None]  # (B, 1, P)
    valid = valid.flatten(1)[:, None]
    p = torch.softmax(full_precision(logits).flatten(2), dim=1) * valid  # (B, K, P)
    y = torch.zeros_like(p).scatter_(1, safe_target, valid.to(p.dtype))
    return p, y


def soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None = 255, per_image: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft TP, FP and FN of each class.

    Each is a sum of terms of at least 0, so rounding never makes it negative (``Σ p - TP`` can be negative).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded.
        per_image: sum over the pixels of each image. False: over those of the whole batch.

    Returns:
        TP, FP and FN, each (B, K), or (1, K) for the whole batch.

    Example:
        Two pixels of class 0 with p = 1/2.

        >>> soft_counts(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
        (tensor([[1., 0.]]), tensor([[0., 1.]]), tensor([[1., 0.]]))
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    safe_target = torch.where(valid, target, 0).flatten(1)  # (B, P)
    valid = valid.flatten(1)
    p = torch.softmax(full_precision(logits).flatten(2), dim=1)  # (B, K, P)
    p_target = p.gather(1, safe_target[:, None])[:, 0]  # (B, P) probability of the ground truth
    # without a one-hot tensor: a pixel adds to TP and FN of its own class, and to FP of all other classes
    zeros = p.new_zeros(p.shape[:2])
    tp = zeros.scatter_add(1, safe_target, p_target * valid)
    fn = zeros.scatter_add(1, safe_target, (1 - p_target) * valid)
    p_others = p.scatter(1, safe_target[:, None], 0.0)  # (B, K, P)
    fp = (p_others if valid.all() else p_others * valid[:, None]).sum(2)
    return (tp, fp, fn) if per_image else tuple(count.sum(0, keepdim=True) for count in (tp, fp, fn))


def class_masks(target: Tensor, num_classes: int, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The mask of each class, and the mask of all other classes; ignored pixels are in neither.

    Args:
        target: (B, H, W) int64.
        valid: (B, H, W) bool, False where ignored.

    Returns:
        Two bool tensors (B, K, H, W).

    Example:
        >>> inside, outside = class_masks(torch.tensor([[[0, 1, 255]]]), 2, torch.tensor([[[True, True, False]]]))
        >>> inside.int().tolist(), outside.int().tolist()
        ([[[[1, 0, 0]], [[0, 1, 0]]]], [[[[0, 1, 0]], [[1, 0, 0]]]])
    """
    inside = torch.stack([(target == k) & valid for k in range(num_classes)], dim=1)
    return inside, ~inside & valid[:, None]


def ratio_or_one(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A ratio in which 0/0 is 1: without an object and without a prediction, the overlap is perfect.

    The gradient there is 0.

    Args:
        numerator: any shape, at least 0.
        denominator: the same shape; where it is 0, the numerator is 0 too.

    Example:
        >>> ratio_or_one(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]))
        tensor([0.2500, 1.0000])
    """
    empty = denominator == 0
    return torch.where(empty, 1.0, numerator / torch.where(empty, 1.0, denominator))


def power_from_zero(x: Tensor, exponent: float) -> Tensor:
    """``x^exponent`` for x of at least 0, with gradient 0 at x = 0, where the gradient of a root would be infinite.

    Args:
        x: any shape, at least 0.
        exponent: at least 0; 0 gives 1, but 0 where x is 0.

    Example:
        >>> power_from_zero(torch.tensor([0.0, 4.0]), 0.5)
        tensor([0., 2.])
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0) ** exponent, 0.0)


def mean_over_classes(loss: Tensor, include_background: bool = True, class_weights: Tensor | None = None) -> Tensor:
    """Weighted mean of a loss over classes and images.

    Args:
        loss: (..., K).
        include_background: False excludes class 0.
        class_weights: (K,) at least 0; the weighted sum is divided by the sum of the weights.

    Returns:
        A scalar; 0 if all weights are 0.

    Example:
        >>> mean_over_classes(torch.tensor([[0.5, 0.2]]), class_weights=torch.tensor([2.0, 1.0]))
        tensor(0.4000)
    """
    check_weights("class_weights", class_weights, (loss.shape[-1],))
    if class_weights is None:
        return (loss if include_background else loss[..., 1:]).mean()
    weights = class_weights.to(loss).expand_as(loss)
    if not include_background:
        loss, weights = loss[..., 1:], weights[..., 1:]
    total = weights.sum()
    return (weights * loss).sum() / torch.where(total > 0, total, 1.0)
