"""The queries, places and masks that `masked_attention` is tried on."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from segedu.teaching.checks.exercise import Case

Size = tuple[int, int]

# blocks of 2 x 2 that become one place; the mean of the logits, of their sigmoids and of their signs disagree
ONE_IS_SURE = [[4.0, -1.0], [-1.0, -1.0]]  # mean 1/4, mean sigmoid 0.45, one of four above 0
ONE_IS_SURE_NOT = [[1.0, 1.0], [-1.5, -6.0]]  # mean below 0, mean sigmoid 0.41, two of four above 0
UNSURE = [[0.25, 0.375], [0.25, 0.25]]  # above 0 and below 1/2
UNDECIDED = [[2.0, -1.5], [-1.0, 0.5]]  # mean exactly 0


def _masks(rng: np.random.Generator, count: int, size: Size, resized: Size) -> np.ndarray:
    """(count, H, W) logits; each has places inside and outside, if there are two."""
    found = []
    while len(found) < count:
        one = rng.integers(-24, 25, size) / 8
        small = F.interpolate(torch.from_numpy(one)[None, None], resized, mode="bilinear").flatten()
        inside = int((small > 0).sum())
        if small.abs().amin() > 0.05 and (min(inside, small.numel() - inside) > 0 or small.numel() == 1):
            found.append(one)
    return np.array(found).reshape(count, *size)


def _case(rng: np.random.Generator, name: str, width: int, logits: np.ndarray, size: Size) -> Case:
    def draw(rows: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(5, 17, (rows, width)) / 16 * rng.choice([-1, 1], (rows, width))).float()

    # sixteenths in single precision, as networks have it: products are exact, and a large number added swallows them
    places = size[0] * size[1]
    args = [draw(len(logits)), draw(places), draw(places), torch.from_numpy(logits).float(), size]
    return {"name": name, "args": args, "grad": [0, 1, 2]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks of twice the size, of the same and of odd sizes; masks that hold nothing; logits of exactly 0; one place.

    Args:
        rng: of all vectors and logits.

    Returns:
        The cases by group. After resizing, no logit is between -0.05 and 0.05, unless it is exactly 0.
    """
    masks, case = partial(_masks, rng), partial(_case, rng)
    large = masks(3, (6, 8), (3, 4))
    large[0, :2, :2], large[0, 2:4, 4:6] = ONE_IS_SURE, ONE_IS_SURE_NOT
    large[1, :2, 2:4] = UNSURE
    zeros = masks(3, (2, 3), (2, 3))
    zeros[0, 0, :2], zeros[2] = 0.0, -2.0
    zeros[2, 1, 1] = 0.0
    blocks = masks(2, (4, 6), (2, 3))
    blocks[0, 2:, 2:4] = UNDECIDED
    empty = masks(4, (4, 4), (2, 4))
    empty[1] = -np.abs(empty[1]) - 0.5
    speck = masks(2, (4, 6), (2, 3))
    speck[1], speck[1, 1, 2] = -2.0, 0.75
    everything = np.abs(masks(2, (3, 3), (3, 3))) + 0.25
    return {
        "core": (
            3,
            [
                case("masks of twice the size", 4, large, (3, 4)),
                case("masks of the same size", 3, masks(4, (3, 5), (3, 5)), (3, 5)),
                case("as many queries as places", 4, masks(6, (6, 4), (3, 2)), (3, 2)),
            ],
        ),
        "edge": (
            1,
            [
                case("one mask holds nothing", 3, empty, (2, 4)),
                case("a speck is gone once resized", 3, speck, (2, 3)),
                case("no mask holds anything", 2, -everything, (3, 3)),
                case("a mask holds everything", 2, everything, (3, 3)),
                case("logits of exactly 0", 3, zeros, (2, 3)),
                case("a mean of exactly 0", 5, blocks, (2, 3)),
                case("odd sizes", 3, masks(2, (7, 5), (4, 3)), (4, 3)),
                case("one place", 1, masks(2, (3, 3), (1, 1)), (1, 1)),
            ],
        ),
    }
