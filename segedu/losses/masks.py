"""Focal and Dice losses of binary masks, each predicted for one object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.dice import dice_loss
from segedu.losses.focal import sigmoid_focal_loss
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_dtype, check_floats


def mask_losses(mask_logits: Tensor, masks: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Focal loss (α = 1/4, γ = 2) and Dice loss of masks, upsampled to the size of the ground truth, summed over masks.

    Carion et al. 2020 (arXiv 2005.12872, section 4.4), Cheng et al. 2021 (arXiv 2107.06278, section 3.3). The Dice loss
    is computed per mask, so that small masks count as much as large ones.

    Args:
        mask_logits: (M, h, w) of matched queries, before the sigmoid; M may be 0.
        masks: (M, H, W) bool, the ground-truth masks that they are matched with.
        count: divisor of both sums, above 0, such as the number of ground-truth masks of the batch.

    Returns:
        Two scalars, sums over masks: of the focal loss's mean over pixels, and of ``1 - (2 TP + 1) / (2 TP + FP + FN +
        1)``. Without a mask both are 0, with a gradient of 0.

    Example:
        Two pixels with p = 1/2: 1/2 (1/4 + 3/4) 1/4 log 2, and 1 - (1 + 1) / (1 + 1/2 + 1/2 + 1).

        >>> mask_losses(torch.zeros(1, 1, 1), torch.tensor([[[True, False]]]), 1)
        (tensor(0.0866), tensor(0.3333))
    """
    sizes = check_floats("mask_logits", mask_logits, "M? h w")
    check_dtype("masks", masks, torch.bool, "M? H W", {"M": sizes["M"]})
    check_number("count", count, exclusive=True)
    logits = full_precision(mask_logits)
    if not len(logits):
        return logits.sum(), logits.sum()
    logits = F.interpolate(logits[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False)
    focal = sigmoid_focal_loss(logits[:, 0], masks, ignore_index=None, reduction="none")
    two_classes = torch.cat([torch.zeros_like(logits), logits], dim=1)  # softmax of 0 and z is sigmoid of z
    dice = dice_loss(two_classes, masks.long(), ignore_index=None, include_background=False)  # mean over masks
    return focal.mean(dim=(1, 2)).sum() / count, len(masks) * dice / count


def mask_dice_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of masks with squares in the denominator, ``1 - 2 Σ p y / (Σ p² + Σ y²)``, averaged over masks.

    Wang et al. 2020 (SOLO, arXiv 1912.04488) and Tian et al. 2020 (CondInst, arXiv 2003.05664).

    Args:
        mask_logits: (N, H, W), before the sigmoid; N is at least 1.
        masks: (N, H, W) bool, the ground-truth masks.

    Returns:
        A scalar in [0, 1].

    Example:
        Two pixels with p = 1/2: 1 - 2 * 1/2 / (1/4 + 1/4 + 1).

        >>> mask_dice_loss(torch.zeros(1, 1, 2), torch.tensor([[[True, False]]]))
        tensor(0.3333)
    """
    check_dtype("masks", masks, torch.bool, "N H W", check_floats("mask_logits", mask_logits, "N H W"))
    two_classes = torch.stack([torch.zeros_like(mask_logits), mask_logits], dim=1)  # softmax of 0 and z is sigmoid of z
    options = {"ignore_index": None, "include_background": False}
    return dice_loss(two_classes, masks.long(), smooth=0.0, squared=True, **options)
