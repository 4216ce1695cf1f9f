"""Other costs (Q, N) of mask logits x (Q, P) and ground truth y (N, P) than those of Mask2Former's matching."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal(x: Tensor, y: Tensor) -> Tensor:
    """The focal loss, which MaskFormer's cost has instead of the cross-entropy."""
    x, y = x[:, None].expand(-1, len(y), -1), y.expand(len(x), -1, -1)
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    error, alpha = (x.sigmoid() - y).abs(), 0.25 * y + 0.75 * (1 - y)
    return 5 * (alpha * error**2 * entropy).mean(dim=2)


def dice(p: Tensor, y: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice of any p instead of the sigmoids, with another constant than 1 in numerator and denominator."""
    return 5 * (1 - (2 * p @ y.T + smooth) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) + smooth))


def dice_without_the_2(x: Tensor, y: Tensor) -> Tensor:
    """5 - 5 (s(p y) + 1) / (s(p) + s(y) + 1), computed from the right Dice term."""
    p = x.sigmoid()
    return 5 - (5 - dice(p, y)) / 2 - 2.5 / (p.sum(1, keepdim=True) + y.sum(1) + 1)


def dice_of_squares(x: Tensor, y: Tensor) -> Tensor:
    """V-Net's Dice, with squares in the denominator."""
    p = x.sigmoid()
    return 5 * (1 - (2 * p @ y.T + 1) / ((p * p).sum(dim=1, keepdim=True) + y.sum(dim=1) + 1))


def soft_iou(x: Tensor, y: Tensor) -> Tensor:
    """1 - IoU of the probabilities."""
    p = x.sigmoid()
    overlap = p @ y.T
    return 5 * (1 - (overlap + 1) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) - overlap + 1))
