"""Mask2Former's loss: queries are matched to segments, and masks are compared at points, most where they are uncertain.

Paper: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image Segmentation",
    CVPR 2022, arXiv 2112.01527, section 3.3; points as in Kirillov et al., "PointRend", arXiv 1912.08193.
Idea: A mask of a million pixels need not be compared at every pixel. The matching costs of all pairs are computed at
    the same few thousand random points. The loss of each matched pair is computed at as many points of its own: three
    times as many are drawn, and those with the logits nearest to 0, near the edge, are kept; a quarter is random.
Simplified: nothing.
Shapes: dict of `Mask2Former`, B dicts of `labels` (N,) and `masks` (N, h, w) -> dict of scalars.
Quality: costs, losses and gradients equal those of Hugging Face's transformers at the same points (its tests).
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.layers.segments import check_segments, pad_masks
from segedu.losses.reduction import full_precision
from segedu.losses.set_prediction import matched_cross_entropy
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_decoder_outputs

AXES = {"class_logits": "B Q C", "mask_logits": "B Q h w"}  # of a decoder layer's outputs


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps at points between pixels: bilinear, with 0 outside.

    Args:
        maps: (N, h, w).
        points: (N, P, 2), (x, y) in [0, 1] relative to the map; pixel centres lie at (i + 0.5) / w and (j + 0.5) / h.

    Returns:
        (N, P).

    >>> sample_points(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.5], [0.75, 0.5]]]))
    tensor([[2., 3.]])
    """
    return F.grid_sample(maps[:, None], 2 * points[:, None].to(maps) - 1, align_corners=False)[:, 0, 0]


@torch.no_grad()
def uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random points, separately for each mask, most of them where its logits are nearest to 0.

    Args:
        mask_logits: (N, h, w).
        num_points: P, points per mask.
        oversample_ratio: how many times as many points are drawn as candidates.
        importance_sample_ratio: share of the P points that are the most uncertain candidates; the others are random.
        generator: of the points; None: torch's default generator.

    Returns:
        (N, P, 2), (x, y) in [0, 1] relative to the mask.
    """
    N, num_uncertain = len(mask_logits), int(importance_sample_ratio * num_points)
    candidates = torch.rand(N, int(oversample_ratio * num_points), 2, generator=generator, device=mask_logits.device)
    certainty = sample_points(mask_logits, candidates).abs()  # (N, candidates)
    rows = certainty.topk(num_uncertain, dim=1, largest=False).indices
    random = torch.rand(N, num_points - num_uncertain, 2, generator=generator, device=mask_logits.device)
    return torch.cat([candidates.gather(1, rows[..., None].expand(-1, -1, 2)), random], dim=1)


@torch.no_grad()
def matching_cost(
    class_logits: Tensor,
    point_logits: Tensor,
    labels: Tensor,
    point_targets: Tensor,
    *,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
) -> Tensor:
    """The cost of matching each query to each segment: -2 p + 5 cross-entropy + 5 Dice loss.

    Args:
        class_logits: (Q, K + 1), "no object" last.
        point_logits: (Q, P), mask logits at the same points for all queries.
        labels: (N,) int64.
        point_targets: (N, P), ground-truth masks at these points, from 0 to 1.
        class_weight: of the probability of the segment's class.
        mask_weight: of the mean of the binary cross-entropy of all points.
        dice_weight: of the Dice loss.

    Returns:
        (Q, N), without a gradient.

    >>> logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])  # p = 1/3, log 2, 1 - (1 + 1) / (2 + 1)
    >>> matching_cost(torch.zeros(1, 3), logits, torch.tensor([0]), targets)  # -2/3 + 5 log 2 + 5/3
    tensor([[4.4657]])
    """
    probability = full_precision(class_logits).softmax(dim=-1)[:, labels]  # (Q, N)
    logits = full_precision(point_logits)
    targets = point_targets.to(logits)
    # -t log p - (1 - t) log(1 - p) = log(1 + exp z) - t z, summed over points
    entropy = (F.softplus(logits).sum(dim=-1, keepdim=True) - logits @ targets.T) / logits.shape[-1]
    masks = logits.sigmoid()
    dice = 1 - (2 * masks @ targets.T + 1) / (masks.sum(dim=-1, keepdim=True) + targets.sum(dim=-1) + 1)
    return -class_weight * probability + mask_weight * entropy + dice_weight * dice


def mask2former_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    num_points: int = 12544,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
    no_object_weight: float = 0.1,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Class, mask and Dice losses, summed over the initial queries and all decoder layers, each with its own matching.

    Cross-entropy of classes is a weighted mean over all queries of the batch. Losses of masks are summed over the
    matched queries of the batch and divided by its number of segments (at least 1). If an image has more segments than
    queries, the segments with the highest matching cost remain unmatched.

    Args:
        outputs: of `Mask2Former`.
        targets: B dicts of `labels` (N,) from 0 to K - 1 and `masks` (N, h, w), of the image without its padding; N may
            be 0.
        num_points: P, the number of points at which masks are compared. Paper: 12544, which is 112 x 112.
        oversample_ratio: how many times as many points are drawn as candidates.
        importance_sample_ratio: share of the points that are the most uncertain candidates; the others are random.
        no_object_weight: weight of unmatched queries in the cross-entropy; matched queries have weight 1.
        class_weight: of the cross-entropy, and of the class in the matching cost.
        mask_weight: of the cross-entropy of masks, here and in the matching cost.
        dice_weight: of the Dice loss of masks, here and in the matching cost.
        generator: of the points; None: torch's default generator.

    Returns:
        Scalars `classification`, `mask` and `dice`, weighted, and `loss`, their sum.
    """
    weights = {"class_weight": class_weight, "mask_weight": mask_weight, "dice_weight": dice_weight}
    for name, weight in {**weights, "no_object_weight": no_object_weight}.items():
        check_number(name, weight)
    check_number("num_points", num_points, minimum=1)
    check_number("oversample_ratio", oversample_ratio, minimum=1)
    check_number("importance_sample_ratio", importance_sample_ratio, maximum=1)
    *earlier, last = check_decoder_outputs(outputs, "image_size", **AXES)
    targets = check_segments(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1)
    padded_targets = [_pad_target(target, outputs) for target in targets]
    sampling = (int(num_points), oversample_ratio, importance_sample_ratio, generator)
    terms = [_layer_loss(layer, padded_targets, weights, no_object_weight, sampling) for layer in (last, *earlier)]
    classification, mask, dice = (torch.stack(term).sum() for term in zip(*terms, strict=True))
    parts = {"classification": class_weight * classification, "mask": mask_weight * mask, "dice": dice_weight * dice}
    return {**parts, "loss": sum(parts.values())}


