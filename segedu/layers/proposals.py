"""Proposals, boxes of an image that may contain objects: how they are sampled, labelled and turned into detections."""

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
from segedu.validation.targets import Targets

MIN_SIDE = 1e-2  # pixels: detections with a shorter side are dropped


class Sampling(NamedTuple):
    """Which proposals of an image are used for training.

    At most `count` proposals, a fraction `positive_fraction` of them objects, which have an IoU of at least
    `positive_iou` with a ground-truth box. The others are background. If some of these have an IoU of at least
    `negative_iou`, only they are sampled.
    """

    count: int = 128
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    negative_iou: float = 0.0


def add_ground_truth(proposals: Sequence[Tensor], targets: Targets) -> list[Tensor]:
    """Append the ground-truth boxes to the proposals, so that each object has a proposal that fits it.

    Args:
        proposals: B tensors of boxes (P_i, 4).
        targets: B dicts with `boxes` (N_i, 4). If a dict has `iscrowd` (N_i,), the boxes of crowds are not added.

    Returns:
        B tensors of boxes (P_i + N_i, 4).
    """
    gt_boxes = [without_crowds(target)["boxes"] for target in targets]
    return [torch.cat([boxes, gt.to(boxes)]) for boxes, gt in zip(proposals, gt_boxes, strict=True)]


def sample_proposals(
    proposals: Sequence[Tensor], targets: Targets, sampling: Sampling, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Sample the proposals of each image that are used for training, from the proposals and the ground-truth boxes.

    Args:
        proposals: B tensors of boxes (P_i, 4).
        targets: B dicts with `boxes` (N_i, 4).
        sampling: how many, and which.
        generator: source of the random numbers; None for torch's own.

    Returns:
        B tensors of boxes (at most `sampling.count`, 4): objects, then background.
    """
    samples = []
    for boxes, target in zip(add_ground_truth(proposals, targets), targets, strict=True):
        iou = box_iou(target["boxes"].to(boxes), boxes)  # (N, P)
        matches = match_anchors(iou, sampling.positive_iou, sampling.positive_iou)
        if len(iou):
            easy = (matches < 0) & (iou.amax(0) < sampling.negative_iou)
            if not bool((easy == (matches < 0)).all()):  # otherwise there is no hard background
                matches[easy] = NEITHER
        rows = sample_matches(matches, sampling.count, sampling.positive_fraction, generator)
        samples.append(boxes[torch.cat(rows)])
    return samples


def label_proposals(
    proposals: Tensor, target: Mapping[str, Tensor], positive_iou: float = 0.5, weights: Sequence[float] = (1, 1, 1, 1)
) -> tuple[Tensor, Tensor]:
    """Classes and regression targets of the proposals of one image.

    Args:
        proposals: (P, 4), with an area.
        target: `boxes` (N, 4) and `labels` (N,) of the image.
        positive_iou: smallest IoU with an object; proposals below it are background, class 0.
        weights: of `encode_boxes`.

    Returns:
        (P,) int64 classes, and (P, 4) deltas to the object, 0 for background.
    """
    matches = match_anchors(box_iou(target["boxes"].to(proposals), proposals), positive_iou, positive_iou)
    labels, deltas, positive = torch.zeros_like(matches), torch.zeros_like(proposals), matches >= 0
    labels[positive] = target["labels"].to(matches.device)[matches[positive]]
    deltas[positive] = encode_boxes(target["boxes"].to(proposals)[matches[positive]], proposals[positive], weights)
    return labels, deltas


def detections(
    boxes: Tensor,
    scores: Tensor,
    outputs: Mapping[str, Any],
    score_threshold: float,
    iou_threshold: float,
    count: int,
) -> list[dict[str, Tensor]]:
    """Detections of a batch from the boxes and scores of all proposals.

    Args:
        boxes: (P, K - 1, 4), xyxy, of classes 1 to K - 1.
        scores: (P, K - 1), without NaN.
        outputs: with `proposals`, whose lengths divide the P rows among the images, and `sizes`.
        score_threshold: detections have scores above this.
        iou_threshold: of the suppression, class by class.
        count: largest number of detections per image.

    Returns:
        B dicts of `boxes`, `labels` and `scores`, the best first.
    """
    if not is_exporting() and bool(scores.isnan().any()):
        raise ValueError("outputs has scores with NaN, expected finite values")
    counts = [len(proposals) for proposals in outputs["proposals"]]
    return [
        best_detections(image_boxes, image_scores, size, score_threshold, iou_threshold, count, MIN_SIDE)
        for image_boxes, image_scores, size in zip(
            boxes.split(counts), scores.split(counts), outputs["sizes"], strict=True
        )
    ]
