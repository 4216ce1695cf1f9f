"""Cases of `yolo_target`: objects in the cells of a grid."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Size = tuple[int, int]

# row and column of a cell, and y and x of the centre within it
LINES = [(2, 1, 0.0, 0.375), (1, 2, 0.625, 0.0), (3, 3, 0.0, 0.0)]
ENDS = [(0, 3, 0.25, 0.75), (3, 0, 0.75, 0.25)]
QUARTERS = [[1, -1], [-1, 1], [1, 1], [-1, -1]]
# relative sides: neither the first nor the last of the four in one cell is the largest or the smallest
NESTED = [[0.4, 0.45], [0.9, 0.95], [0.2, 0.22], [0.45, 0.4], [0.7, 0.6]]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects in one or several cells, on lines and edges; no image is square, no centre in the middle of its cell."""

    def objects(centres: np.ndarray, cells: int, size: Size, classes: int, shares: list | None = None) -> list:
        """The arguments.

        Args:
            centres: row and column of the cell, y and x within it.
            shares: sides relative to the largest box around the centre that the image holds; None for random ones.
        """
        H, W = size
        r, c, y, x = np.asarray(centres, dtype=float).reshape(-1, 4).T
        middles = np.stack([(c + x) / cells * W, (r + y) / cells * H], axis=1)
        room = np.minimum(middles, [W, H] - middles)
        shares = rng.uniform(0.75, 0.95, (len(middles), 2)) if shares is None else np.array(shares)
        half = np.floor(room * shares * 8) / 8  # in eighths, so that a centre on a line is computed exactly
        boxes = np.concatenate([middles - half, middles + half], axis=1)
        # the last and the first class always occur, the others at random
        labels = np.array([classes, 1, *rng.integers(1, classes + 1, 3)])[: len(middles)]
        return [torch.from_numpy(boxes), torch.from_numpy(labels), cells, size, classes]

    def inside(grid_cells: np.ndarray) -> np.ndarray:
        """Centres away from the lines and from the middle of the cell."""
        quarters = np.resize(np.roll(QUARTERS, int(rng.integers(4)), axis=0), (len(grid_cells), 2))
        return np.concatenate([grid_cells, 0.5 + quarters * rng.uniform(0.12, 0.4, (len(grid_cells), 2))], axis=1)

    some = rng.permutation([(r, c) for r in range(1, 4) for c in range(1, 4) if r != c])
    # neither side is a multiple of three cells
    long, short = 30 + 4 * rng.choice([16, 17, 19]), 30 + 4 * rng.choice([5, 7, 8])
    core = [
        case("objects in three cells", *objects(inside(some[:3]), 4, (64, 96), 3)),
        case("several objects in one cell", *objects(inside(some[[3, 3, 3, 3, 4]]), 5, (100, 80), 4, NESTED)),
        case("a high image", *objects(inside(np.array([[0, 2], [2, 1]])), 3, (int(long), int(short)), 5)),
    ]
    edge = [
        case("centres on lines between cells", *objects(LINES, 4, (64, 128), 2)),
        case("cells at the edges", *objects(ENDS, 4, (64, 48), 3)),
        case("one cell", *objects(inside(np.zeros((1, 2))), 1, (40, 60), 2)),
        case("no object", *objects(np.zeros((0, 4)), 3, (60, 90), 2)),
    ]
    return {"core": (3, core), "edge": (1, edge)}
