"""The masks and detections that `label_by_detector` is tried on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from segedu.teaching.checks.exercise import Case

Box = Sequence[float]  # x1, y1, x2, y2


def _rectangles(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(M, H, W) bool of whole pixels."""
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def _case(
    rng: np.random.Generator, name: str, masks: np.ndarray, boxes: Sequence[Box], ranks: Sequence[int], threshold: float
) -> Case:
    """Everything is moved by whole pixels into a larger image.

    Args:
        rng: of the way, of the labels and of the scores.
        name: of the case.
        masks: (M, H, W).
        boxes: N.
        ranks: the place of each detection by falling score; those of one place have one score.
        threshold: of the IoU.

    Returns:
        The case. No two detections have one label.
    """
    way = rng.integers(0, 4, (2, 2))
    masks = np.pad(masks, ((0, 0), tuple(way[0]), tuple(way[1])))
    moved = np.array(boxes, dtype=float).reshape(-1, 4) + np.tile([way[1, 0], way[0, 0]], 2)
    steps = np.sort(rng.choice(np.arange(1, 64), 8, replace=False))[::-1] / 64
    labels = rng.choice(np.arange(1, 90), len(boxes), replace=False).astype(np.int64)
    arrays = masks, moved, labels, steps[list(ranks)].astype(float)
    return {"name": name, "args": [*map(torch.from_numpy, arrays), threshold]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Boxes that want one mask, masks within masks, a thin mask with a large box; ties, centres on edges, nothing.

    Args:
        rng: of labels, scores, and where in the image all this lies.

    Returns:
        The cases by group.
    """
    case = partial(_case, rng)
    size = (10, 14)
    thin = _rectangles([(0, 0, 8, 8)], size) & ~_rectangles([(1, 1, 8, 8)], size)  # an angle along two sides
    found = [(3, 2, 6, 5), (2, 1, 8, 6), (9, 2, 14, 9), (1, 1, 8, 8), (9, 2, 14, 6)]
    masks = np.concatenate([thin, _rectangles(found, size)])
    boxes = [(9, 2, 14, 9), (2, 2, 7, 7), (1, 0, 8, 8), (9, 2, 14, 7), (0, 0, 8, 8)]
    return {
        "core": (
            2,
            [
                case("boxes that want one mask", masks, boxes, [3, 4, 2, 1, 0], 0.45),
                case("masks that are not good enough", masks[[3, 1, 4]], boxes[1:4], [2, 0, 1], 0.75),
            ],
        ),
        "edge": (1, _limits(case)),
    }


def _limits(case: partial) -> list[Case]:
    """Equal IoUs and scores, an IoU of exactly the threshold, fractions of pixels, one pixel, empty ones, none."""
    size = (8, 8)
    halves = _rectangles([(0, 5, 3, 7), (0, 0, 2, 4), (2, 0, 4, 4)], size)
    parts = _rectangles([(0, 0, 4, 4), (1, 1, 5, 6), (1, 1, 4, 5), (1, 2, 3, 4)], size)
    # the box with its last centres, without its first ones, both ways mixed as round() of halves does, and as it is
    centres = _rectangles([(1, 0, 5, 4), (2, 1, 4, 3), (2, 0, 4, 4), (1, 1, 5, 3), (1, 0, 4, 3)], size)
    empty = _rectangles([(0, 0, 0, 0), (2, 3, 6, 7)], size)
    return [
        case("equal IoUs, equal scores, exactly the threshold", halves, [(0, 0, 4, 4)] * 2, [0, 0], 0.5),
        case("fractions of pixels", parts, [(0.75, 0.75, 4.25, 4.75)], [0], 0.9),
        case("a box that begins and ends at centres", centres, [(1.5, 0.5, 4.5, 3.5)], [0], 0.4),
        case("an empty mask and an empty box", empty, [(3, 3, 3, 3), (2, 3, 6, 6.75)], [0, 1], 0.25),
        case("one pixel", _rectangles([(5, 4, 6, 5), (2, 2, 3, 3)], size), [(2, 2, 3, 3)], [0], 0.75),
        case("no mask", empty[:0], [(2, 3, 6, 7)], [0], 0.5),
        case("no detection", empty, [], [], 0.5),
    ]
