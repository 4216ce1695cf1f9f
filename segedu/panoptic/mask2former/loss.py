"""Mask2Former's loss: segments and queries are matched, and masks compared at points, most of them where it is unsure.

Paper: Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention Mask Transformer for Universal Image Segmentation",
    CVPR 2022, arXiv 2112.01527, section 3.3; points as in Kirillov et al., "PointRend", arXiv 1912.08193.
Idea: A mask of a million pixels need not be compared at each. The costs of matching are computed at the same few
    thousand random points for all pairs. The loss of each matched pair is computed at as many of its own: of three
    times as many random ones those whose logits are nearest to 0, where the edge is, and a quarter at random.
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
from segedu.validation.tensors import check_layers

AXES = {"class_logits": "B Q C", "mask_logits": "B Q h w"}  # of a decoder layer's outputs


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps between places: bilinear, with 0 outside.

    Args:
        maps: (N, h, w), floating-point numbers.
        points: (N, P, 2), (x, y) as parts of the map; its first place is in the middle of the first h-th and w-th.

    Returns:
        (N, P).

    >>> sample_points(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.5], [0.75, 0.5]]]))
    tensor([[2., 3.]])
    """
    return F.grid_sample(maps[:, None], 2 * points[:, None].to(maps) - 1, align_corners=False)[:, 0, 0]


@torch.no_grad()
def unsure_points(
    mask_logits: Tensor, count: int, oversample: float, importance: float, generator: torch.Generator | None = None
) -> Tensor:
    """Random points, for each mask its own, most of them where its logits are nearest to 0.

    Args:
        mask_logits: (N, h, w).
        count: P, points for each mask.
        oversample: how many times as many are drawn, to choose from.
        importance: which part of the P is chosen; the others are at random.
        generator: of the points; None: torch's own.

    Returns:
        (N, P, 2), (x, y) as parts of the mask.
    """
    number, chosen = len(mask_logits), int(importance * count)
    drawn = torch.rand(number, int(oversample * count), 2, generator=generator, device=mask_logits.device)
    sure = sample_points(mask_logits, drawn).abs()  # (N, drawn)
    rows = sure.topk(chosen, dim=1, largest=False).indices
    rest = torch.rand(number, count - chosen, 2, generator=generator, device=mask_logits.device)
    return torch.cat([drawn.gather(1, rows[..., None].expand(-1, -1, 2)), rest], dim=1)


@torch.no_grad()
def matching_cost(
    class_logits: Tensor,
    point_logits: Tensor,
    labels: Tensor,
    truth: Tensor,
    *,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
) -> Tensor:
    """What it costs that a query answers for a segment: -2 p + 5 cross-entropy + 5 Dice loss.

    Args:
        class_logits: (Q, K + 1), "no object" last.
        point_logits: (Q, P), of masks at points that are the same for all.
        labels: (N,) int64.
        truth: (N, P), true masks at these points, from 0 to 1.
        class_weight: of the probability of the segment's class.
        mask_weight: of the mean of the binary cross-entropy of all points.
        dice_weight: of the Dice loss.

    Returns:
        (Q, N), without a gradient.

    >>> logits, truth = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])  # p = 1/3, log 2, 1 - (1 + 1) / (2 + 1)
    >>> matching_cost(torch.zeros(1, 3), logits, torch.tensor([0]), truth)  # -2/3 + 5 log 2 + 5/3
    tensor([[4.4657]])
    """
    probability = full_precision(class_logits).softmax(dim=-1)[:, labels]  # (Q, N)
    logits = full_precision(point_logits)
    truth = truth.to(logits)
    # -t log p - (1 - t) log(1 - p) = log(1 + exp z) - t z, summed over points
    entropy = (F.softplus(logits).sum(dim=-1, keepdim=True) - logits @ truth.T) / logits.shape[-1]
    masks = logits.sigmoid()
    dice = 1 - (2 * masks @ truth.T + 1) / (masks.sum(dim=-1, keepdim=True) + truth.sum(dim=-1) + 1)
    return -class_weight * probability + mask_weight * entropy + dice_weight * dice


