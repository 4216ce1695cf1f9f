"""iou_grad_zero: the gradient of the IoU of boxes, and the pairs in which it is zero."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import generalized_iou_loss, iou_box_loss
from segedu.ops.boxes import box_area
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.exercises.lab07_losses.giou_loss import apart, overlapping, rows

Answer = tuple[Tensor, Tensor]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Pairs that overlap and pairs apart, in one batch; pairs that only touch.

    Args:
        rng: of the boxes.

    Returns:
        The cases by group.
    """
    near, far = overlapping(rng, 3), apart(rng, 3)
    mixed = [torch.cat(pair)[[3, 0, 4, 1, 5, 2]] for pair in zip(near, far, strict=True)]
    x, y = rng.integers(1, 9, 2).tolist()
    box = rows([x, y, x + 4, y + 3]).repeat(3, 1)
    touching = rows([x + 4, y + 1, x + 9, y + 2.5], [x + 1, y - 4, x + 2.5, y], [x + 4, y + 3, x + 6, y + 5])
    inside = rows([x, y, x + 8, y + 4]), rows([x + 1, y + 2, x + 3, y + 3])  # powers of 2: its gradient sums to 0.0
    one = overlapping(rng, 1)
    tiny = [boxes / 64 for boxes in overlapping(rng, 2)]
    return {
        "core": (
            1,
            [
                {"name": "3 pairs that overlap and 3 that do not", "args": mixed},
                {"name": "a pair that overlaps", "args": list(one)},
                {"name": "a target inside the box", "args": list(inside)},
                {"name": "pairs smaller than a pixel", "args": tiny},
            ],
        ),
        "touching": (
            1,
            [
                {
                    "name": "boxes that touch along a side or at a corner, and a pair that overlaps",
                    "args": [torch.cat([box, one[0]]), torch.cat([touching, one[1]])],
                }
            ],
        ),
    }


def _answer(value: Tensor, boxes: Tensor) -> Answer:
    grad = torch.autograd.grad(value.sum(), boxes)[0] if value.requires_grad else torch.zeros_like(boxes)
    return grad, (grad == 0).all(1)


def _fresh(boxes: Tensor) -> Tensor:
    return boxes.detach().clone().requires_grad_()


def reference(boxes: Tensor, target: Tensor) -> Answer:
    """The gradient of the sum of IoU, by the library's loss."""
    with torch.enable_grad():
        a = _fresh(boxes)
        return _answer(-iou_box_loss(a, target, reduction="none"), a)


def of_giou(boxes: Tensor, target: Tensor) -> Answer:
    """GIoU in place of IoU."""
    a = _fresh(boxes)
    return _answer(-generalized_iou_loss(a, target, reduction="none"), a)


def of_loss(boxes: Tensor, target: Tensor) -> Answer:
    """The gradient of 1 - IoU."""
    grad, zero = reference(boxes, target)
    return -grad, zero


def of_mean(boxes: Tensor, target: Tensor) -> Answer:
    """The gradient of the mean over pairs."""
    grad, zero = reference(boxes, target)
    return grad / len(boxes), zero


def by_threshold(boxes: Tensor, target: Tensor) -> Answer:
    """A pair counts as learning from IoU 0.5 on."""
    grad, _ = reference(boxes, target)
    return grad, 1 - iou_box_loss(boxes, target, reduction="none") < 0.5


def _sides(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])


def _iou(a: Tensor, b: Tensor, inter: Tensor) -> Tensor:
    return inter / ((a[:, 2:] - a[:, :2]).prod(1) + box_area(b) - inter)


def no_clamp(boxes: Tensor, target: Tensor) -> Answer:
    """Negative sides are multiplied."""
    a = _fresh(boxes)
    return _answer(_iou(a, target, _sides(a, target).prod(1)), a)


def clamped_product(boxes: Tensor, target: Tensor) -> Answer:
    """The area is clamped in place of the sides: two negative sides slip through."""
    a = _fresh(boxes)
    return _answer(_iou(a, target, torch.relu(_sides(a, target).prod(1))), a)


def tiny_overlap(boxes: Tensor, target: Tensor) -> Answer:
    """The sides are kept at 1e-7 at least: a clamp that hides the zero, since the union still has a gradient."""
    a = _fresh(boxes)
    return _answer(_iou(a, target, _sides(a, target).clamp(min=1e-7).prod(1)), a)


