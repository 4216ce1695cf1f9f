"""giou: generalised IoU, which still changes when boxes do not overlap."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import box_iou, generalized_box_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab04_metrics.box_iou import HOMEWORK, around, shifted


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework and overlapping sets; boxes apart, touching, nested, equal, tiny."""
    box = around(rng, 1, (4.0, -3.0))
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    apart = shifted(box, [(width + 1, height + 2), (3 * width + 4, 0.5), (0.25, -height), (-width - 1, height + 1)])
    inside = box + torch.tensor([0.25, 0.5, -0.25, -0.25])
    core = [
        case("the boxes of the homework", *map(torch.tensor, HOMEWORK)),
        case("3 and 2 boxes", around(rng, 3, (6.0, 4.0)), around(rng, 2, (6.5, 3.0))),
    ]
    edge = [
        case("boxes apart and touching", box, apart),
        case("a box inside another, and equal boxes", torch.cat([inside, box]), box),
        case("boxes smaller than a pixel", *[around(rng, n, (6.0, 4.0)) / 32 for n in (2, 3)]),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, union and enclosing area of every pair."""
    iou = box_iou(a, b)
    areas = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)
    union = areas / (1 + iou)  # since I = IoU * U and U = A + B - I
    hull = (torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2], b[:, :2])).prod(-1)
    return iou, union, hull


def _pairs(a) -> SimpleNamespace:
    """The parts of GIoU of every pair: IoU, areas, union, and sides and area of the enclosing box."""
    first, second = a.boxes1[:, None], a.boxes2
    iou, union, hull = _parts(a.boxes1, a.boxes2)
    areas = torch.broadcast_tensors(
        (first[..., 2:] - first[..., :2]).prod(-1), (second[:, 2:] - second[:, :2]).prod(-1)
    )
    sides = torch.maximum(first[..., 2:], second[:, 2:]) - torch.minimum(first[..., :2], second[:, :2])
    summed = (first[..., 2:] - first[..., :2] + second[:, 2:] - second[:, :2]).prod(-1)
    return SimpleNamespace(a=a, iou=iou, areas=areas, union=union, hull=hull, sides=sides, summed=summed)


def _penalised(a, penalty: Callable[[SimpleNamespace], Tensor]) -> Tensor:
    """IoU minus another penalty."""
    parts = _pairs(a)
    return parts.iou - penalty(parts)


def _around_all(a) -> Tensor:
    boxes = torch.cat([a.boxes1, a.boxes2])
    return (boxes[:, 2:].amax(0) - boxes[:, :2].amin(0)).prod()


def _distance(p: SimpleNamespace) -> Tensor:
    first, second = p.a.boxes1[:, None], p.a.boxes2
    centres = (first[..., :2] + first[..., 2:] - second[:, :2] - second[:, 2:]) / 2
    return centres.pow(2).sum(-1) / p.sides.pow(2).sum(-1)


def _without_clamp(a) -> Tensor:
    p = _pairs(a)
    first, second = a.boxes1[:, None], a.boxes2
    inter = (torch.minimum(first[..., 2:], second[:, 2:]) - torch.maximum(first[..., :2], second[:, :2])).prod(-1)
    union = p.areas[0] + p.areas[1] - inter
    return inter / union - (p.hull - union) / p.hull


def clipped(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Never return less than 0."""
    return generalized_box_iou(boxes1, boxes2).clamp(min=0)


def encloses_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Swap minimum and maximum, so that C is the area of the intersection."""
    iou, union, _ = _parts(boxes1, boxes2)
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    inner = (bottom_right - top_left).prod(-1)
    return iou - (inner - union) / inner


def over_union(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Subtract (C - U) / U."""
    iou, union, hull = _parts(boxes1, boxes2)
    return iou - (hull - union) / union


def without_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Subtract (C - I) / C."""
    iou, union, hull = _parts(boxes1, boxes2)
    return iou - (hull - iou * union) / hull


right = Variants(generalized_box_iou)

wrong = [
    Wrong(
        "clipped at 0",
        clipped,
        "You clip GIoU at 0. Keep negative values, which measure how far apart two boxes are.",
        "GIoU lies between -1 and 1. Clamp only the sides of the intersection.",
    ),
    Wrong(
        "encloses the intersection",
        encloses_intersection,
        "Your box C is the intersection. It must be the smallest box that encloses both boxes.",
        "The enclosing box starts at the smaller x1 and ends at the larger x2.",
    ),
    Wrong(
        "penalty over U",
        over_union,
        "You divide C - U by U. Divide it by C: the penalty is the empty fraction of C.",
        "The penalty lies between 0 and 1. Can yours be larger?",
    ),
    Wrong(
        "loss",
        right.then(lambda giou, a: 1 - giou),
        "You return the loss, 1 - GIoU. Return GIoU itself.",
        "Equal boxes have GIoU 1.",
    ),
    Wrong(
        "sign",
        right.then(lambda giou, a: 2 * box_iou(a.boxes1, a.boxes2) - giou),
        "You add the penalty. Subtract it: empty space in C makes the value smaller.",
        "When two boxes move apart, C grows, and GIoU must fall.",
    ),
    Wrong(
        "C minus I",
        without_intersection,
        "You subtract the intersection from C. Subtract the union: the penalty counts what neither box covers.",
        "If one box lies inside the other, C is the outer box, and the penalty is 0.",
    ),
    Wrong(
        "plain IoU",
        box_iou,
        "You return the IoU. The penalty for empty space in the enclosing box is missing.",
        "Subtract (C - U) / C.",
    ),
    Wrong(
        "C is the larger box",
        right.instead(lambda a: _penalised(a, lambda p: (torch.maximum(*p.areas) - p.union) / torch.maximum(*p.areas))),
        "Your C is the area of the larger of the two boxes. It must be that of the smallest box that encloses both.",
        "The enclosing box starts at the smaller x1 and ends at the larger x2.",
    ),
    Wrong(
        "C is a square",
        right.instead(lambda a: _penalised(a, lambda p: 1 - p.union / p.sides.amax(-1) ** 2)),
        "Your enclosing box is a square. It must be the smallest box, which can have different sides.",
        "Width and height of C are computed separately.",
    ),
    Wrong(
        "C from the sum of sides",
        right.instead(lambda a: _penalised(a, lambda p: 1 - p.union / p.summed)),
        "The sides of your enclosing box are the sums of the sides of both boxes. Compute them from its corners.",
        "The enclosing box starts at the smaller x1 and ends at the larger x2.",
    ),
    Wrong(
        "one C for all",
        right.instead(lambda a: _penalised(a, lambda p: 1 - p.union / _around_all(a))),
        "You use one enclosing box around all boxes. Every pair has its own.",
        "C has shape (N, M), like the IoU.",
    ),
    Wrong(
        "not divided by C",
        right.instead(lambda a: _penalised(a, lambda p: p.hull - p.union)),
        "You subtract the area C - U. Divide it by C: the penalty is the empty fraction of C.",
        "The penalty lies between 0 and 1. Can yours be larger?",
    ),
    Wrong(
        "I over C",
        right.instead(lambda a: (lambda p: p.iou * p.union / p.hull - 1 + p.union / p.hull)(_pairs(a))),
        "Your first term is the intersection divided by C. It should be the IoU, which divides it by the union.",
        "Only the penalty is a fraction of C.",
    ),
    Wrong(
        "covered fraction",
        right.instead(lambda a: _penalised(a, lambda p: p.union / p.hull)),
        "You subtract U / C, the covered fraction of C. Subtract the empty fraction, (C - U) / C.",
        "If the two boxes fill C, there is no penalty.",
    ),
    Wrong(
        "DIoU",
        right.instead(lambda a: _penalised(a, _distance)),
        "Your penalty is the squared distance of the centres over the squared diagonal of C, as in DIoU. For GIoU it "
        "is (C - U) / C.",
        "GIoU compares areas, DIoU compares distances.",
    ),
    Wrong(
        "union is the sum",
        right.instead(lambda a: (lambda p: p.iou / (1 + p.iou) - 1 + p.union * (1 + p.iou) / p.hull)(_pairs(a))),
        "Your union is the sum of both areas. It counts the intersection twice.",
        "U = A + B - I, in the IoU and in the penalty.",
    ),
    Wrong(
        "no clamp",
        right.instead(_without_clamp),
        "You multiply negative widths and heights, so boxes that do not overlap get an intersection. It has to be 0.",
        "Clamp the sides of the intersection at 0 before you multiply them.",
    ),
    Wrong(
        "transposed",
        right.given(boxes1=lambda a: a.boxes2, boxes2=lambda a: a.boxes1),
        "Your result has shape (M, N). Rows must belong to boxes1, columns to boxes2.",
        "Which of the two sets gets the first axis?",
    ),
    Wrong(
        "penalty only apart",
        right.instead(lambda a: _penalised(a, lambda p: torch.where(p.iou > 0, 0.0, 1 - p.union / p.hull))),
        "You subtract the penalty only if the boxes do not overlap. It belongs to every pair.",
        "Boxes that overlap can leave a part of C empty, too.",
    ),
]

exercise = Exercise(
    name="giou",
    points=3,
    cases=cases,
    reference=generalized_box_iou,
    wrong=wrong,
    kind="boxes",
    hides=["segedu.ops.boxes", "segedu.losses"],
)
