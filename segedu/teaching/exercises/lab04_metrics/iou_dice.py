"""iou_dice: IoU and Dice of two binary masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.metrics.semantic import binary_dice, binary_iou
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def iou_dice(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """IoU and Dice of two masks, (H, W) bool; 1 and 1 if both are empty."""
    return binary_iou(preds, target), binary_dice(preds, target)


def _pair(rng: np.random.Generator, shape: tuple[int, int]) -> list[Tensor]:
    """Prediction and target with at least one true positive, false negative, false positive and true negative."""
    target = rng.random(shape) < 0.4
    preds = np.where(rng.random(shape) < 0.7, target, rng.random(shape) < 0.5)
    flat_target, flat_preds = target.reshape(-1), preds.reshape(-1)
    flat_target[:4], flat_preds[:4] = [1, 1, 0, 0], [1, 0, 1, 0]
    return [torch.from_numpy(preds), torch.from_numpy(target)]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Overlapping, disjoint, nested and equal masks; one mask empty; both empty."""
    preds, target = _pair(rng, (5, 8))
    empty = torch.zeros(4, 6, dtype=torch.bool)
    some = torch.from_numpy(rng.random((4, 6)) < 0.5)
    some[1, 2] = True
    some[0, 0] = False
    core = [
        case("two masks that overlap", preds, target),
        case("two other masks", *_pair(rng, (7, 4))),
        case("a prediction inside the ground truth", target & preds, target),
        case("two masks apart", ~some, some),
    ]
    with_empty = [
        case("both masks empty", empty, empty.clone()),
        case("an empty prediction", empty, some),
        case("an empty ground truth", some, empty),
        case("two equal masks", some, some.clone()),
    ]
    return {"core": (2, core), "empty": (1, with_empty)}


def _counts(preds: Tensor, target: Tensor) -> tuple[int, int, int, int]:
    pairs = ((preds, target), (preds, ~target), (~preds, target), (~preds, ~target))
    return tuple(int((a & b).sum()) for a, b in pairs)


def with_true_negatives(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Count the agreement on the background as overlap."""
    tp, fp, fn, tn = _counts(preds, target)
    return (tp + tn) / (tp + tn + fp + fn), 2 * (tp + tn) / (2 * (tp + tn) + fp + fn)


def empty_divides(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Do not check for two empty masks before dividing."""
    tp, fp, fn, _ = _counts(preds, target)
    return tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)


def smoothed(preds: Tensor, target: Tensor) -> tuple[float, float]:
    """Add 1 to numerator and denominator, as the Dice loss does."""
    tp, fp, fn, _ = _counts(preds, target)
    return (tp + 1) / (tp + fp + fn + 1), (2 * tp + 1) / (2 * tp + fp + fn + 1)


right = Variants(iou_dice)


def _unless_both_empty(change: Callable[[float, float], tuple], otherwise: tuple = (1.0, 1.0)) -> Callable:
    """An answer that changes (iou, dice), but returns `otherwise` for two empty masks."""
    return right.then(lambda out, a: change(*out) if (a.preds | a.target).any() else otherwise)


