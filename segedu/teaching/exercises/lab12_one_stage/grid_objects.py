"""The objects that `yolo_target` is tried on."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case

Size = tuple[int, int]

# row and column of a cell, and where in it the centre is, y before x
LINES = [(2, 1, 0.0, 0.375), (1, 2, 0.625, 0.0), (3, 3, 0.0, 0.0)]
ENDS = [(0, 3, 0.25, 0.75), (3, 0, 0.75, 0.25)]
QUARTERS = [[1, -1], [-1, 1], [1, 1], [-1, -1]]
# shares of the sides: neither the first nor the last of the four in one cell is the largest or the smallest
NESTED = [[0.4, 0.45], [0.9, 0.95], [0.2, 0.22], [0.45, 0.4], [0.7, 0.6]]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects in cells of their own, some in one cell; on lines between cells, at the edges, one cell, no object.

    Args:
        rng: of centres, sides and labels.

    Returns:
        The cases by group. Images are not square, and centres are in all four quarters of their cells.
    """

    def case(name: str, places: np.ndarray, cells: int, size: Size, classes: int, shares: list | None = None) -> Case:
        """Places: row, column and where in the cell; shares: of sides in what the image leaves around the centre."""
        H, W = size
        r, c, y, x = np.asarray(places, dtype=float).reshape(-1, 4).T
        centres = np.stack([(c + x) / cells * W, (r + y) / cells * H], axis=1)
        room = np.minimum(centres, [W, H] - centres)
        shares = rng.uniform(0.75, 0.95, (len(centres), 2)) if shares is None else np.array(shares)
        half = np.floor(room * shares * 8) / 8  # whole eighths: a centre on a line is found exactly there
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        # the last class and the first are there, the others by chance
        labels = np.array([classes, 1, *rng.integers(1, classes + 1, 3)])[: len(centres)]
        return {"name": name, "args": [torch.from_numpy(boxes), torch.from_numpy(labels), cells, size, classes]}

    def inside(spots: np.ndarray) -> np.ndarray:
        """Away from lines, and from the middle of the cell."""
        quarters = np.resize(np.roll(QUARTERS, int(rng.integers(4)), axis=0), (len(spots), 2))
        return np.concatenate([spots, 0.5 + quarters * rng.uniform(0.12, 0.4, (len(spots), 2))], axis=1)

    spots = rng.permutation([(r, c) for r in range(1, 4) for c in range(1, 4) if r != c])
    # three cells are never a whole number of pixels each
    long, short = 30 + 4 * rng.choice([16, 17, 19]), 30 + 4 * rng.choice([5, 7, 8])
    return {
        "core": (
            3,
            [
                case("objects in three cells", inside(spots[:3]), 4, (64, 96), 3),
                case("several objects in one cell", inside(spots[[3, 3, 3, 3, 4]]), 5, (100, 80), 4, NESTED),
                case("a high image", inside(np.array([[0, 2], [2, 1]])), 3, (int(long), int(short)), 5),
            ],
        ),
        "edge": (
            1,
            [
                case("centres on lines between cells", LINES, 4, (64, 128), 2),
                case("cells at the edges", ENDS, 4, (64, 48), 3),
                case("one cell", inside(np.zeros((1, 2))), 1, (40, 60), 2),
                case("no object", np.zeros((0, 4)), 3, (60, 90), 2),
            ],
        ),
    }
