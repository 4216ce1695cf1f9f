"""box_iou: intersection over union of every box of one set with every box of another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import box_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

HOMEWORK = ([[0.0, 0.0, 2.0, 2.0]], [[1.0, 1.0, 3.0, 4.0]])


def around(rng: np.random.Generator, count: int, point: tuple[float, float]) -> Tensor:
    """Random boxes (count, 4), float64, that all contain this point; corners on quarters of a pixel."""
    before, after = rng.integers(2, 25, (2, count, 2)) / 4
    return torch.from_numpy(np.concatenate([point - before, point + after], axis=1))


def shifted(box: Tensor, shifts: list[tuple[float, float]]) -> Tensor:
    """Copies of a box (1, 4), each moved by (dx, dy)."""
    return torch.cat([box + torch.tensor([dx, dy, dx, dy]) for dx, dy in shifts])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, overlapping sets of different sizes; boxes apart, touching, nested, tiny; no box."""
    box = around(rng, 1, (3.0, 5.0))
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    apart = shifted(box, [(width + 2, height + 1), (width + 3, 0.5), (0.25, -height - 1), (width, 0), (0, 0)])
    inside = box + torch.tensor([0.25, 0.5, -0.25, -0.25])
    core = [
        case("the boxes of the homework", *map(torch.tensor, HOMEWORK)),
        case("3 and 2 boxes", around(rng, 3, (6.0, 4.0)), around(rng, 2, (6.5, 3.0))),
        case("1 and 4 boxes", around(rng, 1, (-2.0, 9.0)), around(rng, 4, (-2.5, 8.0))),
    ]
    edge = [
        case("boxes apart, touching and equal", box, apart),
        case("a box inside another", torch.cat([box, inside]), box),
        case("no box in the first set", box[:0], apart),
        case("boxes smaller than a pixel", *[around(rng, n, (6.0, 4.0)) / 32 for n in (2, 3)]),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _ratio(inter: Tensor, union: Tensor) -> Tensor:
    return torch.where(union != 0, inter / union, 0.0)


def _clamped(sides: Tensor) -> Tensor:
    return sides.clamp(min=0).prod(-1)


def _iou(boxes1: Tensor, boxes2: Tensor, area: Callable[[Tensor], Tensor] = _clamped) -> Tensor:
    """IoU of any boxes, also impossible ones; `area` of the signed sides (N, M, 2) of the intersections."""
    inter = area(torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, None, :2], boxes2[:, :2]))
    return _ratio(inter, _area(boxes1)[:, None] + _area(boxes2) - inter)


