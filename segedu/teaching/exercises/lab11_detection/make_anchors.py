"""make_anchors: anchor boxes of several sizes and aspect ratios, centred on every cell of a feature map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import xyxy_to_cxcywh, xyxy_to_xywh
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Shape, Numbers = tuple[int, int], Sequence[float]


def make_anchors(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Centre anchors on every cell of a feature map: one anchor per aspect ratio and size.

    Each cell covers a square of `stride` x `stride` pixels of the image, and the first square begins at (0, 0). An
    anchor of size s and ratio r has the area s * s, and its height is r times its width. It may extend beyond the
    image.

    Args:
        shape: (H, W) of the feature map.
        stride: distance between neighbouring cells, in pixels of the image.
        sizes: S sizes in pixels.
        ratios: R aspect ratios, height divided by width.

    Returns:
        (H * W * R * S, 4) floats (x1, y1, x2, y2). The cells are in row-major order. The anchors of one cell are
        ordered by ratio, and those of one ratio by size.

    Example: two cells with the centres (4, 4) and (12, 4); anchors of 2 x 2 and of 1 x 4, which have the same area.

        >>> make_anchors((1, 2), 8, [2], [1, 4]).tolist()
        [[3.0, 3.0, 5.0, 5.0], [3.5, 2.0, 4.5, 6.0], [11.0, 3.0, 13.0, 5.0], [11.5, 2.0, 12.5, 6.0]]
    """
    return _around(_centres(shape, stride), _sides(sizes, ratios))


def _sides(sizes: Numbers, ratios: Numbers) -> Tensor:
    """(R * S, 2): width and height of the anchors of one cell."""
    root, size = (torch.tensor(numbers, dtype=torch.float64) for numbers in (ratios, sizes))
    root = root.sqrt()[:, None]  # (R, 1)
    return torch.stack([size / root, size * root], dim=2).reshape(-1, 2)


def _centres(shape: Shape, stride: float) -> Tensor:
    """(H * W, 2): x and y of the centre of each cell."""
    y, x = [(torch.arange(n, dtype=torch.float64) + 0.5) * stride for n in shape]
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], dim=2).reshape(-1, 2)


