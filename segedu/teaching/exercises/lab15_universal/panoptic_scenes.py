"""The instances and semantic maps of the cases of `merge_panoptic`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

VOID = 255
Ranks = list[tuple[int | None, int]]


def _rectangles(shape: tuple[int, int], boxes: list[list[int]]) -> np.ndarray:
    """(N, H, W) bool. A box is top, left, bottom, right; bottom and right are exclusive."""
    masks = np.zeros((len(boxes), *shape), dtype=bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def _bands(shape: tuple[int, int], categories: list[int], ends: list[int]) -> np.ndarray:
    """(H, W): bands of rows, one per category, each up to its end (exclusive)."""
    rows = np.searchsorted(ends, np.arange(shape[0]), side="right")
    return np.repeat(np.array(categories)[rows][:, None], shape[1], axis=1)


def _drawn(
    rng: np.random.Generator,
    things: list[int],
    name: str,
    masks: np.ndarray,
    ranks: Ranks,
    semantic: np.ndarray,
    limits: tuple[int, float, float],
) -> Case:
    """Draw scores, and transpose and flip the image at random.

    Args:
        rng: random generator.
        things: categories.
        name: of the case.
        masks: (N, H, W).
        ranks: (rank by decreasing score, label) of each instance. Instances of one rank have equal scores. A negative
            rank is below the score threshold, and None is exactly at it.
        semantic: (H, W).
        limits: stuff_area, overlap_threshold, score_threshold.
    """
    area, overlap, threshold = limits
    steps = np.sort(rng.choice(np.arange(1, 30), 6, replace=False))[::-1] / 64
    above = {None: 0.0} | {rank: steps[rank] if rank >= 0 else rank / 16 for rank, _ in ranks if rank is not None}
    maps = [masks, semantic[None]]
    if rng.random() < 0.5:
        maps = [a.swapaxes(1, 2) for a in maps]
    for axis in (1, 2):
        if rng.random() < 0.5:
            maps = [np.flip(a, axis) for a in maps]
    labels = np.array([label for _, label in ranks], dtype=np.int64)
    scores = np.array([threshold + above[rank] for rank, _ in ranks], dtype=float)
    tensors = [torch.from_numpy(a.copy()) for a in (maps[0], labels, scores, maps[1][0])]
    return case(name, *tensors, things, threshold, overlap, area)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlaps of masks and of boxes; equal scores and thresholds met exactly; hidden, empty and no instances."""
    things = sorted(int(t) for t in rng.choice(np.arange(10, 20), 2, replace=False))
    stuff = sorted(int(s) for s in rng.choice(np.arange(1, 10), 3, replace=False))
    labels = things if rng.random() < 0.5 else things[::-1]
    drawn = partial(_drawn, rng, things)
    return {"core": (3, _overlaps(drawn, labels, stuff)), "edge": (1, _limits(drawn, labels, stuff))}


def _overlaps(drawn: Callable[..., Case], things: list[int], stuff: list[int]) -> list[Case]:
    size, (first, other), (sky, road, _) = (8, 9), things, stuff
    ground = _bands(size, [sky, first, road, VOID], [3, 5, 7, 8])
    cross = _rectangles(size, [[2, 0, 6, 6], [0, 4, 8, 8], [2, 3, 6, 9], [5, 0, 7, 5]])
    # an L and a square in its inner corner: boxes overlap, masks do not
    corner = _rectangles(size, [[1, 1, 7, 7], [1, 3, 5, 7]])
    corner[0] &= ~corner[1]
    twice, meadow = _rectangles(size, [[1, 2, 6, 6], [6, 6, 8, 9], [1, 1, 6, 5]]), _bands(size, stuff, [3, 7, 8])
    # the first two together have more than half of the third; the fourth is nearly a duplicate of the first
    chain = _rectangles(size, [[0, 0, 6, 3], [0, 6, 6, 9], [1, 1, 5, 8], [1, 0, 7, 3]])
    # a small instance mostly inside a large one, and a large one that a small one overlaps a little
    nested = _rectangles(size, [[5, 4, 8, 9], [0, 0, 5, 5], [6, 7, 8, 9], [2, 2, 6, 4]])
    row = [(0, first), (1, other), (2, other), (3, other)]
    half = (0.5, 0.5)
    return [
        drawn("instances that overlap", cross, [(2, first), (0, other), (1, first), (3, first)], ground, (4, *half)),
        drawn("boxes overlap, masks do not", corner, [(0, first), (1, first)], ground, (3, *half)),
        drawn("the same thing twice", twice, [(1, first), (2, other), (0, first)], meadow, (10, *half)),
        drawn("one between two others", chain, row, ground, (3, 0.55, 0.5)),
        drawn("small and large", nested, [(3, first), (0, first), (2, other), (1, first)], ground, (2, *half)),
    ]


def _limits(drawn: Callable[..., Case], things: list[int], stuff: list[int]) -> list[Case]:
    """Thresholds met exactly; hidden, empty and no instances."""
    size, (first, other), (sky, road, grass) = (6, 8), things, stuff
    ground = _bands(size, [sky, road, grass], [2, 5, 6])
    equal = _rectangles(size, [[0, 0, 4, 4], [0, 2, 4, 6], [4, 5, 6, 8]])
    hidden = _rectangles(size, [[1, 1, 5, 7], [2, 2, 4, 6], [0, 0, 0, 0], [5, 0, 6, 3]])
    hidden_ranks = [(0, first), (1, other), (1, first), (2, first)]
    covered = _rectangles(size, [[0, 0, 2, 6], [5, 0, 6, 5]])
    # 3/5 of the second are taken, 4/5 of the third, 1/3 of the fourth
    more = _rectangles(size, [[0, 0, 4, 5], [0, 2, 4, 7], [0, 1, 5, 3], [3, 0, 6, 4]])
    whole = _bands(size, [0, first, grass], [1, 4, 6])
    return [
        drawn("equal scores, half is taken", equal, [(1, first), (1, first), (0, other)], ground, (4, 0.5, 0.5)),
        drawn("three quarters may be taken", more, [(rank, first) for rank in range(4)], ground, (4, 0.75, 0.5)),
        drawn("scores at and below the threshold", equal[[0, 2]], [(None, other), (-1, first)], ground, (6, 0.5, 0.25)),
        drawn("hidden and empty instances", hidden, hidden_ranks, ground, (4, 1.0, 0.5)),
        drawn("stuff has exactly stuff_area left", covered, [(1, first), (0, first)], ground, (4, 0.5, 0.5)),
        drawn("stuff has less than stuff_area left", covered, [(1, other), (0, first)], ground, (5, 0.5, 0.5)),
        drawn("no instance, category 0 is stuff", covered[:0], [], whole, (8, 0.5, 0.5)),
        drawn("one pixel", np.ones((1, 1, 1), dtype=bool), [(0, other)], np.full((1, 1), sky), (1, 0.5, 0.5)),
    ]
