"""Three read-outs of one network: what Q classes and Q masks say about pixels, about objects, and about both.

Paper: Cheng, Schwing, Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS
    2021, arXiv 2107.06278, section 3.4; for instances Cheng, Misra, Schwing, Kirillov, Girdhar, "Masked-attention
    Mask Transformer for Universal Image Segmentation", CVPR 2022, arXiv 2112.01527, appendix.
Idea: A query says "with probability p, class c is where my mask is". Semantic: at each pixel the p of all queries
    are summed, each as far as its mask is there. Instances: each query and class is a candidate, and scores by p and
    by how sure the mask is. Panoptic: at each pixel the query with the largest product of p and mask wins; a query
    of which others have taken more than a fifth was wrong, and is dropped.
Simplified: nothing. Masks are brought to the size of the images before anything is decided, as the authors do: an
    edge decided at stride 4 would be a staircase. (transformers decides instances at 384 x 384 pixels, and enlarges.)
Shapes: dict of `class_logits` (B, Q, K + 1), "no object" last, `mask_logits` (B, Q, h, w), `sizes`, B pairs (h, w),
    and `image_size` (H, W) of the padded batch -> scores (B, K, H, W); B dicts of `boxes` (N, 4), `labels`, `scores`
    (N,) and `masks` (N, h, w); B pairs of `panoptic_seg` int32 (h, w), 0 where nothing is said, and `segments_info`.
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
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_keys, check_maps, check_no_nan

KEYS = ("class_logits", "mask_logits", "sizes", "image_size")


@torch.no_grad()
def semantic_inference(outputs: Mapping[str, Any]) -> Tensor:
    """For each class the sum over queries of p(class) sigmoid(mask); the label map is its argmax over classes.

    Args:
        outputs: of a network that classifies masks.

    Returns:
        (B, K, H, W), of the padded batch: numbers of at least 0 which are no probabilities, and may be above 1.

    Raises:
        TypeError: outputs are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, or a number is NaN.
    """
    _check(outputs)
    scores = []
    for logits, masks in zip(outputs["class_logits"], outputs["mask_logits"], strict=True):
        p = full_precision(logits).softmax(dim=-1)[:, :-1]  # (Q, K)
        scores.append(torch.einsum("qk,qhw->khw", p, _enlarged(masks, outputs["image_size"]).sigmoid()))
    return torch.stack(scores)


@torch.no_grad()
def instance_inference(
    outputs: Mapping[str, Any], things: Collection[int], *, count: int = 100, score_threshold: float = 0.0
) -> list[dict[str, Tensor]]:
    """Each query and each class is a candidate: its score is p(class) times the mean of the mask's probability.

    The mean is over the pixels of the mask, those above 1/2. One query may give several instances, of the same mask
    and different classes; nothing is suppressed, and masks may overlap.

    Args:
        outputs: of a network that classifies masks.
        things: categories that have instances.
        count: so many candidates of an image are kept, those with the largest p; then those of things.
        score_threshold: instances whose score is not above it are dropped.

    Returns:
        For each image `boxes` (N, 4) in pixels, `labels` (N,) int64, `scores` (N,) and `masks` (N, h, w) bool of the
        image without its padding, best first. Empty masks are left out.

    Raises:
        TypeError: outputs, things or a number are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a number is NaN, or a category, `count` or the threshold out
            of range.
    """
    num_classes = _check(outputs)
    things = _check_things(things, num_classes)
    check_number("count", count)
    check_number("score_threshold", score_threshold)
    found = []
    for logits, mask_logits, size in zip(
        outputs["class_logits"], outputs["mask_logits"], outputs["sizes"], strict=True
    ):
        p = full_precision(logits).softmax(dim=-1)[:, :-1].flatten()  # (Q K,)
        best = p.argsort(descending=True, stable=True)[: int(count)]
        best = best[torch.isin(best % num_classes, things.to(best.device))]
        queries, place = (best // num_classes).unique(return_inverse=True)
        probability = _enlarged(mask_logits[queries], outputs["image_size"], size).sigmoid()
        masks = probability > 0.5
        area = masks.flatten(1).sum(dim=1)
        sure = (probability * masks).flatten(1).sum(dim=1) / area.clamp(min=1)
        scores = p[best] * sure[place]
        order = scores.argsort(descending=True, stable=True)
        order = order[(scores[order] > score_threshold) & (area[place[order]] > 0)]
        masks = masks[place[order]]
        labels = best[order] % num_classes
        found.append({"boxes": boxes_from_masks(masks), "labels": labels, "scores": scores[order], "masks": masks})
    return found


@torch.no_grad()
def panoptic_inference(
    outputs: Mapping[str, Any],
    things: Collection[int],
    *,
    score_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """Each pixel to the query with the largest p(class) sigmoid(mask) there: section 3.4.

    A query is a segment if at least `overlap_threshold` of its mask was won by it. Segments of one class of stuff
    become one. A pixel that was won with a mask of less than 1/2 there belongs to nothing.

    Args:
        outputs: of a network that classifies masks.
        things: categories that have instances; the others are stuff.
        score_threshold: queries whose likeliest class is "no object", or is not above it, take no part.
        overlap_threshold: see above.

    Returns:
        For each image `panoptic_seg` int32 (h, w), 0 where nothing is said, and `segments_info`: for each id that
        occurs a dict of `id`, `category_id`, `isthing` and `score`, the largest where segments were joined.

    Raises:
        TypeError: outputs, things or a threshold are of the wrong kind.
        ValueError: a key is missing, shapes do not fit, a number is NaN, or a category or a threshold out of range.
    """
    num_classes = _check(outputs)
    _check_things(things, num_classes)
    check_number("score_threshold", score_threshold)
    check_number("overlap_threshold", overlap_threshold)
    found = []
    for logits, mask_logits, size in zip(
        outputs["class_logits"], outputs["mask_logits"], outputs["sizes"], strict=True
    ):
        scores, labels = full_precision(logits).softmax(dim=-1).max(dim=-1)  # (Q,)
        kept = (labels < num_classes) & (scores > score_threshold)
        masks = _enlarged(mask_logits[kept], outputs["image_size"], size).sigmoid()  # (N, h, w)
        found.append(_panoptic(scores[kept], labels[kept].tolist(), masks, things, overlap_threshold))
    return found


def _panoptic(
    scores: Tensor, labels: list[int], masks: Tensor, things: Collection[int], overlap_threshold: float
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments of one image from N queries that say something."""
    if not len(labels):
        return torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device), []
    winner = (scores[:, None, None] * masks).argmax(dim=0)  # (h, w)
    inside = masks >= 0.5
    certain = inside.gather(0, winner[None])[0]  # the winner's mask is there
    size = len(labels)
    won, seen = winner.flatten().bincount(minlength=size), winner[certain].bincount(minlength=size)
    whole = inside.flatten(1).sum(dim=1)
    # Paper: nothing of pixels won outside of the mask. The authors' code counts them in `won`, and so do we.
    stays = (seen > 0) & (won / whole.clamp(min=1) >= overlap_threshold)
    ids, info, stuff = won.new_zeros(size), [], {}
    for i in stays.nonzero().flatten().tolist():
        label, score = labels[i], float(scores[i])
        if label in stuff:
            segment = stuff[label]
            segment["score"] = max(segment["score"], score)
        else:
            segment = {"id": len(info) + 1, "category_id": label, "isthing": label in things, "score": score}
            info.append(segment)
            if label not in things:
                stuff[label] = segment
        ids[i] = segment["id"]
    return torch.where(certain, ids[winner], 0).to(torch.int32), info


