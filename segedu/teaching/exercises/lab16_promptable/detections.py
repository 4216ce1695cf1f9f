"""Cases of `label_by_detector`: masks and detections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Box = Sequence[float]  # x1, y1, x2, y2


def _rectangles(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(M, H, W) bool, from boxes with integer coordinates."""
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def _moved(
    rng: np.random.Generator, masks: np.ndarray, boxes: Sequence[Box], ranks: Sequence[int], threshold: float
) -> list:
    """The arguments: masks and boxes shifted by integers in a larger image, with different labels.

    Args:
        ranks: position of each detection in the order of decreasing score; equal ranks have equal scores.
    """
    pad = rng.integers(0, 4, (2, 2))
    masks = np.pad(masks, ((0, 0), tuple(pad[0]), tuple(pad[1])))
    boxes = np.array(boxes, dtype=float).reshape(-1, 4) + np.tile([pad[1, 0], pad[0, 0]], 2)
    scores = np.sort(rng.choice(np.arange(1, 64), 8, replace=False))[::-1] / 64
    labels = rng.choice(np.arange(1, 90), len(boxes), replace=False).astype(np.int64)
    return [*map(torch.from_numpy, (masks, boxes, labels, scores[list(ranks)].astype(float))), threshold]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Boxes that compete for a mask, masks within masks, a thin mask with a large box; and limits."""
    moved, size = partial(_moved, rng), (10, 14)
    thin = _rectangles([(0, 0, 8, 8)], size) & ~_rectangles([(1, 1, 8, 8)], size)  # an L along two sides of a box
    filled = [(3, 2, 6, 5), (2, 1, 8, 6), (9, 2, 14, 9), (1, 1, 8, 8), (9, 2, 14, 6)]
    masks = np.concatenate([thin, _rectangles(filled, size)])
    boxes = [(9, 2, 14, 9), (2, 2, 7, 7), (1, 0, 8, 8), (9, 2, 14, 7), (0, 0, 8, 8)]
    core = [
        case("boxes that want one mask", *moved(masks, boxes, [3, 4, 2, 1, 0], 0.45)),
        case("masks that are not good enough", *moved(masks[[3, 1, 4]], boxes[1:4], [2, 0, 1], 0.75)),
    ]
    return {"core": (2, core), "edge": (1, _limits(moved))}


def _limits(moved: partial) -> list[Case]:
    """Equal IoUs and scores, an IoU that equals the threshold, fractions of pixels, one pixel, empty inputs."""
    size = (8, 8)
    halves = _rectangles([(0, 5, 3, 7), (0, 0, 2, 4), (2, 0, 4, 4)], size)
    parts = _rectangles([(0, 0, 4, 4), (1, 1, 5, 6), (1, 1, 4, 5), (1, 2, 3, 4)], size)
    # the box with its last centres, without its first ones, both mixed as by round() of halves, and the right pixels
    centres = _rectangles([(1, 0, 5, 4), (2, 1, 4, 3), (2, 0, 4, 4), (1, 1, 5, 3), (1, 0, 4, 3)], size)
    empty = _rectangles([(0, 0, 0, 0), (2, 3, 6, 7)], size)
    return [
        case("equal IoUs, equal scores, exactly the threshold", *moved(halves, [(0, 0, 4, 4)] * 2, [0, 0], 0.5)),
        case("fractions of pixels", *moved(parts, [(0.75, 0.75, 4.25, 4.75)], [0], 0.9)),
        case("a box that begins and ends at centres", *moved(centres, [(1.5, 0.5, 4.5, 3.5)], [0], 0.4)),
        case("an empty mask and an empty box", *moved(empty, [(3, 3, 3, 3), (2, 3, 6, 6.75)], [0, 1], 0.25)),
        case("one pixel", *moved(_rectangles([(5, 4, 6, 5), (2, 2, 3, 3)], size), [(2, 2, 3, 3)], [0], 0.75)),
        case("no mask", *moved(empty[:0], [(2, 3, 6, 7)], [0], 0.5)),
        case("no detection", *moved(empty, [], [], 0.5)),
    ]
