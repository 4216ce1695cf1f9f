"""label_by_detector: masks of SAM, which have no class, get the labels of a detector's boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from segedu.ops.matching import hungarian_matching
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab16_promptable import overlaps
from segedu.teaching.exercises.lab16_promptable.detections import cases
from segedu.teaching.exercises.lab16_promptable.overlaps import inside, ious

Labelled = tuple[Tensor, Tensor, Tensor]
EPS = 1e-6  # of a pixel


def label_by_detector(masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, iou_threshold: float) -> Labelled:
    """Give SAM's masks the labels of a detector's boxes.

    The pixels of a box are those whose centre is inside. The centre of row y and column x is (x + 0.5, y + 0.5), and

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    A mask and a box are compared by the IoU of their pixels, which is 0 if both are empty. The detections choose in
    order of decreasing score; of equal scores the first in the list chooses first. Each detection takes, of all masks
    that are not taken yet, the one that has the largest IoU with its box, of equal ones the first, if this IoU is at
    least `iou_threshold`. Otherwise it takes no mask.

    Args:
        masks: (M, H, W) bool, without labels. M may be 0.
        boxes: (N, 4) floats (x1, y1, x2, y2) in pixels. N may be 0.
        labels: (N,) integers, the classes of the boxes.
        scores: (N,) floats.
        iou_threshold: above 0.

    Returns:
        For each detection that takes a mask, in order of decreasing score: (R,) integers, the index of the mask; (R,)
        integers, its label; and (R,) floats, its score.

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


right = Variants(label_by_detector)
Overlap = Callable[[Tensor, Tensor], Tensor]  # of masks (M, H, W) and boxes (N, 4): (N, M)


def _by_score(a: SimpleNamespace) -> Tensor:
    return a.scores.argsort(descending=True, stable=True)


def _with(
    overlap: Overlap = ious,
    ranked_by: Overlap | None = None,
    order: Callable[[SimpleNamespace], Tensor] = _by_score,
    excluded: Callable[[list[int]], list[int]] = lambda taken: taken,
    once: bool = True,
    end: Callable = lambda a, taken, chose: (torch.tensor(taken, dtype=torch.int64), a.labels[chose], a.scores[chose]),
) -> Callable[..., Labelled]:
    """Another step of the choice.

    Args:
        ranked_by: chooses among the masks, whose `overlap` is then compared with the threshold; by default `overlap`.
        excluded: of the masks taken so far, those that the search for the best mask leaves out.
        once: whether a mask can be taken only once.
        end: (arguments, masks taken, detections that took them) -> result.
    """

    def labelled(a: SimpleNamespace) -> Labelled:
        values, ranks = overlap(a.masks, a.boxes), (ranked_by or overlap)(a.masks, a.boxes).clone()
        taken, chose = [], []
        for n in order(a).tolist() if len(a.masks) else []:
            ranks[n, excluded(taken)] = -1.0
            m = int(ranks[n].argmax())
            if not (once and m in taken) and values[n, m] >= a.iou_threshold:
                taken.append(m)
                chose.append(n)
        return end(a, taken, chose)

    return right.instead(labelled)


def _with_boxes(change: Callable[[Tensor], Tensor]) -> Callable[..., Labelled]:
    return right.given(boxes=lambda a: change(a.boxes))


def _reordered(key: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Labelled]:
    """The right result in another order; `key` of the indices of the masks taken."""
    return right.then(lambda out, a: tuple(part[key(out[0], a)] for part in out))


def _masks_choose(a: SimpleNamespace) -> Labelled:
    """Each mask chooses its best box; boxes may be chosen several times."""
    overlap = ious(a.masks, a.boxes)
    if not overlap.numel():
        return torch.zeros(0, dtype=torch.int64), a.labels[:0], a.scores[:0]
    best, boxes = overlap.max(dim=0)
    masks = (best >= a.iou_threshold).nonzero()[:, 0]
    masks = masks[a.scores[boxes[masks]].argsort(descending=True, stable=True)]
    return masks, a.labels[boxes[masks]], a.scores[boxes[masks]]


def _largest_sum(a: SimpleNamespace) -> Labelled:
    overlap = ious(a.masks, a.boxes)
    rows, columns = hungarian_matching(-overlap)
    kept = overlap[rows, columns] >= a.iou_threshold
    return _sorted(a, rows[kept], columns[kept])


def _best_pair_first(a: SimpleNamespace) -> Labelled:
    overlap, pairs = ious(a.masks, a.boxes), []
    while overlap.numel() and overlap.max() >= a.iou_threshold:
        n, m = divmod(int(overlap.argmax()), len(a.masks))
        overlap[n], overlap[:, m] = -1.0, -1.0
        pairs.append((n, m))
    return _sorted(a, *torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T)


def _sorted(a: SimpleNamespace, chose: Tensor, taken: Tensor) -> Labelled:
    order = a.scores[chose].argsort(descending=True, stable=True)
    return taken[order], a.labels[chose[order]], a.scores[chose[order]]


