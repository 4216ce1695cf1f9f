"""giou_loss: the mean of 1 - GIoU over pairs of boxes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import generalized_iou_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab07_losses.ce_from_logits import loss_case

Pair = tuple[Tensor, Tensor]


def rows(*boxes: list[float]) -> Tensor:
    """Boxes in float64."""
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def overlapping(rng: np.random.Generator, count: int) -> Pair:
    """Boxes and targets, (count, 4) each, that overlap in a corner.

    No two coordinates are equal, so the gradient is unique.
    """
    corner = rng.uniform(-5, 20, (count, 2))
    size = rng.uniform(3, 8, (count, 2))
    shift = size * rng.uniform(0.2, 0.6, (count, 2)) * rng.choice([-1, 1], (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    return torch.from_numpy(boxes), torch.from_numpy(boxes + np.tile(shift, 2) + [0, 0, 0.3, 0.2])


def apart(rng: np.random.Generator, count: int) -> Pair:
    """Boxes and targets, (count, 4) each, that do not overlap; in turn side by side, one above the other, and both."""
    boxes, target = overlapping(rng, count)
    sides = boxes[:, 2:] - boxes[:, :2]
    turn = torch.tensor([[1.0, 0.0], [0.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(count, 1)[:count]
    return boxes, target + (turn * sides * 2.5).repeat(1, 2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The worked example and overlapping pairs; pairs that do not overlap; nested; points; tiny ones; no pairs."""
    near, far = overlapping(rng, 3), apart(rng, 3)
    mixed = [torch.cat(pair) for pair in zip(overlapping(rng, 2), apart(rng, 2), strict=True)]
    x, y = rng.integers(1, 9, 2).tolist()
    point = rows([x, y, x, y])
    inside = rows([x + 0.5, y + 1.0, x + 2.5, y + 2.25]), rows([x, y, x + 4.0, y + 3.0])
    nothing = torch.zeros(0, 4, dtype=torch.float64)
    tiny = [boxes / 64 for boxes in overlapping(rng, 2)]

    def point_and_pair(name: str, other: Tensor) -> Case:
        return loss_case(name, torch.cat([point, near[0][:1]]), torch.cat([other, near[1][:1]]))

    core = [
        loss_case("the boxes of the worked example", rows([0, 0, 2, 2]), rows([1, 1, 3, 4])),
        loss_case("3 pairs", *near),
    ]
    without_overlap = [
        loss_case("pairs without a common area", *far),
        loss_case("2 pairs that overlap and 2 that do not", *mixed),
    ]
    edge = [
        loss_case("a box inside its target", *inside),
        point_and_pair("two equal points and a pair", point),
        point_and_pair("two different points and a pair", point + rows([3, 2, 3, 2])),
        loss_case("pairs smaller than a pixel", *tiny),
        loss_case("no pairs", nothing, nothing.clone()),
    ]
    return {"core": (2, core), "apart": (1, without_overlap), "edge": (1, edge)}


def reference(boxes: Tensor, target: Tensor) -> Tensor:
    """The library's loss."""
    return generalized_iou_loss(boxes, target)


