"""giou: generalised IoU, which still changes where boxes do not overlap."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import box_iou, generalized_box_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab04_metrics.box_iou import HOMEWORK, around


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework and overlapping sets; boxes apart, touching, nested, equal, tiny.

    Args:
        rng: of the drawn boxes.

    Returns:
        The cases by group.
    """
    box = around(rng, 1, (4.0, -3.0))
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    shifts = [(width + 1, height + 2), (3 * width + 4, 0.5), (0.25, -height), (-width - 1, height + 1)]
    apart = torch.cat([box + torch.tensor([dx, dy, dx, dy]) for dx, dy in shifts])
    inside = box + torch.tensor([0.25, 0.5, -0.25, -0.25])
    return {
        "core": (
            2,
            [
                {"name": "the boxes of the homework", "args": [torch.tensor(b) for b in HOMEWORK]},
                {"name": "3 and 2 boxes", "args": [around(rng, 3, (6.0, 4.0)), around(rng, 2, (6.5, 3.0))]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "boxes apart and touching", "args": [box, apart]},
                {"name": "a box inside another, and equal boxes", "args": [torch.cat([inside, box]), box]},
                {"name": "boxes smaller than a pixel", "args": [around(rng, n, (6.0, 4.0)) / 32 for n in (2, 3)]},
            ],
        ),
    }


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, union and enclosing area of every pair."""
    iou = box_iou(a, b)
    areas = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)
    union = areas / (1 + iou)  # since I = J U and U = A + B - I
    hull = (torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2], b[:, :2])).prod(-1)
    return iou, union, hull


def clipped(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Never below 0."""
    return generalized_box_iou(boxes1, boxes2).clamp(min=0)


def encloses_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """C is the area of the intersection: minimum and maximum are swapped."""
    iou, union, _ = _parts(boxes1, boxes2)
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    inner = (bottom_right - top_left).prod(-1)
    return iou - (inner - union) / inner


def over_union(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(C - U) / U."""
    iou, union, hull = _parts(boxes1, boxes2)
    return iou - (hull - union) / union


def as_loss(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """1 - GIoU."""
    return 1 - generalized_box_iou(boxes1, boxes2)


def plus(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Adds the penalty."""
    return 2 * box_iou(boxes1, boxes2) - generalized_box_iou(boxes1, boxes2)


def without_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(C - I) / C: the intersection in place of the union."""
    iou, union, hull = _parts(boxes1, boxes2)
    return iou - (hull - iou * union) / hull


def plain_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Without the penalty."""
    return box_iou(boxes1, boxes2)


exercise = Exercise(
    name="giou",
    points=3,
    cases=cases,
    reference=generalized_box_iou,
    kind="boxes",
    hides=["segedu.ops.boxes"],
    wrong=[
        Wrong(
            "clipped at 0",
            clipped,
            "You clip at 0: below 0 is where GIoU tells how far apart two boxes are.",
            "GIoU lies between -1 and 1. Clamp the sides of the intersection only.",
        ),
        Wrong(
            "encloses the intersection",
            encloses_intersection,
            "Your box C is the intersection: it has to be the smallest box around both.",
            "The enclosing box starts at the smaller x1 and ends at the larger x2.",
        ),
        Wrong(
            "penalty over U",
            over_union,
            "You divide C - U by U: the penalty is the empty share of C.",
            "The penalty lies between 0 and 1. Can yours be larger?",
        ),
        Wrong(
            "loss",
            as_loss,
            "You return the loss 1 - GIoU: the measure itself is asked for.",
            "Equal boxes have GIoU 1.",
        ),
        Wrong(
            "sign",
            plus,
            "You add the penalty: the empty share of C makes the value smaller.",
            "Move two boxes apart: C grows, and the value has to fall.",
        ),
        Wrong(
            "C minus I",
            without_intersection,
            "You subtract the intersection from C: the empty part of C is what neither box covers.",
            "Take two boxes of which one lies in the other: C is the outer box and the penalty is 0.",
        ),
        Wrong(
            "plain IoU",
            plain_iou,
            "You return the IoU without the penalty of the enclosing box.",
            "Subtract (C - U) / C.",
        ),
    ],
)