def touching_passes(boxes: Tensor, target: Tensor) -> Answer:
    """x * (x >= 0), which lets the gradient through at 0 exactly."""
    a = _fresh(boxes)
    sides = _sides(a, target)
    return _answer(_iou(a, target, (sides * (sides >= 0)).prod(1)), a)


def touching_half(boxes: Tensor, target: Tensor) -> Answer:
    """maximum(x, 0), which shares the gradient out at a tie."""
    a = _fresh(boxes)
    sides = _sides(a, target)
    return _answer(_iou(a, target, torch.maximum(sides, torch.zeros_like(sides)).prod(1)), a)


def by_target(boxes: Tensor, target: Tensor) -> Answer:
    """The gradient by the target."""
    return reference(target, boxes)


def all_pairs(boxes: Tensor, target: Tensor) -> Answer:
    """Each box against every target."""
    a = _fresh(boxes)
    return _answer(-sum(iou_box_loss(a, b.expand_as(a), reduction="none") for b in target), a)


def moving_only(boxes: Tensor, target: Tensor) -> Answer:
    """Zero where the gradients of opposite sides cancel, so that the box is not moved as a whole."""
    grad, _ = reference(boxes, target)
    return grad, (grad[:, :2] + grad[:, 2:]).abs().amax(1) < 1e-9


exercise = Exercise(
    name="iou_grad_zero",
    points=2,
    cases=cases,
    reference=reference,
    kind="boxes",
    hides=["segedu.losses", "segedu.ops.boxes"],
    wrong=[
        Wrong(
            "GIoU",
            of_giou,
            "You differentiate the GIoU: the question is where plain IoU has no gradient.",
            "Leave the enclosing box out.",
        ),
        Wrong(
            "loss",
            of_loss,
            "You differentiate the loss 1 - IoU: the gradient of IoU itself is asked for.",
            "A minus sign.",
        ),
        Wrong(
            "mean",
            of_mean,
            "You differentiate the mean over the pairs: each pair's own gradient is asked for.",
            "The gradient of the sum gives each row its own, because the pairs do not depend on each other.",
        ),
        Wrong(
            "hard threshold",
            by_threshold,
            "You call a pair stuck when its IoU is below 0.5: a poor overlap still has a gradient.",
            "Look at the gradient, not at the value: stuck means that all four numbers are 0.",
        ),
        Wrong(
            "no clamp",
            no_clamp,
            "You multiply negative sides: boxes that are apart have no intersection, so nothing depends on them.",
            "Width and height of the intersection are at least 0.",
        ),
        Wrong(
            "area clamped",
            clamped_product,
            "You clamp the area, not its sides: boxes apart in x and in y have two negative sides, whose product is "
            "positive.",
            "Each side of the intersection is at least 0, before they are multiplied.",
        ),
        Wrong(
            "clamp hides the zero",
            tiny_overlap,
            "You keep the intersection above a small number: that hides the zero, because the union still changes.",
            "Clamp at 0 exactly, and add nothing.",
        ),
        Wrong(
            "touching boxes",
            touching_passes,
            "Boxes that only touch have a gradient in your function: they share no area, so it is 0 here.",
            "At exactly 0 your clamp lets the gradient through. torch.relu does not.",
        ),
        Wrong(
            "half at touching",
            touching_half,
            "Boxes that only touch have half a gradient in your function: they share no area, so it is 0 here.",
            "torch.maximum shares the gradient out between its two arguments where they are equal. Look at torch.relu.",
        ),
        Wrong(
            "by the target",
            by_target,
            "You differentiate by the true box: the predicted one is what can be changed.",
            "requires_grad_ belongs on a copy of the first argument.",
        ),
        Wrong(
            "all pairs",
            all_pairs,
            "You take every box with every target: row i of boxes belongs to row i of target.",
            "There are N values of IoU, not N x N.",
        ),
        Wrong(
            "cannot move",
            moving_only,
            "You call a pair stuck when the box is not moved as a whole: its size may still have a gradient.",
            "Stuck means that all four numbers are 0.",
        ),
    ],
)
