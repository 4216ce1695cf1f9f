"""Non-maximum suppression: of many detections of one object, keep the best.

Three answers to one question. Greedy: drop what overlaps a better one. Soft: lower its score instead. Matrix: lower
all scores at once, without a loop. A tie in score goes to the detection that comes first.

Detectors suppress thousands of boxes in every image, where the loop of `nms` takes ten times as long as torchvision's
compiled code (`make bench`). `batched_nms` is the one place that chooses: see `COMPILED`.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from segedu.ops.box_scale import without_overflow
from segedu.ops.boxes import box_iou
from segedu.validation.boxes import check_boxes, check_scores

COMPILED = True  # False: `batched_nms`, and so every detector, uses `nms` of this file; the result is the same


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: take the best box, drop those that overlap it by more than the threshold, repeat.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        iou_threshold: in [0, 1]. A box goes if its IoU with a kept one is *above* it.

    Returns:
        (n,) int64 indices of the kept boxes, best first.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: the shapes do not fit, a score is NaN, a box is not ordered, or the threshold is outside [0, 1].

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.5], [5.0, 5.0, 6.0, 6.0]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.5)
        tensor([1, 2])
    """
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    _check_threshold(iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    suppresses = box_iou(boxes[order], boxes[order]) > iou_threshold  # (N, N)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for best in range(len(boxes)):
        if alive[best]:
            alive[best + 1 :] &= ~suppresses[best, best + 1 :]
    return order[alive]


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within each class: a car never suppresses a person.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        labels: (N,) integers, the class of each box (or the image, or the level of a pyramid).
        iou_threshold: in [0, 1].

    Returns:
        (n,) int64 indices of the kept boxes, best first.

    Raises:
        TypeError: an argument is not a tensor of numbers, or ``labels`` are not integers.
        ValueError: the shapes do not fit, a score is NaN, a box is not ordered, or the threshold is outside [0, 1].

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        >>> batched_nms(boxes, torch.tensor([0.8, 0.9]), torch.tensor([1, 2]), iou_threshold=0.5)
        tensor([1, 0])
    """
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    _check_threshold(iou_threshold)
    _check_labels(labels, len(boxes))
    suppress = torchvision.ops.nms if COMPILED else nms
    order = scores.argsort(descending=True, stable=True)
    (exact,) = without_overflow(boxes[order])
    ranks = -torch.arange(len(boxes), device=boxes.device).to(exact)  # scores of another type would tie when cast
    alive = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for label in labels.unique():
        members = torch.nonzero(labels[order] == label).flatten()
        alive[members[suppress(exact[members], ranks[members], iou_threshold)]] = True
    return order[alive]


def nms_mask(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression as a mask, whose shape does not depend on the boxes: what an exported program needs.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        valid: (N,) bool, which boxes take part: the others are not kept, and suppress nothing.
        iou_threshold: in [0, 1].

    Returns:
        (N,) bool, which boxes are kept.

    Raises:
        TypeError: ``boxes`` or ``scores`` are not a tensor of numbers, or ``valid`` not one of bools.
        ValueError: the shapes do not fit, a score is NaN, a box is not ordered, or the threshold is outside [0, 1].

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.5], [5.0, 5.0, 6.0, 6.0]])
        >>> nms_mask(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.ones(3).bool(), iou_threshold=0.5)
        tensor([False,  True,  True])
    """
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    _check_threshold(iou_threshold)
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        kind = f"dtype {valid.dtype}" if isinstance(valid, Tensor) else f"type {type(valid).__name__}"
        raise TypeError(f"valid has {kind}, expected a bool tensor of shape ({len(boxes)},)")
    if valid.shape != scores.shape:
        raise ValueError(f"valid has shape {tuple(valid.shape)}, expected ({len(boxes)},)")
    # Those that are not valid come last, where they can suppress only each other. ONNX has no sort that is told to be
    # stable; its own, and torch's on the CPU, are.
    order = torch.where(valid, scores, -torch.inf).sort(descending=True).indices
    ranks = -torch.arange(len(boxes), device=boxes.device).to(boxes)  # equal scores would be a tie
    kept = order[torchvision.ops.nms(boxes[order], ranks, iou_threshold)]
    return torch.zeros_like(valid).index_fill(0, kept, True) & valid


def soft_nms(
    boxes: Tensor, scores: Tensor, sigma: float = 0.5, score_threshold: float = 0.001
) -> tuple[Tensor, Tensor]:
    """Gaussian soft suppression: each chosen box lowers the scores of the rest by ``exp(-IoU² / sigma)``.

    Bodla et al. 2017 (arXiv 1704.04503), equation 3 and figure 2.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,) of at least 0.
        sigma: width of the decay, above 0; the paper uses 0.5.
        score_threshold: boxes whose score falls below it are dropped.

    Returns:
        (n,) int64 indices of the kept boxes, best first, and their lowered scores (n,), without a gradient.

    Raises:
        TypeError: an argument is not a tensor of numbers.
        ValueError: the shapes do not fit, a score is NaN or negative, a box is not ordered, or ``sigma`` is not
            above 0.

    Example:
        Two equal boxes: the second keeps exp(-1 / 0.5) = 0.135 of its score.

        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        >>> soft_nms(boxes, torch.tensor([0.9, 0.8]))
        (tensor([0, 1]), tensor([0.9000, 0.1083]))
    """
    boxes = check_boxes("boxes", boxes)
    check_scores("scores", scores, len(boxes))
    if (scores < 0).any():  # the decay would raise it
        raise ValueError(f"scores have the value {float(scores.min()):g}, expected numbers of at least 0")
    _check_sigma(sigma)
    boxes = boxes.detach()
    decay = torch.exp(-(box_iou(boxes, boxes) ** 2) / sigma)  # (N, N)
    scores = scores.detach().clone().to(decay.dtype)
    kept, kept_scores = [], []
    remaining = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while remaining.any():
        best = int(torch.where(remaining, scores, -torch.inf).argmax())
        if scores[best] < score_threshold:
            break
        kept.append(best)
        kept_scores.append(scores[best].clone())
        remaining[best] = False
        scores = torch.where(remaining, scores * decay[best], scores)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device), (
        torch.stack(kept_scores) if kept else scores[:0]
    )


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float = 2.0) -> Tensor:
    """Suppression in parallel (SOLOv2): the decay of every mask from one matrix of IoUs, without a loop.

    A mask j is lowered by the better masks i of its class, but less where i was itself suppressed:
    ``min_i exp(-sigma IoU_ij²) / exp(-sigma max_k IoU_ki²)``. Wang et al. 2020 (arXiv 2003.10152), equation 4 and
    figure 4. Paper: exp(-IoU² / sigma); the authors' program multiplies, and so does this function.

    Args:
        masks: (N, H, W) bool.
        labels: (N,) integers.
        scores: (N,).
        sigma: strength of the decay, above 0; the authors' program has 2, in the paper's form 1 / 2.

    Returns:
        (N,) lowered scores, in the order of the input. Thresholding them is up to the caller.

    Raises:
        TypeError: ``masks`` are not bool, ``labels`` not integers, or ``scores`` not numbers.
        ValueError: the shapes do not fit, a score is NaN, or ``sigma`` is not above 0.

    Example:
        Two equal masks: exp(-2) = 0.135 of the second score is left.

        >>> masks = torch.ones(2, 2, 2).bool()
        >>> matrix_nms(masks, torch.tensor([1, 1]), torch.tensor([0.9, 0.8]))
        tensor([0.9000, 0.1083])
    """
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        kind = f"dtype {masks.dtype}" if isinstance(masks, Tensor) else f"type {type(masks).__name__}"
        raise TypeError(f"masks has {kind}, expected a bool tensor of shape (N, H, W)")
    if masks.ndim != 3:
        raise ValueError(f"masks has shape {tuple(masks.shape)}, expected (N, H, W)")
    check_scores("scores", scores, len(masks))
    _check_labels(labels, len(masks))
    _check_sigma(sigma)
    if not len(masks):
        return scores.clone()
    order = scores.argsort(descending=True, stable=True)
    # at least float32: the pixels of a 300x300 mask are more than float16 can count
    flat = masks[order].flatten(1).to(torch.float64 if scores.dtype == torch.float64 else torch.float32)  # (N, P)
    intersection = flat @ flat.T
    area = flat.sum(dim=1)
    iou = intersection / (area[:, None] + area[None, :] - intersection).clamp(min=1)
    same = labels[order][:, None] == labels[order][None, :]
    iou = (iou * same).triu(1)  # iou[i, j]: of j with the better i
    worst = iou.max(dim=0).values  # (N,): how much i itself was suppressed
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2)).min(dim=0).values  # (N,)
    lowered = torch.empty_like(decay)
    lowered[order] = scores[order] * decay
    return lowered.to(scores.dtype) if scores.is_floating_point() else lowered


def _check_labels(labels: Tensor, count: int) -> None:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = f"dtype {labels.dtype}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise TypeError(f"labels has {kind}, expected a tensor of integers of shape ({count},)")
    if labels.shape != (count,):
        raise ValueError(f"labels has shape {tuple(labels.shape)}, expected ({count},)")


def _check_threshold(iou_threshold: float) -> None:
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a number in [0, 1]")


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma is {sigma}, expected a finite number above 0")