def _around(centres: Tensor, sides: Tensor) -> Tensor:
    """(P * A, 4): A anchors with these sides around each of P centres."""
    centres, halves = centres[:, None], sides / 2
    return torch.cat([centres - halves, centres + halves], dim=2).reshape(-1, 4)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One and several ratios and sizes, single cells, rows and columns; no stride is 1, so cells are not pixels."""
    stride, other = (int(n) for n in rng.permutation([4, 8, 16])[:2])
    small, large = float(rng.integers(5, 9)), float(rng.integers(18, 31))
    third = float(rng.integers(40, 51)) + 0.5
    flat, high = (float(n) for n in rng.permutation([0.5, 0.4])[:1].tolist() + rng.permutation([3.0, 2.0])[:1].tolist())
    core = [
        case("2 rows, 3 columns, one square", (2, 3), stride, [large], [1.0]),
        case("three ratios", (2, 2), stride, [large], [flat, 1.0, high]),
        case("two sizes, three ratios", (3, 2), other, [small, third], [flat, 1.0, high]),
    ]
    edge = [
        case("one cell", (1, 1), other, [third, small], [high, flat]),
        case("one row", (1, 4), stride, [small, large], [flat]),
        case("one column", (5, 1), stride, [large], [high, 1.0]),
        case("a stride of 2.5 pixels", (3, 4), 2.5, [small], [1.0, flat]),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(make_anchors)


def _with_sides(side: Callable[[float, float], tuple[float, float]]) -> Callable[..., Tensor]:
    """Anchors whose width and height are `side(size, ratio)`."""

    def anchors(a: SimpleNamespace) -> Tensor:
        sides = [side(size, ratio) for ratio in a.ratios for size in a.sizes]
        return _around(_centres(a.shape, a.stride), torch.tensor(sides, dtype=torch.float64))

    return right.instead(anchors)


def _reordered(*axes: int) -> Callable[..., Tensor]:
    """The right anchors, nested in another order of the axes 0 row, 1 column, 2 ratio, 3 size."""

    def reorder(anchors: Tensor, a: SimpleNamespace) -> Tensor:
        return anchors.reshape(*a.shape, len(a.ratios), len(a.sizes), 4).permute(*axes, 4).reshape(-1, 4)

    return right.then(reorder)


def _begins_at_the_centre(anchors: Tensor) -> Tensor:
    return anchors + (xyxy_to_xywh(anchors)[:, 2:] / 2).repeat(1, 2)


def _paired(a: SimpleNamespace) -> Tensor:
    sides = [_sides([size], [ratio]) for size, ratio in zip(a.sizes, a.ratios, strict=False)]
    return _around(_centres(a.shape, a.stride), torch.cat(sides))


AREA = "Two equations: height = r * width and width * height = s * s. Insert the first into the second: width = s / √r."
CENTRE = "The cell in row i and column j covers x from stride * j to stride * (j + 1). Where is its centre?"
CORNERS = "x1 = x - w / 2 and x2 = x + w / 2."
ORDER = "Nest the loops: for each row, for each column, for each ratio, for each size. The last index runs fastest."

exercise = Exercise(
    name="make_anchors",
    points=3,
    cases=cases,
    reference=make_anchors,
    tolerance=1e-4,
    kind="points",
    hides=["segedu.ops.anchors"],
    wrong=[
        Wrong(
            "width over height",
            right.given(ratios=lambda a: [1 / ratio for ratio in a.ratios]),
            "You read the ratio as width / height. Here it is height / width, so ratio 2 is twice as high as wide.",
            "Both conventions exist. The docstring says which one this exercise uses.",
        ),
        Wrong(
            "width is the size",
            _with_sides(lambda size, ratio: (size, size * ratio)),
            "You use the size as the width. An anchor of size s has the area s * s, whatever its ratio.",
            AREA,
        ),
        Wrong(
            "height is the size",
            _with_sides(lambda size, ratio: (size / ratio, size)),
            "You use the size as the height. An anchor of size s has the area s * s, whatever its ratio.",
            AREA,
        ),
        Wrong(
            "no root",
            _with_sides(lambda size, ratio: (size / ratio, size * ratio)),
            "Your anchors have the right area, but their height is r * r times their width. It should be r times "
            "their width.",
            AREA,
        ),
        Wrong(
            "size as area",
            right.given(sizes=lambda a: [math.sqrt(size) for size in a.sizes]),
            "You use the size as the area. An anchor of size s has the area s * s.",
            "An anchor of size 32 and ratio 1 is 32 pixels wide.",
        ),
        Wrong(
            "sides not halved",
            right.given(sizes=lambda a: [2 * size for size in a.sizes]),
            "Your anchors are twice as wide and twice as high as they should be. Each edge is half a side from "
            "the centre.",
            CORNERS,
        ),
        Wrong(
            "centre at the corner",
            right.then(lambda out, a: out - a.stride / 2),
            "You centre the anchors on the upper left corner of each cell. Centre them on the cell.",
            CENTRE + " (torchvision uses the corner.)",
        ),
        Wrong(
            "half a pixel",
            right.then(lambda out, a: out - a.stride / 2 + 0.5),
            "You add half a pixel to the corner of the cell. The centre of the cell is half a stride from its corner.",
            CENTRE,
        ),
        Wrong(
            "middle of the pixels",
            right.then(lambda out, a: out - 0.5),
            "Your anchors are half a pixel too far up and left. A cell covers x from stride * j to stride * (j + 1).",
            "(stride - 1) / 2 is the mean of pixel indices. Coordinates are continuous: pixel 0 extends from 0 to 1.",
        ),
        Wrong(
            "half rounded down",
            right.then(lambda out, a: out - a.stride / 2 + a.stride // 2),
            "You round half a stride down to an integer. Do not round: the centre of a cell may lie between two "
            "pixels.",
            "5 // 2 is 2, but 5 / 2 is 2.5.",
        ),
        Wrong(
            "stride forgotten",
            right.given(stride=lambda a: 1),
            "Your anchors are one pixel apart. Neighbouring cells are `stride` pixels of the image apart.",
            CENTRE,
        ),
        Wrong(
            "begins in the middle",
            right.then(lambda out, a: _begins_at_the_centre(out)),
            "The upper left corner of your anchor is at the centre of the cell. The anchor's centre should be there.",
            CORNERS,
        ),
        Wrong(
            "begins at the corner",
            right.then(lambda out, a: _begins_at_the_centre(out) - a.stride / 2),
            "The upper left corner of your anchor is that of the cell. Anchor and cell should have the same centre.",
            CENTRE,
        ),
        Wrong(
            "x from rows",
            right.instead(lambda a: _around(_centres(a.shape, a.stride).flip(1), _sides(a.sizes, a.ratios))),
            "You compute x from the row and y from the column. Columns run along x, rows along y.",
            "shape is (H, W), so its first index counts along y.",
        ),
        Wrong(
            "rows and columns swapped",
            right.given(shape=lambda a: a.shape[::-1]),
            "Your cells are those of a feature map with H columns and W rows. Its shape is (H, W): H rows, W columns.",
            "The first value of `shape` is the number of rows, which lie below each other along y.",
        ),
        Wrong(
            "y before x",
            right.then(lambda out, a: out[:, [1, 0, 3, 2]]),
            "You return (y1, x1, y2, x2). Boxes are (x1, y1, x2, y2).",
            "Array indices begin with y, boxes begin with x.",
        ),
        Wrong(
            "centre and sides",
            right.then(lambda out, a: xyxy_to_cxcywh(out)),
            "You return the centre, width and height of each anchor. Boxes are (x1, y1, x2, y2).",
            CORNERS,
        ),
        Wrong(
            "corner and sides",
            right.then(lambda out, a: xyxy_to_xywh(out)),
            "You return (x1, y1, w, h). Boxes are (x1, y1, x2, y2).",
            "x2 = x + w / 2. (Annotations of COCO are (x1, y1, w, h).)",
        ),
        Wrong(
            "column by column",
            _reordered(1, 0, 2, 3),
            "You list the cells column by column. List them row by row.",
            ORDER,
        ),
        Wrong(
            "size by size",
            _reordered(0, 1, 3, 2),
            "You order the anchors of a cell by size first. Order them by ratio first, and those of one ratio by size.",
            ORDER,
        ),
        Wrong(
            "cells inside",
            _reordered(2, 3, 0, 1),
            "You list one anchor of all cells, then the next anchor of all cells. List all anchors of a cell together.",
            ORDER,
        ),
        Wrong(
            "cut at the border",
            right.then(lambda out, a: out.clamp(min=0).minimum(torch.tensor(a.shape[::-1] * 2) * a.stride)),
            "You clip anchors at the border of the image. They may extend beyond it.",
            "A clipped anchor has another area and another ratio.",
        ),
        Wrong(
            "rounded",
            right.instead(lambda a: _around(_centres(a.shape, a.stride), 2 * (_sides(a.sizes, a.ratios) / 2).round())),
            "You round the sides of the anchors. Nothing is rounded in this exercise.",
            "Boxes are floats. (torchvision rounds them.)",
        ),
        Wrong(
            "coordinates rounded",
            right.then(lambda out, a: out.round()),
            "You round the coordinates of the anchors. Nothing is rounded in this exercise.",
            "Boxes are floats.",
        ),
        Wrong(
            "one ratio a size",
            right.instead(_paired),
            "You pair the n-th ratio with the n-th size. Combine every ratio with every size.",
            "R ratios and S sizes make R * S anchors.",
        ),
        Wrong(
            "not flat",
            right.then(lambda out, a: out.reshape(*a.shape, -1, 4)),
            "Your result still has axes for rows and columns. Its shape should be (H * W * R * S, 4).",
            "reshape(-1, 4)",
        ),
    ],
)
