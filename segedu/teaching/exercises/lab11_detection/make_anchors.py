"""make_anchors: boxes of several sizes and shapes around every cell of a feature map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Shape, Numbers = tuple[int, int], Sequence[float]


def make_anchors(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Lay anchors around the middle of every cell of a feature map: one for each ratio and each size.

    A cell stands for a square of `stride` x `stride` pixels of the image; the first square begins at (0, 0). An anchor
    of size s and ratio r has the area s * s and is r times as high as wide. It may reach over the image.

    Args:
        shape: (H, W) of the feature map.
        stride: pixels of the image from one cell to the next.
        sizes: S numbers of pixels.
        ratios: R numbers, height over width.

    Returns:
        (H * W * R * S, 4) floats (x1, y1, x2, y2): the cells row by row; in each cell ratio by ratio; for each ratio
        size by size.

    Example: two cells, whose middles are (4, 4) and (12, 4); a square of 2 x 2, and 1 x 4 of the same area.

        >>> make_anchors((1, 2), 8, [2], [1, 4]).tolist()
        [[3.0, 3.0, 5.0, 5.0], [3.5, 2.0, 4.5, 6.0], [11.0, 3.0, 13.0, 5.0], [11.5, 2.0, 12.5, 6.0]]
    """
    return _around(_middles(shape, stride), _sides(sizes, ratios))


def _sides(sizes: Numbers, ratios: Numbers) -> Tensor:
    """(R * S, 2): width and height of the anchors of one cell."""
    root, size = (torch.tensor(numbers, dtype=torch.float64) for numbers in (ratios, sizes))
    root = root.sqrt()[:, None]  # (R, 1)
    return torch.stack([size / root, size * root], dim=2).reshape(-1, 2)


def _middles(shape: Shape, stride: float) -> Tensor:
    """(H * W, 2): x and y of the middle of each cell."""
    y, x = [(torch.arange(n, dtype=torch.float64) + 0.5) * stride for n in shape]
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], dim=2).reshape(-1, 2)


def _around(middles: Tensor, sides: Tensor) -> Tensor:
    """(P * A, 4): of P middles and A sides, place by place."""
    middles, halves = middles[:, None], sides / 2
    return torch.cat([middles - halves, middles + halves], dim=2).reshape(-1, 4)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Squares, oblong anchors, both; one cell, one row, one column, a stride that is no whole number.

    Args:
        rng: of strides and sizes.

    Returns:
        The cases by group. No stride is 1, where cells and pixels could not be told apart.
    """
    stride, other = (int(n) for n in rng.permutation([4, 8, 16])[:2])
    small, large = float(rng.integers(5, 9)), float(rng.integers(18, 31))
    third = float(rng.integers(40, 51)) + 0.5
    flat, high = (float(n) for n in rng.permutation([0.5, 0.4])[:1].tolist() + rng.permutation([3.0, 2.0])[:1].tolist())
    return {
        "core": (
            2,
            [
                {"name": "2 rows, 3 columns, one square", "args": [(2, 3), stride, [large], [1.0]]},
                {"name": "three ratios", "args": [(2, 2), stride, [large], [flat, 1.0, high]]},
                {"name": "two sizes, three ratios", "args": [(3, 2), other, [small, third], [flat, 1.0, high]]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one cell", "args": [(1, 1), other, [third, small], [high, flat]]},
                {"name": "one row", "args": [(1, 4), stride, [small, large], [flat]]},
                {"name": "one column", "args": [(5, 1), stride, [large], [high, 1.0]]},
                {"name": "a stride of 2.5 pixels", "args": [(3, 4), 2.5, [small], [1.0, flat]]},
            ],
        ),
    }


def width_over_height(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Ratio r is r times as wide as high."""
    return make_anchors(shape, stride, sizes, [1 / ratio for ratio in ratios])


Side = Callable[[float, float], tuple[float, float]]


def _with_sides(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers, side: Side) -> Tensor:
    """`side` gives width and height of a size and a ratio."""
    sides = torch.tensor([side(size, ratio) for ratio in ratios for size in sizes], dtype=torch.float64)
    return _around(_middles(shape, stride), sides)


