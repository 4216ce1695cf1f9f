"""boundary_f1: whether the outlines of two masks agree, within a tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from torch import Tensor

from segedu.metrics.boundary import boundary_f1, mask_boundary
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def _rectangle(shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Shifted and unequal rectangles at several tolerances, masks at the image border, empty and full masks."""
    top, left = rng.integers(2, 4, 2).tolist()
    height, width = rng.integers(6, 9, 2).tolist()
    target = _rectangle((15, 17), top, left, height, width)
    shifted = _rectangle((15, 17), top + 2, left + 2, height, width)
    larger = _rectangle((15, 17), top, left, height + 3, width + 1)
    smaller = _rectangle((15, 17), top + 2, left + 2, height - 4, width - 4)  # corners 2.83 pixels or 4 steps away
    speck = _rectangle((15, 17), 12, 14, 2, 2)  # with fewer pixels, (P + R) / 2 would pass for F1
    at_border = _rectangle((15, 17), 0, 0, height, width)
    wider = _rectangle((15, 17), 0, 0, height, width + 4)
    empty = torch.zeros(9, 11, dtype=torch.bool)
    some = _rectangle((9, 11), 3, 4, *rng.integers(2, 4, 2).tolist())
    far = _rectangle((9, 11), 1, 9, 1, 1)
    core = [
        case("a shifted rectangle, tolerance 2", shifted, target, 2),
        case("a larger rectangle, tolerance 1", larger, target, 1),
        case("a smaller rectangle, tolerance 3", smaller, target, 3),
        case("a false positive speck, tolerance 1", target | speck, target, 1),
        case("a missed speck, tolerance 1.5", shifted, target | speck, 1.5),
    ]
    edge = [
        case("masks that touch the border of the image", wider, at_border, 1),
        case("two masks far apart", some, far, 1),
        case("an empty prediction", empty, some, 1),
        case("an empty ground truth", some, empty, 2),
        case("two empty masks", empty, empty.clone(), 1),
        case("a mask that fills the image, and an empty one", ~empty, empty, 1),
    ]
    return {"core": (1, core), "edge": (1, edge)}


