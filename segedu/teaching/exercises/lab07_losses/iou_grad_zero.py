"""iou_grad_zero: the gradient of the IoU of box pairs, and the pairs for which it is zero."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import generalized_iou_loss, iou_box_loss
from segedu.ops.boxes import box_area
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab07_losses.giou_loss import apart, overlapping, rows

Answer = tuple[Tensor, Tensor]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Pairs that overlap and pairs that do not, in one batch; pairs that only touch."""
    near, far = overlapping(rng, 3), apart(rng, 3)
    mixed = [torch.cat(pair)[[3, 0, 4, 1, 5, 2]] for pair in zip(near, far, strict=True)]
    x, y = rng.integers(1, 9, 2).tolist()
    box = rows([x, y, x + 4, y + 3]).repeat(3, 1)
    touching = rows([x + 4, y + 1, x + 9, y + 2.5], [x + 1, y - 4, x + 2.5, y], [x + 4, y + 3, x + 6, y + 5])
    inside = rows([x, y, x + 8, y + 4]), rows([x + 1, y + 2, x + 3, y + 3])  # powers of 2: its gradient sums to 0.0
    one = overlapping(rng, 1)
    tiny = [boxes / 64 for boxes in overlapping(rng, 2)]
    large = [boxes * 64 for boxes in overlapping(rng, 2)]
    core = [
        case("3 pairs that overlap and 3 that do not", *mixed),
        case("a pair that overlaps", *one),
        case("a target inside the box", *inside),
        case("pairs smaller than a pixel", *tiny),
        case("pairs of hundreds of pixels, with small gradients", *large),
    ]
    touch = case(
        "boxes that touch along a side or at a corner, and a pair that overlaps",
        torch.cat([box, one[0]]),
        torch.cat([touching, one[1]]),
    )
    return {"core": (1, core), "touching": (1, [touch])}


def _gradient_and_zero(value: Tensor, boxes: Tensor) -> Answer:
    grad = torch.autograd.grad(value.sum(), boxes)[0] if value.requires_grad else torch.zeros_like(boxes)
    return grad, (grad == 0).all(1)


def _leaf(boxes: Tensor) -> Tensor:
    return boxes.detach().clone().requires_grad_()


def reference(boxes: Tensor, target: Tensor) -> Answer:
    """The gradient of the sum of IoU, from the library's loss."""
    with torch.enable_grad():
        a = _leaf(boxes)
        return _gradient_and_zero(-iou_box_loss(a, target, reduction="none"), a)


right = Variants(reference)


def _gradient_of(value: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """A wrong answer that differentiates another function of boxes and targets."""

    def wrong(a: SimpleNamespace) -> Answer:
        boxes = _leaf(a.boxes)
        return _gradient_and_zero(value(boxes, a.target), boxes)

    return right.instead(wrong)


def _with_intersection(area: Callable[[Tensor], Tensor]) -> Callable:
    """A wrong answer that computes the area of the intersection from its signed sides in another way."""

    def iou(boxes: Tensor, target: Tensor) -> Tensor:
        inter = area(torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2]))
        return inter / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + box_area(target) - inter)

    return _gradient_of(iou)


def _iou(
    boxes: Tensor, target: Tensor, union_of: Callable = lambda areas, inter: areas - inter, plus: int = 0
) -> Tensor:
    """The right IoU, except for the union and for what is added to each side."""
    inter = torch.relu(torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2]) + plus)
    inter = inter.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2] + plus).prod(1) + (target[:, 2:] - target[:, :2] + plus).prod(1)
    return inter / union_of(areas, inter)


def _corners(xywh: Tensor) -> Tensor:
    return torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)


def _coarse_differences(a: SimpleNamespace) -> Answer:
    steps = 0.01 * torch.eye(4, dtype=a.boxes.dtype)
    here = _iou(a.boxes, a.target)
    grad = torch.stack([(_iou(a.boxes + step, a.target) - here) / 0.01 for step in steps], dim=1)
    return grad, (grad == 0).all(1)


