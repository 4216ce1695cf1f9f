"""Lovász losses: IoU, which is a function of sets, made a piecewise linear function of the errors of pixels.

Berman et al. 2018 (arXiv 1705.08790). Sort the errors, worst first, and add pixel after pixel to the set of wrong
ones: each step costs so much IoU. The loss is the sum of errors, each times the cost of its step. Where all errors
are 0 or 1, that is exactly ``1 - IoU``.
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
        logits: (B, K, H, W) scores of K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 true classes.
        ignore_index: pixels with this target do not count.
        per_image: the loss of each image, then the mean over images. False: all pixels of the batch as one image.
        only_present: the mean over classes that are in the target (of the image), as the paper advises. False: over
            all; a class that is not there then costs its largest probability.

    Returns:
        A scalar in [0, 1]; 0 where no pixel counts. An image whose pixels are all ignored counts as one of loss 0.

    Raises:
        TypeError: ``logits`` are no floats or ``target`` is not int64.
        ValueError: the shapes do not fit, a class is outside [0, K), or the batch is empty.

    Example:
        Errors of class 0: 1/2 (true), 1/2 (false): steps cost 1 and 0. Class 1 the same.

        >>> lovasz_softmax_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)
    """
    p, y = class_probabilities(logits, target, ignore_index)  # (B, K, P)
    if not per_image:
        p, y = (x.movedim(1, 0).flatten(1)[None] for x in (p, y))
    counted = y.sum(1, keepdim=True).bool().expand_as(y)
    loss = lovasz_extension((y - p).abs(), y, counted)  # (B, K)
    averaged = y.any(2) if only_present else counted.any(2)
    of_image = (loss * averaged).sum(1) / averaged.sum(1).clamp(min=1)
    return of_image.mean()


def lovasz_hinge_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255, per_image: bool = True
) -> Tensor:
    """Lovász extension of ``1 - IoU`` of the foreground, at the hinge errors ``max(0, 1 - z (2y - 1))``.

    One score a pixel; Neven et al. 2019 train the masks of instances with it.

    Args:
        logits: (B, H, W) scores, above 0 for foreground; (B, D, H, W) for volumes.
        target: the same shape: 0 and 1 as bools or integers.
        ignore_index: pixels with this target do not count.
        per_image: the loss of each image, then the mean over images. False: all pixels of the batch as one image.

    Returns:
        A scalar of at least 0, without an upper bound. Without foreground it is the largest hinge error. 0 where
        no pixel counts.

    Raises:
        TypeError: an argument is not a tensor of the right kind.
        ValueError: the shapes differ, a target is not 0 or 1, or the batch is empty.

    Example:
        Both right, one by less than the margin of 1: the false positive to be costs 1/2, the other pixel 0.

        >>> lovasz_hinge_loss(torch.tensor([[2.0, -0.5]]), torch.tensor([[1, 0]]))
        tensor(0.2500)
    """
    y, counted = check_soft_target(logits, target, ignore_index)
    between = y[(y != 0) & (y != 1)]
    if between.numel():
        raise ValueError(f"target has the value {between[0].item():g}, expected 0 or 1")
    if logits.ndim < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, H, W)")
    shape = (1, -1) if not per_image else (logits.shape[0], -1)
    z, y, counted = (x.reshape(shape) for x in (full_precision(logits), y, counted))
    return lovasz_extension((1 - z * (2 * y - 1)).clamp(min=0), y, counted).mean()


def lovasz_extension(errors: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """Sum of the errors, worst first, each times what IoU loses when its pixel turns wrong too.

    Paper: algorithm 1, for all classes at once. An ignored pixel stands behind all others and adds nothing.

    Args:
        errors: (..., P), at least 0.
        truth: (..., P), 1 on the class and 0 off it (and where ignored).
        counted: (..., P) bool, false where ignored.

    Returns:
        (...,): at most the largest error.

    Example:
        IoU is 2/3 once the false pixel is wrong and 1/3 once a true one is too: each step costs 1/3.

        >>> truth = torch.tensor([0.0, 1.0, 1.0])
        >>> lovasz_extension(torch.tensor([1.0, 1.0, 0.0]), truth, torch.ones(3).bool())
        tensor(0.6667)
    """
    errors, order = torch.where(counted, errors, -1.0).sort(dim=-1, descending=True)
    truth, counted = truth.gather(-1, order), counted.gather(-1, order)
    total = truth.sum(-1, keepdim=True)
    intersection = total - truth.cumsum(-1)  # true pixels not yet wrong
    union = total + (1 - truth).cumsum(-1)  # and the false positives so far
    lost = 1 - intersection / union  # 1 - IoU after each step; union >= 1
    steps = torch.cat([lost[..., :1], lost[..., 1:] - lost[..., :-1]], dim=-1)
    return (errors * steps * counted).sum(-1)
