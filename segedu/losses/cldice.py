"""clDice: Dice of centrelines, for vessels, roads and neurites, whose connectivity matters more than their width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.overlap import class_masks, mean_over_classes, ratio_or_one
from segedu.losses.reduction import full_precision
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.targets import check_logits_and_target


def cldice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    iterations: int = 3,
    ignore_index: int | None = 255,
    smooth: float = 1.0,
    per_image: bool = True,
    include_background: bool = False,
) -> Tensor:
    """Centreline Dice loss ``1 - 2 T_prec T_sens / (T_prec + T_sens)`` of soft skeletons S_p and S_y.

    Shit et al. 2021 (arXiv 2003.07311, equations 1 and 2, algorithm 2). Topological precision ``(Σ S_p y + s) / (Σ S_p
    + s)`` is the fraction of the predicted centreline that lies in the ground truth, topological sensitivity ``(Σ S_y p
    + s) / (Σ S_y + s)`` the fraction of the ground-truth centreline that is covered. The cost of a gap depends on its
    length, not on the width of the line. The paper adds ``dice_loss`` with weight 1 - α.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        iterations: erosions of the skeleton, at least half the width of the thickest line.
        ignore_index: pixels with this target are background in prediction and target.
        smooth: s, at least 0.
        per_image: sum over each image. False: over the whole batch.
        include_background: class 0 is one of the classes; its skeleton is hardly informative.

    Returns:
        A scalar in [0, 1], mean over classes and images. A class that neither occurs nor is predicted has loss 0.

    Example:
        A line is its own skeleton. The prediction misses its second half.

        >>> target = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]])
        >>> preds = torch.tensor([[[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]])
        >>> logits = 100.0 * torch.stack([1 - preds, preds], dim=1)
        >>> cldice_loss(logits, target, smooth=0)  # precision 1, sensitivity 1/2
        tensor(0.3333)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("smooth", smooth)
    if logits.ndim not in (4, 5):
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, K, H, W) or (B, K, D, H, W)")
    p = torch.softmax(full_precision(logits), dim=1) * valid[:, None]
    y = class_masks(target, p.shape[1], valid)[0].to(p.dtype)
    pixels = tuple(range(2, p.ndim)) if per_image else (0, *range(2, p.ndim))
    skeleton_p, skeleton_y = soft_skeleton(p, iterations), soft_skeleton(y, iterations)
    precision = ratio_or_one((skeleton_p * y).sum(pixels) + smooth, skeleton_p.sum(pixels) + smooth)
    sensitivity = ratio_or_one((skeleton_y * p).sum(pixels) + smooth, skeleton_y.sum(pixels) + smooth)
    total = precision + sensitivity
    cldice = 2 * precision * sensitivity / torch.where(total > 0, total, 1.0)
    return mean_over_classes(1 - cldice, include_background)


def soft_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """Soft centrelines of soft masks: the sum of what an opening removes after every erosion.

    Erosion is a minimum over a cross (one arm after the other), dilation a maximum over a 3x3 square, so the skeleton
    is differentiable wherever minimum and maximum are.

    Args:
        maps: (B, K, H, W) or (B, K, D, H, W) in [0, 1].
        iterations: number of erosions, at least 1.

    Returns:
        The shape of ``maps``, in [0, 1].

    Example:
        >>> soft_skeleton(torch.tensor([[[[0.0, 1, 1, 1, 0]] * 5]]), iterations=2)[0, 0, 2]
        tensor([0., 0., 1., 0., 0.])
    """
    check_integer("iterations", iterations)
    skeleton = torch.relu(maps - _dilate(_erode(maps)))
    for _ in range(iterations):
        maps = _erode(maps)
        removed = torch.relu(maps - _dilate(_erode(maps)))
        skeleton = skeleton + torch.relu(removed - skeleton * removed)  # a soft "or"
    return skeleton


def _erode(maps: Tensor) -> Tensor:
    pool = F.max_pool2d if maps.ndim == 4 else F.max_pool3d
    axes = maps.ndim - 2
    kernel_sizes = [[3 if axis == long_axis else 1 for axis in range(axes)] for long_axis in range(axes)]
    eroded = [-pool(-maps, kernel_size, 1, [size // 2 for size in kernel_size]) for kernel_size in kernel_sizes]
    return torch.stack(eroded).amin(0) if axes > 2 else torch.minimum(*eroded)


def _dilate(maps: Tensor) -> Tensor:
    return (F.max_pool2d if maps.ndim == 4 else F.max_pool3d)(maps, 3, 1, 1)