def mask2former_loss(
    outputs: Mapping[str, Any],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    points: int = 12544,
    oversample: float = 3.0,
    importance: float = 0.75,
    no_object_weight: float = 0.1,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Classes, masks and overlaps, summed over the queries at the start and behind each layer, each newly matched.

    Cross-entropy of classes is a weighted mean over all queries of the batch. Losses of masks are summed over the
    matched queries of the batch and divided by its number of segments (at least 1). In an image with more segments
    than queries, those whose matching would cost most have no query.

    Args:
        outputs: of `Mask2Former`.
        targets: B dicts of `labels` (N,) from 0 to K - 1 and `masks` (N, h, w), of the image without its padding,
            where no mask is; N may be 0.
        points: P, at which masks are compared. Paper: 12544, which is 112 x 112.
        oversample: how many times as many points are drawn, to choose unsure ones from.
        importance: which part of the points is chosen so; the others are at random.
        no_object_weight: of a query without a segment, in the cross-entropy; all others weigh 1.
        class_weight: of the cross-entropy, and of the class in the cost of matching.
        mask_weight: of the cross-entropy of masks, likewise.
        dice_weight: of the Dice loss of masks, likewise.
        generator: of the points; None: torch's own.

    Returns:
        Scalars `classification`, `mask` and `dice`, weighted, and `loss`, their sum.

    Raises:
        TypeError: outputs, targets or a number are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a label is not 0 to K - 1, a weight is negative, points are
            fewer than 1, or the cost of a pair is not finite.
    """
    weights = {"class_weight": class_weight, "mask_weight": mask_weight, "dice_weight": dice_weight}
    for name, weight in {**weights, "no_object_weight": no_object_weight}.items():
        check_number(name, weight)
    check_number("points", points, minimum=1)
    check_number("oversample", oversample, minimum=1)
    check_number("importance", importance, maximum=1)
    *before, last = check_layers(outputs, "image_size", **AXES)
    targets = check_segments(targets, outputs["sizes"], outputs["class_logits"].shape[-1] - 1)
    truth = [_padded(target, outputs) for target in targets]
    sampling = (int(points), oversample, importance, generator)
    terms = [_layer_loss(layer, truth, weights, no_object_weight, sampling) for layer in (last, *before)]
    classification, mask, dice = (torch.stack(term).sum() for term in zip(*terms, strict=True))
    parts = {"classification": class_weight * classification, "mask": mask_weight * mask, "dice": dice_weight * dice}
    return {**parts, "loss": sum(parts.values())}


def _padded(target: Mapping[str, Tensor], outputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Labels (N,), and masks (N, H, W) of the padded image as numbers."""
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
    """Cross-entropy of classes, cross-entropy and Dice loss of masks of one layer, not yet weighted."""
    logits, masks = full_precision(layer["class_logits"]), full_precision(layer["mask_logits"])
    points, oversample, importance, generator = sampling
    costs = []
    for b, (labels, true_masks) in enumerate(targets):
        everywhere = torch.rand(1, points, 2, generator=generator, device=masks.device)
        seen, true = (
            sample_points(maps, everywhere.expand(len(maps), -1, -1)) for maps in (masks[b].detach(), true_masks)
        )
        costs.append(matching_cost(logits[b], seen, labels, true, **weights))
    classification, pairs = matched_cross_entropy(logits, [labels for labels, _ in targets], costs, no_object_weight)
    drawn = torch.cat([masks[b, queries] for b, (queries, _) in enumerate(pairs)])  # (N, h, w)
    true = torch.cat([targets[b][1][segments] for b, (_, segments) in enumerate(pairs)])  # (N, H, W)
    where = unsure_points(drawn.detach(), points, oversample, importance, generator)
    entropy, dice = _mask_losses(sample_points(drawn, where), sample_points(true, where))
    count = max(1, sum(len(labels) for labels, _ in targets))
    return classification, entropy / count, dice / count


def _mask_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, mean over points, and Dice loss, of (N, P) and summed over N."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1).sum()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum(dim=1) + 1) / (p.sum(dim=1) + truth.sum(dim=1) + 1)
    return entropy, dice.sum()
