"""Label maps that the exercises of this lab share: what makes cells hard is in each of them, in every draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NUMBERS = (2, 3, 5, 8, 13, 40, 71)


def crowd(rng: np.random.Generator) -> Tensor:
    """Cells that touch, one of them an L, one on the border, one of one pixel; numbers with gaps.

    Args:
        rng: of sizes, numbers and the side that is up.

    Returns:
        (9, 11) int64, or (11, 9).
    """
    low, high, border, single = (int(n) for n in rng.permutation(NUMBERS)[:4])
    height, width = (int(n) for n in rng.integers((4, 3), (6, 5)))
    cells = torch.zeros(9, 11, dtype=torch.int64)
    cells[1 : height + 1, 1:3] = low
    cells[height - 1 : height + 1, 1 : width + 2] = low
    cells[1 : height - 1, 3 : width + 4] = high  # in the corner of the L
    cells[6:, 7:] = border
    cells[8, 7] = 0
    cells[7, 2 + int(rng.integers(3))] = single
    return turned(cells, rng)


def crescent(rng: np.random.Generator) -> Tensor:
    """A cell like a C, whose mean lies outside of it, with another cell in its mouth.

    Args:
        rng: of sizes, numbers and the side that is up.

    Returns:
        (9, 11) int64, or (11, 9).
    """
    outer, inner = (int(n) for n in rng.permutation(NUMBERS)[:2])
    thick = 2 + int(rng.integers(2))
    cells = torch.zeros(9, 11, dtype=torch.int64)
    cells[1:8, 1:9] = outer
    cells[3:6, 1 + thick :] = 0
    cells[4, 6:9] = inner
    cells[3, 7] = inner
    return turned(cells, rng)


def turned(cells: Tensor, rng: np.random.Generator) -> Tensor:
    """One of the eight ways to lay a map down.

    Args:
        cells: (H, W).
        rng: of the way.

    Returns:
        (H, W) or (W, H), contiguous.
    """
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    return (cells.T if mirrored else cells).rot90(turns).contiguous()


def pieces(rng: np.random.Generator) -> Tensor:
    """A cell in two pieces, another one between them, and one at three borders.

    Args:
        rng: of numbers.

    Returns:
        (8, 11) int64.
    """
    one, two, three = (int(n) for n in rng.permutation(NUMBERS)[:3])
    cells = torch.zeros(8, 11, dtype=torch.int64)
    cells[1:4, 0:3] = one
    cells[2 : 4 + int(rng.integers(2)), 5:8] = one
    cells[1:5, 3:5] = two
    cells[5:, 9:] = three
    cells[:, 10] = three
    return cells
