"""nms: of overlapping detections of one class, keep the one with the highest score."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from segedu.ops.boxes import box_area, box_iou
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab11_detection.detections import cases


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Remove every detection that overlaps a kept detection of its class with a higher score too much.

    Go through the detections in descending order of their scores; of equal scores the lower index comes first. A
    detection is removed if its IoU with a detection of the same class that was kept before is above `iou_threshold`.
    A removed detection removes no others. You may use `box_iou(boxes1, boxes2)` of segedu.ops.boxes.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2). No coordinate is negative, and every box has an area. N may be 0.
        scores: (N,) floats.
        labels: (N,) integers, the class of each detection.
        iou_threshold: in [0, 1].

    Returns:
        (K,) integers: the indices of the kept detections of all classes, in descending order of their scores.

    Example: detection 1 has the highest score and removes detection 0, which it overlaps. Detection 2 has the same box
    as detection 0, but belongs to another class.

        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.5]), torch.tensor([1, 1, 7]), 0.5)
        tensor([1, 2])
    """
    return _greedy(_overlaps(boxes, iou_threshold) & _same(labels), _order(scores))


def _order(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


def _same(labels: Tensor) -> Tensor:
    return labels[:, None] == labels


def _overlaps(boxes: Tensor, iou_threshold: float) -> Tensor:
    return box_iou(boxes, boxes) > iou_threshold


def _greedy(removes: Tensor, order: Tensor) -> Tensor:
    """Indices of the kept detections; `removes` (N, N) says which detections exclude each other."""
    keep: list[int] = []
    for i in order.tolist():
        if not removes[i, keep].any():
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64)


right = Variants(nms)


def _removes(a: SimpleNamespace) -> Tensor:
    return _overlaps(a.boxes, a.iou_threshold) & _same(a.labels)


def _indices_within_each_class(a: SimpleNamespace) -> Tensor:
    parts = [a.labels == label for label in a.labels.unique()]
    keep = [nms(a.boxes[part], a.scores[part], a.labels[part], a.iou_threshold) for part in parts]
    return torch.cat([*keep, torch.zeros(0, dtype=torch.int64)])


def _skips_after_removal(a: SimpleNamespace) -> Tensor:
    removes, rest, keep = _removes(a), _order(a.scores).tolist(), []
    while rest:
        keep.append(rest.pop(0))
        for i in rest:
            if removes[keep[-1], i]:
                rest.remove(i)  # the list becomes shorter while the loop goes through it
    return torch.tensor(keep, dtype=torch.int64)


def _compared_with(others: Callable[[list[int], list[int]], list[int]]) -> Callable[..., Tensor]:
    """Detections are compared with `others(all better ones, the kept ones)` in place of the kept ones."""

    def greedy(a: SimpleNamespace) -> Tensor:
        removes, order, keep = _removes(a), _order(a.scores).tolist(), []
        for rank, i in enumerate(order):
            if not removes[i, others(order[:rank], keep)].any():
                keep.append(i)
        return torch.tensor(keep, dtype=torch.int64)

    return right.instead(greedy)


def _compared_within_the_class(which: slice) -> Callable[..., Tensor]:
    """Detections are compared with `which` of the kept ones of their class."""

    def greedy(a: SimpleNamespace) -> Tensor:
        removes, keep = _removes(a), []
        for i in _order(a.scores).tolist():
            rivals = [k for k in keep if a.labels[k] == a.labels[i]]
            if not removes[i, rivals[which]].any():
                keep.append(i)
        return torch.tensor(keep, dtype=torch.int64)

    return right.instead(greedy)


def _kept_boxes_grow(a: SimpleNamespace) -> Tensor:
    """A kept box becomes the smallest box that holds it and what it removes."""
    boxes, keep = a.boxes.clone(), []
    for i in _order(a.scores).tolist():
        over = [k for k in keep if a.labels[k] == a.labels[i] and box_iou(boxes[[i]], boxes[[k]]) > a.iou_threshold]
        if not over:
            keep.append(i)
        for k in over:
            boxes[k, :2], boxes[k, 2:] = boxes[[i, k], :2].amin(dim=0), boxes[[i, k], 2:].amax(dim=0)
    return torch.tensor(keep, dtype=torch.int64)


