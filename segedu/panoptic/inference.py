"""Semantic, instance and panoptic inference from the Q classes and Q masks of one network.

Paper: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS
    2021, arXiv 2107.06278, section 3.4; for instances Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention
    Mask Transformer for Universal Image Segmentation", CVPR 2022, arXiv 2112.01527, appendix.
Idea: A query predicts the probability p of each class, and the probability of its mask at each pixel. Semantic: at each
    pixel, sum p times the mask probability over all queries. Instances: each pair of a query and a class is a
    candidate, whose score is p times the confidence of the mask. Panoptic: each pixel is assigned to the query with the
    largest product of p and mask probability; a query that loses more than a fifth of its mask to others is dropped.
Simplified: nothing. As in the authors' code, masks are upsampled to the size of the images before any decision, because
    edges decided at stride 4 would be staircases. (transformers decides instances at 384 x 384 pixels, and upsamples.)
Shapes: dict of `class_logits` (B, Q, K + 1), "no object" last, `mask_logits` (B, Q, h, w), `sizes`, B pairs (h, w),
    and `image_size` (H, W) of the padded batch -> scores (B, K, H, W); B dicts of `boxes` (N, 4), `labels`, `scores`
    (N,) and `masks` (N, h, w); B pairs of `panoptic_seg` int32 (h, w), 0 without a segment, and `segments_info`.
Quality: equal to transformers' where that does the same, else to a loop over the queries; see the tests.
Course: 15-panoptic
Lab: 15_universal
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.reduction import full_precision
from segedu.ops.masks import boxes_from_masks
from segedu.validation.images import check_padded_sizes
from segedu.validation.numbers import check_integer, check_number
from segedu.validation.targets import check_categories
from segedu.validation.tensors import check_keys, check_no_nan, check_tensor_dict

KEYS = ("class_logits", "mask_logits", "sizes", "image_size")


@torch.no_grad()
def semantic_inference(outputs: Mapping[str, Any]) -> Tensor:
    """Scores of each class: the sum over queries of p(class) sigmoid(mask). The label map is their argmax over classes.

    Args:
        outputs: of a network that classifies masks.

    Returns:
        (B, K, H, W), of the padded batch: scores of at least 0, which are not probabilities and may exceed 1.
    """
    _check(outputs)
    scores = []
    for logits, masks in zip(outputs["class_logits"], outputs["mask_logits"], strict=True):
        p = full_precision(logits).softmax(dim=-1)[:, :-1]  # (Q, K)
        scores.append(torch.einsum("qk,qhw->khw", p, _upsample(masks, outputs["image_size"]).sigmoid()))
    return torch.stack(scores)


@torch.no_grad()
def instance_inference(
    outputs: Mapping[str, Any], things: Collection[int], *, topk_candidates: int = 100, score_threshold: float = 0.0
) -> list[dict[str, Tensor]]:
    """Instances from every pair of a query and a class, scored by p(class) times the mean probability inside the mask.

    A mask consists of the pixels with a probability above 1/2. One query may give several instances with the same mask
    and different classes. There is no non-maximum suppression, and masks may overlap.

    Args:
        outputs: of a network that classifies masks.
        things: categories that have instances.
        topk_candidates: number of candidates per image, those with the largest p; of these, stuff is then dropped.
        score_threshold: instances need a score above this.

    Returns:
        For each image `boxes` (N, 4) in pixels, `labels` (N,) int64, `scores` (N,) and `masks` (N, h, w) bool of the
        image without its padding, highest score first, without empty masks.
    """
    num_classes = _check(outputs)
    check_categories("things", things, num_classes)
    check_number("topk_candidates", topk_candidates)
    check_number("score_threshold", score_threshold)
    things = torch.tensor(sorted(things), dtype=torch.int64)
    instances = []
    for logits, mask_logits, size in zip(
        outputs["class_logits"], outputs["mask_logits"], outputs["sizes"], strict=True
    ):
        p = full_precision(logits).softmax(dim=-1)[:, :-1].flatten()  # (Q K,)
        best = p.argsort(descending=True, stable=True)[: int(topk_candidates)]
        best = best[torch.isin(best % num_classes, things.to(best.device))]
        queries, row = (best // num_classes).unique(return_inverse=True)  # a mask of several classes is computed once
        probability = _upsample(mask_logits[queries], outputs["image_size"], size).sigmoid()
        masks = probability > 0.5
        area = masks.flatten(1).sum(dim=1)
        confidence = (probability * masks).flatten(1).sum(dim=1) / area.clamp(min=1)
        scores = p[best] * confidence[row]
        order = scores.argsort(descending=True, stable=True)
        order = order[(scores[order] > score_threshold) & (area[row[order]] > 0)]
        masks = masks[row[order]]
        labels = best[order] % num_classes
        instances.append({"boxes": boxes_from_masks(masks), "labels": labels, "scores": scores[order], "masks": masks})
    return instances


@torch.no_grad()
def panoptic_inference(
    outputs: Mapping[str, Any],
    things: Collection[int],
    *,
    score_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """A panoptic segmentation: each pixel goes to the query with the largest p(class) sigmoid(mask) (section 3.4).

    A query becomes a segment if it wins at least `overlap_threshold` of its mask. Segments of the same stuff class are
    merged. A pixel at which the mask of the winning query is below 1/2 has no segment.

    Args:
        outputs: of a network that classifies masks.
        things: categories that have instances; the others are stuff.
        score_threshold: queries take part if their most probable class is not "no object" and scores above this.
        overlap_threshold: smallest share of a mask that its query must win.

    Returns:
        For each image `panoptic_seg` int32 (h, w), 0 without a segment, and `segments_info`: for each id in the map a
        dict of `id`, `category_id`, `isthing` and `score`, the largest of merged segments.
    """
    num_classes = _check(outputs)
    check_categories("things", things, num_classes)
    check_number("score_threshold", score_threshold)
    check_number("overlap_threshold", overlap_threshold)
    segmentations = []
    for logits, mask_logits, size in zip(
        outputs["class_logits"], outputs["mask_logits"], outputs["sizes"], strict=True
    ):
        scores, labels = full_precision(logits).softmax(dim=-1).max(dim=-1)  # (Q,)
        keep = (labels < num_classes) & (scores > score_threshold)
        masks = _upsample(mask_logits[keep], outputs["image_size"], size).sigmoid()  # (N, h, w)
        segmentations.append(_panoptic(scores[keep], labels[keep].tolist(), masks, things, overlap_threshold))
    return segmentations


def _panoptic(
    scores: Tensor, labels: list[int], masks: Tensor, things: Collection[int], overlap_threshold: float
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments of one image from the N queries that take part."""
    if not len(labels):
        return torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device), []
    winner = (scores[:, None, None] * masks).argmax(dim=0)  # (h, w)
    inside = masks >= 0.5
    in_winner = inside.gather(0, winner[None])[0]  # the pixel is inside the mask of its winner
    num_queries = len(labels)
    won_area, visible_area = (
        winner.flatten().bincount(minlength=num_queries),
        winner[in_winner].bincount(minlength=num_queries),
    )
    mask_area = inside.flatten(1).sum(dim=1)
    # Paper: does not mention pixels won outside the mask. As in the authors' code, `won_area` counts them.
    keep = (visible_area > 0) & (won_area / mask_area.clamp(min=1) >= overlap_threshold)
    ids, info, stuff_segments = won_area.new_zeros(num_queries), [], {}
    for i in keep.nonzero().flatten().tolist():
        label, score = labels[i], float(scores[i])
        if label in stuff_segments:
            segment = stuff_segments[label]
            segment["score"] = max(segment["score"], score)
        else:
            segment = {"id": len(info) + 1, "category_id": label, "isthing": label in things, "score": score}
            info.append(segment)
            if label not in things:
                stuff_segments[label] = segment
        ids[i] = segment["id"]
    return torch.where(in_winner, ids[winner], 0).to(torch.int32), info


def _upsample(mask_logits: Tensor, image_size: tuple[int, int], size: tuple[int, int] | None = None) -> Tensor:
    """Upsample mask logits (N, h, w) to the padded image, and crop them to `size`."""
    h, w = size or image_size
    if not len(mask_logits):
        return full_precision(mask_logits).new_zeros(0, h, w)
    logits = full_precision(mask_logits)[None]
    return F.interpolate(logits, size=tuple(image_size), mode="bilinear", align_corners=False)[0, :, :h, :w]


def _check(outputs: Mapping[str, Any]) -> int:
    """Check the outputs, and return K."""
    check_keys("outputs", outputs, KEYS)
    lengths = check_tensor_dict("outputs", outputs, class_logits="B Q C", mask_logits="B Q h w")
    check_no_nan("outputs", outputs, KEYS[:2])
    check_padded_sizes("outputs['sizes']", outputs["sizes"], outputs["image_size"], lengths["B"])
    return check_integer("the number of classes in outputs['class_logits']", lengths["C"] - 1)