ALL_ZERO = "A pair counts as zero only if all four derivatives are exactly 0."

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
            _gradient_of(lambda boxes, target: -generalized_iou_loss(boxes, target, reduction="none")),
            "You differentiate the GIoU. This exercise expects the gradient of the IoU.",
            "Do not use the enclosing box.",
        ),
        Wrong(
            "loss",
            right.then(lambda out, a: (-out[0], out[1])),
            "You differentiate the loss 1 - IoU. This exercise expects the gradient of the IoU.",
            "The two differ by a minus sign.",
        ),
        Wrong(
            "mean",
            right.then(lambda out, a: (out[0] / len(a.boxes), out[1])),
            "You differentiate the mean over the pairs. This exercise expects the gradient of each pair's own IoU.",
            "The gradient of the sum gives each row its own gradient, because the pairs are independent.",
        ),
        Wrong(
            "hard threshold",
            right.then(lambda out, a: (out[0], 1 - iou_box_loss(a.boxes, a.target, reduction="none") < 0.5)),
            "You set zero to true if the IoU of a pair is below 0.5. A small overlap still has a gradient.",
            "Use the gradient, not the value of the IoU. " + ALL_ZERO,
        ),
        Wrong(
            "no clamp",
            _with_intersection(lambda sides: sides.prod(1)),
            "You multiply negative sides, so distant boxes get an intersection. It has to be 0, and its gradient too.",
            "Width and height of the intersection are at least 0.",
        ),
        Wrong(
            "area clamped",
            _with_intersection(lambda sides: torch.relu(sides.prod(1))),
            "You clamp the area of the intersection. Clamp its sides: two negative sides have a positive product.",
            "Clamp each side of the intersection at 0 before you multiply them.",
        ),
        Wrong(
            "clamp hides the zero",
            _with_intersection(lambda sides: sides.clamp(min=1e-7).prod(1)),
            "You clamp the intersection at a small positive number, so the union still gives a gradient. Clamp it at "
            "0.",
            "Add no small constant either: where the intersection is 0, all four derivatives are 0.",
        ),
        Wrong(
            "touching boxes",
            _with_intersection(lambda sides: (sides * (sides >= 0)).prod(1)),
            "Boxes that only touch have a gradient in your function. They share no area, so it has to be 0.",
            "At exactly 0, your clamp passes the gradient on. torch.relu does not.",
        ),
        Wrong(
            "half at touching",
            _with_intersection(lambda sides: torch.maximum(sides, torch.zeros_like(sides)).prod(1)),
            "Boxes that only touch have half a gradient in your function. They share no area, so it has to be 0.",
            "If its two arguments are equal, torch.maximum gives half of the gradient to each. torch.relu does not.",
        ),
        Wrong(
            "by the target",
            right.instead(lambda a: reference(a.target, a.boxes)),
            "You differentiate with respect to the target instead of the predicted box.",
            "requires_grad_ belongs on a copy of the first argument.",
        ),
        Wrong(
            "all pairs",
            _gradient_of(
                lambda boxes, target: -sum(iou_box_loss(boxes, t.expand_as(boxes), reduction="none") for t in target)
            ),
            "You compare every box with every target. Row i of boxes belongs to row i of target.",
            "There are N values of IoU, not N x N.",
        ),
        Wrong(
            "cannot move",
            right.then(lambda out, a: (out[0], (out[0][:, :2] + out[0][:, 2:]).abs().amax(1) < 1e-9)),
            "You set zero to true if the derivatives of opposite sides cancel. All four of them have to be 0.",
            ALL_ZERO,
        ),
        Wrong(
            "results exchanged",
            right.then(lambda out, a: (out[1], out[0])),
            "You return the two results in the other order. The gradient comes first, then zero.",
            "Read the docstring's last lines again.",
        ),
        Wrong(
            "zero per coordinate",
            right.then(lambda out, a: (out[0], out[0] == 0)),
            "Your zero has one value per coordinate, (N, 4). This exercise expects one value per pair, (N,).",
            ALL_ZERO,
        ),
        Wrong(
            "zero inverted",
            right.then(lambda out, a: (out[0], ~out[1])),
            "Your zero is true where there is a gradient. It has to be true where all four derivatives are 0.",
            ALL_ZERO,
        ),
        Wrong(
            "small counts as zero",
            right.then(lambda out, a: (out[0], (out[0].abs() < 0.01).all(1))),
            "You call a small gradient zero. Large boxes have small gradients that are not 0.",
            ALL_ZERO,
        ),
        Wrong(
            "inclusive pixels",
            _gradient_of(lambda boxes, target: _iou(boxes, target, plus=1)),
            "You add 1 to every width and height, as for boxes that contain their last pixel. Here the width is x2 - "
            "x1.",
            "The coordinates are continuous, not pixel numbers.",
        ),
        Wrong(
            "sum of the areas as the union",
            _gradient_of(lambda boxes, target: _iou(boxes, target, lambda areas, inter: areas)),
            "You do not subtract the intersection from the sum of the areas. The union counts it once.",
            "Equal boxes need IoU 1.",
        ),
        Wrong(
            "union as a constant",
            _gradient_of(lambda boxes, target: _iou(boxes, target, lambda areas, inter: (areas - inter).detach())),
            "You treat the union as a constant. It depends on the predicted box, too.",
            "Use neither detach nor no_grad inside the IoU.",
        ),
        Wrong(
            "xywh",
            _gradient_of(lambda boxes, target: _iou(_corners(boxes), _corners(target))),
            "You read the boxes as (x, y, width, height). This exercise uses corners, (x1, y1, x2, y2).",
            "The width is x2 - x1.",
        ),
        Wrong(
            "coarse differences",
            right.instead(_coarse_differences),
            "Your gradient is inaccurate: a difference of two values is only close to it. Let autograd compute the "
            "derivatives.",
            "torch.autograd.grad returns the derivative of a sum with respect to a copy of boxes.",
        ),
    ],
)
