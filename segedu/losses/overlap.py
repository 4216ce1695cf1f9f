"""Soft true positives, false positives and false negatives of each class: what region losses are made of.

``TP = Σ y p``, ``FP = Σ (1 - y) p``, ``FN = Σ y (1 - p)`` over pixels, with the probability ``p`` and the truth
``y`` (0 or 1) of a class. Then ``Σ y + Σ p = 2 TP + FP + FN`` and the soft union is ``TP + FP + FN``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.reduction import full_precision
from segedu.validation.targets import check_logits_and_target, check_weights


def class_probabilities(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Probability and truth of each class, pixels in one row, 0 where ignored.

    Args:
        logits: (B, K, H, W), K >= 2.
        target: (B, H, W) int64.
        ignore_index: pixels with this target are 0 in both.

    Returns:
        ``p = softmax(logits)`` and the one-hot ``y``, both (B, K, P).

    Raises:
        TypeError: ``logits`` are no floats or ``target`` is not int64.
        ValueError: the shapes do not fit, a class is outside [0, K), or the batch is empty.

    Example:
        >>> p, y = class_probabilities(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]), 255)
        >>> p.tolist(), y.tolist()
        ([[[0.5, 0.0], [0.5, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]])
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    safe_target = torch.where(counted, target, 0).flatten(1)[:, None]  # (B, 1, P)
    counted = counted.flatten(1)[:, None]
    p = torch.softmax(full_precision(logits).flatten(2), dim=1) * counted  # (B, K, P)
    y = torch.zeros_like(p).scatter_(1, safe_target, counted.to(p.dtype))
    return p, y


def soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None = 255, per_image: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft TP, FP and FN of each class.

    Each is a sum of numbers of at least 0, so that none is negative by rounding (``Σ p - TP`` can be).

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target are left out.
        per_image: sum over the pixels of each image. False: over those of the whole batch.

    Returns:
        TP, FP and FN, each (B, K), or (1, K) for the whole batch.

    Raises:
        TypeError: ``logits`` are no floats or ``target`` is not int64.
        ValueError: the shapes do not fit, a class is outside [0, K), or the batch is empty.

    Example:
        Two pixels of class 0 with p = 1/2.

        >>> soft_counts(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
        (tensor([[1., 0.]]), tensor([[0., 1.]]), tensor([[1., 0.]]))
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    safe_target = torch.where(counted, target, 0).flatten(1)  # (B, P)
    counted = counted.flatten(1)
    p = torch.softmax(full_precision(logits).flatten(2), dim=1)  # (B, K, P)
    true = p.gather(1, safe_target[:, None])[:, 0]  # (B, P) probability of the true class
    # no one-hot map: a pixel adds to the sums of its true class alone, and to FP of the others
    nothing = p.new_zeros(p.shape[:2])
    tp = nothing.scatter_add(1, safe_target, true * counted)
    fn = nothing.scatter_add(1, safe_target, (1 - true) * counted)
    wrong = p.scatter(1, safe_target[:, None], 0.0)  # (B, K, P)
    fp = (wrong if counted.all() else wrong * counted[:, None]).sum(2)
    return (tp, fp, fn) if per_image else tuple(count.sum(0, keepdim=True) for count in (tp, fp, fn))


def class_masks(target: Tensor, num_classes: int, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The mask of each class, and the mask of all other classes; ignored pixels are in neither.

    Args:
        target: (B, H, W) int64.
        num_classes: K.
        counted: (B, H, W) bool, false where ignored.

    Returns:
        Two bool maps (B, K, H, W).

    Example:
        >>> inside, outside = class_masks(torch.tensor([[[0, 1, 255]]]), 2, torch.tensor([[[True, True, False]]]))
        >>> inside.int().tolist(), outside.int().tolist()
        ([[[[1, 0, 0]], [[0, 1, 0]]]], [[[[0, 1, 0]], [[1, 0, 0]]]])
    """
    inside = torch.stack([(target == k) & counted for k in range(num_classes)], dim=1)
    return inside, ~inside & counted[:, None]


def ratio_or_one(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A coefficient of overlap, where 0/0 is perfect: nothing there, and nothing predicted.

    Args:
        numerator: any shape, at least 0.
        denominator: the same shape; where it is 0 the numerator is 0 too.

    Returns:
        The ratio, 1 for 0/0, and there no gradient.

    Example:
        >>> ratio_or_one(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]))
        tensor([0.2500, 1.0000])
    """
    empty = denominator == 0
    return torch.where(empty, 1.0, numerator / torch.where(empty, 1.0, denominator))


def power_from_zero(x: Tensor, exponent: float) -> Tensor:
    """``x^exponent`` for x of at least 0, with no gradient at 0, where that of a root is infinite.

    Args:
        x: any shape, at least 0.
        exponent: at least 0; 0 gives 1, and 0 where x is 0.

    Returns:
        The shape of ``x``.

    Example:
        >>> power_from_zero(torch.tensor([0.0, 4.0]), 0.5)
        tensor([0., 2.])
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0) ** exponent, 0.0)


def mean_over_classes(loss: Tensor, include_background: bool = True, class_weights: Tensor | None = None) -> Tensor:
    """Mean of the losses of classes (and images), each class with its weight.

    Args:
        loss: (..., K).
        include_background: False leaves class 0 out.
        class_weights: (K,) at least 0; the weighted sum is divided by the sum of the weights.

    Returns:
        A scalar; 0 if all weights are 0.

    Raises:
        TypeError: the weights are no tensor.
        ValueError: the weights have another shape, or one is negative.

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
