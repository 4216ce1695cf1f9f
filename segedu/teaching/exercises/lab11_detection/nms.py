"""nms: of detections of one class that overlap keep the best."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.boxes import box_iou
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab11_detection.detections import cases


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Go through detections from the highest score down; keep each that overlaps no kept one of its class too much.

    A detection goes if its IoU with a detection of the same class that was kept before is above `iou_threshold`; what
    has gone removes nobody. Of equal scores the detection with the lower index comes first. `box_iou(boxes1, boxes2)`
    of segedu.ops.boxes is there to be used.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2), no number below 0, each with an area; N may be 0.
        scores: (N,) floats.
        labels: (N,) integers, the class of each detection.
        iou_threshold: in [0, 1].

    Returns:
        (K,) integers: the indices of the detections that are kept, of all classes together, the highest score first.

    Example: 1 is the best and overlaps 0, which goes; 2 lies there too, but is of another class.

        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.5]), torch.tensor([1, 1, 7]), 0.5)
        tensor([1, 2])
    """
    return _greedy(_too_much(boxes, iou_threshold) & _same(labels), _order(scores))


def _order(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


def _same(labels: Tensor) -> Tensor:
    return labels[:, None] == labels


def _too_much(boxes: Tensor, iou_threshold: float) -> Tensor:
    return box_iou(boxes, boxes) > iou_threshold


def _greedy(removes: Tensor, order: Tensor) -> Tensor:
    """`removes` (N, N) bool."""
    kept: list[int] = []
    for i in order.tolist():
        if not removes[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def at_the_limit_too(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """>= in place of >."""
    return _greedy((box_iou(boxes, boxes) >= iou_threshold) & _same(labels), _order(scores))


def in_the_order_given(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Scores are not used."""
    return _greedy(_too_much(boxes, iou_threshold) & _same(labels), torch.arange(len(scores)))


def worst_first(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """argsort as it is."""
    return nms(boxes, -scores, labels, iou_threshold)


def largest_first(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """By area."""
    return nms(boxes, (boxes[:, 2:] - boxes[:, :2]).prod(dim=1), labels, iou_threshold)


def last_of_equal(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """argsort upwards, reversed."""
    return _greedy(_too_much(boxes, iou_threshold) & _same(labels), scores.argsort(stable=True).flip(0))


def across_classes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Labels are not used."""
    return nms(boxes, scores, torch.zeros_like(labels), iou_threshold)


def moved_by_the_label(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Classes moved apart, but not far enough."""
    return across_classes(boxes + labels[:, None], scores, labels, iou_threshold)


def labels_left_behind(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Boxes are sorted by score, labels are not."""
    order = _order(scores)
    kept = _greedy(_too_much(boxes[order], iou_threshold) & _same(labels), torch.arange(len(order)))
    return order[kept]


def within_each_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Indices into the detections of one class, one class after the other."""
    parts = [labels == label for label in labels.unique()]
    kept = [nms(boxes[part], scores[part], labels[part], iou_threshold) for part in parts]
    return torch.cat([*kept, torch.zeros(0, dtype=torch.int64)])


def skips_while_it_removes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """A list that shrinks while a loop walks over it."""
    removes, left, kept = _too_much(boxes, iou_threshold) & _same(labels), _order(scores).tolist(), []
    while left:
        kept.append(left.pop(0))
        for i in left:
            if removes[kept[-1], i]:
                left.remove(i)
    return torch.tensor(kept, dtype=torch.int64)


def class_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """The kept ones of one class after those of another."""
    kept = nms(boxes, scores, labels, iou_threshold)
    return kept[labels[kept].argsort(stable=True)]


def best_of_each_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """One detection a class."""
    return _greedy(_same(labels), _order(scores))


def gone_remove_too(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Any better detection removes, kept or not."""
    removes, order = _too_much(boxes, iou_threshold) & _same(labels), _order(scores).tolist()
    kept = [i for rank, i in enumerate(order) if not removes[i, order[:rank]].any()]
    return torch.tensor(kept, dtype=torch.int64)


def only_the_best_removes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """One round."""
    removes, order = _too_much(boxes, iou_threshold) & _same(labels), _order(scores).tolist()
    kept = [i for i in order if i == order[0] or not removes[i, order[0]]]
    return torch.tensor(kept, dtype=torch.int64)


def only_the_last_kept(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Compared with the one that was kept last, and no other."""
    removes, kept = _too_much(boxes, iou_threshold) & _same(labels), []
    for i in _order(scores).tolist():
        if not removes[i, kept[-1:]].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def suppresses_itself(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Its IoU with itself is 1."""
    return scores.nonzero()[:0, 0]


def kept_boxes_grow(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """A kept box becomes the hull of itself and what it removes."""
    boxes, kept = boxes.clone(), []
    for i in _order(scores).tolist():
        over = [k for k in kept if labels[k] == labels[i] and box_iou(boxes[[i]], boxes[[k]]) > iou_threshold]
        if not over:
            kept.append(i)
        for k in over:
            boxes[k, :2], boxes[k, 2:] = boxes[[i, k], :2].amin(dim=0), boxes[[i, k], 2:].amax(dim=0)
    return torch.tensor(kept, dtype=torch.int64)


def changes_boxes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Classes moved apart in place."""
    if len(boxes):
        boxes += (labels * (boxes.max() + 1))[:, None]
    return nms(boxes, scores, labels, iou_threshold)


def changes_scores(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Those that are done get a score of -1."""
    kept = nms(boxes, scores, labels, iou_threshold)
    scores[:] = -1
    return kept


def keeps_what_overlaps(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """< for >."""
    return _greedy(~_too_much(boxes, iou_threshold) & _same(labels), _order(scores))


def over_the_smaller(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """The intersection over the smaller area, as StarDist has it."""
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    overlaps = (high - low).clamp(min=0).prod(dim=2) / torch.minimum(areas[:, None], areas)
    return _greedy((overlaps > iou_threshold) & _same(labels), _order(scores))


def by_index(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """In ascending order of their indices."""
    return nms(boxes, scores, labels, iou_threshold).sort().values


def flags(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """A bool for each detection."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[nms(boxes, scores, labels, iou_threshold)] = True
    return kept


def ranks(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Places in the sorted list."""
    return torch.isin(_order(scores), nms(boxes, scores, labels, iou_threshold)).nonzero()[:, 0]


def kept_boxes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """(K, 4)."""
    return boxes[nms(boxes, scores, labels, iou_threshold)]


def fails_without_detections(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """The best of none."""
    scores.argmax()
    return nms(boxes, scores, labels, iou_threshold)


ORDER = "scores.argsort(descending=True, stable=True)"
KEPT = "Keep a list. A detection is compared with those in it, of its class, and with no others."

exercise = Exercise(
    name="nms",
    points=3,
    cases=cases,
    reference=nms,
    kind="mask",
    hides=["segedu.ops.nms"],
    wrong=[
        Wrong(
            "at the limit too",
            at_the_limit_too,
            "A detection whose IoU is just iou_threshold goes: only one above it does.",
            "> or >=?",
        ),
        Wrong(
            "not sorted",
            in_the_order_given,
            "You go through the detections as they come: the highest score comes first.",
            ORDER,
        ),
        Wrong("worst first", worst_first, "You begin with the lowest score: begin with the highest.", ORDER),
        Wrong(
            "largest first",
            largest_first,
            "You go through the detections by their area: the score decides who comes first.",
            ORDER,
        ),
        Wrong(
            "last of equal scores",
            last_of_equal,
            "Of equal scores you take the last first: the detection with the lower index comes first.",
            "A list that was sorted upwards and reversed begins with the last of equal ones. " + ORDER,
        ),
        Wrong(
            "across classes",
            across_classes,
            "A detection of one class removes another class: a rider does not remove the horse.",
            "Two conditions, joined by &.",
        ),
        Wrong(
            "moved too little",
            moved_by_the_label,
            "You move the classes apart, but not far enough: their boxes still overlap.",
            "Each class must move by more than the largest coordinate; or compare the labels.",
        ),
        Wrong(
            "class by class",
            class_by_class,
            "Your indices come class by class: the highest score of all comes first.",
            "Sort what is left once more, or go through all classes together.",
        ),
        Wrong(
            "labels left behind",
            labels_left_behind,
            "You sort the boxes by score, but not their labels: you compare the classes of other detections.",
            "labels[order] goes with boxes[order]. Or sort nothing, and go through `order`.",
        ),
        Wrong(
            "indices within each class",
            within_each_class,
            "Your indices count within each class: they are places among all detections that you were given.",
            "Go through all classes together; then indices stay what they are.",
        ),
        Wrong(
            "skips while it removes",
            skips_while_it_removes,
            "You remove from a list while a loop goes through it: the loop then skips the next one.",
            "Make a new list of those that stay.",
        ),
        Wrong(
            "best of each class",
            best_of_each_class,
            "You keep one detection of each class: those that do not overlap are other objects.",
            "Two cars are of one class.",
        ),
        Wrong(
            "the gone remove too",
            gone_remove_too,
            "A detection that has gone still removes others: only those that are kept do.",
            "1 removes 2; 2 would remove 3, but is no longer there. So 3 stays.",
        ),
        Wrong(
            "one round",
            only_the_best_removes,
            "Only the very best detection removes others: each one that is kept does.",
            KEPT,
        ),
        Wrong(
            "only the last one kept",
            only_the_last_kept,
            "You compare with the detection that was kept last: compare with all that were kept.",
            KEPT,
        ),
        Wrong(
            "suppresses itself",
            suppresses_itself,
            "Nothing is left: each detection overlaps itself fully, but only others may remove it.",
            "Compare with those that are kept already, before the detection is one of them.",
        ),
        Wrong(
            "kept boxes grow",
            kept_boxes_grow,
            "Your kept boxes grow around what they remove, and then remove more: boxes stay as they are.",
            "Suppression chooses among boxes. It makes none.",
        ),
        Wrong(
            "changes the boxes",
            changes_boxes,
            "You change the boxes that you were given: whoever called you still needs them.",
            "`boxes += ...` works in place; `boxes = boxes + ...` makes new ones.",
        ),
        Wrong(
            "changes the scores",
            changes_scores,
            "You change the scores that you were given: whoever called you still needs them.",
            "Work on scores.clone().",
        ),
        Wrong(
            "keeps what overlaps",
            keeps_what_overlaps,
            "You remove what does not overlap, and keep what does: it must be the other way.",
            "A detection goes if its IoU is above the threshold.",
        ),
        Wrong(
            "over the smaller area",
            over_the_smaller,
            "You divide the intersection by the smaller area: the IoU divides by the union.",
            "StarDist does as you did, in lab 9. Detectors keep a small box inside of a large one.",
        ),
        Wrong(
            "sorted by index",
            by_index,
            "Your indices are in ascending order: the highest score comes first.",
            "Append to the list in the order in which detections are kept.",
        ),
        Wrong(
            "bools",
            flags,
            "You give a True or False for each detection: give the indices of those that are kept.",
            "A list of indices, the highest score first.",
        ),
        Wrong(
            "places in the sorted list",
            ranks,
            "You give places in the sorted list: give the indices of the detections as they came.",
            "order[place] is the index.",
        ),
        Wrong(
            "boxes",
            kept_boxes,
            "You give the boxes that are kept: give their indices.",
            "With the indices, the caller finds scores and labels too.",
        ),
        Wrong(
            "fails without detections",
            fails_without_detections,
            "Your function fails where there is no detection: then there is no index.",
            "The best of none does not exist. An empty list is an answer.",
        ),
    ],
)