def _disc(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    return distance_transform_edt(~boundary) <= tolerance


def _square(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    side = 2 * int(tolerance) + 1
    return binary_dilation(boundary, np.ones((side, side)))


def _steps(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    return binary_dilation(boundary, iterations=int(tolerance))


def _f1(pred: np.ndarray, true: np.ndarray, tolerance: float, near: Callable = _disc) -> float:
    """F1 of two boundaries; `near` marks the pixels within the tolerance of a boundary."""
    if not pred.any() or not true.any():
        return float(pred.any() == true.any())
    precision, recall = float(near(true, tolerance)[pred].mean()), float(near(pred, tolerance)[true].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundaries(preds: Tensor, target: Tensor) -> list[np.ndarray]:
    return [mask_boundary(mask).numpy() for mask in (preds, target)]


def _both_have_boundaries(a) -> bool:
    return all(boundary.any() for boundary in _boundaries(a.preds, a.target))


def precision_only(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """The fraction of predicted boundary pixels near the true boundary."""
    pred, true = _boundaries(preds, target)
    if not pred.any() or not true.any():
        return float(pred.any() == true.any())
    return float(_disc(true, tolerance)[pred].mean())


def divides_by_zero(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Divide by the number of boundary pixels, and by P + R, without a check for 0."""
    pred, true = _boundaries(preds, target)
    precision = int(_disc(true, tolerance)[pred].sum()) / int(pred.sum())
    recall = int(_disc(pred, tolerance)[true].sum()) / int(true.sum())
    return 2 * precision * recall / (precision + recall)


def image_border(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Treat what lies beyond the image as outside the mask."""
    return _f1(*[m & ~binary_erosion(m) for m in (preds.numpy(), target.numpy())], tolerance)


def whole_masks(preds: Tensor, target: Tensor, tolerance: float) -> float:
    """Compare all pixels of the masks instead of their boundaries."""
    return _f1(preds.numpy(), target.numpy(), tolerance)


def _masks(a) -> list[np.ndarray]:
    return [a.preds.numpy(), a.target.numpy()]


def _harmonic(precision: float, recall: float) -> float:
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _near_mask(a) -> float:
    """Mark pixels within the tolerance of the other mask."""
    boundaries, masks = _boundaries(a.preds, a.target), _masks(a)
    if not all(boundary.any() for boundary in boundaries):
        return boundary_f1(a.preds, a.target, a.tolerance)
    return _harmonic(*[_disc(masks[1 - i], a.tolerance)[boundaries[i]].mean() for i in (0, 1)])


def _inverted(boundary: np.ndarray, tolerance: float) -> np.ndarray:
    return distance_transform_edt(boundary) <= tolerance


def _iou_of_wide(a) -> float:
    if not _both_have_boundaries(a):
        return boundary_f1(a.preds, a.target, a.tolerance)
    one, other = [_disc(boundary, a.tolerance) for boundary in _boundaries(a.preds, a.target)]
    return float((one & other).sum() / (one | other).sum())


def _pooled(a) -> float:
    if not _both_have_boundaries(a):
        return boundary_f1(a.preds, a.target, a.tolerance)
    pred, true = _boundaries(a.preds, a.target)
    hits = _disc(true, a.tolerance)[pred].sum() + _disc(pred, a.tolerance)[true].sum()
    return float(hits / (pred.sum() + true.sum()))


def _of_the_image(a) -> float:
    if not _both_have_boundaries(a):
        return boundary_f1(a.preds, a.target, a.tolerance)
    pred, true = _boundaries(a.preds, a.target)
    return _harmonic((pred & _disc(true, a.tolerance)).mean(), (true & _disc(pred, a.tolerance)).mean())


recall_only = Variants(precision_only).given(preds=lambda a: a.target, target=lambda a: a.preds)
EMPTY_HINT = "No boundary in either mask: 1. A boundary in only one of them: 0. Decide this before you divide."
DIRECTIONS_HINT = "Measure in both directions: from the prediction to the ground truth, and back."
right = Variants(boundary_f1)

wrong = [
    Wrong(
        "square, not radius",
        right.instead(lambda a: _f1(*_boundaries(a.preds, a.target), a.tolerance, near=_square)),
        "You search a square window. The tolerance is a radius, so use the Euclidean distance.",
        "A diagonal neighbour is sqrt(2) = 1.41 pixels away, not 1.",
    ),
    Wrong(
        "steps, not radius",
        right.instead(lambda a: _f1(*_boundaries(a.preds, a.target), a.tolerance, near=_steps)),
        "You measure distances in horizontal and vertical steps. Use the Euclidean distance.",
        "Two pixels right and two down is 2.83 pixels away, not 4.",
    ),
    Wrong(
        "width, not radius",
        right.given(tolerance=lambda a: a.tolerance / 2),
        "You use the tolerance as the full width of the band around a boundary. It is a radius, half of that width.",
        "A boundary pixel that is exactly `tolerance` pixels away still counts.",
    ),
    Wrong(
        "strictly closer",
        right.given(tolerance=lambda a: np.nextafter(a.tolerance, -1)),
        "You require a distance below the tolerance. A distance equal to it still counts.",
        "With tolerance 0, equal boundaries must have F1 1.",
    ),
    Wrong(
        "image border",
        image_border,
        "You count mask pixels at the image border as boundary. The border of the image is not a boundary of the mask.",
        "A mask that fills the image has no boundary at all. Look at `border_value` of the erosion.",
    ),
    Wrong(
        "whole masks",
        whole_masks,
        "You compare all pixels of the masks. Only their boundary pixels count.",
        "A boundary pixel has a pixel outside the mask above, below, left or right of it.",
    ),
    Wrong(
        "precision only",
        precision_only,
        "You return the precision, which ignores missed boundary pixels. F1 combines precision and recall.",
        DIRECTIONS_HINT,
    ),
    Wrong(
        "recall only",
        recall_only,
        "You return the recall, which ignores wrongly predicted boundary pixels. F1 combines precision and recall.",
        DIRECTIONS_HINT,
    ),
    Wrong(
        "arithmetic mean",
        right.instead(lambda a: (precision_only(**vars(a)) + recall_only(**vars(a))) / 2),
        "You average precision and recall. F1 is their harmonic mean, 2PR / (P + R).",
        "If one of the two is 0, F1 is 0.",
    ),
    Wrong(
        "empty raises",
        divides_by_zero,
        "Your function raises an error when a mask has no boundary. Return 1 if neither mask has one, and 0 if only "
        "one has.",
        EMPTY_HINT,
    ),
    Wrong(
        "empty is NaN",
        right.then(lambda f1, a: f1 if f1 and _both_have_boundaries(a) else float("nan")),
        "You return NaN when a mask has no boundary. Return 1 if neither mask has one, and 0 if only one has.",
        EMPTY_HINT,
    ),
    Wrong(
        "0/0 far apart",
        right.then(lambda f1, a: f1 if f1 or not _both_have_boundaries(a) else float("nan")),
        "You divide 0 by 0 when precision and recall are both 0. F1 is 0 then.",
        "Take two outlines that are nowhere near each other. Check P + R before you divide.",
    ),
    Wrong(
        "empty is 0",
        right.then(lambda f1, a: f1 if _both_have_boundaries(a) else 0.0),
        "You return 0 when neither mask has a boundary. The two masks agree then, so return 1.",
        EMPTY_HINT,
    ),
    Wrong(
        "outer boundary",
        right.instead(lambda a: _f1(*[binary_dilation(m) & ~m for m in _masks(a)], a.tolerance)),
        "Your boundary lies outside the mask. The boundary pixels belong to the mask.",
        "Remove the eroded mask from the mask, instead of the mask from the dilated one.",
    ),
    Wrong(
        "both sides of the outline",
        right.instead(
            lambda a: _f1(*[binary_dilation(m) & ~binary_erosion(m, border_value=1) for m in _masks(a)], a.tolerance)
        ),
        "Your boundary has pixels on both sides of the outline. The boundary pixels belong to the mask.",
        "Remove the eroded mask from the mask, not from the dilated one.",
    ),
    Wrong(
        "distance to the mask",
        right.instead(_near_mask),
        "You measure the distance to the other mask. Measure it to its boundary: a pixel deep inside is far from it.",
        "The distance transform needs the boundary, not the mask.",
    ),
    Wrong(
        "not inverted",
        right.instead(lambda a: _f1(*_boundaries(a.preds, a.target), a.tolerance, near=_inverted)),
        "You compute the distance transform of the boundary itself. It measures distances to pixels that are False, "
        "so invert the boundary.",
        "`distance_transform_edt(~boundary)` is 0 on the boundary.",
    ),
    Wrong(
        "one boundary is 1",
        right.then(lambda f1, a: f1 if _both_have_boundaries(a) else 1.0),
        "You return 1 when only one of the masks has a boundary. The masks differ then, so return 0.",
        EMPTY_HINT,
    ),
    Wrong(
        "factor 2 missing",
        right.then(lambda f1, a: f1 / 2 if _both_have_boundaries(a) else f1),
        "You leave out the factor 2 of F1. It is 2PR / (P + R).",
        "For equal masks, P and R are 1, and so is F1.",
    ),
    Wrong(
        "IoU of wide boundaries",
        right.instead(_iou_of_wide),
        "You return the IoU of the two boundaries, each widened by the tolerance. Return F1 of precision and recall.",
        DIRECTIONS_HINT,
    ),
    Wrong(
        "pooled",
        right.instead(_pooled),
        "You add the correct pixels of both boundaries and divide once. Compute precision and recall first.",
        "F1 is 2PR / (P + R).",
    ),
    Wrong(
        "fractions of the image",
        right.instead(_of_the_image),
        "Your precision and recall are fractions of all pixels of the image. Divide by the boundary pixels.",
        "Precision is the fraction of predicted boundary pixels that are correct.",
    ),
]

exercise = Exercise(
    name="boundary_f1",
    points=2,
    cases=cases,
    reference=boundary_f1,
    wrong=wrong,
    kind="mask",
    hides=["segedu.metrics.boundary"],
)
