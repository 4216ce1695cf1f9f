"""Non-maximum suppression: keep the best of several detections of one object.

Greedy suppression drops a box that overlaps a more confident one. Soft suppression lowers its score instead. Matrix
suppression lowers all scores at once, without a loop. Detections with equal scores keep their order.

Detectors suppress thousands of boxes in every image, where the loop of `nms` takes ten times as long as torchvision's
compiled code (`make bench`). Only `batched_nms` chooses between the two: see `COMPILED`.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from segedu.ops.box_scale import without_overflow
from segedu.ops.boxes import box_iou
from segedu.validation.boxes import check_boxes, check_iou_threshold, check_labels, check_scores
from segedu.validation.numbers import check_number
from segedu.validation.tensors import check_dtype

COMPILED = True  # False: `batched_nms`, and so every detector, uses `nms` of this file; the result is the same


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: take the most confident box, drop those that overlap it above the threshold, repeat.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        iou_threshold: in [0, 1]. A box is dropped if its IoU with a kept box is *above* the threshold.

    Returns:
        (n,) int64 indices of the kept boxes, the most confident first.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.5], [5.0, 5.0, 6.0, 6.0]])
    >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.5)
    tensor([1, 2])
    """
    boxes = _check_detections(boxes, scores, iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    suppresses = box_iou(boxes[order], boxes[order]) > iou_threshold  # (N, N)
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for best in range(len(boxes)):
        if keep[best]:
            keep[best + 1 :] &= ~suppresses[best, best + 1 :]
    return order[keep]


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within each class: a car never suppresses a person.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        labels: (N,) integers, the class of each box (or its image, or its level of a pyramid).
        iou_threshold: in [0, 1].

    Returns:
        (n,) int64 indices of the kept boxes, the most confident first.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    >>> batched_nms(boxes, torch.tensor([0.8, 0.9]), torch.tensor([1, 2]), iou_threshold=0.5)
    tensor([1, 0])
    """
    boxes = _check_detections(boxes, scores, iou_threshold)
    check_labels("labels", labels, len(boxes))
    suppress = torchvision.ops.nms if COMPILED else nms
    order = scores.argsort(descending=True, stable=True)
    (exact,) = without_overflow(boxes[order])
    ranks = -torch.arange(len(boxes), device=boxes.device).to(exact)  # scores of another dtype would tie when cast
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for label in labels.unique():
        members = torch.nonzero(labels[order] == label).flatten()
        keep[members[suppress(exact[members], ranks[members], iou_threshold)]] = True
    return order[keep]


def nms_mask(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression with a result of fixed shape, a mask over all boxes, as exported programs need it.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        valid: (N,) bool. Boxes that are not valid are not kept, and suppress no other box.
        iou_threshold: in [0, 1].

    Returns:
        (N,) bool, True for the boxes that are kept.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.5], [5.0, 5.0, 6.0, 6.0]])
    >>> nms_mask(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.ones(3).bool(), iou_threshold=0.5)
    tensor([False,  True,  True])
    """
    boxes = _check_detections(boxes, scores, iou_threshold)
    check_dtype("valid", valid, torch.bool)
    if valid.shape != scores.shape:
        raise ValueError(f"valid has shape {tuple(valid.shape)}, expected ({len(boxes)},)")
    # Invalid boxes come last, where they can suppress only each other. ONNX has no option for a stable sort; its own
    # sort, and torch's on the CPU, are stable.
    order = torch.where(valid, scores, -torch.inf).sort(descending=True).indices
    ranks = -torch.arange(len(boxes), device=boxes.device).to(boxes)  # equal scores would be a tie
    keep = order[torchvision.ops.nms(boxes[order], ranks, iou_threshold)]
    return torch.zeros_like(valid).index_fill(0, keep, True) & valid


def soft_nms(
    boxes: Tensor, scores: Tensor, sigma: float = 0.5, score_threshold: float = 0.001
) -> tuple[Tensor, Tensor]:
    """Gaussian soft suppression: each chosen box multiplies the other scores by ``exp(-IoU² / sigma)``.

    Bodla et al. 2017 (arXiv 1704.04503), equation 3 and figure 2.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,) of at least 0.
        sigma: width of the decay, above 0; the paper uses 0.5.
        score_threshold: boxes whose score falls below this value are dropped.

    Returns:
        (n,) int64 indices of the kept boxes, the most confident first, and their lowered scores (n,), without a
        gradient.

    Of two equal boxes, the second keeps exp(-1 / 0.5) = 0.135 of its score.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    >>> soft_nms(boxes, torch.tensor([0.9, 0.8]))
    (tensor([0, 1]), tensor([0.9000, 0.1083]))
    """
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    if (scores < 0).any():  # the decay would increase a negative score
        raise ValueError(f"scores has the value {float(scores.min()):g}, expected values of at least 0")
    check_number("sigma", sigma, exclusive=True)
    boxes = boxes.detach()
    decay = torch.exp(-(box_iou(boxes, boxes) ** 2) / sigma)  # (N, N)
    scores = scores.detach().clone().to(decay.dtype)
    keep, kept_scores = [], []
    remaining = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while remaining.any():
        best = int(torch.where(remaining, scores, -torch.inf).argmax())
        if scores[best] < score_threshold:
            break
        keep.append(best)
        kept_scores.append(scores[best].clone())
        remaining[best] = False
        scores = torch.where(remaining, scores * decay[best], scores)
    indices = torch.tensor(keep, dtype=torch.int64, device=boxes.device)
    return indices, torch.stack(kept_scores) if keep else scores[:0]


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix suppression (SOLOv2): compute the decay of all scores from one matrix of IoUs, without a loop.

    A mask j loses score to each more confident mask i of its class, but less if i was itself suppressed:
    ``min_i exp(-sigma IoU_ij²) / exp(-sigma max_k IoU_ki²)``. Wang et al. 2020 (arXiv 2003.10152), equation 4 and
    figure 4. The paper writes exp(-IoU² / sigma), but the authors' code multiplies by
    sigma, and so does this function.

    Args:
        masks: (N, H, W) bool.
        labels: (N,) integers.
        scores: (N,).
        sigma: strength of the decay, above 0; 2 in the authors' code, which is 1 / 2 in the paper's formula.

    Returns:
        (N,) lowered scores, in the order of the input. The caller applies the threshold.

    Of two equal masks, the second keeps exp(-2) = 0.135 of its score.

    >>> masks = torch.ones(2, 2, 2).bool()
    >>> matrix_nms(masks, torch.tensor([1, 1]), torch.tensor([0.9, 0.8]))
    tensor([0.9000, 0.1083])
    """
    check_dtype("masks", masks, torch.bool, "N? H? W?")
    check_scores("scores", scores, len(masks))
    check_labels("labels", labels, len(masks))
    check_number("sigma", sigma, exclusive=True)
    if not len(masks):
        return scores.clone()
    order = scores.argsort(descending=True, stable=True)
    # at least float32: the pixels of a 300x300 mask are more than float16 can count
    flat = masks[order].flatten(1).to(torch.float64 if scores.dtype == torch.float64 else torch.float32)  # (N, P)
    intersection = flat @ flat.T
    area = flat.sum(dim=1)
    iou = intersection / (area[:, None] + area[None, :] - intersection).clamp(min=1)
    same_class = labels[order][:, None] == labels[order][None, :]
    iou = (iou * same_class).triu(1)  # iou[i, j]: of mask j with the more confident mask i
    largest = iou.max(dim=0).values  # (N,): how much mask i itself was suppressed
    decay = torch.exp(-sigma * (iou**2 - largest[:, None] ** 2)).min(dim=0).values  # (N,)
    lowered = torch.empty_like(decay)
    lowered[order] = scores[order] * decay
    return lowered.to(scores.dtype) if scores.is_floating_point() else lowered


def _check_detections(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    check_iou_threshold("iou_threshold", iou_threshold)
    return boxes
