"""Other costs of a pair of masks than those of Mask2Former's match: what students take in their place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def _pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, N, P) both."""
    return x[:, None].expand(-1, len(y), -1), y.expand(len(x), -1, -1)


def focal(x: Tensor, y: Tensor) -> Tensor:
    """What MaskFormer's match has in place of the entropy."""
    x, y = _pairs(x, y)
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    wrong, share = (x.sigmoid() - y).abs(), 0.25 * y + 0.75 * (1 - y)
    return 5 * (share * wrong**2 * entropy).mean(dim=2)


def dice_of(p: Tensor, y: Tensor, smooth: float = 1.0) -> Tensor:
    """Of any p in place of the sigmoids, and with another number than 1 above and below."""
    return 5 * (1 - (2 * p @ y.T + smooth) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) + smooth))


def squared(x: Tensor, y: Tensor) -> Tensor:
    """V-Net's Dice: squares below the line."""
    p = x.sigmoid()
    return 5 * (1 - (2 * p @ y.T + 1) / ((p * p).sum(dim=1, keepdim=True) + y.sum(dim=1) + 1))


def soft_iou(x: Tensor, y: Tensor) -> Tensor:
    """1 - IoU."""
    p = x.sigmoid()
    both = p @ y.T
    return 5 * (1 - (both + 1) / (p.sum(dim=1, keepdim=True) + y.sum(dim=1) - both + 1))