def width_is_size(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """s x (s r)."""
    return _with_sides(shape, stride, sizes, ratios, lambda size, ratio: (size, size * ratio))


def height_is_size(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(s / r) x s."""
    return _with_sides(shape, stride, sizes, ratios, lambda size, ratio: (size / ratio, size))


def no_root(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(s / r) x (s r)."""
    return _with_sides(shape, stride, sizes, ratios, lambda size, ratio: (size / ratio, size * ratio))


def size_is_area(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """The area is s."""
    return make_anchors(shape, stride, [math.sqrt(size) for size in sizes], ratios)


def not_halved(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Middle minus the side, middle plus the side."""
    return make_anchors(shape, stride, [2 * size for size in sizes], ratios)


def corner_of_the_cell(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Centred at (stride j, stride i), as torchvision has it."""
    return make_anchors(shape, stride, sizes, ratios) - stride / 2


def half_a_pixel(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """stride j + 1/2 for stride (j + 1/2)."""
    return corner_of_the_cell(shape, stride, sizes, ratios) + 0.5


def middle_of_the_pixels(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """stride j + (stride - 1) / 2, the mean of the indices of a cell's pixels."""
    return make_anchors(shape, stride, sizes, ratios) - 0.5


def half_rounded_down(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """stride // 2."""
    return corner_of_the_cell(shape, stride, sizes, ratios) + stride // 2


def in_cells(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Middles not multiplied by the stride."""
    return make_anchors(shape, 1, sizes, ratios)


def begins_in_the_middle(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """The middle of the cell is the upper left corner of the anchor."""
    anchors = make_anchors(shape, stride, sizes, ratios)
    halves = (anchors[:, 2:] - anchors[:, :2]) / 2
    return anchors + torch.cat([halves, halves], dim=1)


def begins_at_the_corner(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """The upper left corner of the cell is that of the anchor."""
    return begins_in_the_middle(shape, stride, sizes, ratios) - stride / 2


def x_from_rows(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Row i lies at x, column j at y."""
    return _around(_middles(shape, stride).flip(1), _sides(sizes, ratios))


def y_before_x(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(y1, x1, y2, x2)."""
    return make_anchors(shape, stride, sizes, ratios)[:, [1, 0, 3, 2]]


def centre_and_sides(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(x, y, w, h)."""
    anchors = make_anchors(shape, stride, sizes, ratios)
    return torch.cat([(anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]], dim=1)


def corner_and_sides(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(x1, y1, w, h)."""
    anchors = make_anchors(shape, stride, sizes, ratios)
    return torch.cat([anchors[:, :2], anchors[:, 2:] - anchors[:, :2]], dim=1)


def _reordered(anchors: Tensor, shape: Shape, sizes: Numbers, ratios: Numbers, order: Sequence[int]) -> Tensor:
    """Axes: 0 row, 1 column, 2 ratio, 3 size."""
    grid = anchors.reshape(*shape, len(ratios), len(sizes), 4)
    return grid.permute(*order, 4).reshape(-1, 4)


def column_by_column(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """The cells in another order."""
    return _reordered(make_anchors(shape, stride, sizes, ratios), shape, sizes, ratios, (1, 0, 2, 3))


def sizes_outside(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """In each cell size by size."""
    return _reordered(make_anchors(shape, stride, sizes, ratios), shape, sizes, ratios, (0, 1, 3, 2))


def cells_inside(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """One anchor in all cells, then the next one."""
    return _reordered(make_anchors(shape, stride, sizes, ratios), shape, sizes, ratios, (2, 3, 0, 1))


def clipped(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Cut at the borders of the image."""
    anchors, (height, width) = make_anchors(shape, stride, sizes, ratios), shape
    return anchors.clamp(min=0).minimum(torch.tensor([width, height] * 2) * stride)


def rounded(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """Whole numbers around each middle, as torchvision has them."""
    return _around(_middles(shape, stride), 2 * (_sides(sizes, ratios) / 2).round())


def one_ratio_a_size(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """zip for a product."""
    pairs = [_sides([size], [ratio]) for size, ratio in zip(sizes, ratios, strict=False)]
    return _around(_middles(shape, stride), torch.cat(pairs))


def not_flat(shape: Shape, stride: float, sizes: Numbers, ratios: Numbers) -> Tensor:
    """(H, W, R * S, 4)."""
    return make_anchors(shape, stride, sizes, ratios).reshape(*shape, -1, 4)


AREA = "Two equations: height = r * width, and width * height = s * s. Put the first into the second: width = s / √r."
MIDDLE = "The cell in row i and column j covers x from stride * j to stride * (j + 1). Where is its middle?"
ORDER = "As nested loops: for each row, for each column, for each ratio, for each size. The last index runs fastest."

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
            width_over_height,
            "Your ratio is width over height: here it is height over width, so ratio 2 is twice as high as wide.",
            "Both conventions exist. The statement decides.",
        ),
        Wrong(
            "width is the size",
            width_is_size,
            "You take the size for the width: an anchor of size s has the area s * s, whatever its ratio.",
            AREA,
        ),
        Wrong(
            "height is the size",
            height_is_size,
            "You take the size for the height: an anchor of size s has the area s * s, whatever its ratio.",
            AREA,
        ),
        Wrong(
            "no root",
            no_root,
            "Your anchors are r * r times as high as wide: the area is right, the ratio is not.",
            AREA,
        ),
        Wrong(
            "size as area",
            size_is_area,
            "You take the size for the area: an anchor of size s has the area s * s.",
            "An anchor of size 32 and ratio 1 is 32 pixels wide.",
        ),
        Wrong(
            "sides not halved",
            not_halved,
            "Your anchors are twice as wide and twice as high: from the middle it is half a side each way.",
            "x1 = x - w / 2 and x2 = x + w / 2.",
        ),
        Wrong(
            "centre at the corner",
            corner_of_the_cell,
            "Your anchors lie around the upper left corner of each cell: they lie around its middle.",
            MIDDLE + " (torchvision takes the corner.)",
        ),
        Wrong(
            "half a pixel",
            half_a_pixel,
            "You add half a pixel to the corner of the cell: its middle is half a stride away.",
            MIDDLE,
        ),
        Wrong(
            "middle of the pixels",
            middle_of_the_pixels,
            "Your anchors lie half a pixel too far up and left: a cell reaches from stride * j to stride * (j + 1).",
            "(stride - 1) / 2 is the mean of pixel indices. Coordinates are continuous: pixel 0 reaches from 0 to 1.",
        ),
        Wrong(
            "half rounded down",
            half_rounded_down,
            "You round half a stride down: the middle of a cell may lie between two pixels.",
            "5 // 2 is 2, 5 / 2 is 2.5.",
        ),
        Wrong(
            "stride forgotten",
            in_cells,
            "Your anchors are one pixel apart: they are laid over the image, where cells are `stride` pixels apart.",
            MIDDLE,
        ),
        Wrong(
            "begins in the middle",
            begins_in_the_middle,
            "Your anchors begin in the middle of the cell: the middle of the cell is the middle of the anchor.",
            "x1 = x - w / 2 and x2 = x + w / 2.",
        ),
        Wrong(
            "begins at the corner",
            begins_at_the_corner,
            "Your anchors begin at the corner of the cell: the middle of the cell is the middle of the anchor.",
            MIDDLE,
        ),
        Wrong(
            "x from rows",
            x_from_rows,
            "You take the row for x and the column for y: columns go along x, rows along y.",
            "shape is (H, W), so the first index counts along y.",
        ),
        Wrong(
            "y before x",
            y_before_x,
            "You return (y1, x1, y2, x2): boxes are (x1, y1, x2, y2).",
            "Masks have y first, boxes x first.",
        ),
        Wrong(
            "centre and sides",
            centre_and_sides,
            "You return the centre and the sides: boxes are (x1, y1, x2, y2).",
            "x1 = x - w / 2 and x2 = x + w / 2.",
        ),
        Wrong(
            "corner and sides",
            corner_and_sides,
            "You return a corner and the sides: boxes are (x1, y1, x2, y2).",
            "x2 = x + w / 2. (COCO's files have (x1, y1, w, h).)",
        ),
        Wrong("column by column", column_by_column, "You go column by column: the cells come row by row.", ORDER),
        Wrong(
            "size by size",
            sizes_outside,
            "In each cell you go size by size: it goes ratio by ratio, and for each ratio size by size.",
            ORDER,
        ),
        Wrong(
            "cells inside",
            cells_inside,
            "You lay one anchor over all cells, then the next one: all anchors of a cell come together.",
            ORDER,
        ),
        Wrong(
            "cut at the border",
            clipped,
            "You cut anchors at the border of the image: they may reach over it.",
            "What is cut has another area and another ratio.",
        ),
        Wrong(
            "rounded",
            rounded,
            "You round the sides: nothing is rounded here.",
            "Boxes are floats. (torchvision rounds.)",
        ),
        Wrong(
            "one ratio a size",
            one_ratio_a_size,
            "You take the first ratio with the first size, the second with the second: each ratio has every size.",
            "R ratios and S sizes make R * S anchors.",
        ),
        Wrong(
            "not flat",
            not_flat,
            "Your anchors still have axes for rows and columns: the shape is (H * W * R * S, 4).",
            "reshape(-1, 4)",
        ),
    ],
)
