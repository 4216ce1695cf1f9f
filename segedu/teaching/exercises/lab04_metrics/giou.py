"""giou: generalised IoU, which still changes when boxes do not overlap."""

from __future__ import annotations

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
