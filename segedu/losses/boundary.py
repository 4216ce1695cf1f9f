"""Losses weighted by distances to boundaries: boundary, Hausdorff, boundary DoU and region-wise loss.

Distances are computed from the target, or from a thresholded prediction, and carry no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.distance_maps import distance_inside, signed_distance
from segedu.losses.overlap import class_masks, mean_over_classes, ratio_or_one
from segedu.losses.reduction import full_precision, reduce_loss
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    include_background: bool = False,
) -> Tensor:
    """Boundary loss ``mean φ p``: the probability of each pixel times its signed distance to the ground-truth boundary.

    Kervadec et al. 2019 (arXiv 1812.07032, equation 5): φ is positive outside the class and negative inside, so
    probability far outside costs most. The loss approximates the area between two contours, weighted by distance. The
    paper adds it to a region loss with a weight that grows during training; alone, it starts with almost no gradient.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded, and form no boundary.
        include_background: class 0 is one of the classes. Its boundary is that of all objects together.

    Returns:
        A scalar in pixels, mean over pixels and classes. It is at most 0 for a perfect prediction. A class that does
        not occur in an image, or fills it, has φ = 0 there. If every pixel is ignored, the loss and its gradient are 0.

    Example:
        φ of class 1 is 2, 1, 0 and -1; p = 1/2 everywhere.

        >>> boundary_loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))
        tensor(0.2500)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    p = torch.softmax(full_precision(logits), dim=1)
    distance = signed_distance(*class_masks(target, p.shape[1], valid)).to(p.dtype)
    return _mean_of_pixels(p * distance, valid, include_background)


def hausdorff_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.0,
    ignore_index: int | None = 255,
    include_background: bool = False,
) -> Tensor:
    """Hausdorff distance loss ``mean (p - y)² (d_p^α + d_y^α)``: squared errors weighted by distances to both contours.

    Karimi and Salcudean 2019 (arXiv 1904.10030, equation 8), the distance-transform form: ``d_y`` is the distance of a
    pixel to the ground-truth boundary, ``d_p`` to the boundary of the prediction thresholded at p > 1/2.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        alpha: α, above 0: the larger α, the more the farthest errors dominate. The paper's 2.
        ignore_index: pixels with this target are excluded, and form no boundary.
        include_background: class 0 is one of the classes.

    Returns:
        A scalar of at least 0, mean over pixels and classes. A mask without a boundary (empty or full) has distance 0.
        If every pixel is ignored, the loss and its gradient are 0.

    Example:
        No pixel has p > 1/2, so d_p = 0. The distances to the boundary of class 1 are 2, 1, 1 and 2.

        >>> hausdorff_loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # (4 + 1 + 1 + 4) / 4 · 1/4
        tensor(0.6250)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("alpha", alpha, exclusive=True)
    p = torch.softmax(full_precision(logits), dim=1)
    inside, outside = class_masks(target, p.shape[1], valid)
    weight = _distance_to_edge(inside, outside) ** alpha
    predicted = p.detach() > 0.5
    weight = weight + _distance_to_edge(predicted & valid[:, None], ~predicted & valid[:, None]) ** alpha
    return _mean_of_pixels((p - inside.to(p.dtype)) ** 2 * weight.to(p.dtype), valid, include_background)


def _distance_to_edge(inside: Tensor, outside: Tensor) -> Tensor:
    return distance_inside(inside, outside) + distance_inside(outside, inside)


def boundary_dou_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    smooth: float = 1e-5,
    per_image: bool = True,
    include_background: bool = True,
) -> Tensor:
    """Boundary difference over union ``(U - I) / (U - α I)``, in which boundary pixels of large objects dominate.

    Sun et al. 2023 (arXiv 2308.00220). With α = 0 it is ``1 - IoU``. ``α = 1 - 2 C/S`` removes most of the agreed
    interior of a large object from the denominator. S is the number of pixels of the class, C the number of its pixels
    at the edge.

    Paper: α is in [0, 1); its authors limit it to 0.8, as we do. A pixel is at the edge if one of its 4 neighbours (6
    in volumes) is of another class, outside the image, or ignored. Soft: ``I = Σ y p``, ``U = Σ y² + Σ p² - I``.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded from every sum.
        smooth: added to the denominator, at least 0. The authors add it to the numerator too, so that a class that
            neither occurs nor is predicted costs 1.
        per_image: sums and α of each image. False: of the whole batch.
        include_background: False excludes class 0 from the mean.

    Returns:
        A scalar in [0, 1], mean over classes and images. A class that neither occurs nor is predicted, and an image
        that is ignored entirely, have loss 0.

    Example:
        One pixel of class 0 with p = 1/2, at the edge (α = 0): I = 1/2, U = 3/4. Class 1: I = 0, U = 1/4.

        >>> boundary_dou_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), smooth=0)
        tensor(0.6667)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("smooth", smooth)
    p = torch.softmax(full_precision(logits), dim=1) * valid[:, None]  # (B, K, H, W)
    y = class_masks(target, p.shape[1], valid)[0]
    at_edge = y & ~_all_neighbours_inside(y)
    y, at_edge = y.to(p.dtype).flatten(2), at_edge.to(p.dtype).flatten(2)
    pixels = 2 if per_image else (0, 2)
    size, num_edge, intersection = y.sum(pixels), at_edge.sum(pixels), (y * p.flatten(2)).sum(pixels)
    alpha = (1 - 2 * num_edge / size.clamp(min=1)).clamp(0, 0.8)
    union = size + p.flatten(2).square().sum(pixels) - intersection
    agreement = ratio_or_one((1 - alpha) * intersection + smooth, union - alpha * intersection + smooth)
    return mean_over_classes(1 - agreement, include_background)


