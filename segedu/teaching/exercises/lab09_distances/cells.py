"""Label maps that the exercises of this lab share; every draw contains what makes cells hard to separate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LABELS = (2, 3, 5, 8, 13, 40, 71)


def cell_masks(label_map: Tensor) -> list[Tensor]:
    """One bool mask (H, W) per cell of a label map (H, W), in the order of the labels."""
    return [label_map == label for label in label_map[label_map > 0].unique()]


def crowd(rng: np.random.Generator) -> Tensor:
    """Draw touching cells with gaps between the labels: one L-shaped, one on the border, one of a single pixel.

    Returns:
        (9, 11) int64, or (11, 9).
    """
    low, high, border, single = (int(n) for n in rng.permutation(LABELS)[:4])
    height, width = (int(n) for n in rng.integers((4, 3), (6, 5)))
    cells = torch.zeros(9, 11, dtype=torch.int64)
    cells[1 : height + 1, 1:3] = low
    cells[height - 1 : height + 1, 1 : width + 2] = low
    cells[1 : height - 1, 3 : width + 4] = high  # in the corner of the L
    cells[6:, 7:] = border
    cells[8, 7] = 0
    cells[7, 2 + int(rng.integers(3))] = single
    return random_orientation(cells, rng)


def crescent(rng: np.random.Generator) -> Tensor:
    """Draw a C-shaped cell, whose mean position lies outside it, and another cell in its opening.

    Returns:
        (9, 11) int64, or (11, 9).
    """
    outer, inner = (int(n) for n in rng.permutation(LABELS)[:2])
    thick = 2 + int(rng.integers(2))
    cells = torch.zeros(9, 11, dtype=torch.int64)
    cells[1:8, 1:9] = outer
    cells[3:6, 1 + thick :] = 0
    cells[4, 6:9] = inner
    cells[3, 7] = inner
    return random_orientation(cells, rng)


def random_orientation(cells: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotate a map by a random multiple of 90 degrees and perhaps mirror it.

    Returns:
        (H, W) or (W, H), contiguous.
    """
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    return (cells.T if mirrored else cells).rot90(turns).contiguous()


def split_cell(rng: np.random.Generator) -> Tensor:
    """Draw a cell in two pieces, another cell between them, and a third one that touches three borders.

    Returns:
        (8, 11) int64.
    """
    one, two, three = (int(n) for n in rng.permutation(LABELS)[:3])
    cells = torch.zeros(8, 11, dtype=torch.int64)
    cells[1:4, 0:3] = one
    cells[2 : 4 + int(rng.integers(2)), 5:8] = one
    cells[1:5, 3:5] = two
    cells[5:, 9:] = three
    cells[:, 10] = three
    return cells
