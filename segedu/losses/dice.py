"""Dice loss: one minus the soft Dice coefficient, from sums over pixels.

The sums are the point. The fraction of each pixel, averaged over pixels, is another (and useless) quantity.
Half-precision logits are computed, and the loss returned, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.checks import check_logits_and_target, check_number, full_precision


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    squared: bool = False,
    per_image: bool = True,
    include_background: bool = True,
) -> Tensor:
    """``1 - (2 Σ y p + s) / (Σ y + Σ p + s)`` with ``p = softmax(logits)``, mean over classes (and images).

    ``smooth`` is more than protection from 0/0: it pulls the loss of small objects down. With s = 1 and hard
    predictions, a missed object of one pixel costs 1/2, one of 100 pixels 100/101.

    Args:
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target are left out of every sum.
        smooth: s, at least 0.
        squared: square the terms of the denominator, ``Σ y² + Σ p²`` (V-Net, Milletari et al. 2016).
        per_image: sum over the pixels of each image, then take the mean over images. False: sum over the
            pixels of the whole batch.
        include_background: False leaves class 0 out of the mean.

    Returns:
        A scalar in [0, 1]. A class that is neither there nor predicted, and an image whose pixels are all
        ignored, have loss 0 (with s = 0 too) and no gradient.

    Raises:
        TypeError: ``logits`` are no floats, ``target`` is not int64, or ``smooth`` is not a number.
        ValueError: the shapes do not fit, a class is outside [0, K), ``smooth`` is negative; an empty batch.

    Example:
        Both pixels are class 0 and have p = 1/2. Class 0: 1 - 3/4. Class 1: 1 - 1/2.

        >>> dice_loss(torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
        tensor(0.3750)
    """
    counted = check_logits_and_target(logits, target, ignore_index)
    check_number(smooth, "smooth")
    B, K = logits.shape[:2]
    counted = counted.reshape(B, 1, -1)  # (B, 1, P), P pixels
    p = torch.softmax(full_precision(logits), dim=1).reshape(B, K, -1) * counted  # (B, K, P)
    classes = torch.arange(K, device=target.device).reshape(1, K, 1)
    y = (target.reshape(B, 1, -1) == classes).to(p.dtype) * counted  # (B, K, P)
    pixels = 2 if per_image else (0, 2)
    intersection = (y * p).sum(pixels)  # (B, K), or (K,) for the whole batch
    sizes = (y * y + p * p if squared else y + p).sum(pixels)
    numerator, denominator = 2 * intersection + smooth, sizes + smooth
    empty = denominator == 0
    dice = torch.where(empty, 1.0, numerator / torch.where(empty, 1.0, denominator))
    loss = 1 - dice
    return (loss if include_background else loss[..., 1:]).mean()