def _all_neighbours_inside(masks: Tensor) -> Tensor:
    """True where both neighbours along every axis are in the mask; pixels outside the image are not."""
    inside = torch.ones_like(masks)
    for axis in range(2, masks.ndim):
        padding = [0, 0] * (masks.ndim - 1 - axis) + [1, 1]
        padded = F.pad(masks, padding)
        size = masks.shape[axis]
        inside &= padded.narrow(axis, 0, size) & padded.narrow(axis, 2, size)
    return inside


def region_wise_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
) -> Tensor:
    """Region-wise loss ``mean z p``: z is 1 for wrong classes, and minus the relative depth for the ground-truth class.

    Valverde and Tohka 2021 (arXiv 2108.01405, section 3.4), rectified region-wise maps: inside its class, ``z = -d /
    max d`` with the distance d to the boundary and its maximum in the image; elsewhere z is 1. All wrong classes of a
    pixel have the same weight, so the gradient does not prefer one wrong class to another (with ``boundary_loss`` it
    does).

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded, and form no boundary.

    Returns:
        A scalar in [-1/K, 1/K], mean over pixels and classes; at most 0 for a perfect prediction. A class that fills
        its image has z = -1 there. If every pixel is ignored, the loss and its gradient are 0.

    Example:
        z of class 0 is -1, -1/2, 1 and of class 1 is 1, 1, -1; p = 1/2: (1/2) · (-1/2 + 1) / 6.

        >>> region_wise_loss(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, 1]]]))
        tensor(0.0417)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    p = torch.softmax(full_precision(logits), dim=1)
    inside, outside = class_masks(target, p.shape[1], valid)
    distance = distance_inside(inside, outside)
    deepest = distance.flatten(2).amax(2).reshape(*p.shape[:2], *[1] * (p.ndim - 2))
    depth = torch.where(deepest > 0, distance / deepest.clamp(min=1), 1.0)  # 1 for a class that fills its image
    return _mean_of_pixels(p * torch.where(inside, -depth, 1.0).to(p.dtype), valid, include_background=True)


def _mean_of_pixels(loss: Tensor, valid: Tensor, include_background: bool) -> Tensor:
    """Mean of (B, K, H, W) over the pixels that are not ignored and the classes."""
    loss = loss if include_background else loss[:, 1:]
    return reduce_loss(loss, valid[:, None].expand_as(loss).to(loss.dtype), "mean")
