"""mask_to_box: the smallest box around a mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.ops.masks import boxes_from_masks
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def mask_to_box(mask: Tensor) -> list[int]:
    """Find the smallest box around the True pixels of a mask, (H, W) bool.

    Returns:
        [x1, y1, x2, y2]; x2 and y2 are edges, one beyond the last column and row. Empty mask: [0, 0, 0, 0].
    """
    return boxes_from_masks(mask[None])[0].int().tolist()


def _cross(rng: np.random.Generator, size: tuple[int, int], extent: tuple[int, int, int, int]) -> Tensor:
    """A mask that touches each side of its box (top, left, bottom, right, ends excluded) away from the corners."""
    top, left, bottom, right = extent
    mask = torch.zeros(size, dtype=torch.bool)
    y, x = int(rng.integers(top + 1, bottom - 1)), int(rng.integers(left + 1, right - 1))
    mask[y, left:right] = True
    mask[top:bottom, x] = True
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks off the diagonal, of two parts, at the border; one pixel, one line, the whole image, an empty mask."""
    top, left = int(rng.integers(1, 3)), int(rng.integers(4, 6))
    cross = _cross(rng, (9, 14), (top, left, top + 4, left + 6))
    parts = torch.zeros(8, 12, dtype=torch.bool)
    parts[5:7, 2:4] = True
    parts[1, int(rng.integers(7, 10))] = True
    pixel = torch.zeros(6, 10, dtype=torch.bool)
    pixel[int(rng.integers(1, 3)), int(rng.integers(4, 8))] = True
    border = _cross(rng, (6, 9), (0, 3, 6, 9))
    line = torch.zeros(1, 9, dtype=torch.bool)
    line[0, int(rng.integers(1, 3)) : int(rng.integers(5, 8))] = True
    core = [case("a cross", cross), case("a mask of two parts", parts), case("a mask at the border", border)]
    edge = [
        case("one pixel", pixel),
        case("a mask that fills the image", torch.ones(3, 5, dtype=torch.bool)),
        case("an image of one row", line),
        case("an image of one column", line.T.clone()),
        case("an empty mask", torch.zeros(5, 7, dtype=torch.bool)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def empty_raises(mask: Tensor) -> list[int]:
    """Take the minimum of no values where the mask is empty."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def first_and_last(mask: Tensor) -> list[int]:
    """Use the first and the last pixel in reading order as corners."""
    pixels = torch.nonzero(mask)
    if len(pixels) == 0:
        return [0, 0, 0, 0]
    (y1, x1), (y2, x2) = pixels[0].tolist(), pixels[-1].tolist()
    return [x1, y1, x2 + 1, y2 + 1]


def empty_raises_in_numpy(mask: Tensor) -> list[int]:
    """Take the minimum of no values of a NumPy array where the mask is empty."""
    rows, columns = mask.numpy().nonzero()
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


right = Variants(mask_to_box)


def _component(number: Callable[[np.ndarray], int]) -> Callable:
    """An answer that uses one component only; `number` chooses it by the components, (H, W)."""

    def mask(a) -> Tensor:
        components, count = ndimage.label(a.mask.numpy())
        return torch.from_numpy(components == number(components)) if count else a.mask

    return right.given(mask=mask)


def _counted_extent(box: list[int], a) -> list[int]:
    """Add to x1 and y1 the number of columns and rows that contain a pixel."""
    return [box[0], box[1], box[0] + int(a.mask.any(0).sum()), box[1] + int(a.mask.any(1).sum())]


EMPTY_HINT = "Check for True pixels before you look for the smallest one. Without any, the box is [0, 0, 0, 0]."
wrong = [
    Wrong(
        "rows first",
        right.then(lambda box, a: [box[1], box[0], box[3], box[2]]),
        "Your box is in (row, column) order. A box is (x1, y1, x2, y2), and x counts columns.",
        "An array is indexed [row, column], but a point is written (x, y).",
    ),
    Wrong(
        "last pixel",
        right.then(lambda box, a: [box[0], box[1], box[2] - 1, box[3] - 1] if a.mask.any() else box),
        "Your x2 and y2 are the last column and row. Return the edges beyond them, which are larger by one.",
        "A mask of one pixel has a box of width 1, and the width is x2 - x1.",
    ),
    Wrong(
        "empty raises",
        empty_raises,
        "Your function raises an error when the mask is empty. The box of an empty mask is [0, 0, 0, 0].",
        EMPTY_HINT,
    ),
    Wrong(
        "empty is None",
        right.then(lambda box, a: box if a.mask.any() else None),
        "You return None for an empty mask. The box of an empty mask is [0, 0, 0, 0].",
        EMPTY_HINT,
    ),
    Wrong(
        "empty is the image",
        right.given(mask=lambda a: a.mask if a.mask.any() else ~a.mask),
        "You return the whole image as the box of an empty mask. That box has to be [0, 0, 0, 0].",
        EMPTY_HINT,
    ),
    Wrong(
        "axis by axis",
        right.then(lambda box, a: [box[0], box[2], box[1], box[3]]),
        "You return (x1, x2, y1, y2). A box lists one corner, then the opposite one: (x1, y1, x2, y2).",
        "The first two values are the upper left corner, the last two the lower right corner.",
    ),
    Wrong(
        "width and height",
        right.then(lambda box, a: [box[0], box[1], box[2] - box[0], box[3] - box[1]]),
        "You return (x, y, width, height), as COCO files store boxes. Here the last two values are x2 and y2.",
        "The last two values are the lower right corner.",
    ),
    Wrong(
        "first and last pixel",
        first_and_last,
        "You use the first and the last pixel in reading order as corners. The leftmost pixel can be in any row.",
        "Find the smallest and the largest row, and separately the smallest and the largest column.",
    ),
    Wrong(
        "a margin before",
        right.then(lambda box, a: [box[0] - 1, box[1] - 1, box[2], box[3]] if a.mask.any() else box),
        "Your x1 and y1 are too small by one. The left edge of column 3 is at 3.",
        "Pixel 3 reaches from 3 to 4. Only its right and lower edges are one more than its index.",
    ),
    Wrong(
        "empty raises in NumPy",
        empty_raises_in_numpy,
        "Your function raises an error when the mask is empty, because it takes the minimum of no values. The box of "
        "an empty mask is [0, 0, 0, 0].",
        EMPTY_HINT,
    ),
    Wrong(
        "all four plus one",
        right.then(lambda box, a: [box[0] + 1, box[1] + 1, *box[2:]] if a.mask.any() else box),
        "You add 1 to all four coordinates. Only x2 and y2 are one more than an index.",
        "Pixel 3 reaches from 3 to 4.",
    ),
    Wrong(
        "y2 without plus one",
        right.then(lambda box, a: [*box[:3], box[3] - 1] if a.mask.any() else box),
        "You add 1 to the last column, but not to the last row. Both x2 and y2 are edges.",
        "A mask of one pixel has a box of height 1.",
    ),
    Wrong(
        "largest component",
        _component(lambda components: np.bincount(components.ravel())[1:].argmax() + 1),
        "Your box contains the largest part of the mask only. It has to contain all of its pixels.",
        "A mask may have several parts.",
    ),
    Wrong(
        "first component",
        _component(lambda components: 1),
        "Your box contains the first part of the mask only. It has to contain all of its pixels.",
        "A mask may have several parts.",
    ),
    Wrong(
        "y upwards",
        right.given(mask=lambda a: a.mask.flip(0)),
        "You measure y upwards from the bottom of the image. Row 0 is at the top, and y grows downwards.",
        "The y of a pixel is its row.",
    ),
    Wrong(
        "counted columns",
        right.then(_counted_extent),
        "Your width is the number of columns with a pixel, so a gap in the mask makes the box too small. Use the last "
        "column.",
        "x2 is one more than the last column that has a pixel.",
    ),
    Wrong(
        "one line is empty",
        right.then(lambda box, a: [0, 0, 0, 0] if 1 in (box[2] - box[0], box[3] - box[1]) else box),
        "You treat a mask of a single row or column as empty. Its box has a side of 1.",
        EMPTY_HINT,
    ),
    Wrong(
        "half a pixel",
        right.then(lambda box, a: [v - 0.5 for v in box] if a.mask.any() else box),
        "Your pixels reach from -0.5 to 0.5 around their index. Here pixel 0 reaches from 0 to 1.",
        "The left edge of column 3 is at 3.",
    ),
    Wrong(
        "limited to the last pixel",
        right.then(lambda box, a: [*box[:2], min(box[2], a.mask.shape[1] - 1), min(box[3], a.mask.shape[0] - 1)]),
        "You limit x2 and y2 to W - 1 and H - 1. At the border, x2 is W and y2 is H.",
        "x2 is an edge, not the index of a pixel.",
    ),
]

exercise = Exercise(
    name="mask_to_box",
    points=3,
    cases=cases,
    reference=mask_to_box,
    wrong=wrong,
    kind="mask",
    hides=["segedu.ops.masks"],
)
