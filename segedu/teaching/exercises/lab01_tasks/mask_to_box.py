"""mask_to_box: the smallest box around a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import boxes_from_masks
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def mask_to_box(mask: Tensor) -> list[int]:
    """Edges of the smallest box around the True pixels.

    Args:
        mask: (H, W) bool.

    Returns:
        [x1, y1, x2, y2]; x2 and y2 are edges, one beyond the last pixel. Empty: [0, 0, 0, 0].
    """
    return boxes_from_masks(mask[None])[0].int().tolist()


def _diamond(rng: np.random.Generator, size: tuple[int, int], extent: tuple[int, int, int, int]) -> Tensor:
    """A mask that touches each side of its box (top, left, bottom, right, ends excluded) away from the corners."""
    top, left, bottom, right = extent
    mask = torch.zeros(size, dtype=torch.bool)
    y, x = int(rng.integers(top + 1, bottom - 1)), int(rng.integers(left + 1, right - 1))
    mask[y, left:right] = True
    mask[top:bottom, x] = True
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks off the diagonal, of two parts, at the border; one pixel, one line, the whole image, nothing.

    Args:
        rng: of the drawn places.

    Returns:
        The cases by group.
    """
    top, left = int(rng.integers(1, 3)), int(rng.integers(4, 6))
    cross = _diamond(rng, (9, 14), (top, left, top + 4, left + 6))
    parts = torch.zeros(8, 12, dtype=torch.bool)
    parts[5:7, 2:4] = True
    parts[1, int(rng.integers(7, 10))] = True
    dot = torch.zeros(6, 10, dtype=torch.bool)
    dot[int(rng.integers(1, 3)), int(rng.integers(4, 8))] = True
    border = _diamond(rng, (6, 9), (0, 3, 6, 9))
    line = torch.zeros(1, 9, dtype=torch.bool)
    line[0, int(rng.integers(1, 3)) : int(rng.integers(5, 8))] = True
    return {
        "core": (
            2,
            [
                {"name": "a cross", "args": [cross]},
                {"name": "a mask of two parts", "args": [parts]},
                {"name": "a mask at the border", "args": [border]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one pixel", "args": [dot]},
                {"name": "a mask that fills the image", "args": [torch.ones(3, 5, dtype=torch.bool)]},
                {"name": "an image of one row", "args": [line]},
                {"name": "an image of one column", "args": [line.T.clone()]},
                {"name": "an empty mask", "args": [torch.zeros(5, 7, dtype=torch.bool)]},
            ],
        ),
    }


def rows_first(mask: Tensor) -> list[int]:
    """(row, column) order."""
    x1, y1, x2, y2 = mask_to_box(mask)
    return [y1, x1, y2, x2]


def last_pixel(mask: Tensor) -> list[int]:
    """x2 and y2 are the last pixel."""
    x1, y1, x2, y2 = mask_to_box(mask)
    return [x1, y1, x2 - 1, y2 - 1] if mask.any() else [0, 0, 0, 0]


def empty_raises(mask: Tensor) -> list[int]:
    """min of nothing."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def empty_is_none(mask: Tensor) -> list[int] | None:
    """None for an empty mask."""
    return mask_to_box(mask) if mask.any() else None


def empty_is_image(mask: Tensor) -> list[int]:
    """The whole image for an empty mask."""
    return mask_to_box(mask if mask.any() else ~mask)


def width_height(mask: Tensor) -> list[int]:
    """COCO's x, y, w, h."""
    x1, y1, x2, y2 = mask_to_box(mask)
    return [x1, y1, x2 - x1, y2 - y1]


def axis_by_axis(mask: Tensor) -> list[int]:
    """Both x, then both y."""
    x1, y1, x2, y2 = mask_to_box(mask)
    return [x1, x2, y1, y2]


def first_and_last(mask: Tensor) -> list[int]:
    """The first and the last pixel in reading order as corners."""
    pixels = torch.nonzero(mask)
    if len(pixels) == 0:
        return [0, 0, 0, 0]
    (y1, x1), (y2, x2) = pixels[0].tolist(), pixels[-1].tolist()
    return [x1, y1, x2 + 1, y2 + 1]


def one_more_on_every_side(mask: Tensor) -> list[int]:
    """A margin of one pixel before as well."""
    x1, y1, x2, y2 = mask_to_box(mask)
    return [x1 - 1, y1 - 1, x2, y2] if mask.any() else [0, 0, 0, 0]


EMPTY_HINT = "Ask whether there is any True pixel before you look for the smallest one. No pixel: [0, 0, 0, 0]."

exercise = Exercise(
    name="mask_to_box",
    points=3,
    cases=cases,
    reference=mask_to_box,
    kind="mask",
    hides=["segedu.ops.masks"],
    wrong=[
        Wrong(
            "rows first",
            rows_first,
            "You return rows before columns: a box is (x1, y1, x2, y2), and x counts columns.",
            "An array is indexed [row, column], a point is written (x, y).",
        ),
        Wrong(
            "last pixel",
            last_pixel,
            "Your x2 and y2 are the last pixels: they must be the edges behind them, one more.",
            "A mask of one pixel has a box of width 1, and width is x2 - x1.",
        ),
        Wrong("empty raises", empty_raises, "Your function fails on an empty mask.", EMPTY_HINT),
        Wrong("empty is None", empty_is_none, "You return None for an empty mask.", EMPTY_HINT),
        Wrong("empty is the image", empty_is_image, "You return the whole image for an empty mask.", EMPTY_HINT),
        Wrong(
            "axis by axis",
            axis_by_axis,
            "You return x1, x2, y1, y2: a box is one corner, then the other.",
            "The order is (x1, y1, x2, y2).",
        ),
        Wrong(
            "width and height",
            width_height,
            "You return x, y, width, height, as COCO files store it: here the last two are x2 and y2.",
            "The last two numbers are the lower right corner.",
        ),
        Wrong(
            "first and last pixel",
            first_and_last,
            "You take the first and the last pixel in reading order: the leftmost pixel may be in any row.",
            "Look for the smallest and largest row and column one by one.",
        ),
        Wrong(
            "a margin before",
            one_more_on_every_side,
            "Your x1 and y1 are one too small: the left edge of column 3 is 3.",
            "Pixel 3 reaches from 3 to 4. Only the far edges are one more than a pixel's number.",
        ),
    ],
)