def _label_of_each_mask(out: Labelled, a: SimpleNamespace) -> Tensor:
    labels = torch.full((len(a.masks),), -1)
    labels[out[0]] = out[1]
    return labels


def _in_order_of_the_list(a: SimpleNamespace, taken: list[int], chose: list[int]) -> Labelled:
    masks = torch.tensor(taken, dtype=torch.int64)[torch.tensor(chose, dtype=torch.int64).argsort()]
    return masks, a.labels[sorted(chose)], a.scores[sorted(chose)]


def _indices_of_detections(a: SimpleNamespace, taken: list[int], chose: list[int]) -> Labelled:
    return torch.tensor(chose, dtype=torch.int64), a.labels[chose], a.scores[chose]


def _fails_without_masks(a: SimpleNamespace) -> Labelled:
    ious(a.masks, a.boxes).max(dim=1)
    return label_by_detector(**vars(a))


def _area_of_boxes(a: SimpleNamespace) -> Tensor:
    return inside(a.boxes, a.masks.shape[1:]).sum(dim=(1, 2))


IOU = "The number of pixels in both, divided by the number of pixels in either."
CHOSE = "Keep two lists: the masks taken, and the detections that took them. labels[chose], scores[chose]."
ORDER = "for n in scores.argsort(descending=True, stable=True): ..."
LEAST = "iou >= iou_threshold"
CENTRE = "x1 <= x + 0.5 < x2 for x = 0, 1, 2 ..., and likewise for y."

