"""Variants of cross-entropy: of the hardest pixels (top-k), and weighted by the distance to boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.distance_maps import distance_inside
from segedu.losses.overlap import class_masks
from segedu.losses.reduction import reduce_loss, true_class_weight
from segedu.validation.numbers import check_number
from segedu.validation.targets import check_logits_and_target


def top_k_loss(
    logits: Tensor,
    target: Tensor,
    *,
    k: float = 10.0,
    ignore_index: int | None = 255,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the k per cent of pixels where it is largest.

    Wu et al. 2016 (arXiv 1605.06885, section 3.2) drop the pixels of a training image that are already classified well.

    Paper: Wu et al. select pixels by a threshold on the probability, with a minimum number of pixels. We keep a fixed
    fraction, as the survey and nnU-Net do: it has no second parameter, and there are always pixels left.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        k: percentage of the pixels of the whole batch that are kept, above 0 and at most 100; rounded down, at least
            one.
        ignore_index: pixels with this target are excluded, also from the 100 per cent.
        class_weights: (K,) by ground-truth class, at least 0. Weighted losses are ranked; their mean divides by the
            number of pixels kept.

    Returns:
        A scalar of at least 0; 0 without a gradient if every pixel is ignored.

    Example:
        Half of two pixels is one pixel, the one with p = 1/4.

        >>> logits = torch.tensor([0.25, 0.75]).log().reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> top_k_loss(logits, torch.tensor([[[0, 1]]]), k=50)
        tensor(1.3863)
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    check_number("k", k, maximum=100, exclusive=True)
    options = {"ignore_index": ignore_index, "class_weights": class_weights, "reduction": "none"}
    loss = cross_entropy(logits, target, **options)[valid]  # (P,)
    if loss.numel() == 0:
        return logits.sum() * 0
    num_kept = max(1, int(loss.numel() * k / 100))
    return loss.topk(num_kept).values.mean()


def distance_map_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Distance-map cross-entropy ``(1 + φ) · cross-entropy``, where φ is large near class boundaries.

    Caliva et al. 2019 (arXiv 1908.03679): φ is a reverted distance map, the largest distance minus the distance to the
    boundary, of the object and of the background. The 1 keeps pixels far from boundaries in the loss.

    Paper: two classes. For K classes we take the reverted map of each pixel's ground-truth class, which for K = 2 is
    the paper's sum of both. φ is in pixels; distances are to the nearest pixel of another class, so φ is the largest
    distance minus 1 on a boundary and 0 at the deepest pixel. As in the paper, the mean divides by the number of
    pixels: (1 + φ) is part of the loss, not a weight.

    Args:
        logits: (B, K, H, W) with K >= 2 classes, before the softmax; (B, K, D, H, W) for volumes.
        target: (B, H, W) int64 classes.
        ignore_index: pixels with this target are excluded, and form no boundary.
        class_weights: (K,) by ground-truth class, at least 0.
        reduction: "mean" divides the weighted sum by the sum of the weights, "sum" does not divide, "none" returns the
            weighted loss of each pixel.

    Returns:
        A scalar, or (B, H, W) for "none". φ is 0 in an image of one class. If every pixel is ignored, the mean and its
        gradient are 0.

    Example:
        Distances 2, 1 and 1: φ = 0, 1 and 0, so 1 + φ = 1, 2 and 1, each times log 2.

        >>> distance_map_cross_entropy(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, 1]]]), reduction="none")
        tensor([[[0.6931, 1.3863, 0.6931]]])
    """
    valid = check_logits_and_target(logits, target, ignore_index)
    weight = true_class_weight(target, valid, class_weights, logits)
    loss = cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    loss = (1 + boundary_nearness(target, logits.shape[1], valid).to(loss.dtype)) * loss
    return reduce_loss(loss, weight, reduction)


def boundary_nearness(target: Tensor, num_classes: int, valid: Tensor) -> Tensor:
    """φ of each pixel: the largest distance to a boundary of its class in its image, minus its own distance.

    Args:
        target: (B, H, W) int64.
        valid: (B, H, W) bool, False where ignored.

    Returns:
        (B, H, W) float64, at least 0; 0 where ignored.

    Example:
        >>> boundary_nearness(torch.tensor([[[0, 0, 0, 1]]]), 2, torch.ones(1, 1, 4).bool())
        tensor([[[0., 1., 2., 0.]]], dtype=torch.float64)
    """
    inside, outside = class_masks(target, num_classes, valid)
    distance = distance_inside(inside, outside)  # (B, K, H, W)
    deepest = distance.flatten(2).amax(2).reshape(*distance.shape[:2], *[1] * (target.ndim - 1))
    return torch.where(inside, deepest - distance, 0).sum(1)