def inclusive(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Take widths as x2 - x1 + 1."""
    one = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return box_iou(boxes1 + one, boxes2 + one)


def _from_centre_size(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _from_corner_size(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def paired(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compare box i with box i only, (N,)."""
    sides = torch.minimum(boxes1[:, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, :2], boxes2[:, :2])
    inter = sides.clamp(min=0).prod(1)
    return _ratio(inter, _area(boxes1) + _area(boxes2) - inter)


def _over(a, whole: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Intersections divided by `whole(intersections, areas of boxes1, areas of boxes2, areas of enclosing boxes)`."""
    first, second = a.boxes1[:, None], a.boxes2
    inter = _clamped(torch.minimum(first[..., 2:], second[:, 2:]) - torch.maximum(first[..., :2], second[:, :2]))
    hull = (torch.maximum(first[..., 2:], second[:, 2:]) - torch.minimum(first[..., :2], second[:, :2])).prod(-1)
    return inter / whole(inter, *torch.broadcast_tensors(_area(a.boxes1)[:, None], _area(a.boxes2)), hull)


def _areas_from_last_two(a) -> Tensor:
    whole = [boxes[:, 2:].prod(1) for boxes in (a.boxes1, a.boxes2)]
    return _over(a, lambda inter, first, second, hull: whole[0][:, None] + whole[1] - inter)


CORNER_HINT = "The last two values are the lower right corner."
UNION_HINT = "The union is the sum of the two areas, minus the intersection."
right = Variants(box_iou)

wrong = [
    Wrong(
        "inclusive pixels",
        inclusive,
        "You measure a box as x2 - x1 + 1 pixels. Coordinates are continuous here, so its width is x2 - x1.",
        "A box from 0 to 2 is 2 wide.",
    ),
    Wrong(
        "no clamp",
        right.instead(lambda a: _iou(a.boxes1, a.boxes2, lambda sides: sides.prod(-1))),
        "You multiply negative widths and heights, so boxes that do not overlap get an intersection. It has to be 0.",
        "How wide is the intersection if its right edge lies to the left of its left edge?",
    ),
    Wrong(
        "clamp after the product",
        right.instead(lambda a: _iou(a.boxes1, a.boxes2, lambda sides: sides.prod(-1).clamp(min=0))),
        "You clamp the area of the intersection. Clamp width and height: two negative numbers have a positive product.",
        "For boxes apart in x and in y, width and height of the intersection are both negative. Clamp each.",
    ),
    Wrong(
        "read as cxcywh",
        right.instead(lambda a: _iou(_from_centre_size(a.boxes1), _from_centre_size(a.boxes2))),
        "You read the boxes as (centre x, centre y, width, height). They are (x1, y1, x2, y2).",
        CORNER_HINT,
    ),
    Wrong(
        "read as xywh",
        right.instead(lambda a: _iou(_from_corner_size(a.boxes1), _from_corner_size(a.boxes2))),
        "You read the boxes as (x, y, width, height), as COCO stores them. They are (x1, y1, x2, y2).",
        CORNER_HINT,
    ),
    Wrong(
        "denominator without -I",
        right.then(lambda iou, a: iou / (1 + iou)),  # I / (A + B), since IoU = I / (A + B - I)
        "Your denominator is the sum of both areas. It counts the intersection twice.",
        "Take two equal boxes. Their IoU must be 1.",
    ),
    Wrong(
        "transposed",
        right.given(boxes1=lambda a: a.boxes2, boxes2=lambda a: a.boxes1),
        "Your result has shape (M, N). Rows must belong to boxes1, columns to boxes2.",
        "Which of the two sets gets the first axis?",
    ),
    Wrong(
        "paired",
        paired,
        "You compare box i with box i only. Compare every box of boxes1 with every box of boxes2.",
        "Give boxes1 the shape (N, 1, 4) and boxes2 the shape (1, M, 4), and use broadcasting.",
    ),
    Wrong(
        "area of the first",
        right.instead(lambda a: _over(a, lambda inter, first, second, hull: 2 * first - inter)),
        "You add the area of the first box twice. Add the areas of both boxes.",
        "The area of the second box comes from boxes2.",
    ),
    Wrong(
        "over the smaller area",
        right.instead(lambda a: _over(a, lambda inter, first, second, hull: torch.minimum(first, second))),
        "You divide by the smaller of the two areas. Divide by the area of the union.",
        UNION_HINT,
    ),
    Wrong(
        "over the enclosing box",
        right.instead(lambda a: _over(a, lambda inter, first, second, hull: hull)),
        "You divide by the area of the box that encloses both. Divide by the area of the union.",
        UNION_HINT,
    ),
    Wrong(
        "Dice",
        right.then(lambda iou, a: 2 * iou / (1 + iou)),
        "You return twice the intersection over the sum of the areas, which is the Dice coefficient. Return the IoU.",
        UNION_HINT,
    ),
    Wrong(
        "rounded",
        right.given(boxes1=lambda a: a.boxes1.round(), boxes2=lambda a: a.boxes2.round()),
        "You round the coordinates to integers. They are continuous here, so do not round them.",
        "A box can be smaller than a pixel.",
    ),
    Wrong(
        "rounded down",
        right.given(boxes1=lambda a: a.boxes1.trunc(), boxes2=lambda a: a.boxes2.trunc()),
        "You cut off the fractions of the coordinates. They are continuous here, so do not round them.",
        "A box can be smaller than a pixel.",
    ),
    Wrong(
        "only the width clamped",
        right.instead(lambda a: _iou(a.boxes1, a.boxes2, lambda sides: sides[..., 0].clamp(min=0) * sides[..., 1])),
        "You clamp only the width of the intersection. Its height can be negative, too.",
        "Two boxes that overlap in x can be apart in y.",
    ),
    Wrong(
        "height from x",
        right.instead(lambda a: _iou(a.boxes1, a.boxes2, lambda sides: sides[..., 0].clamp(min=0) ** 2)),
        "You compute the height of the intersection from the x coordinates. Use y1 and y2.",
        "The coordinates are x1, y1, x2, y2: the indices of y are 1 and 3.",
    ),
    Wrong(
        "areas as x2 * y2",
        right.instead(_areas_from_last_two),
        "You use x2 and y2 as width and height of the boxes. A box is x2 - x1 wide and y2 - y1 high.",
        CORNER_HINT,
    ),
    Wrong(
        "empty set raises",
        right.then(lambda iou, a: iou + 0 / len(iou)),
        "Your function raises an error if a set has no box. Return a matrix with 0 rows or columns.",
        "Broadcasting treats empty sets correctly. A loop with `torch.stack` does not.",
    ),
    Wrong(
        "empty set without columns",
        right.then(lambda iou, a: iou if len(iou) else iou.new_zeros(0)),
        "If the first set has no box, your result has shape (0,). Its shape should be (0, M).",
        "`torch.tensor` of an empty list has shape (0,). Create the matrix with its final shape first.",
    ),
]

exercise = Exercise(
    name="box_iou",
    points=4,
    cases=cases,
    reference=box_iou,
    wrong=wrong,
    kind="boxes",
    hides=["segedu.ops.boxes", "segedu.losses", "segedu.metrics.coco_overlap"],
)