WRONG = [
    Wrong(
        "box IoU",
        right.given(masks=lambda a: overlaps.filled_boxes(a.masks)),
        "You compare bounding boxes of the masks. Compare the pixels: a thin mask can have a large box.",
        "(mask & inside).sum() / (mask | inside).sum()",
    ),
    Wrong(
        "share of the box",
        _with(overlaps.share_of_box),
        "You divide by the pixels of the box, so a mask of the whole image is best. Divide by the union.",
        IOU,
    ),
    Wrong(
        "share of the mask",
        _with(overlaps.share_of_mask),
        "You divide by the pixels of the mask, so a single pixel can be best. Divide by the union.",
        IOU,
    ),
    Wrong(
        "most pixels",
        _with(ranked_by=lambda masks, boxes: overlaps.areas(masks, boxes)[0]),
        "You choose the mask with the most pixels in the box. Choose the mask with the largest IoU.",
        IOU,
    ),
    Wrong("Dice", _with(overlaps.dice), "You compute the Dice coefficient of mask and box. Compute their IoU.", IOU),
    Wrong(
        "area in numbers",
        _with(overlaps.with_width_times_height),
        "You use width times height as the area of a box. Count the pixels whose centre is inside.",
        IOU,
    ),
    Wrong(
        "empty is 1",
        _with(overlaps.with_empty_as_one),
        "Your IoU of an empty box and an empty mask is not 0. It should be 0.",
        IOU,
    ),
    Wrong(
        "class of other",
        right.then(lambda out, a: (out[0], a.labels[: len(out[0])], out[2])),
        "You assign the labels in the order of the list. A mask should get the label of the detection that takes it.",
        CHOSE,
    ),
    Wrong(
        "label of the mask's number",
        right.then(lambda out, a: (out[0], a.labels[out[0]], out[2])),
        "You use the index of the mask for the labels. Use the index of the detection that takes the mask.",
        CHOSE,
    ),
    Wrong(
        "scores of others",
        right.then(lambda out, a: (*out[:2], a.scores[: len(out[0])])),
        "You return the first scores of the list. Return the scores of the detections that take a mask.",
        CHOSE,
    ),
    Wrong(
        "duplicates",
        _with(excluded=lambda taken: [], once=False),
        "You assign the same mask to two detections. Only the more confident one may take it.",
        "Remember which masks are taken, and exclude them from the argmax.",
    ),
    Wrong(
        "best or none",
        _with(excluded=lambda taken: []),
        "Your detection takes no mask if its best mask is taken. It should take the best mask that is left.",
        "Exclude the masks that are taken before the argmax.",
    ),
    Wrong("masks choose", right.instead(_masks_choose), "Your masks choose boxes. The detections choose masks.", ORDER),
    Wrong(
        "largest sum",
        right.instead(_largest_sum),
        "You maximise the sum of the IoUs. Let the most confident detection choose first, then the next one.",
        ORDER,
    ),
    Wrong(
        "best pair first",
        right.instead(_best_pair_first),
        "You match the pair with the largest IoU first. Let the most confident detection choose first.",
        ORDER,
    ),
    Wrong(
        "unsorted",
        _with(order=lambda a: torch.arange(len(a.scores))),
        "Your detections choose in the order of the list. The most confident one should choose first.",
        ORDER,
    ),
    Wrong(
        "lowest first",
        _with(order=lambda a: a.scores.argsort(stable=True)),
        "Your least confident detection chooses first. The most confident one should choose first.",
        ORDER,
    ),
    Wrong(
        "last of equals first",
        _with(order=lambda a: a.scores.argsort(stable=True).flip(0)),
        "Of detections with equal scores, your last one chooses first. The first one in the list should choose first.",
        "scores.argsort(descending=True, stable=True)",
    ),
    Wrong(
        "order by area",
        _with(order=lambda a: _area_of_boxes(a).argsort(descending=True, stable=True)),
        "Your detection with the largest box chooses first. The most confident one should choose first.",
        ORDER,
    ),
    Wrong(
        "sorted by area",
        _reordered(lambda taken, a: a.masks[taken].sum(dim=(1, 2)).argsort(descending=True, stable=True)),
        "You sort the result by area. Sort it by decreasing score.",
        ORDER,
    ),
    Wrong(
        "in the order of masks",
        _reordered(lambda taken, a: taken.argsort()),
        "You sort the result by the index of the mask. Sort it by decreasing score.",
        ORDER,
    ),
    Wrong(
        "in the order of the list",
        _with(end=_in_order_of_the_list),
        "You return the result in the order of the list. Sort it by decreasing score.",
        ORDER,
    ),
    Wrong(
        "last of equal masks",
        Variants(right.given(masks=lambda a: a.masks.flip(0))).then(
            lambda out, a: (len(a.masks) - 1 - out[0], *out[1:])
        ),
        "Of masks with equal IoUs you take the last one. Take the first one.",
        "argmax returns the first.",
    ),
    Wrong("any overlap", right.given(iou_threshold=lambda a: EPS), "You accept any overlap. Use iou_threshold.", LEAST),
    Wrong(
        "above the threshold",
        right.given(iou_threshold=lambda a: math.nextafter(a.iou_threshold, 2)),
        "You reject an IoU that is exactly iou_threshold. Accept it.",
        LEAST,
    ),
    Wrong(
        "always 1/2",
        right.given(iou_threshold=lambda a: 0.5),
        "Your threshold is always 1/2. Use the argument iou_threshold.",
        LEAST,
    ),
    Wrong(
        "box cut to whole pixels",
        _with_boxes(torch.floor),
        "You round the box down to integers, as int() does. Test whether the centre of a pixel is inside.",
        CENTRE,
    ),
    Wrong(
        "one pixel more",
        _with_boxes(lambda boxes: boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])),
        "Your boxes include one pixel too many on the right and at the bottom. A pixel is inside only if its "
        "centre is.",
        CENTRE,
    ),
    Wrong(
        "corners for centres",
        _with_boxes(lambda boxes: boxes + 0.5),
        "You test whether the corner of a pixel is in the box. Test whether its centre is.",
        CENTRE,
    ),
    Wrong(
        "last centre too",
        _with_boxes(lambda boxes: boxes + EPS * torch.tensor([0, 0, 1, 1])),
        "Your box includes a centre at exactly x2 or y2. Such a centre is outside.",
        CENTRE,
    ),
    Wrong(
        "first centre lost",
        _with_boxes(lambda boxes: boxes + EPS * torch.tensor([1, 1, 0, 0])),
        "Your box excludes a centre at exactly x1 or y1. Such a centre is inside.",
        CENTRE,
    ),
    Wrong(
        "y before x",
        _with_boxes(lambda boxes: boxes[:, [1, 0, 3, 2]]),
        "You read boxes as (y1, x1, y2, x2). They are (x1, y1, x2, y2).",
        "x runs along the columns, the last axis.",
    ),
    Wrong(
        "read as sides",
        _with_boxes(lambda boxes: torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)),
        "You read boxes as (x, y, w, h). They are (x1, y1, x2, y2).",
        "The last two values are a corner.",
    ),
    Wrong(
        "a label for each mask",
        right.then(_label_of_each_mask),
        "You return one label per mask. Return the masks that were taken, their labels and their scores.",
        "return taken, labels[chose], scores[chose]",
    ),
    Wrong(
        "numbers of detections",
        _with(end=_indices_of_detections),
        "You return the indices of the detections. Return the index of the mask that each of them takes.",
        CHOSE,
    ),
    Wrong(
        "the masks themselves",
        right.then(lambda out, a: (a.masks[out[0]], *out[1:])),
        "You return the masks themselves. Return their indices.",
        "(R,) integers.",
    ),
    Wrong(
        "fails without masks",
        right.instead(_fails_without_masks),
        "Your function fails if there are no masks. It should then return three empty tensors.",
        "The maximum of an empty tensor is an error. Images without objects are normal.",
    ),
]

exercise = Exercise(
    name="label_by_detector",
    points=3,
    cases=cases,
    reference=label_by_detector,
    wrong=WRONG,
    tolerance=1e-6,
    kind="numbers",
    hides=["segedu.promptable.detect_then_segment"],
)
