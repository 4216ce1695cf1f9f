"""Proposals: boxes of each image that may hold objects; how they are sampled, labelled and turned into detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segedu.layers.best_boxes import best_detections
from segedu.ops.anchors import NEITHER, encode_boxes, match_anchors, sample_matches
from segedu.ops.boxes import box_iou
from segedu.ops.crowds import without_crowds
from segedu.validation.exporting import is_exporting

Targets = Sequence[Mapping[str, Tensor]]
SMALLEST = 1e-2  # pixels: detections with a shorter side are dropped


class Sampling(NamedTuple):
    """Which proposals of an image are learnt from.

    `count` at most, `positive_share` of them objects: those whose IoU with a ground truth reaches `high`. The others
    are background; where some of them reach `low`, only these are drawn.
    """

    count: int = 128
    positive_share: float = 0.25
    high: float = 0.5
    low: float = 0.0


def add_ground_truth(proposals: Sequence[Tensor], targets: Targets) -> list[Tensor]:
    """Proposals, followed by the ground-truth boxes: each object then has one that fits it.

    Args:
        proposals: B boxes (P_i, 4).
        targets: B dicts with `boxes` (N_i, 4). If a dict has `iscrowd` (N_i,), the boxes of crowds are not added.

    Returns:
        B boxes (P_i + N_i, 4).
    """
    true_boxes = [without_crowds(target)["boxes"] for target in targets]
    return [torch.cat([boxes, true.to(boxes)]) for boxes, true in zip(proposals, true_boxes, strict=True)]


def sample_proposals(
    proposals: Sequence[Tensor], targets: Targets, sampling: Sampling, generator: torch.Generator | None = None
) -> list[Tensor]:
    """The proposals of each image that are learnt from; true boxes are among those drawn from.

    Args:
        proposals: B boxes (P_i, 4).
        targets: B dicts with `boxes` (N_i, 4).
        sampling: how many, and of which kind.
        generator: what draws; None for torch's own.

    Returns:
        B boxes (at most `sampling.count`, 4): objects, then background.
    """
    chosen = []
    for boxes, target in zip(add_ground_truth(proposals, targets), targets, strict=True):
        iou = box_iou(target["boxes"].to(boxes), boxes)  # (N, P)
        matches = match_anchors(iou, sampling.high, sampling.high)
        if len(iou):
            easy = (matches < 0) & (iou.amax(0) < sampling.low)
            if not bool((easy == (matches < 0)).all()):  # else there are no hard ones
                matches[easy] = NEITHER
        drawn = sample_matches(matches, sampling.count, sampling.positive_share, generator)
        chosen.append(boxes[torch.cat(drawn)])
    return chosen


def label_proposals(
    proposals: Tensor, target: Mapping[str, Tensor], high: float = 0.5, weights: Sequence[float] = (1, 1, 1, 1)
) -> tuple[Tensor, Tensor]:
    """What the proposals of one image show, and how each would have to move to fit it.

    Args:
        proposals: (P, 4), with an area.
        target: `boxes` (N, 4) and `labels` (N,) of the image.
        high: least IoU with an object; below it is background, class 0.
        weights: of `encode_boxes`.

    Returns:
        (P,) int64 classes, and (P, 4) deltas to the object, 0 for background.
    """
    matches = match_anchors(box_iou(target["boxes"].to(proposals), proposals), high, high)
    labels, deltas, objects = torch.zeros_like(matches), torch.zeros_like(proposals), matches >= 0
    labels[objects] = target["labels"].to(matches.device)[matches[objects]]
    deltas[objects] = encode_boxes(target["boxes"].to(proposals)[matches[objects]], proposals[objects], weights)
    return labels, deltas


def detections(
    boxes: Tensor,
    scores: Tensor,
    outputs: Mapping[str, Any],
    score_threshold: float,
    iou_threshold: float,
    count: int,
) -> list[dict[str, Tensor]]:
    """From a box and a score of every proposal for every class to detections.

    Args:
        boxes: (P, K - 1, 4), xyxy, of classes 1 to K - 1.
        scores: (P, K - 1).
        outputs: with `proposals`, which say how many of the P belong to each image, and `sizes`.
        score_threshold: scores are above this.
        iou_threshold: of the suppression, class by class.
        count: of an image at most.

    Returns:
        B dicts of `boxes`, `labels` and `scores`, the best first.

    Raises:
        ValueError: a score is NaN.
    """
    if not is_exporting() and bool(scores.isnan().any()):
        raise ValueError("outputs has a NaN among the scores, expected numbers")
    found, counts = [], [len(proposals) for proposals in outputs["proposals"]]
    for box, score, size in zip(boxes.split(counts), scores.split(counts), outputs["sizes"], strict=True):
        found.append(best_detections(box, score, size, score_threshold, iou_threshold, count, SMALLEST))
    return found