right = Variants(reference)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def _areas(a: Tensor, b: Tensor, clamp: Callable = torch.relu) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing area of each pair."""
    inter = clamp(torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    enclosing = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return inter, union, enclosing


def _losses(inter: Tensor, union: Tensor, enclosing: Tensor) -> Tensor:
    return 1 - _ratio(inter, union) + _ratio(enclosing - union, enclosing)


def _mean(loss: Tensor) -> Tensor:
    return loss.sum() / max(len(loss), 1)


def _from_areas(losses: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """A wrong answer that computes other losses from the three areas."""
    return right.instead(lambda a: _mean(losses(*_areas(a.boxes, a.target))))


def _corners(xywh: Tensor) -> Tensor:
    return torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)


def _overlapping_pairs_only(a: SimpleNamespace) -> Tensor:
    inter, union, enclosing = _areas(a.boxes, a.target)
    losses = _losses(inter, union, enclosing)
    return _mean(losses[inter > 0]) if bool((inter > 0).any()) else 0 * losses.sum()


def _without_equal_points(a: SimpleNamespace) -> Tensor:
    inter, union, enclosing = _areas(a.boxes, a.target)
    losses = _losses(inter, union, enclosing) * (enclosing > 0)
    return losses.sum() / (enclosing > 0).sum().clamp(min=1)


def _late(part: Tensor, whole: Tensor) -> Tensor:
    """0 in place of 0 / 0, selected after the division, so that the gradient is NaN."""
    return torch.where(whole > 0, part / whole, 0.0)


def _centre_distance(a: SimpleNamespace) -> Tensor:
    inter, union, _ = _areas(a.boxes, a.target)
    span = torch.maximum(a.boxes[:, 2:], a.target[:, 2:]) - torch.minimum(a.boxes[:, :2], a.target[:, :2])
    centres = (a.boxes[:, :2] + a.boxes[:, 2:] - a.target[:, :2] - a.target[:, 2:]) / 2
    return _mean(1 - _ratio(inter, union) + _ratio((centres**2).sum(1), (span**2).sum(1)))


def _extent_of_overlap(a: SimpleNamespace) -> Tensor:
    """The enclosing box with minimum and maximum exchanged."""
    inter, union, _ = _areas(a.boxes, a.target)
    sides = torch.minimum(a.boxes[:, 2:], a.target[:, 2:]) - torch.maximum(a.boxes[:, :2], a.target[:, :2])
    area = sides.abs().prod(1)
    return _mean(1 - _ratio(inter, union) + _ratio(area - union, area))


def _nonzero_ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / torch.where(whole == 0, 1.0, whole)


def _signed_sides(a: SimpleNamespace) -> Tensor:
    """Negative sides multiply to a positive intersection; also a negative union is divided by."""
    inter, union, enclosing = _areas(a.boxes, a.target, clamp=lambda sides: sides)
    return _mean(1 - _nonzero_ratio(inter, union) + _nonzero_ratio(enclosing - union, enclosing))


def _all_pairs(a: SimpleNamespace) -> Tensor:
    n = len(a.boxes)
    losses = _losses(*_areas(a.boxes.repeat_interleave(n, 0), a.target.repeat(n, 1)))
    return losses.sum() / max(n * n, 1)


exercise = Exercise(
    name="giou_loss",
    points=4,
    cases=cases,
    reference=reference,
    probe=call_grad,
    kind="boxes",
    hides=["segedu.losses", "segedu.ops.boxes"],
    wrong=[
        Wrong(
            "C detached",
            _from_areas(lambda inter, union, enclosing: _losses(inter, union, enclosing.detach())),
            "Your value is correct, but your gradient is not. The enclosing box C depends on the predicted box, too.",
            "Use neither detach nor no_grad: without the gradient through C, a distant box is not moved closer.",
        ),
        Wrong(
            "xywh",
            right.instead(lambda a: _mean(_losses(*_areas(_corners(a.boxes), _corners(a.target))))),
            "You read the boxes as (x, y, width, height). This exercise uses corners, (x1, y1, x2, y2).",
            "The width is x2 - x1.",
        ),
        Wrong(
            "pairs that overlap only",
            right.instead(_overlapping_pairs_only),
            "You average over the overlapping pairs only. Pairs that do not overlap count as well.",
            "GIoU was designed for such pairs. Divide the sum over all pairs by their number.",
        ),
        Wrong(
            "equal points left out",
            right.instead(_without_equal_points),
            "You leave pairs of equal points out of the mean. Such a pair counts as well, with loss 1.",
            "Both fractions of such a pair count as 0. Divide the sum over all pairs by their number.",
        ),
        Wrong(
            "0 / 0",
            _from_areas(lambda inter, union, enclosing: 1 - inter / union + (enclosing - union) / enclosing),
            "For two equal points you compute 0 / 0. A fraction whose denominator is 0 counts as 0.",
            "One such pair makes the mean of the whole batch NaN. Protect both fractions, and their gradients.",
        ),
        Wrong(
            "mean of nothing",
            right.instead(lambda a: _losses(*_areas(a.boxes, a.target)).mean()),
            "If there are no pairs, you return the mean of nothing, which is NaN. The loss is 0 then.",
            "Divide the sum by at least 1.",
        ),
        Wrong(
            "a fresh 0",
            right.then(lambda out, a: out if len(a.boxes) else torch.tensor(0.0)),
            "If there are no pairs you return a new 0, which has no gradient. The result must depend on the boxes.",
            "The sum of no losses is also 0, and backward() works on it.",
        ),
        Wrong(
            "measure",
            _from_areas(lambda *areas: 1 - _losses(*areas)),
            "You return the GIoU. The loss is 1 minus GIoU.",
            "Equal boxes have loss 0.",
        ),
        Wrong(
            "plain IoU",
            _from_areas(lambda inter, union, enclosing: 1 - _ratio(inter, union)),
            "You return 1 - IoU. The penalty term with the enclosing box is missing.",
            "Add (C - U) / C.",
        ),
        Wrong(
            "penalty subtracted",
            _from_areas(
                lambda inter, union, enclosing: 1 - _ratio(inter, union) - _ratio(enclosing - union, enclosing)
            ),
            "You subtract the penalty term. More empty space in the enclosing box must increase the loss.",
            "1 - GIoU = 1 - IoU + (C - U) / C.",
        ),
        Wrong(
            "no clamp",
            right.instead(lambda a: _mean(_losses(*_areas(a.boxes, a.target, clamp=lambda sides: sides)))),
            "For boxes that are separated in both x and y, your intersection is positive. It has to be 0.",
            "Clamp the width and the height of the intersection at 0 before you multiply them.",
        ),
        Wrong(
            "sum",
            right.then(lambda out, a: out * len(a.boxes)),
            "You return the sum over the pairs. This exercise expects their mean.",
            "Divide by the number of pairs.",
        ),
        Wrong(
            "penalty divided by the union",
            _from_areas(lambda inter, union, enclosing: 1 - _ratio(inter, union) + _ratio(enclosing - union, union)),
            "You divide the penalty by the union. It is divided by the area of the enclosing box, (C - U) / C.",
            "The penalty is a fraction of the enclosing box, so it is at most 1.",
        ),
        Wrong(
            "0 selected after the division",
            _from_areas(lambda inter, union, enclosing: 1 - _late(inter, union) + _late(enclosing - union, enclosing)),
            "Your value is correct, but for two equal points the gradient is NaN. Replace the denominator before you "
            "divide.",
            "torch.where differentiates both branches, and the derivative of 0 / 0 is NaN.",
        ),
        Wrong(
            "outside the intersection",
            _from_areas(
                lambda inter, union, enclosing: 1 - _ratio(inter, union) + _ratio(enclosing - inter, enclosing)
            ),
            "Your penalty is the fraction of the enclosing box outside the intersection. It is the fraction outside "
            "the union.",
            "The penalty is (C - U) / C.",
        ),
        Wrong(
            "sum of the areas as the union",
            _from_areas(lambda inter, union, enclosing: _losses(inter, union + inter, enclosing)),
            "You do not subtract the intersection from the sum of the areas. The union counts it once.",
            "Equal boxes need IoU 1.",
        ),
        Wrong(
            "equal points as equal boxes",
            _from_areas(lambda inter, union, enclosing: _losses(inter, union, enclosing) - (enclosing == 0).to(inter)),
            "For two equal points your IoU is 1, so their loss is 0. A fraction whose denominator is 0 counts as 0.",
            "Both fractions are 0 for such a pair, so its loss is 1.",
        ),
        Wrong(
            "penalty for distant pairs only",
            _from_areas(
                lambda inter, union, enclosing: (
                    1 - _ratio(inter, union) + _ratio(enclosing - union, enclosing) * (inter == 0)
                )
            ),
            "You add the penalty only to pairs that do not overlap. It belongs to every pair.",
            "Pairs that overlap at a corner have empty space in their enclosing box, too.",
        ),
        Wrong(
            "distance of the centres",
            right.instead(_centre_distance),
            "You use the penalty of the distance IoU, the squared distance of the centres. GIoU uses the empty part of "
            "the enclosing box.",
            "Add (C - U) / C.",
        ),
        Wrong(
            "minimum and maximum exchanged",
            right.instead(_extent_of_overlap),
            "Your enclosing box takes the larger of the left edges and the smaller of the right edges. It has to "
            "contain both boxes.",
            "It begins at the smaller x1 and ends at the larger x2.",
        ),
        Wrong(
            "signed sides and unions",
            right.instead(_signed_sides),
            "For boxes that are separated in both x and y, your intersection is positive, because both sides are "
            "negative. It has to be 0.",
            "Clamp the width and the height of the intersection at 0 before you multiply them.",
        ),
        Wrong(
            "all pairs",
            right.instead(_all_pairs),
            "You compare every box with every target. Row i of boxes belongs to row i of target.",
            "There are N values of GIoU, not N x N.",
        ),
        Wrong(
            "limited to 1",
            _from_areas(lambda *areas: _losses(*areas).clamp(0, 1)),
            "You limit the loss of a pair to 1. The loss of a distant pair is larger than 1, up to 2.",
            "Where the limit applies, the gradient is 0, so distant boxes are not moved.",
        ),
    ],
)
