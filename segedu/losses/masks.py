"""Focal and Dice loss of masks that a query each stands for: what DETR, MaskFormer and their kin train masks with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.dice import dice_loss
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_number


def mask_losses(mask_logits: Tensor, masks: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Focal (α = 1/4, γ = 2) and Dice loss of masks, enlarged to the size of the true ones: summed over masks.

    Carion et al. 2020 (arXiv 2005.12872, section 4.4), Cheng et al. 2021 (arXiv 2107.06278, section 3.3). A Dice loss
    for each mask, so that small ones count as much as large ones.

    Args:
        mask_logits: (M, h, w) scores before the sigmoid, of matched queries; M may be 0.
        masks: (M, H, W) bool, the masks that they are matched with.
        count: what both sums are divided by, such as the number of true masks of the batch.

    Returns:
        Two scalars, sums over masks: of the focal loss's mean over pixels, and of
        ``1 - (2 TP + 1) / (2 TP + FP + FN + 1)``. Without a mask both are 0, with a gradient of 0.

    Raises:
        TypeError: ``mask_logits`` are no floats, ``masks`` no bools, or ``count`` no number.
        ValueError: the shapes do not fit, or ``count`` is not above 0.

    Example:
        p = 1/2 in two pixels: 1/2 (1/4 + 3/4) 1/4 log 2, and 1 - (1 + 1) / (1 + 1/2 + 1/2 + 1).

        >>> mask_losses(torch.zeros(1, 1, 1), torch.tensor([[[True, False]]]), 1)
        (tensor(0.0866), tensor(0.3333))
    """
    _check(mask_logits, masks)
    check_number("count", count, minimum=0)
    if not count:
        raise ValueError("count is 0, expected a number above 0")
    logits = full_precision(mask_logits)
    if not len(logits):
        return logits.sum(), logits.sum()
    logits = F.interpolate(logits[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False)
    focal = sigmoid_focal_loss(logits[:, 0], masks, ignore_index=None, reduction="none")
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)  # softmax of 0 and z is sigmoid of z
    dice = dice_loss(both, masks.long(), ignore_index=None, include_background=False)  # mean over masks
    return focal.mean(dim=(1, 2)).sum() / count, len(masks) * dice / count


def _check(mask_logits: Tensor, masks: Tensor) -> None:
    for name, given in (("mask_logits", mask_logits), ("masks", masks)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} has type {type(given).__name__}, expected a torch.Tensor (M, H, W)")
        if given.ndim != 3 or 0 in given.shape[1:]:
            raise ValueError(f"{name} has shape {tuple(given.shape)}, expected (M, H, W), H and W not 0")
    if not mask_logits.is_floating_point():
        raise TypeError(f"mask_logits has dtype {mask_logits.dtype}, expected floats")
    if masks.dtype != torch.bool:
        raise TypeError(f"masks has dtype {masks.dtype}, expected torch.bool")
    if len(masks) != len(mask_logits):
        raise ValueError(f"masks has shape {tuple(masks.shape)}, expected M = {len(mask_logits)} as mask_logits has")