def _changes_boxes(a: SimpleNamespace) -> Tensor:
    if len(a.boxes):
        a.boxes += (a.labels * (a.boxes.max() + 1))[:, None]
    return nms(**vars(a))


def _changes_scores(keep: Tensor, a: SimpleNamespace) -> Tensor:
    a.scores[:] = -1
    return keep


def _overlap_divided_by(divisor: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The intersection is divided by `divisor(area, area)` in place of the union."""

    def greedy(a: SimpleNamespace) -> Tensor:
        low = torch.maximum(a.boxes[:, None, :2], a.boxes[:, :2])
        high = torch.minimum(a.boxes[:, None, 2:], a.boxes[:, 2:])
        areas = box_area(a.boxes)
        overlaps = (high - low).clamp(min=0).prod(dim=2) / divisor(areas[:, None], areas)
        return _greedy((overlaps > a.iou_threshold) & _same(a.labels), _order(a.scores))

    return right.instead(greedy)


def _fails_without_detections(a: SimpleNamespace) -> Tensor:
    a.scores.argmax()
    return nms(**vars(a))


ORDER = "scores.argsort(descending=True, stable=True)"
KEPT = "Collect the kept detections in a list, and compare each detection with those of its class in this list only."

exercise = Exercise(
    name="nms",
    points=3,
    cases=cases,
    reference=nms,
    kind="kept boxes",
    hides=["segedu.ops.nms"],
    wrong=[
        Wrong(
            "at the limit too",
            right.given(iou_threshold=lambda a: math.nextafter(a.iou_threshold, -1)),
            "You remove a detection whose IoU equals iou_threshold. Remove it only if the IoU is above the threshold.",
            "> or >=?",
        ),
        Wrong(
            "not sorted",
            right.given(scores=lambda a: -torch.arange(len(a.scores))),
            "You go through the detections in the order of the input. Begin with the highest score.",
            ORDER,
        ),
        Wrong(
            "worst first",
            right.given(scores=lambda a: -a.scores),
            "You begin with the lowest score. Begin with the highest.",
            ORDER,
        ),
        Wrong(
            "largest first",
            right.given(scores=lambda a: box_area(a.boxes)),
            "You go through the detections in descending order of their areas. Use their scores.",
            ORDER,
        ),
        Wrong(
            "last of equal scores",
            right.instead(lambda a: _greedy(_removes(a), a.scores.argsort(stable=True).flip(0))),
            "Of detections with equal scores you take the last one first. The lower index should come first.",
            "If you sort in ascending order and reverse, the last of equal values comes first. " + ORDER,
        ),
        Wrong(
            "across classes",
            right.given(labels=lambda a: torch.zeros_like(a.labels)),
            "A detection removes detections of other classes in your function. It should remove only those of "
            "its own class.",
            "Two conditions, combined by &.",
        ),
        Wrong(
            "moved too little",
            right.given(boxes=lambda a: a.boxes + a.labels[:, None], labels=lambda a: torch.zeros_like(a.labels)),
            "You shift the boxes of each class, but not far enough. Boxes of different classes still overlap.",
            "Shift each class by more than the largest coordinate, or compare the labels.",
        ),
        Wrong(
            "class by class",
            right.then(lambda keep, a: keep[a.labels[keep].argsort(stable=True)]),
            "Your indices are ordered by class. They should be ordered by score over all classes.",
            "Sort the kept detections once more, or go through all classes together.",
        ),
        Wrong(
            "labels left behind",
            right.given(labels=lambda a: a.labels[_order(a.scores).argsort()]),
            "You sort the boxes by score, but not their labels. Each label then belongs to another box.",
            "Use labels[order] with boxes[order], or sort nothing and go through the indices in `order`.",
        ),
        Wrong(
            "indices within each class",
            right.instead(_indices_within_each_class),
            "You return indices within each class. Return indices into all detections of the input.",
            "If you go through all classes together, the indices stay valid.",
        ),
        Wrong(
            "skips while it removes",
            right.instead(_skips_after_removal),
            "You remove items from a list while a loop goes through it. The loop then skips the next item.",
            "Build a new list of the detections that remain.",
        ),
        Wrong(
            "best of each class",
            right.given(iou_threshold=lambda a: -1),
            "You keep one detection per class. Keep every detection that does not overlap a kept one too much.",
            "An image can show two cars.",
        ),
        Wrong(
            "the gone remove too",
            _compared_with(lambda better, keep: better),
            "Your removed detections still remove others. Only kept detections do.",
            "1 removes 2. 2 would have removed 3, but it is gone, so 3 is kept.",
        ),
        Wrong(
            "one round",
            _compared_with(lambda better, keep: better[:1]),
            "Only your detection with the highest score removes others. Every kept detection does.",
            KEPT,
        ),
        Wrong(
            "only the last one kept",
            _compared_with(lambda better, keep: keep[-1:]),
            "You compare only with the detection that was kept last. Compare with all kept detections.",
            KEPT,
        ),
        Wrong(
            "one round in each class",
            _compared_within_the_class(slice(1)),
            "Only your best detection of each class removes others. Every kept detection does.",
            KEPT,
        ),
        Wrong(
            "only the last one kept in the class",
            _compared_within_the_class(slice(-1, None)),
            "You compare only with the detection of the same class that was kept last. Compare with all kept "
            "detections of this class.",
            KEPT,
        ),
        Wrong(
            "suppresses itself",
            right.instead(lambda a: torch.zeros(0, dtype=torch.int64)),
            "You keep nothing. Each detection has IoU 1 with itself, but only others may remove it.",
            "Compare a detection with the kept ones before you add it to them.",
        ),
        Wrong(
            "kept boxes grow",
            right.instead(_kept_boxes_grow),
            "Your kept boxes grow to include what they remove, and then remove more. Boxes should not change.",
            "Non-maximum suppression selects boxes. It does not make new ones.",
        ),
        Wrong(
            "changes the boxes",
            right.instead(_changes_boxes),
            "You change the argument `boxes` in place. The caller still needs the original boxes.",
            "`boxes += ...` works in place; `boxes = boxes + ...` makes a new tensor.",
        ),
        Wrong(
            "changes the scores",
            right.then(_changes_scores),
            "You change the argument `scores` in place. The caller still needs the original scores.",
            "Work on scores.clone().",
        ),
        Wrong(
            "keeps what overlaps",
            right.instead(lambda a: _greedy(~_overlaps(a.boxes, a.iou_threshold) & _same(a.labels), _order(a.scores))),
            "You keep detections that overlap and remove those that do not. It should be the other way round.",
            "A detection is removed if the IoU is above the threshold.",
        ),
        Wrong(
            "below the limit",
            right.instead(
                lambda a: _greedy((box_iou(a.boxes, a.boxes) < a.iou_threshold) & _same(a.labels), _order(a.scores))
            ),
            "You remove a detection whose IoU with a kept one is below iou_threshold. Remove it if the IoU is above.",
            "The IoU is large if two boxes overlap much.",
        ),
        Wrong(
            "over the smaller area",
            _overlap_divided_by(torch.minimum),
            "You divide the intersection by the smaller area. The IoU divides by the union.",
            "StarDist in lab 9 does as you did. Object detectors keep a small box inside a large one.",
        ),
        Wrong(
            "over the sum of the areas",
            _overlap_divided_by(torch.add),
            "You divide the intersection by the sum of both areas. The IoU divides by the union.",
            "The union is the sum of both areas minus the intersection.",
        ),
        Wrong(
            "sorted by index",
            right.then(lambda keep, a: keep.sort().values),
            "You return the indices in ascending order. The highest score should come first.",
            "Append indices to the list in the order in which you keep detections.",
        ),
        Wrong(
            "bools",
            right.then(lambda keep, a: torch.isin(torch.arange(len(a.scores)), keep)),
            "You return True or False for each detection. Return the indices of the kept detections.",
            "A list of indices, the highest score first.",
        ),
        Wrong(
            "places in the sorted list",
            right.then(lambda keep, a: torch.isin(_order(a.scores), keep).nonzero()[:, 0]),
            "You return positions in the sorted list. Return indices into the input.",
            "order[position] is the index.",
        ),
        Wrong(
            "boxes",
            right.then(lambda keep, a: a.boxes[keep]),
            "You return the kept boxes. Return their indices.",
            "With indices, the caller can select scores and labels too.",
        ),
        Wrong(
            "fails without detections",
            right.instead(_fails_without_detections),
            "Your function fails if there are no detections. It should then return an empty tensor of indices.",
            "An empty tensor has no largest score. An empty list is a valid result.",
        ),
    ],
)