def _enlarged(mask_logits: Tensor, image_size: tuple[int, int], size: tuple[int, int] | None = None) -> Tensor:
    """(N, h, w) logits at stride 4 as logits of the padded image, of which the part that is image is kept."""
    h, w = size or image_size
    if not len(mask_logits):
        return full_precision(mask_logits).new_zeros(0, h, w)
    logits = full_precision(mask_logits)[None]
    return F.interpolate(logits, size=tuple(image_size), mode="bilinear", align_corners=False)[0, :, :h, :w]


def _check(outputs: Mapping[str, Any]) -> int:
    """K of outputs that fit each other."""
    check_keys("outputs", outputs, KEYS)
    letters = check_maps("outputs", outputs, class_logits="B Q C", mask_logits="B Q h w")
    check_no_nan("outputs", outputs, KEYS[:2])
    (H, W), sizes = outputs["image_size"], outputs["sizes"]
    if len(sizes) != letters["B"]:
        raise ValueError(f"outputs['sizes'] has {len(sizes)} pairs, expected one for each of {letters['B']} images")
    for i, (h, w) in enumerate(sizes):
        if not (1 <= h <= H and 1 <= w <= W):
            raise ValueError(f"outputs['sizes'][{i}] is {(h, w)}, expected (h, w) from 1 to image_size, {(H, W)}")
    if letters["C"] < 2:
        raise ValueError("outputs['class_logits'] has 1 column, expected a class and no object at least")
    return letters["C"] - 1


def _check_things(things: Collection[int], num_classes: int) -> Tensor:
    if not isinstance(things, Collection) or isinstance(things, str | bytes):
        raise TypeError(f"things has type {type(things).__name__}, expected a set of categories")
    for category in things:
        if isinstance(category, bool) or not isinstance(category, int):
            raise TypeError(f"things has a {type(category).__name__}, expected ints")
        if not 0 <= category < num_classes:
            raise ValueError(f"things has the category {category}, expected 0 to {num_classes - 1}")
    return torch.tensor(sorted(things), dtype=torch.int64)
