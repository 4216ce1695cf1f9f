"""Lovász losses: IoU, a function of sets, extended to a piecewise linear function of the errors of pixels.

Berman et al. 2018 (arXiv 1705.08790). Sort the errors in descending order and add pixel after pixel to the set of wrong
pixels: each addition lowers the IoU by some amount. The loss is the sum of the errors, each times the amount of its
pixel. If all errors are 0 or 1, that is exactly ``1 - IoU``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.overlap import class_probabilities
from segedu.losses.reduction import full_precision
from segedu.validation.targets import check_soft_target


def lovasz_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    per_image: bool = True,
    only_present: bool = True,
) -> Tensor:
    """Lovász extension of ``1 - IoU`` at the errors ``|y - p|`` of each class, mean over classes.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded.
        per_image: the loss of each image, then the mean over images. False: all pixels of the batch as one image.
        only_present: mean over the classes that occur in the target (of the image), as the paper advises. False: over
            all classes; a class that does not occur then costs its largest probability.

    Returns:
        A scalar in [0, 1]; 0 if every pixel is ignored. An image that is ignored entirely counts as an image of loss 0.

    Example:
        Both errors of class 0 are 1/2; the IoU falls by 1 for the first and by 0 for the second. So for class 1.

        >>> lovasz_softmax_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)
    """
    p, y = class_probabilities(logits, target, ignore_index)  # (B, K, P)
    if not per_image:
        p, y = (x.movedim(1, 0).flatten(1)[None] for x in (p, y))
    valid = y.sum(1, keepdim=True).bool().expand_as(y)
    loss = lovasz_extension((y - p).abs(), y, valid)  # (B, K)
    class_included = y.any(2) if only_present else valid.any(2)
    loss_per_image = (loss * class_included).sum(1) / class_included.sum(1).clamp(min=1)
    return loss_per_image.mean()


def lovasz_hinge_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255, per_image: bool = True
) -> Tensor:
    """Lovász extension of ``1 - IoU`` of the foreground, at the hinge errors ``max(0, 1 - z (2y - 1))``.

    There is one logit per pixel. Neven et al. 2019 train instance masks with this loss.

    Args:
        logits: (B, H, W), above 0 for foreground; (B, D, H, W) for volumes.
        target: the same shape: bools, or integers 0 and 1.
        ignore_index: pixels with this target are excluded.
        per_image: the loss of each image, then the mean over images. False: all pixels of the batch as one image.

    Returns:
        A scalar of at least 0, without an upper bound. Without foreground it is the largest hinge error. It is 0 if
        every pixel is ignored.

    Example:
        Both are classified correctly, the second by less than the margin of 1, which costs 1/2.

        >>> lovasz_hinge_loss(torch.tensor([[2.0, -0.5]]), torch.tensor([[1, 0]]))
        tensor(0.2500)
    """
    y, valid = check_soft_target(logits, target, ignore_index)
    not_binary = y[(y != 0) & (y != 1)]
    if not_binary.numel():
        raise ValueError(f"target has the value {not_binary[0].item():g}, expected 0 or 1")
    if logits.ndim < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, H, W)")
    shape = (1, -1) if not per_image else (logits.shape[0], -1)
    z, y, valid = (x.reshape(shape) for x in (full_precision(logits), y, valid))
    return lovasz_extension((1 - z * (2 * y - 1)).clamp(min=0), y, valid).mean()


def lovasz_extension(errors: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Sum of the errors in descending order, each times the IoU that is lost when its pixel becomes wrong as well.

    Paper: algorithm 1, for all classes at once. Ignored pixels are sorted to the end and add nothing.

    Args:
        errors: (..., P), at least 0.
        target: (..., P), 1 on the class and 0 off it (and where ignored).
        valid: (..., P) bool, False where ignored.

    Returns:
        (...,), at most the largest error.

    Example:
        The IoU falls to 2/3 with the false positive and to 1/3 with the false negative, each time by 1/3.

        >>> target = torch.tensor([0.0, 1.0, 1.0])
        >>> lovasz_extension(torch.tensor([1.0, 1.0, 0.0]), target, torch.ones(3).bool())
        tensor(0.6667)
    """
    errors, order = torch.where(valid, errors, -1.0).sort(dim=-1, descending=True)
    target, valid = target.gather(-1, order), valid.gather(-1, order)
    total = target.sum(-1, keepdim=True)
    intersection = total - target.cumsum(-1)  # without the false negatives so far
    union = total + (1 - target).cumsum(-1)  # with the false positives so far
    jaccard = 1 - intersection / union  # 1 - IoU after each pixel; union >= 1
    gradient = torch.cat([jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]], dim=-1)
    return (errors * gradient * valid).sum(-1)
