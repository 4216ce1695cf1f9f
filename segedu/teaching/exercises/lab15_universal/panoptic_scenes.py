"""The instances and maps that `merge_panoptic` is tried on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case

VOID = 255
Ranks = list[tuple[int | None, int]]


def _rectangles(shape: tuple[int, int], boxes: list[list[int]]) -> np.ndarray:
    """(N, H, W) bool; boxes are rows from, columns from, rows to, columns to, the ends not included."""
    masks = np.zeros((len(boxes), *shape), dtype=bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def _bands(shape: tuple[int, int], categories: list[int], ends: list[int]) -> np.ndarray:
    """(H, W): bands of rows, each of its category; `ends` are their last rows plus one."""
    rows = np.searchsorted(ends, np.arange(shape[0]), side="right")
    return np.repeat(np.array(categories)[rows][:, None], shape[1], axis=1)


def _case(
    rng: np.random.Generator,
    things: list[int],
    name: str,
    masks: np.ndarray,
    ranks: Ranks,
    semantic: np.ndarray,
    limits: tuple[int, float, float],
) -> Case:
    """Scores for instances, and the picture perhaps turned and mirrored.

    Args:
        rng: of scores and turns.
        things: categories.
        name: of the case.
        masks: (N, H, W).
        ranks: (place by falling score, label) of each instance; those of one place have one score. A negative place
            is below the threshold, and None is exactly at it.
        semantic: (H, W).
        limits: least area of stuff, share that may be taken, threshold of scores.

    Returns:
        The case.
    """
    area, share, least = limits
    steps = np.sort(rng.choice(np.arange(1, 30), 6, replace=False))[::-1] / 64
    scores = [least if p is None else least + steps[p] if p >= 0 else least + p / 16 for p, _ in ranks]
    turned = [masks, semantic[None]]
    if rng.random() < 0.5:
        turned = [a.swapaxes(1, 2) for a in turned]
    for axis in (1, 2):
        if rng.random() < 0.5:
            turned = [np.flip(a, axis) for a in turned]
    arrays = [turned[0], np.array([label for _, label in ranks], dtype=np.int64), np.array(scores, dtype=float)]
    tensors = [torch.from_numpy(a.copy()) for a in (*arrays, turned[1][0])]
    return {"name": name, "args": [*tensors, things, least, share, area]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlaps of masks and of boxes, equal scores, thresholds met exactly, hidden and empty instances, none at all.

    Args:
        rng: of scores, of categories, and of whether pictures are turned and mirrored.

    Returns:
        The cases by group.
    """
    things = sorted(int(t) for t in rng.choice(np.arange(10, 20), 2, replace=False))
    stuff = sorted(int(s) for s in rng.choice(np.arange(1, 10), 3, replace=False))
    kinds = things if rng.random() < 0.5 else things[::-1]
    case = partial(_case, rng, things)
    return {"core": (3, _overlaps(case, kinds, stuff)), "edge": (1, _limits(case, kinds, stuff))}


def _overlaps(case: Callable[..., Case], things: list[int], stuff: list[int]) -> list[Case]:
    """Who takes what, and who is dropped."""
    size, (first, other), (sky, road, _) = (8, 9), things, stuff
    ground = _bands(size, [sky, first, road, VOID], [3, 5, 7, 8])
    cross = _rectangles(size, [[2, 0, 6, 6], [0, 4, 8, 8], [2, 3, 6, 9], [5, 0, 7, 5]])
    # an L and a square in its inner corner: boxes overlap, masks do not
    corner = _rectangles(size, [[1, 1, 7, 7], [1, 3, 5, 7]])
    corner[0] &= ~corner[1]
    twice, meadow = _rectangles(size, [[1, 2, 6, 6], [6, 6, 8, 9], [1, 1, 6, 5]]), _bands(size, stuff, [3, 7, 8])
    # of the third the two others have more than half together; the fourth is nearly the first once more
    chain = _rectangles(size, [[0, 0, 6, 3], [0, 6, 6, 9], [1, 1, 5, 8], [1, 0, 7, 3]])
    # a small one of which a large one has most, and a large one of which a small one has little
    nested = _rectangles(size, [[5, 4, 8, 9], [0, 0, 5, 5], [6, 7, 8, 9], [2, 2, 6, 4]])
    row = [(0, first), (1, other), (2, other), (3, other)]
    half = (0.5, 0.5)
    return [
        case("instances that overlap", cross, [(2, first), (0, other), (1, first), (3, first)], ground, (4, *half)),
        case("boxes overlap, masks do not", corner, [(0, first), (1, first)], ground, (3, *half)),
        case("the same thing twice", twice, [(1, first), (2, other), (0, first)], meadow, (10, *half)),
        case("one between two others", chain, row, ground, (3, 0.55, 0.5)),
        case("small and large", nested, [(3, first), (0, first), (2, other), (1, first)], ground, (2, *half)),
    ]


def _limits(case: Callable[..., Case], things: list[int], stuff: list[int]) -> list[Case]:
    """Each number of the rule met exactly; hidden, empty and missing instances."""
    size = (6, 8)
    first, other = things
    sky, road, grass = stuff
    ground = _bands(size, [sky, road, grass], [2, 5, 6])
    equal = _rectangles(size, [[0, 0, 4, 4], [0, 2, 4, 6], [4, 5, 6, 8]])
    hidden = _rectangles(size, [[1, 1, 5, 7], [2, 2, 4, 6], [0, 0, 0, 0], [5, 0, 6, 3]])
    covered = _rectangles(size, [[0, 0, 2, 6], [5, 0, 6, 5]])
    # of the second 3/5 are taken, of the third 4/5, of the fourth 1/3
    more = _rectangles(size, [[0, 0, 4, 5], [0, 2, 4, 7], [0, 1, 5, 3], [3, 0, 6, 4]])
    whole = _bands(size, [0, first, grass], [1, 4, 6])
    return [
        case("equal scores, half is taken", equal, [(1, first), (1, first), (0, other)], ground, (4, 0.5, 0.5)),
        case("three quarters may be taken", more, [(rank, first) for rank in range(4)], ground, (4, 0.75, 0.5)),
        case("scores at and below the threshold", equal[[0, 2]], [(None, other), (-1, first)], ground, (6, 0.5, 0.25)),
        case(
            "hidden and empty instances",
            hidden,
            [(0, first), (1, other), (1, first), (2, first)],
            ground,
            (4, 1.0, 0.5),
        ),
        case("things cover stuff, down to the least area", covered, [(1, first), (0, first)], ground, (4, 0.5, 0.5)),
        case("down to less than it", covered, [(1, other), (0, first)], ground, (5, 0.5, 0.5)),
        case("no instance, category 0 is stuff", covered[:0], [], whole, (8, 0.5, 0.5)),
        case("one pixel", np.ones((1, 1, 1), dtype=bool), [(0, other)], np.full((1, 1), sky), (1, 0.5, 0.5)),
    ]
