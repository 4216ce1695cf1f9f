"""label_by_detector: SAM's masks have no names, a detector's boxes have no masks; together they have both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segedu.ops.matching import hungarian_matching
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab16_promptable import overlaps as count
from segedu.teaching.exercises.lab16_promptable.detected import cases
from segedu.teaching.exercises.lab16_promptable.overlaps import Overlaps, inside, iou, ious, shared

Named = tuple[Tensor, Tensor, Tensor]
EPS = 1e-6  # of a pixel


def label_by_detector(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """Give SAM's masks the names that a detector has for its boxes.

    The pixels of a box are those whose centre is inside: that of row y and column x is (x + 0.5, y + 0.5), and

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    A mask and a box are compared by the IoU of their pixels; it is 0 where both are empty. The detections choose by
    falling score, of equal scores the first of the list. Each takes, of all masks that nobody has taken yet, the one
    with the largest IoU with its box, of equal ones the first, if this IoU is at least `iou_threshold`. Otherwise it
    takes none.

    Args:
        masks: (M, H, W) bool, without names. Perhaps M = 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels. Perhaps N = 0.
        labels: (N,) integers, the classes of the boxes.
        scores: (N,) floats.
        iou_threshold: above 0.

    Returns:
        For each detection that took a mask, by falling score: (R,) integers, which mask; (R,) integers, its label;
        and (R,) floats, its score.

    Example: the second mask fills the box.

        >>> masks = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]]]).bool()
        >>> box = torch.tensor([[2.0, 0.0, 4.0, 1.0]])
        >>> label_by_detector(masks, box, torch.tensor([7]), torch.tensor([0.9]), 0.5)
        (tensor([1]), tensor([7]), tensor([0.9000]))
    """
    overlap, taken, chose = ious(masks, boxes), [], []
    for n in scores.argsort(descending=True, stable=True).tolist():
        free = overlap[n].clone()
        free[taken] = -1.0
        if len(free) and free.max() >= iou_threshold:
            taken.append(int(free.argmax()))
            chose.append(n)
    return torch.tensor(taken, dtype=torch.int64), labels[chose], scores[chose]


def _order(scores: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


Orders = Callable[[Tensor, Tensor, Tensor], Tensor]


def _choose(
    overlaps: Overlaps = ious,
    order: Orders = _order,
    accepted: Callable[[float, float], bool] = lambda iou, threshold: iou >= threshold,
    pick: Callable[[Tensor, list[int]], int] = lambda row, taken: int(_without(row, taken).argmax()),
    once: bool = True,
    end: Callable[..., object] = lambda taken, chose, labels, scores: (taken, labels[chose], scores[chose]),
) -> Callable[..., object]:
    """The right answer, each question replaced by another; not `once`: a mask may be taken several times."""

    def answer(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> object:
        overlap, taken, chose = overlaps(masks, boxes), [], []
        for n in order(scores, masks, boxes).tolist():
            if not len(masks):
                break
            m = pick(overlap[n], taken if once else [])
            if (m not in taken or not once) and accepted(float(overlap[n, m]), iou_threshold):
                taken.append(m)
                chose.append(n)
        return end(torch.tensor(taken, dtype=torch.int64), chose, labels, scores)

    return answer


def _without(row: Tensor, taken: list[int]) -> Tensor:
    row = row.clone()
    row[taken] = -1.0
    return row


def most_pixels(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> object:
    """The mask that shares most pixels, if its IoU is large enough."""
    overlap, pixels = ious(masks, boxes), shared(inside(boxes, masks.shape[1:]), masks)[0]
    taken, chose = [], []
    for n in _order(scores, masks, boxes).tolist():
        m = int(_without(pixels[n], taken).argmax()) if len(masks) else 0
        if len(masks) and m not in taken and overlap[n, m] >= iou_threshold:
            taken.append(m)
            chose.append(n)
    return torch.tensor(taken, dtype=torch.int64), labels[chose], scores[chose]


def masks_choose(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """Each mask takes its best box; boxes may be taken several times."""
    overlap = ious(masks, boxes)
    if not overlap.numel():
        return torch.zeros(0, dtype=torch.int64), labels[:0], scores[:0]
    best, found = overlap.max(dim=0)
    named = (best >= iou_threshold).nonzero()[:, 0]
    named = named[scores[found[named]].argsort(descending=True, stable=True)]
    return named, labels[found[named]], scores[found[named]]


def matched(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """The largest sum of IoUs."""
    overlap = ious(masks, boxes)
    rows, columns = hungarian_matching(-overlap)
    kept = overlap[rows, columns] >= iou_threshold
    rows, columns = rows[kept], columns[kept]
    order = scores[rows].argsort(descending=True, stable=True)
    return columns[order], labels[rows[order]], scores[rows[order]]


def best_pair_first(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """Of all pairs that are left the one with the largest IoU."""
    overlap, pairs = ious(masks, boxes), []
    while overlap.numel() and overlap.max() >= iou_threshold:
        n, m = divmod(int(overlap.argmax()), len(masks))
        overlap[n], overlap[:, m] = -1.0, -1.0
        pairs.append((n, m))
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    chose, taken = found[scores[found[:, 0]].argsort(descending=True, stable=True)].T
    return taken, labels[chose], scores[chose]


def label_for_each(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The label of each mask, -1 for none."""
    taken, named, _ = label_by_detector(masks, boxes, labels, scores, iou_threshold)
    found = torch.full((len(masks),), -1)
    found[taken] = named
    return found


