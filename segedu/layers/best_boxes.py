"""The best boxes of an image after non-maximum suppression: proposals and detections of two-stage detectors.

The number of remaining boxes depends on the image. A program recorded by `torch.export` or ONNX has fixed shapes, so
there the number is fixed: missing boxes are filled up with boxes without an area and with score 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.ops.boxes import clip_boxes
from segedu.ops.nms import batched_nms, nms_mask
from segedu.validation.exporting import is_exporting

NO_OBJECT = -1e4  # a logit whose probability is 0 in every dtype


def best_proposals(
    boxes: Tensor, scores: Tensor, levels: Sequence[int], iou_threshold: float, count: int, min_size: float
) -> Tensor:
    """The proposals of an image: suppression on each level of the pyramid, then the best of all levels.

    Args:
        boxes: (N, 4), xyxy, inside the image, level by level.
        scores: (N,).
        levels: number of boxes on each level, N together.
        iou_threshold: of the suppression.
        count: largest number of boxes. An exported program returns exactly this number (or N, if that is less).
        min_size: proposals with a shorter side are dropped; pixels.

    Returns:
        (P, 4), the best first. In an exported program the rows after the last proposal are 0.
    """
    large = (boxes[:, 2:] - boxes[:, :2] >= min_size).all(dim=1)
    if is_exporting():
        parts = zip(boxes.split(levels), scores.split(levels), large.split(levels), strict=True)
        kept = torch.cat([nms_mask(*part, iou_threshold) for part in parts])
        rows, kept = _best(scores, kept, count)
        return boxes[rows] * kept[:, None]
    level = torch.arange(len(levels), device=boxes.device).repeat_interleave(torch.tensor(levels, device=boxes.device))
    rows = torch.nonzero(large).flatten()
    return boxes[rows[batched_nms(boxes[rows], scores[rows], level[rows], iou_threshold)[:count]]]


def best_detections(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    score_threshold: float,
    iou_threshold: float,
    count: int,
    min_size: float,
) -> dict[str, Tensor]:
    """The detections of an image: suppression within each class, then the best of all classes.

    Args:
        boxes: (P, K - 1, 4), xyxy, of each proposal for classes 1 to K - 1.
        scores: (P, K - 1).
        size: (H, W) of the image; boxes are clipped to it.
        score_threshold: detections have scores above this.
        iou_threshold: of the suppression.
        count: largest number of detections. An exported program returns exactly this number (or all pairs, if these are
            fewer).
        min_size: detections with a shorter side are dropped; pixels.

    Returns:
        `boxes` (N, 4), `labels` (N,) from 1 to K - 1 and `scores` (N,), the best first. In an exported program the rows
        after the last detection have score 0 and boxes of 0.
    """
    if is_exporting():
        return _fixed_detections(boxes, scores, size, score_threshold, iou_threshold, count, min_size)
    row, column = torch.nonzero(scores > score_threshold, as_tuple=True)
    boxes, scores = clip_boxes(boxes[row, column], size), scores[row, column]
    large = torch.nonzero((boxes[:, 2:] - boxes[:, :2] >= min_size).all(1)).flatten()
    kept = large[batched_nms(boxes[large], scores[large], column[large], iou_threshold)][:count]
    return {"boxes": boxes[kept], "labels": column[kept] + 1, "scores": scores[kept]}


def drop_padding(class_logits: Tensor, proposals: Sequence[Tensor]) -> Tensor:
    """Predict the background for proposals without an area, which pad the proposals of an exported program.

    Outside of an exported program the logits are returned unchanged.

    Args:
        class_logits: (P, K), class 0 is the background.
        proposals: B tensors of boxes (P_i, 4), P together.
    """
    if not is_exporting():
        return class_logits
    boxes = torch.cat(list(proposals))
    padding = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1, keepdim=True)  # (P, 1)
    background = torch.cat([class_logits[:, :1] * 0, class_logits[:, 1:] * 0 + NO_OBJECT], dim=1)
    return torch.where(padding, background, class_logits)


def _fixed_detections(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    score_threshold: float,
    iou_threshold: float,
    count: int,
    min_size: float,
) -> dict[str, Tensor]:
    P, classes = scores.shape
    boxes = clip_boxes(boxes.reshape(-1, 4), size).reshape(P, classes, 4)
    valid = (scores > score_threshold) & (boxes[..., 2:] - boxes[..., :2] >= min_size).all(dim=-1)  # (P, K - 1)
    kept = [nms_mask(boxes[:, k], scores[:, k], valid[:, k], iou_threshold) for k in range(classes)]
    rows, kept = _best(scores.flatten(), torch.stack(kept, dim=1).flatten(), count)
    boxes, scores = boxes.reshape(-1, 4)[rows] * kept[:, None], scores.flatten()[rows] * kept
    return {"boxes": boxes, "labels": rows % classes + 1, "scores": scores}


def _best(scores: Tensor, kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of the `count` best scores, with boxes that are kept first, and whether each of these rows is kept."""
    order = torch.where(kept, scores, -torch.inf).sort(descending=True).indices[:count]
    return order, kept[order]
