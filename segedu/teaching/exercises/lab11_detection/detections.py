"""Cases of `nms`: detections that overlap."""

from __future__ import annotations

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Detection = tuple[tuple[float, float, float, float], float, int]  # box, score, label


def _args(rng: np.random.Generator, parts: list[Detection], threshold: float, shuffle: bool = True) -> list:
    order = rng.permutation(len(parts)) if shuffle else range(len(parts))
    boxes, scores, labels = zip(*[parts[i] for i in order], strict=True)
    boxes, scores = (torch.tensor(values, dtype=torch.float64) for values in (boxes, scores))
    return [boxes, scores, torch.tensor(labels), threshold]


def _box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    return left, top, left + width, top + height


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Crowds, chains, ties and thresholds; corners are quarters of a pixel, so that IoUs are exact where it matters."""
    high = (rng.permutation(np.linspace(0.71, 0.97, 6)) + rng.uniform(-0.02, 0.02, 6)).tolist()
    low = (rng.permutation(np.linspace(0.31, 0.57, 6)) + rng.uniform(-0.02, 0.02, 6)).tolist()
    one, two = (int(n) for n in rng.permutation([1, 2, 3])[:2])
    d, side = int(rng.integers(1, 4)) / 4, int(rng.integers(8, 12))
    crowd = [
        (_box(10, 10, 20, 16), high[0], one),
        (_box(11, 10 + d, 20, 16), low[0], one),  # nearly the same
        (_box(14, 12, 5, 5), low[1], one),  # small and inside: their IoU is small
        (_box(26 + d, 14, 20, 12), low[2], one),  # overlaps a little
        (_box(60, 10, 8, side), high[1], one),
        (_box(60 + d, 10.5, 8, side), low[3], one),
        (_box(60, 10, 8.5, side + d), low[4], one),
        (_box(90, 40, 5, 5), high[2], one),  # alone
    ]
    classes = [
        (_box(10, 10, 20, 16), high[0], one),
        (_box(10 + d, 10, 20, 16), high[1], two),
        (_box(11, 10, 19, 16), low[0], one),
        (_box(11, 11, 20, 15), low[1], two),
        (_box(60, 30, 8, side), high[2], one),
        (_box(60, 30, 8, side), low[2], two),
        (_box(40, 50, 6, 6), high[3], two),
        (_box(40, 50.25, 6, 6), low[3], two),
    ]
    chain = [(_box(10 + 3 * i, 10, 8, side), 0.9 - 0.08 * i + d / 40, one) for i in range(5)]  # each removes the next
    chain += [(_box(10 + 3 * i, 40, 8, side), 0.4 + 0.05 * i + d / 40, one) for i in range(4)]
    core = [
        case("a crowd of one class", *_args(rng, crowd, 0.5)),
        case("two overlapping classes", *_args(rng, classes, 0.5)),
        case("chains", *_args(rng, chain, 0.3)),
    ]
    return {"core": (2, core), "edge": (1, _edge_cases(rng, one, two))}


def _edge_cases(rng: np.random.Generator, one: int, two: int) -> list[Case]:
    top = float(rng.integers(1, 9))
    limits = [  # IoUs of exactly 1/2, and of a little more
        (_box(0, top, 6, 8), 0.9, one),
        (_box(2, top, 6, 8), 0.8, one),
        (_box(20, top, 8, 8), 0.7, two),
        (_box(20, top, 8, 4), 0.6, two),
        (_box(20, top + 3.75, 8, 4.25), 0.5, two),
    ]
    ties = [(_box(4 * (i % 3), top + 10 * (i // 3), 8, 6), 0.75 - 0.25 * (i // 6), one) for i in range(9)]
    same = [(_box(3, top, 6, 4), score, two) for score in (0.5, 0.75, 0.625)]
    same += [(_box(3, top, 6, 4), score, one) for score in (0.25, 0.375)]
    growing = [(_box(10, 10, 10, 10), 0.9, one), (_box(14, 10, 12, 10), 0.8, one), (_box(19, 10, 10, 10), 0.7, one)]
    touching = [(_box(8 * i, top, 8, 4), 0.9 - 0.1 * i, one) for i in range(3)] + [(_box(0, top + 9, 7, 4), 0.45, one)]
    touching += [(_box(40, 1, 0.5, 0.5), 0.8, two), (_box(40.25, 1.25, 0.5, 0.5), 0.3, two)]  # smaller than a pixel
    none = [torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)]
    return [
        case("IoUs exactly at the limit", *_args(rng, limits, 0.5)),
        case("equal scores", *_args(rng, ties, 0.25, shuffle=False)),
        case("equal boxes", *_args(rng, same, 0.7)),
        case("a removed detection overlaps another", *_args(rng, growing, 0.25)),
        case("a threshold of 0", *_args(rng, touching, 0.0)),
        case("one detection", *_args(rng, same[:1], 0.5)),
        case("no detection", *none, 0.5),
    ]
