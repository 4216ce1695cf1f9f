"""The pairs of boxes and anchors, and the deltas, that `encode_decode` is tried on."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Boxes near their anchors, much larger and much smaller, one pair; equal ones, far ones, tiny ones, none.

    Args:
        rng: of anchors, boxes and deltas.

    Returns:
        The cases by group. No anchor is square, so width and height can be told apart.
    """

    def case(name: str, count: int, least: float, unit: float = 1.0, far: float = 0.5) -> Case:
        # a factor for each side of each pair, above and below 1 in every draw, so that no logarithm is near 0
        factors = np.exp(rng.uniform(least, least + 0.4, (2, count, 2)) * rng.choice([-1, 1], (2, count, 1)) * [1, -1])
        side = rng.integers(8, 33, (count, 2)) * np.where(rng.integers(2, size=(count, 1)), [1, 2.5], [2.5, 1])
        place = rng.uniform(20, 80, (count, 2))
        way = rng.uniform(0.2, 1, (2, count, 2)) * rng.choice([-1, 1], (2, count, 2)) * far
        anchors, boxes = (
            np.concatenate([centre - sides / 2, centre + sides / 2], axis=1) * unit
            for centre, sides in ((place, side), (place + way[0] * side, side * factors[0]))
        )
        deltas = np.concatenate([way[1], np.log(factors[1])], axis=1)
        return {"name": name, "args": [torch.from_numpy(values) for values in (boxes, anchors, deltas)]}

    one = case("one pair", 1, 0.4)
    equal = case("a box that is its anchor, and deltas of 0", 3, 0.4)
    equal["args"][0][0] = equal["args"][1][0]
    equal["args"][2][1] = 0.0
    apart = case("boxes far from their anchors, over the edge of the image", 4, 0.4, far=6.0)
    apart["args"][:2] = [values - 90 for values in apart["args"][:2]]
    return {
        "core": (
            3,
            [one, case("boxes near their anchors", 4, 0.4), case("much larger, much smaller", 5, 1.2)],
        ),
        "edge": (
            1,
            [
                equal,
                apart,
                case("boxes smaller than a pixel", 3, 0.6, unit=1 / 64),
                {"name": "no box", "args": [values[:0] for values in one["args"]]},
            ],
        ),
    }