def the_masks(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """The masks themselves."""
    taken, named, sure = label_by_detector(masks, boxes, labels, scores, iou_threshold)
    return masks[taken], named, sure


def fails_without_masks(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """The largest of no numbers."""
    ious(masks, boxes).max(dim=1)
    return label_by_detector(masks, boxes, labels, scores, iou_threshold)


def by_area_at_last(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Named:
    """SAM's masks are often listed by area."""
    found = label_by_detector(masks, boxes, labels, scores, iou_threshold)
    order = masks[found[0]].sum(dim=(1, 2)).argsort(descending=True, stable=True)
    return tuple(part[order] for part in found)


def _whole(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def _first(labels: Tensor, chose: list[int]) -> Tensor:
    return labels[: len(chose)]


by_boxes = _choose(overlaps=count.by_boxes)
unsorted = _choose(order=lambda scores, masks, boxes: torch.arange(len(scores)))
lowest_first = _choose(order=lambda scores, masks, boxes: scores.argsort(stable=True))
last_of_equals = _choose(order=lambda scores, masks, boxes: scores.argsort(stable=True).flip(0))
large_boxes_first = _choose(
    order=lambda scores, masks, boxes: (
        inside(boxes, masks.shape[1:]).sum(dim=(1, 2)).argsort(descending=True, stable=True)
    )
)
duplicates = _choose(once=False)
best_or_none = _choose(pick=lambda row, taken: int(row.argmax()))
last_of_equal_masks = _choose(pick=lambda row, taken: len(row) - 1 - int(_without(row, taken).flip(0).argmax()))
any_overlap = _choose(accepted=lambda iou, threshold: iou > 0)
above_only = _choose(accepted=lambda iou, threshold: iou > threshold)
always_half = _choose(accepted=lambda iou, threshold: iou >= 0.5)
whole_pixels, ends_included, in_numbers, empty_is_one = (
    _choose(overlaps=o) for o in (count.of_whole_pixels, count.ends_included, count.in_numbers, count.empty_is_one)
)
of_the_box, of_the_mask, dice = (_choose(overlaps=o) for o in (count.part(1), count.part(2), count.dice))
y_before_x = _choose(overlaps=lambda masks, boxes: ious(masks, boxes[:, [1, 0, 3, 2]]))
read_as_sides = _choose(
    overlaps=lambda masks, boxes: ious(masks, torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
)
class_of_another = _choose(end=lambda taken, chose, labels, scores: (taken, _first(labels, chose), scores[chose]))
label_of_the_mask = _choose(end=lambda taken, chose, labels, scores: (taken, labels[taken], scores[chose]))
numbers_of_detections = _choose(end=lambda taken, chose, labels, scores: (_whole(chose), labels[chose], scores[chose]))
in_order_of_the_list = _choose(
    end=lambda taken, chose, labels, scores: (
        taken[_whole(chose).argsort()],
        labels[sorted(chose)],
        scores[sorted(chose)],
    )
)
scores_of_others = _choose(end=lambda taken, chose, labels, scores: (taken, labels[chose], _first(scores, chose)))
in_order_of_masks = _choose(
    end=lambda taken, chose, labels, scores: tuple(p[taken.argsort()] for p in (taken, labels[chose], scores[chose]))
)

corners = _choose(overlaps=lambda masks, boxes: iou(inside(boxes, masks.shape[1:], 0.0), masks))
last_centre_too = _choose(overlaps=lambda masks, boxes: ious(masks, boxes + EPS * torch.tensor([0, 0, 1, 1])))
first_centre_lost = _choose(overlaps=lambda masks, boxes: ious(masks, boxes + EPS * torch.tensor([1, 1, 0, 0])))

IOU = "Pixels that both have, divided by pixels that either has."
CHOSE = "Keep two lists: which mask was taken, and which detection took it. labels[chose], scores[chose]."
ORDER = "for n in scores.argsort(descending=True, stable=True): ..."
LEAST = "iou >= iou_threshold"
CENTRE = "x1 <= x + 0.5 < x2 for x = 0, 1, 2 ..., and likewise y."

exercise = Exercise(
    name="label_by_detector",
    points=3,
    cases=cases,
    reference=label_by_detector,
    tolerance=1e-6,
    kind="numbers",
    hides=["segedu.promptable.detect_then_segment"],
    wrong=[
        Wrong(
            "box IoU",
            by_boxes,
            "You compare boxes around masks: compare the pixels of the mask. A thin mask can have a large box.",
            "A mask and a box share pixels: (mask & inside).sum() / (mask | inside).sum().",
        ),
        Wrong(
            "share of the box",
            of_the_box,
            "You divide by the pixels of the box: a mask of the whole image would be best. Divide by the union.",
            IOU,
        ),
        Wrong(
            "share of the mask",
            of_the_mask,
            "You divide by the pixels of the mask: a single pixel would be best. Divide by the union.",
            IOU,
        ),
        Wrong("most pixels", most_pixels, "You take the mask with most pixels in the box: take the largest IoU.", IOU),
        Wrong("Dice", dice, "You take the Dice coefficient: take the IoU.", IOU),
        Wrong(
            "area in numbers", in_numbers, "You take width times height for the area of a box: count its pixels.", IOU
        ),
        Wrong("empty is 1", empty_is_one, "An empty box takes an empty mask: where both are empty the IoU is 0.", IOU),
        Wrong(
            "class of other",
            class_of_another,
            "You give masks the labels in the order of the list: each takes the label of the detection that took it.",
            CHOSE,
        ),
        Wrong(
            "label of the mask's number",
            label_of_the_mask,
            "You look up labels by the number of the mask: labels are those of detections.",
            CHOSE,
        ),
        Wrong(
            "scores of others",
            scores_of_others,
            "You return scores in the order of the list: those of the detections that took a mask.",
            CHOSE,
        ),
        Wrong(
            "duplicates",
            duplicates,
            "A mask is taken twice with you: who is surer takes it, the other looks on.",
            "Note which masks are taken, and leave them out of the argmax.",
        ),
        Wrong(
            "best or none",
            best_or_none,
            "Your detection takes nothing if its best mask is taken: it takes the best that is left.",
            "Leave out taken masks before the argmax.",
        ),
        Wrong(
            "masks choose",
            masks_choose,
            "Your masks choose their boxes: the detections choose, the surest first.",
            ORDER,
        ),
        Wrong(
            "largest sum",
            matched,
            "You find the largest sum of IoUs: the surest detection chooses first, whatever it leaves to others.",
            ORDER,
        ),
        Wrong(
            "best pair first",
            best_pair_first,
            "You join the pair with the largest IoU first: the surest detection chooses first.",
            ORDER,
        ),
        Wrong(
            "unsorted", unsorted, "Your detections choose in the order of the list: the surest chooses first.", ORDER
        ),
        Wrong("lowest first", lowest_first, "Your least sure detection chooses first.", ORDER),
        Wrong(
            "last of equals first",
            last_of_equals,
            "Of equal scores the last one chooses first with you: the first of the list does.",
            "scores.argsort(descending=True, stable=True)",
        ),
        Wrong("order by area", large_boxes_first, "Your largest box chooses first: the surest detection does.", ORDER),
        Wrong(
            "sorted by area", by_area_at_last, "You sort what is found by area: by falling score is asked for.", ORDER
        ),
        Wrong(
            "in the order of masks",
            in_order_of_masks,
            "You sort what is found by the number of the mask: by falling score is asked for.",
            ORDER,
        ),
        Wrong(
            "in the order of the list",
            in_order_of_the_list,
            "You return what is found in the order of the list: by falling score is asked for.",
            ORDER,
        ),
        Wrong(
            "last of equal masks",
            last_of_equal_masks,
            "Of equal IoUs you take the last mask: take the first.",
            "argmax gives the first.",
        ),
        Wrong("any overlap", any_overlap, "You accept any overlap: the IoU is at least iou_threshold.", LEAST),
        Wrong(
            "above the threshold",
            above_only,
            "You refuse an IoU of exactly iou_threshold: at least that much is enough.",
            LEAST,
        ),
        Wrong("always 1/2", always_half, "Your threshold is always 1/2: take the one that is given.", LEAST),
        Wrong(
            "box cut to whole pixels",
            whole_pixels,
            "You cut the box to whole pixels, as int() does: ask whether the centre of a pixel is inside.",
            CENTRE,
        ),
        Wrong("one pixel more", ends_included, "Your boxes hold one pixel more to the right and below.", CENTRE),
        Wrong(
            "corners for centres",
            corners,
            "You ask whether the corner of a pixel is in the box: ask for its centre.",
            CENTRE,
        ),
        Wrong(
            "last centre too",
            last_centre_too,
            "A centre at exactly x2 or y2 is in your box: the box ends just before.",
            CENTRE,
        ),
        Wrong(
            "first centre lost", first_centre_lost, "A centre at x1 or y1 is in the box: it is not in yours.", CENTRE
        ),
        Wrong(
            "y before x",
            y_before_x,
            "You read boxes as (y1, x1, y2, x2): they are (x1, y1, x2, y2).",
            "x goes along columns, the last axis.",
        ),
        Wrong(
            "read as sides",
            read_as_sides,
            "You read boxes as (x, y, w, h): they are (x1, y1, x2, y2).",
            "The last two are a corner.",
        ),
        Wrong(
            "a label for each mask",
            label_for_each,
            "You return a label for each mask: what was taken, its labels and its scores are asked for.",
            "return taken, labels[chose], scores[chose]",
        ),
        Wrong(
            "numbers of detections",
            numbers_of_detections,
            "You return which detections took a mask: first comes which mask each took.",
            CHOSE,
        ),
        Wrong("the masks themselves", the_masks, "You return masks: their numbers are asked for.", "(R,) integers."),
        Wrong(
            "fails without masks",
            fails_without_masks,
            "Your function fails where there is no mask: then nothing is found.",
            "The largest of no numbers is an error. A page without objects is normal.",
        ),
    ],
)