def _pad_target(target: Mapping[str, Tensor], outputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Labels (N,), and masks (N, H, W) of the padded image as floats."""
    logits = outputs["mask_logits"]
    masks = pad_masks(target["masks"].to(logits.device), outputs["image_size"])
    return target["labels"].to(logits.device), masks.to(full_precision(logits).dtype)


def _layer_loss(
    layer: Mapping[str, Tensor],
    targets: Sequence[tuple[Tensor, Tensor]],
    weights: Mapping[str, float],
    no_object_weight: float,
    sampling: tuple[int, float, float, torch.Generator | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of classes, cross-entropy and Dice loss of masks of one layer, without weights."""
    logits, masks = full_precision(layer["class_logits"]), full_precision(layer["mask_logits"])
    num_points, oversample_ratio, importance_sample_ratio, generator = sampling
    costs = []
    for b, (labels, gt_masks) in enumerate(targets):
        shared_points = torch.rand(1, num_points, 2, generator=generator, device=masks.device)
        point_logits, point_targets = (
            sample_points(maps, shared_points.expand(len(maps), -1, -1)) for maps in (masks[b].detach(), gt_masks)
        )
        costs.append(matching_cost(logits[b], point_logits, labels, point_targets, **weights))
    classification, pairs = matched_cross_entropy(logits, [labels for labels, _ in targets], costs, no_object_weight)
    matched = torch.cat([masks[b, queries] for b, (queries, _) in enumerate(pairs)])  # (N, h, w)
    gt_masks = torch.cat([targets[b][1][segments] for b, (_, segments) in enumerate(pairs)])  # (N, H, W)
    coords = uncertain_points(matched.detach(), num_points, oversample_ratio, importance_sample_ratio, generator)
    entropy, dice = _mask_losses(sample_points(matched, coords), sample_points(gt_masks, coords))
    count = max(1, sum(len(labels) for labels, _ in targets))
    return classification, entropy / count, dice / count


def _mask_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, a mean over points, and Dice loss, of (N, P) and summed over N."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1).sum()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * targets).sum(dim=1) + 1) / (p.sum(dim=1) + targets.sum(dim=1) + 1)
    return entropy, dice.sum()
