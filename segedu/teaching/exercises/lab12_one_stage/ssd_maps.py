"""The feature maps and default boxes that `decode_ssd` is tried on."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case

Size, Pair = tuple[int, int], tuple[float, float]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Maps of several places and default boxes; boxes over the image, other variances, one place, one class.

    Args:
        rng: of default boxes, deltas and logits.

    Returns:
        The cases by group. No map is square, and no number of default boxes is 4 or that of the classes.
    """

    def case(name: str, grid: Size, count: int, classes: int, variances: Pair = (0.1, 0.2), far: float = 2.0) -> Case:
        """`far`: the mean size of the deltas, of both signs."""
        step, places = 15.0, np.argwhere(np.ones(grid))
        size = (int(step) * grid[0], int(step) * grid[1])
        centres = np.repeat((places + 0.5) * step, count, axis=0)[:, ::-1]
        sides = np.tile(rng.permutation([[7.0, 13], [12, 6], [9, 16]])[:count], (len(places), 1)) * rng.uniform(0.8, 1)
        anchors = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        deltas = far * rng.uniform(0.5, 1.5, (4 * count, *grid)) * rng.choice([-1, 1], (4 * count, *grid))
        logits = rng.uniform(-3, 3, (classes * count, *grid))
        arrays = [torch.from_numpy(np.ascontiguousarray(a)) for a in (deltas, logits, anchors)]
        return {"name": name, "args": [*arrays, size, variances]}

    over = case("boxes over the image", (2, 3), 3, 3)
    low, high = over["args"][2].split(2, dim=1)
    middle, side = (low + high) / 2, high - low
    over["args"][2] = torch.cat([middle - 2 * side, middle + 2 * side], dim=1)  # they reach over it already
    over["args"][0] = over["args"][0].sign() * torch.tensor([2.5, 2.5, 3, 3]).repeat(3)[:, None, None]
    return {
        "core": (
            2,
            [
                case("one default box at a place", (3, 2), 1, 3),
                case("two default boxes at a place", (2, 3), 2, 5),
                case("three default boxes at a place", (3, 4), 3, 2),
            ],
        ),
        "edge": (
            1,
            [
                over,
                case("other variances", (2, 1), 3, 4, (0.25, 0.125)),
                case("one place", (1, 1), 2, 3),
                case("one column", (5, 1), 2, 3),
                case("a far way", (1, 3), 2, 6, far=5.0),
            ],
        ),
    }