def _of_counts(tp: int, fp: int, fn: int) -> tuple[float, float]:
    return (tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else (1.0, 1.0)


def _over_xor(a) -> float:
    either = int((a.preds ^ a.target).sum())
    return int((a.preds & a.target).sum()) / either if either else 1.0


def _over_target(a) -> float:
    if not a.target.any():
        return float(not a.preds.any())
    return int((a.preds & a.target).sum()) / int(a.target.sum())


EMPTY_HINT = "Two empty masks agree perfectly, so both values are 1. Check the denominator before you divide."

wrong = [
    Wrong(
        "true negatives counted",
        with_true_negatives,
        "You count pixels outside both masks (true negatives) as overlap. They must not count.",
        "The intersection is the pixels in both masks, the union is the pixels in at least one.",
    ),
    Wrong(
        "empty is 0",
        _unless_both_empty(lambda iou, dice: (iou, dice), otherwise=(0.0, 0.0)),
        "You return 0 when both masks are empty. Both values are 1 then.",
        EMPTY_HINT,
    ),
    Wrong(
        "empty is NaN",
        _unless_both_empty(lambda iou, dice: (iou, dice), otherwise=(float("nan"), float("nan"))),
        "When both masks are empty, you divide 0 by 0 and return NaN. Both values are 1 then.",
        EMPTY_HINT,
    ),
    Wrong(
        "empty raises",
        empty_divides,
        "Your function raises an error when both masks are empty. Both values are 1 then.",
        EMPTY_HINT,
    ),
    Wrong(
        "either empty is 1",
        right.then(lambda out, a: out if a.preds.any() and a.target.any() else (1.0, 1.0)),
        "You return 1 when only one mask is empty. The masks share nothing, so both values are 0.",
        "Only two empty masks are a special case.",
    ),
    Wrong(
        "Dice without 2",
        _unless_both_empty(lambda iou, dice: (iou, dice / 2)),
        "Your Dice lacks the factor 2 of the intersection. Equal masks must have Dice 1.",
        "The denominator of Dice adds both areas, so it counts a shared pixel twice.",
    ),
    Wrong(
        "union is the sum",
        _unless_both_empty(lambda iou, dice: (dice / 2, dice)),
        "You use the sum of both areas as the union. It counts shared pixels twice.",
        "Compare the area of `preds | target` with the sum of the two areas.",
    ),
    Wrong(
        "swapped",
        right.then(lambda out, a: out[::-1]),
        "You return Dice before IoU. Return IoU first, then Dice.",
        "Dice is never smaller than IoU. Which of your two values is larger?",
    ),
    Wrong(
        "percent",
        right.then(lambda out, a: (100 * out[0], 100 * out[1])),
        "You return percentages. Both values lie between 0 and 1.",
        "Leave out the factor 100.",
    ),
    Wrong(
        "smoothed",
        smoothed,
        "You add 1 to the numerator and the denominator. That belongs to a loss, not to the metric.",
        "The metric is exact. Treat two empty masks as a separate case instead.",
    ),
    Wrong(
        "Dice by the inverse formula",
        _unless_both_empty(lambda iou, dice: (iou, iou / (2 - iou))),
        "You compute Dice as IoU / (2 - IoU), which is the formula for IoU from Dice. Dice is 2 IoU / (1 + IoU).",
        "Dice is never smaller than IoU. Which of your two values is larger?",
    ),
    Wrong(
        "union is exclusive or",
        right.instead(lambda a: (_over_xor(a), iou_dice(a.preds, a.target)[1])),
        "You use the exclusive or as the union, which leaves out the intersection. The union contains it.",
        "For bool masks, `^` is the exclusive or and `|` is the union.",
    ),
    Wrong(
        "Dice over the union",
        _unless_both_empty(lambda iou, dice: (iou, 2 * iou)),
        "You divide twice the intersection by the union. The denominator of Dice is the sum of both areas.",
        "Dice can never be larger than 1.",
    ),
    Wrong(
        "mean with the background",
        right.instead(
            lambda a: tuple(np.mean([iou_dice(a.preds, a.target), iou_dice(~a.preds, ~a.target)], 0).tolist())
        ),
        "You average the values of the mask and of the background. Only the mask counts.",
        "Leave out the inverted masks.",
    ),
    Wrong(
        "true negatives for false negatives",
        right.instead(lambda a: _of_counts(*[_counts(a.preds, a.target)[i] for i in (0, 1, 3)])),
        "Your false negatives are the pixels in neither mask. They should be the pixels of the target that are not "
        "predicted.",
        "FN: `~preds & target`.",
    ),
    Wrong(
        "false negatives left out",
        right.instead(lambda a: _of_counts(*_counts(a.preds, a.target)[:2], 0)),
        "You leave out the false negatives. They belong to both denominators.",
        "A pixel of the target that is not predicted makes both values smaller.",
    ),
    Wrong(
        "false positives left out",
        right.instead(lambda a: _of_counts(_counts(a.preds, a.target)[0], 0, _counts(a.preds, a.target)[2])),
        "You leave out the false positives. They belong to both denominators.",
        "A predicted pixel outside the target makes both values smaller.",
    ),
    Wrong(
        "IoU is the recall",
        right.instead(lambda a: (_over_target(a), iou_dice(a.preds, a.target)[1])),
        "You divide the intersection by the area of the ground truth, which gives the recall. Divide it by the union.",
        "The union is the pixels in at least one of the masks.",
    ),
]

exercise = Exercise(
    name="iou_dice",
    points=3,
    cases=cases,
    reference=iou_dice,
    wrong=wrong,
    kind="mask",
    hides=[
        "segedu.metrics.semantic",
        "segedu.metrics.confusion",
        "segedu.metrics.instance",
        "segedu.metrics.coco_overlap",
        "segedu.losses",
        "segedu.promptable.sam.interactive",
    ],
)
