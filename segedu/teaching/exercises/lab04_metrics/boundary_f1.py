"""boundary_f1: do the outlines of two masks agree, within a tolerance?"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from torch import Tensor

from segedu.metrics.boundary import boundary_f1, mask_boundary
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def _rectangle(shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Shifted and unequal rectangles at several tolerances, masks at the image border, empty and full masks.

    Args:
        rng: of places and sizes.

    Returns:
        The cases by group.
    """
    top, left = rng.integers(2, 4, 2).tolist()
    height, width = rng.integers(6, 9, 2).tolist()
    truth = _rectangle((15, 17), top, left, height, width)
    shifted = _rectangle((15, 17), top + 2, left + 2, height, width)
    larger = _rectangle((15, 17), top, left, height + 3, width + 1)
    smaller = _rectangle((15, 17), top + 2, left + 2, height - 4, width - 4)  # corners 2.83 pixels or 4 steps away
    speck = _rectangle((15, 17), 12, 14, 2, 2)  # too few pixels would let (P + R) / 2 pass for F1
    at_border = _rectangle((15, 17), 0, 0, height, width)
    wider = _rectangle((15, 17), 0, 0, height, width + 4)
    empty = torch.zeros(9, 11, dtype=torch.bool)
    some = _rectangle((9, 11), 3, 4, *rng.integers(2, 4, 2).tolist())
    far = _rectangle((9, 11), 1, 9, 1, 1)
    return {
        "core": (
            1,
            [
                {"name": "a shifted rectangle, tolerance 2", "args": [shifted, truth, 2]},
                {"name": "a larger rectangle, tolerance 1", "args": [larger, truth, 1]},
                {"name": "a smaller rectangle, tolerance 3", "args": [smaller, truth, 3]},
                {"name": "a speck too many, tolerance 1", "args": [truth | speck, truth, 1]},
                {"name": "a speck missed, tolerance 1.5", "args": [shifted, truth | speck, 1.5]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "masks that touch the border of the image", "args": [wider, at_border, 1]},
                {"name": "two masks far apart", "args": [some, far, 1]},
                {"name": "an empty prediction", "args": [empty, some, 1]},
                {"name": "an empty truth", "args": [some, empty, 2]},
                {"name": "two empty masks", "args": [empty, empty.clone(), 1]},
                {"name": "a mask that fills the image, and an empty one", "args": [~empty, empty, 1]},
            ],
        ),
    }


