"""Cases of `decode_ssd`: predictions for a feature map, and its default boxes."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Size, Pair = tuple[int, int], tuple[float, float]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several locations and default boxes, and one; no map is square, no number of default boxes is 4 or K."""

    def head(grid: Size, count: int, classes: int, variances: Pair = (0.1, 0.2), mean_delta: float = 2.0) -> list:
        """The arguments; deltas have both signs."""
        step, locations = 15.0, np.argwhere(np.ones(grid))
        size = (int(step) * grid[0], int(step) * grid[1])
        centres = np.repeat((locations + 0.5) * step, count, axis=0)[:, ::-1]
        sides = np.tile(rng.permutation([[7.0, 13], [12, 6], [9, 16]])[:count], (len(locations), 1))
        sides = sides * rng.uniform(0.8, 1)
        anchors = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        deltas = mean_delta * rng.uniform(0.5, 1.5, (4 * count, *grid)) * rng.choice([-1, 1], (4 * count, *grid))
        logits = rng.uniform(-3, 3, (classes * count, *grid))
        arrays = [torch.from_numpy(np.ascontiguousarray(a)) for a in (deltas, logits, anchors)]
        return [*arrays, size, variances]

    deltas, logits, anchors, size, variances = head((2, 3), 3, 3)
    low, high = anchors.split(2, dim=1)
    middle, side = (low + high) / 2, high - low
    anchors = torch.cat([middle - 2 * side, middle + 2 * side], dim=1)  # the default boxes are partly outside too
    deltas = deltas.sign() * torch.tensor([2.5, 2.5, 3, 3]).repeat(3)[:, None, None]
    core = [
        case("one default box per location", *head((3, 2), 1, 3)),
        case("two default boxes per location", *head((2, 3), 2, 5)),
        case("three default boxes per location", *head((3, 4), 3, 2)),
    ]
    edge = [
        case("boxes partly outside of the image", deltas, logits, anchors, size, variances),
        case("other variances", *head((2, 1), 3, 4, (0.25, 0.125))),
        case("one location", *head((1, 1), 2, 3)),
        case("one column", *head((5, 1), 2, 3)),
        case("large deltas", *head((1, 3), 2, 6, mean_delta=5.0)),
    ]
    return {"core": (2, core), "edge": (1, edge)}
