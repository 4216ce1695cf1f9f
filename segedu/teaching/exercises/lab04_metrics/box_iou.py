"""box_iou: intersection over union of every box of one set with every box of another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import box_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

HOMEWORK = ([[0.0, 0.0, 2.0, 2.0]], [[1.0, 1.0, 3.0, 4.0]])


def around(rng: np.random.Generator, count: int, centre: tuple[float, float]) -> Tensor:
    """Boxes that all hold one point, so that each overlaps each; corners on quarters of a pixel.

    Args:
        rng: of the sides.
        count: N.
        centre: the point (x, y).

    Returns:
        (N, 4) float64, xyxy.
    """
    before, after = rng.integers(2, 25, (2, count, 2)) / 4
    return torch.from_numpy(np.concatenate([centre - before, centre + after], axis=1))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, overlapping sets of different sizes; boxes apart, touching, nested, tiny; no box.

    Args:
        rng: of the drawn boxes.

    Returns:
        The cases by group.
    """
    box = around(rng, 1, (3.0, 5.0))
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    shifts = [(width + 2, height + 1), (width + 3, 0.5), (0.25, -height - 1), (width, 0)]
    apart = torch.cat([box + torch.tensor([dx, dy, dx, dy]) for dx, dy in shifts] + [box])
    inside = box + torch.tensor([0.25, 0.5, -0.25, -0.25])
    return {
        "core": (
            3,
            [
                {"name": "the boxes of the homework", "args": [torch.tensor(b) for b in HOMEWORK]},
                {"name": "3 and 2 boxes", "args": [around(rng, 3, (6.0, 4.0)), around(rng, 2, (6.5, 3.0))]},
                {"name": "1 and 4 boxes", "args": [around(rng, 1, (-2.0, 9.0)), around(rng, 4, (-2.5, 8.0))]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "boxes apart, touching and equal", "args": [box, apart]},
                {"name": "a box inside another", "args": [torch.cat([box, inside]), box]},
                {"name": "no box in the first set", "args": [box[:0], apart]},
                {"name": "boxes smaller than a pixel", "args": [around(rng, n, (6.0, 4.0)) / 32 for n in (2, 3)]},
            ],
        ),
    }


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Signed width and height of every intersection, (N, M, 2)."""
    return torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _ratio(inter: Tensor, union: Tensor) -> Tensor:
    return torch.where(union != 0, inter / union, 0.0)


def inclusive(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Widths are x2 - x1 + 1."""
    one = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return box_iou(boxes1 + one, boxes2 + one)


def no_clamp(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The product of two negative sides counts as overlap."""
    inter = _overlap(boxes1, boxes2).prod(-1)
    return _ratio(inter, _area(boxes1)[:, None] + _area(boxes2) - inter)


def clamp_product(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Clamps the area instead of the sides."""
    inter = _overlap(boxes1, boxes2).prod(-1).clamp(min=0)
    return _ratio(inter, _area(boxes1)[:, None] + _area(boxes2) - inter)


def centre_size(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Reads (cx, cy, w, h)."""

    def corners(b: Tensor) -> Tensor:
        return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)

    return clamped(corners(boxes1), corners(boxes2))


def corner_size(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Reads (x, y, w, h)."""

    def corners(b: Tensor) -> Tensor:
        return torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1)

    return clamped(corners(boxes1), corners(boxes2))


def clamped(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The right formula without a check of the input, for boxes that were misread."""
    inter = _overlap(boxes1, boxes2).clamp(min=0).prod(-1)
    return _ratio(inter, _area(boxes1)[:, None] + _area(boxes2) - inter)


def union_is_sum(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """The denominator counts the intersection twice."""
    inter = _overlap(boxes1, boxes2).clamp(min=0).prod(-1)
    return _ratio(inter, _area(boxes1)[:, None] + _area(boxes2))


def transposed(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(M, N)."""
    return box_iou(boxes2, boxes1)


def paired(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Box i with box i only, (N,)."""
    sides = torch.minimum(boxes1[:, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, :2], boxes2[:, :2])
    inter = sides.clamp(min=0).prod(1)
    return _ratio(inter, _area(boxes1) + _area(boxes2) - inter)


exercise = Exercise(
    name="box_iou",
    points=4,
    cases=cases,
    reference=box_iou,
    kind="boxes",
    hides=["segedu.ops.boxes"],
    wrong=[
        Wrong(
            "inclusive pixels",
            inclusive,
            "You count the pixels on both ends: x2 - x1 + 1.",
            "Coordinates are continuous here: a box from 0 to 2 is 2 wide.",
        ),
        Wrong(
            "no clamp",
            no_clamp,
            "Boxes that are apart get an overlap: you multiply negative sides.",
            "If the right edge lies left of the left edge, how wide is the intersection?",
        ),
        Wrong(
            "clamp after the product",
            clamp_product,
            "You clamp the area, not the sides: two negative sides multiply to a positive area.",
            "Boxes apart in x and in y: width and height of the intersection are both negative. Clamp each.",
        ),
        Wrong(
            "read as cxcywh",
            centre_size,
            "You read the boxes as (centre x, centre y, width, height): they are (x1, y1, x2, y2).",
            "The last two numbers are the lower right corner.",
        ),
        Wrong(
            "read as xywh",
            corner_size,
            "You read the boxes as (x, y, width, height), as COCO stores them: they are (x1, y1, x2, y2).",
            "The last two numbers are the lower right corner.",
        ),
        Wrong(
            "denominator without -I",
            union_is_sum,
            "Your denominator is the sum of both areas: the intersection is in it twice.",
            "Take two equal boxes: their IoU must be 1.",
        ),
        Wrong(
            "transposed",
            transposed,
            "Your result is (M, N): rows belong to boxes1, columns to boxes2.",
            "Which set gets the extra axis first?",
        ),
        Wrong(
            "paired",
            paired,
            "You compare box i with box i: every box of boxes1 meets every box of boxes2.",
            "Give boxes1 the shape (N, 1, 4) and boxes2 the shape (1, M, 4): broadcasting does the rest.",
        ),
    ],
)