def _near(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    return distance_transform_edt(~boundary) <= tolerance


def _square(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    side = 2 * int(tolerance) + 1
    return binary_dilation(boundary, np.ones((side, side)))


def _cross(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    return binary_dilation(boundary, iterations=int(tolerance))


def _score(pred: np.ndarray, true: np.ndarray, tolerance: float, near=_near) -> tuple[float, float] | None:
    """Precision and recall, or None where a boundary is empty."""
    if not pred.any() or not true.any():
        return None
    return float(near(true, tolerance)[pred].mean()), float(near(pred, tolerance)[true].mean())


def _f1(pred: np.ndarray, true: np.ndarray, tolerance: float, near=_near) -> float:
    score = _score(pred, true, tolerance, near)
    if score is None:
        return float(pred.any() == true.any())
    return 2 * score[0] * score[1] / sum(score) if sum(score) else 0.0


def _boundaries(*masks: Tensor) -> list[np.ndarray]:
    return [mask_boundary(mask).numpy() for mask in masks]


def square_window(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Distances along the diagonal count as 1."""
    return _f1(*_boundaries(preds, target), tolerance, near=_square)


def cross_window(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Counts steps up, down, left and right."""
    return _f1(*_boundaries(preds, target), tolerance, near=_cross)


def diameter(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """The tolerance is taken for the width of the band."""
    return _f1(*_boundaries(preds, target), tolerance / 2)


def strictly_closer(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """< in place of <=."""
    return _f1(*_boundaries(preds, target), np.nextafter(tolerance, -1))


def image_border(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """What lies beyond the image counts as outside."""
    return _f1(*[m & ~binary_erosion(m) for m in (preds.numpy(), target.numpy())], tolerance)


def whole_masks(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """All pixels of the masks instead of their boundaries."""
    return _f1(preds.numpy(), target.numpy(), tolerance)


def precision_only(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """One direction."""
    pred, true = _boundaries(preds, target)
    score = _score(pred, true, tolerance)
    return float(pred.any() == true.any()) if score is None else score[0]


def recall_only(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """The other direction."""
    return precision_only(target, preds, tolerance)


def arithmetic_mean(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """(P + R) / 2."""
    return (precision_only(preds, target, tolerance) + recall_only(preds, target, tolerance)) / 2


def empty_raises(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Divides by the number of boundary pixels, which may be 0."""
    pred, true = _boundaries(preds, target)
    hits = [int(_near(b, tolerance)[a].sum()) / int(a.sum()) for a, b in ((pred, true), (true, pred))]
    return 2 * hits[0] * hits[1] / sum(hits)


def empty_nan(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """0/0 is NaN, as in numpy: where a boundary is empty, and where precision and recall are 0."""
    value = apart_nan(preds, target, tolerance)
    return value if all(b.any() for b in _boundaries(preds, target)) else float("nan")


def apart_nan(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """0/0 where precision and recall are 0."""
    pred, true = _boundaries(preds, target)
    score = _score(pred, true, tolerance)
    return float("nan") if score == (0.0, 0.0) else _f1(pred, true, tolerance)


def empty_zero(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """0 where neither mask has a boundary."""
    pred, true = _boundaries(preds, target)
    return _f1(pred, true, tolerance) if pred.any() and true.any() else 0.0


EMPTY_HINT = "No boundary in either mask: 1. A boundary in only one of them: 0. Decide this before you divide."

exercise = Exercise(
    name="boundary_f1",
    points=2,
    cases=cases,
    reference=boundary_f1,
    kind="mask",
    hides=["segedu.metrics.boundary"],
    wrong=[
        Wrong(
            "square, not radius",
            square_window,
            "You search a square window: the tolerance is a radius, measured in a straight line.",
            "A neighbour along the diagonal is sqrt(2) = 1.41 pixels away, not 1.",
        ),
        Wrong(
            "steps, not radius",
            cross_window,
            "You count steps up, down, left and right: the tolerance is a radius, measured in a straight line.",
            "Two pixels right and two down is 2.83 pixels away, not 4.",
        ),
        Wrong(
            "width, not radius",
            diameter,
            "You take the tolerance for the width of the band: it is the radius.",
            "A boundary pixel that is exactly `tolerance` pixels away still counts.",
        ),
        Wrong(
            "strictly closer",
            strictly_closer,
            "You ask for a distance below the tolerance: at the tolerance still counts.",
            "With tolerance 0 equal boundaries must have F1 1.",
        ),
        Wrong(
            "image border",
            image_border,
            "You count the border of the image as boundary: beyond it nothing is known.",
            "A mask that fills the image has no boundary at all. Look at `border_value` of the erosion.",
        ),
        Wrong(
            "whole masks",
            whole_masks,
            "You compare all pixels of the masks: only their boundary pixels count.",
            "A boundary pixel has a pixel outside the mask above, below, left or right of it.",
        ),
        Wrong(
            "precision only",
            precision_only,
            "You return the precision: what the prediction missed costs nothing.",
            "Measure in both directions: predicted to true, and true to predicted.",
        ),
        Wrong(
            "recall only",
            recall_only,
            "You return the recall: what the prediction invented costs nothing.",
            "Measure in both directions: predicted to true, and true to predicted.",
        ),
        Wrong(
            "arithmetic mean",
            arithmetic_mean,
            "You average precision and recall: F1 is their harmonic mean, 2PR / (P + R).",
            "If one of the two is 0, F1 is 0.",
        ),
        Wrong("empty raises", empty_raises, "You divide by zero when a mask has no boundary.", EMPTY_HINT),
        Wrong("empty is NaN", empty_nan, "You return NaN when a mask has no boundary.", EMPTY_HINT),
        Wrong(
            "0/0 far apart",
            apart_nan,
            "You divide 0 by 0 when precision and recall are both 0: F1 is 0 then.",
            "Two outlines that are nowhere near each other. Look at P + R before you divide.",
        ),
        Wrong("empty is 0", empty_zero, "You return 0 when neither mask has a boundary: they agree.", EMPTY_HINT),
    ],
)
