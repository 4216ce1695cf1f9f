"""Cases of `encode_decode`: pairs of box and anchor, and deltas."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Boxes near and far, large, small, equal, none; no anchor is square, so width and height can be told apart."""

    def pairs(count: int, least: float, unit: float = 1.0, far: float = 0.5) -> list[Tensor]:
        """Boxes, anchors and deltas."""
        # a factor for each side of each pair, above and below 1 in every draw, so that no logarithm is near 0
        factors = np.exp(rng.uniform(least, least + 0.4, (2, count, 2)) * rng.choice([-1, 1], (2, count, 1)) * [1, -1])
        sides = rng.integers(8, 33, (count, 2)) * np.where(rng.integers(2, size=(count, 1)), [1, 2.5], [2.5, 1])
        centres = rng.uniform(20, 80, (count, 2))
        shift = rng.uniform(0.2, 1, (2, count, 2)) * rng.choice([-1, 1], (2, count, 2)) * far
        anchors, boxes = (
            np.concatenate([centre - side / 2, centre + side / 2], axis=1) * unit
            for centre, side in ((centres, sides), (centres + shift[0] * sides, sides * factors[0]))
        )
        deltas = np.concatenate([shift[1], np.log(factors[1])], axis=1)
        return [torch.from_numpy(values) for values in (boxes, anchors, deltas)]

    one, equal = pairs(1, 0.4), pairs(3, 0.4)
    equal[0][0] = equal[1][0]
    equal[2][1] = 0.0
    boxes, anchors, deltas = pairs(4, 0.4, far=6.0)
    outside = [boxes - 90, anchors - 90, deltas]
    core = [
        case("one pair", *one),
        case("boxes near their anchors", *pairs(4, 0.4)),
        case("much larger, much smaller", *pairs(5, 1.2)),
    ]
    edge = [
        case("a box equal to its anchor, and deltas of 0", *equal),
        case("boxes far from their anchors, partly outside of the image", *outside),
        case("boxes smaller than a pixel", *pairs(3, 0.6, unit=1 / 64)),
        case("no box", *(values[:0] for values in one)),
    ]
    return {"core": (3, core), "edge": (1, edge)}
