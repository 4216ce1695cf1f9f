"""iou_dice: the two overlap measures of a pair of binary masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.semantic import binary_dice, binary_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def iou_dice(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """IoU and Dice of two masks; 1 and 1 where both are empty.

    Args:
        preds: (H, W) bool.
        target: (H, W) bool.

    Returns:
        Two numbers in [0, 1].
    """
    return binary_iou(preds, target), binary_dice(preds, target)


def _pair(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two masks with at least one pixel of each of TP, FN, FP, TN."""
    target = rng.random(shape) < 0.4
    preds = np.where(rng.random(shape) < 0.7, target, rng.random(shape) < 0.5)
    flat_target, flat_preds = target.reshape(-1), preds.reshape(-1)
    flat_target[:4], flat_preds[:4] = [1, 1, 0, 0], [1, 0, 1, 0]
    return torch.from_numpy(preds), torch.from_numpy(target)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlapping, disjoint, nested and equal masks; one mask empty; both empty.

    Args:
        rng: of the drawn masks.

    Returns:
        The cases by group.
    """
    preds, target = _pair(rng, (5, 8))
    small = target & preds
    empty = torch.zeros(4, 6, dtype=torch.bool)
    some = torch.from_numpy(rng.random((4, 6)) < 0.5)
    some[1, 2] = True
    some[0, 0] = False
    return {
        "core": (
            2,
            [
                {"name": "two masks that overlap", "args": [preds, target]},
                {"name": "two other masks", "args": [*_pair(rng, (7, 4))]},
                {"name": "a prediction inside the truth", "args": [small, target]},
                {"name": "two masks apart", "args": [~some, some]},
            ],
        ),
        "empty": (
            1,
            [
                {"name": "both masks empty", "args": [empty, empty.clone()]},
                {"name": "an empty prediction", "args": [empty, some]},
                {"name": "an empty truth", "args": [some, empty]},
                {"name": "two equal masks", "args": [some, some.clone()]},
            ],
        ),
    }


def _counts(preds: Tensor, target: Tensor) -> tuple[int, int, int, int]:
    pairs = ((preds, target), (preds, ~target), (~preds, target), (~preds, ~target))
    return tuple(int((a & b).sum()) for a, b in pairs)


def with_true_negatives(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Agreement on the background counts as overlap."""
    tp, fp, fn, tn = _counts(preds, target)
    return (tp + tn) / (tp + tn + fp + fn), 2 * (tp + tn) / (2 * (tp + tn) + fp + fn)


def empty_is_zero(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """0 where both masks are empty."""
    return iou_dice(preds, target) if (preds | target).any() else (0.0, 0.0)


def empty_is_nan(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """0/0 where both masks are empty."""
    return iou_dice(preds, target) if (preds | target).any() else (float("nan"), float("nan"))


def empty_divides(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """ZeroDivisionError where both masks are empty."""
    tp, fp, fn, _ = _counts(preds, target)
    return tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)


def either_empty_is_one(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """1 wherever one of the masks is empty."""
    return iou_dice(preds, target) if preds.any() and target.any() else (1.0, 1.0)


def dice_without_two(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Dice = intersection / (sum of the areas)."""
    iou, dice = iou_dice(preds, target)
    return iou, dice / 2 if (preds | target).any() else 1.0


def union_is_sum(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """The union counts the intersection twice."""
    iou, dice = iou_dice(preds, target)
    return dice / 2 if (preds | target).any() else iou, dice


def swapped(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Dice first."""
    return iou_dice(preds, target)[::-1]


def percent(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """From 0 to 100."""
    iou, dice = iou_dice(preds, target)
    return 100 * iou, 100 * dice


def smoothed(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Adds one above and below, as the Dice loss does."""
    tp, fp, fn, _ = _counts(preds, target)
    return (tp + 1) / (tp + fp + fn + 1), (2 * tp + 1) / (2 * tp + fp + fn + 1)


EMPTY_HINT = "Two empty masks agree perfectly, so both values are 1. Look at the denominator before you divide."

exercise = Exercise(
    name="iou_dice",
    points=3,
    cases=cases,
    reference=iou_dice,
    kind="mask",
    hides=["segedu.metrics.semantic", "segedu.metrics.confusion", "segedu.metrics.instance", "segedu.losses.dice"],
    wrong=[
        Wrong(
            "true negatives counted",
            with_true_negatives,
            "You count background that both masks leave out (true negatives) as overlap.",
            "Intersection: pixels in both masks. Union: pixels in at least one. Pixels in neither play no part.",
        ),
        Wrong("empty is 0", empty_is_zero, "You give 0 when both masks are empty.", EMPTY_HINT),
        Wrong("empty is NaN", empty_is_nan, "You divide 0 by 0 when both masks are empty and get NaN.", EMPTY_HINT),
        Wrong("empty raises", empty_divides, "You divide by zero when both masks are empty.", EMPTY_HINT),
        Wrong(
            "either empty is 1",
            either_empty_is_one,
            "You give 1 when only one of the masks is empty: it missed everything, so both values are 0.",
            "The special case is that both masks are empty.",
        ),
        Wrong(
            "Dice without 2",
            dice_without_two,
            "Your Dice lacks the factor 2: equal masks must have Dice 1.",
            "The denominator of Dice adds both areas, so a shared pixel is in it twice.",
        ),
        Wrong(
            "union is the sum",
            union_is_sum,
            "You take the sum of both areas for the union: shared pixels are counted twice.",
            "Compare `|` on the masks with the sum of the two areas.",
        ),
        Wrong(
            "swapped",
            swapped,
            "You return Dice before IoU.",
            "The order is (iou, dice); Dice is never the smaller one.",
        ),
        Wrong("percent", percent, "You return percent: both values lie between 0 and 1.", "Leave out the factor 100."),
        Wrong(
            "smoothed",
            smoothed,
            "You add 1 above and below the fraction: that belongs to a loss, not to the metric.",
            "The metric is exact. Treat two empty masks as a case of their own instead.",
        ),
    ],
)
