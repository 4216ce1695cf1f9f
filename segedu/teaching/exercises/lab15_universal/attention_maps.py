"""The queries, locations and masks of the cases of `masked_attention`."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Size = tuple[int, int]

# 2 x 2 blocks that are resized to one location, where the mean of logits, of sigmoids and of signs disagree
ONE_POSITIVE = [[4.0, -1.0], [-1.0, -1.0]]  # mean 1/4, mean sigmoid 0.45, one of four above 0
ONE_NEGATIVE = [[1.0, 1.0], [-1.5, -6.0]]  # mean below 0, mean sigmoid 0.41, two of four above 0
BELOW_HALF = [[0.25, 0.375], [0.25, 0.25]]  # above 0 and below 1/2
MEAN_ZERO = [[2.0, -1.5], [-1.0, 0.5]]  # mean exactly 0


def _masks(rng: np.random.Generator, count: int, size: Size, resized: Size) -> np.ndarray:
    """(count, H, W) logits. Each mask has locations inside and outside if there is more than one location."""
    accepted = []
    while len(accepted) < count:
        logits = rng.integers(-24, 25, size) / 8
        small = F.interpolate(torch.from_numpy(logits)[None, None], resized, mode="bilinear").flatten()
        inside = int((small > 0).sum())
        if small.abs().amin() > 0.05 and (min(inside, small.numel() - inside) > 0 or small.numel() == 1):
            accepted.append(logits)
    return np.array(accepted).reshape(count, *size)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks of twice the size, of the same and of odd sizes; empty and full masks; logits of exactly 0; one location.

    After resizing, no logit is between -0.05 and 0.05, unless it is exactly 0.
    """

    def drawn(name: str, width: int, logits: np.ndarray, size: Size) -> Case:
        # sixteenths in single precision, the precision of networks: products are exact, and lost beside -1e9
        shapes = [(rows, width) for rows in (len(logits), size[0] * size[1], size[0] * size[1])]
        arrays = [rng.integers(5, 17, shape) / 16 * rng.choice([-1, 1], shape) for shape in shapes]
        return case(name, *[torch.from_numpy(a).float() for a in (*arrays, logits)], size, grad=[0, 1, 2])

    masks = partial(_masks, rng)
    large = masks(3, (6, 8), (3, 4))
    large[0, :2, :2], large[0, 2:4, 4:6] = ONE_POSITIVE, ONE_NEGATIVE
    large[1, :2, 2:4] = BELOW_HALF
    zeros = masks(3, (2, 3), (2, 3))
    zeros[0, 0, :2], zeros[2] = 0.0, -2.0
    zeros[2, 1, 1] = 0.0
    blocks = masks(2, (4, 6), (2, 3))
    blocks[0, 2:, 2:4] = MEAN_ZERO
    empty = masks(4, (4, 4), (2, 4))
    empty[1] = -np.abs(empty[1]) - 0.5
    one_pixel = masks(2, (4, 6), (2, 3))
    one_pixel[1], one_pixel[1, 1, 2] = -2.0, 0.75
    full = np.abs(masks(2, (3, 3), (3, 3))) + 0.25
    core = [
        drawn("masks of twice the size", 4, large, (3, 4)),
        drawn("masks of the same size", 3, masks(4, (3, 5), (3, 5)), (3, 5)),
        drawn("as many queries as locations", 4, masks(6, (6, 4), (3, 2)), (3, 2)),
    ]
    edge = [
        drawn("one mask is empty", 3, empty, (2, 4)),
        drawn("a mask of one pixel is empty after resizing", 3, one_pixel, (2, 3)),
        drawn("all masks are empty", 2, -full, (3, 3)),
        drawn("all masks are full", 2, full, (3, 3)),
        drawn("logits of exactly 0", 3, zeros, (2, 3)),
        drawn("a mean of exactly 0", 5, blocks, (2, 3)),
        drawn("odd sizes", 3, masks(2, (7, 5), (4, 3)), (4, 3)),
        drawn("one location", 1, masks(2, (3, 3), (1, 1)), (1, 1)),
    ]
    return {"core": (3, core), "edge": (1, edge)}
