"""giou_loss: the mean of 1 - GIoU over pairs of boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.losses.boxes import generalized_iou_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad

HOMEWORK = ([[0.0, 0.0, 2.0, 2.0]], [[1.0, 1.0, 3.0, 4.0]])


def rows(*boxes: list[float]) -> Tensor:
    """Boxes in float64."""
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def overlapping(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Pairs that overlap in a corner: no two coordinates are equal, so that every gradient is unique.

    Args:
        rng: of places and sizes.
        count: N.

    Returns:
        Boxes and targets, (N, 4) each.
    """
    corner = rng.uniform(-5, 20, (count, 2))
    size = rng.uniform(3, 8, (count, 2))
    shift = size * rng.uniform(0.2, 0.6, (count, 2)) * rng.choice([-1, 1], (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    return torch.from_numpy(boxes), torch.from_numpy(boxes + np.tile(shift, 2) + [0, 0, 0.3, 0.2])


def apart(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Pairs without a common area, in turn beside, above, and both.

    Args:
        rng: of places and sizes.
        count: N.

    Returns:
        Boxes and targets, (N, 4) each.
    """
    boxes, target = overlapping(rng, count)
    sides = boxes[:, 2:] - boxes[:, :2]
    turn = torch.tensor([[1.0, 0.0], [0.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(count, 1)[:count]
    return boxes, target + (turn * sides * 2.5).repeat(1, 2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework and overlapping pairs; pairs apart; nested; points; tiny ones; no pairs.

    Args:
        rng: of the boxes.

    Returns:
        The cases by group.
    """
    near, far = overlapping(rng, 3), apart(rng, 3)
    mixed = tuple(torch.cat(pair) for pair in zip(overlapping(rng, 2), apart(rng, 2), strict=True))
    x, y = rng.integers(1, 9, 2).tolist()
    point = rows([x, y, x, y])
    inside = rows([x + 0.5, y + 1.0, x + 2.5, y + 2.25]), rows([x, y, x + 4.0, y + 3.0])
    nothing = torch.zeros(0, 4, dtype=torch.float64)
    two_points = torch.cat([point, near[0][:1]]), torch.cat([point + rows([3, 2, 3, 2]), near[1][:1]])
    tiny = [boxes / 64 for boxes in overlapping(rng, 2)]
    return {
        "core": (
            2,
            [
                {"name": "the boxes of the homework", "args": [rows(*HOMEWORK[0]), rows(*HOMEWORK[1])], "grad": [0]},
                {"name": "3 pairs", "args": list(near), "grad": [0]},
            ],
        ),
        "apart": (
            1,
            [
                {"name": "pairs without a common area", "args": list(far), "grad": [0]},
                {"name": "2 pairs that overlap and 2 that do not", "args": list(mixed), "grad": [0]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "a box inside its target", "args": list(inside), "grad": [0]},
                {"name": "two equal points and a pair", "args": [torch.cat([point, near[0][:1]]),
                                                                  torch.cat([point, near[1][:1]])], "grad": [0]},
                {"name": "two different points and a pair", "args": list(two_points), "grad": [0]},
                {"name": "pairs smaller than a pixel", "args": tiny, "grad": [0]},
                {"name": "no pairs", "args": [nothing, nothing.clone()], "grad": [0]},
            ],
        ),
    }  # fmt: skip


def reference(boxes: Tensor, target: Tensor) -> Tensor:
    """The library's loss."""
    return generalized_iou_loss(boxes, target)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing area of each pair."""
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    inter = torch.relu(sides).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return inter, union, hull


def _mean(loss: Tensor) -> Tensor:
    return loss.sum() / max(len(loss), 1)


def hull_detached(boxes: Tensor, target: Tensor) -> Tensor:
    """C taken for a constant."""
    inter, union, hull = _parts(boxes, target)
    hull = hull.detach()
    return _mean(1 - _ratio(inter, union) + _ratio(hull - union, hull))


def xywh(boxes: Tensor, target: Tensor) -> Tensor:
    """Boxes read as (x, y, width, height)."""
    a, b = (torch.cat([x[:, :2], x[:, :2] + x[:, 2:]], dim=1) for x in (boxes, target))
    inter, union, hull = _parts(a, b)
    return _mean(1 - _ratio(inter, union) + _ratio(hull - union, hull))


def matched_only(boxes: Tensor, target: Tensor) -> Tensor:
    """The mean over the pairs that overlap."""
    inter, union, hull = _parts(boxes, target)
    loss = 1 - _ratio(inter, union) + _ratio(hull - union, hull)
    return _mean(loss[inter > 0]) if bool((inter > 0).any()) else 0 * loss.sum()


def degenerate_nan(boxes: Tensor, target: Tensor) -> Tensor:
    """0 / 0 for two points."""
    inter, union, hull = _parts(boxes, target)
    return _mean(1 - inter / union + (hull - union) / hull)


def no_pairs_nan(boxes: Tensor, target: Tensor) -> Tensor:
    """The mean of nothing."""
    inter, union, hull = _parts(boxes, target)
    return (1 - _ratio(inter, union) + _ratio(hull - union, hull)).mean()


def constant_zero(boxes: Tensor, target: Tensor) -> Tensor:
    """A fresh zero for no pairs."""
    return reference(boxes, target) if len(boxes) else torch.tensor(0.0)


def measure(boxes: Tensor, target: Tensor) -> Tensor:
    """GIoU, not 1 - GIoU."""
    inter, union, hull = _parts(boxes, target)
    return _mean(_ratio(inter, union) - _ratio(hull - union, hull))


def plain_iou(boxes: Tensor, target: Tensor) -> Tensor:
    """No penalty."""
    inter, union, _ = _parts(boxes, target)
    return _mean(1 - _ratio(inter, union))


def rewarded(boxes: Tensor, target: Tensor) -> Tensor:
    """The penalty with the wrong sign."""
    inter, union, hull = _parts(boxes, target)
    return _mean(1 - _ratio(inter, union) - _ratio(hull - union, hull))


def no_clamp(boxes: Tensor, target: Tensor) -> Tensor:
    """Two negative sides make a positive area."""
    sides = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])
    _, _, hull = _parts(boxes, target)
    inter = sides.prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (target[:, 2:] - target[:, :2]).prod(1) - inter
    return _mean(1 - _ratio(inter, union) + _ratio(hull - union, hull))


def summed(boxes: Tensor, target: Tensor) -> Tensor:
    """No mean."""
    return reference(boxes, target) * len(boxes)


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
            hull_detached,
            "Your value is right and your gradient is not: the enclosing box C depends on the box too.",
            "No detach and no no_grad: without the gradient through C, a box far away is not pulled nearer.",
        ),
        Wrong(
            "xywh",
            xywh,
            "You read the boxes as (x, y, width, height): they are two corners, (x1, y1, x2, y2).",
            "The width is x2 - x1.",
        ),
        Wrong(
            "pairs that overlap only",
            matched_only,
            "You average over the pairs that overlap: those that do not are why this loss exists.",
            "Divide the sum over all pairs by the number of all pairs.",
        ),
        Wrong(
            "0 / 0",
            degenerate_nan,
            "Two equal points give you 0 / 0: where an area below a fraction is 0, the fraction counts as 0.",
            "One such pair makes the mean of the whole batch NaN. Guard both fractions, and their gradients.",
        ),
        Wrong(
            "mean of nothing",
            no_pairs_nan,
            "You take the mean of no pairs, which is NaN: an image without an object has loss 0.",
            "Divide the sum by at least 1.",
        ),
        Wrong(
            "a fresh 0",
            constant_zero,
            "For no pairs you return a new 0, which has no gradient: the result must depend on the boxes.",
            "The sum of no losses is 0 as well, and backward() works on it.",
        ),
        Wrong(
            "measure",
            measure,
            "You return the GIoU itself: the loss is 1 minus GIoU.",
            "Equal boxes have loss 0.",
        ),
        Wrong(
            "plain IoU",
            plain_iou,
            "You return 1 - IoU: the penalty of the enclosing box is missing.",
            "Add (C - U) / C.",
        ),
        Wrong(
            "penalty subtracted",
            rewarded,
            "You subtract the penalty: an emptier enclosing box must cost more.",
            "1 - GIoU = 1 - IoU + (C - U) / C.",
        ),
        Wrong(
            "no clamp",
            no_clamp,
            "Boxes that are apart in x and in y have a positive intersection in your function.",
            "Width and height of the intersection are at least 0, each of them, before they are multiplied.",
        ),
        Wrong(
            "sum",
            summed,
            "You return the sum over the pairs: the mean is asked for.",
            "Divide by the number of pairs.",
        ),
    ],
)
