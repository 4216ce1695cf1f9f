"""assign_targets: which object each anchor answers for, which are background, and which are left out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

BACKGROUND, NEITHER = -1, -2


def assign_targets(iou: Tensor, low: float, high: float) -> Tensor:
    """Say for each anchor which object it answers for, by the IoU of every object with every anchor.

    The best object of an anchor is the one that it overlaps most; of equal ones the first row.

    1. An anchor whose best IoU is `high` or more is positive: it answers for its best object.
    2. An anchor whose best IoU is below `low` is background, -1.
    3. Those between are neither, -2: the loss leaves them out.
    4. No object may be left without an anchor: those with the largest IoU of an object, all of them where several are
       equal, are positive too, however small it is. They answer for *their own* best object, as in step 1. But an
       object that overlaps no anchor at all, with a largest IoU of 0, forces nothing.

    Args:
        iou: (N, A) floats: row n belongs to an object, column a to an anchor. N may be 0; A is at least 1.
        low: below it begins background.
        high: at least `low`.

    Returns:
        (A,) integers: the row of the object, -1 for background, -2 for neither.

    Example: one object. Anchor 2 is not good enough, but the best that the object has.

        >>> assign_targets(torch.tensor([[0.1, 0.4, 0.6]]), 0.3, 0.7)
        tensor([-1, -2,  0])
    """
    if len(iou) == 0:
        return torch.full(iou.shape[1:], BACKGROUND)
    return torch.where(_forced(iou), iou.argmax(dim=0), _by_thresholds(iou, low, high))


def _by_thresholds(iou: Tensor, low: float, high: float) -> Tensor:
    best = iou.amax(dim=0)  # (A,)
    targets = torch.where(best >= high, iou.argmax(dim=0), NEITHER)
    return torch.where(best < low, BACKGROUND, targets)


def _forced(iou: Tensor) -> Tensor:
    """(A,) bool: whether an object has its largest IoU here."""
    return ((iou == iou.amax(dim=1, keepdim=True)) & (iou > 0)).any(dim=0)


def _table(rng: np.random.Generator, name: str, rows: list[list[int]], low: float, high: float) -> Case:
    """Tenths of IoU, in an order of anchors that is drawn.

    What is at least 1 gets up to 3/64 more, so that bands do not touch and no IoU is at a limit. All are exact in
    single precision.
    """
    tenths = np.array(rows)
    iou = np.round(tenths * 6.4) / 64 + np.where(tenths >= 1, rng.integers(1, 4, tenths.shape), 0) / 128
    iou = iou[:, rng.permutation(iou.shape[1])]
    return {"name": name, "args": [torch.from_numpy(iou), low, high]}


def _exact(rng: np.random.Generator, name: str, rows: list[list[float]], low: float, high: float) -> Case:
    iou = np.array(rows, dtype=float)[:, rng.permutation(len(rows[0]))]
    return {"name": name, "args": [torch.from_numpy(iou), low, high]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Good, forced and middling anchors, anchors that two objects want; ties, limits, an object apart, no object.

    Args:
        rng: of values and of the order of anchors.

    Returns:
        The cases by group. None has more than 6 anchors: up to there a picture shows the answers too.
    """
    three = [
        [9, 8, 5, 1, 0, 0],  # two good anchors, and one between
        [0, 0, 0, 6, 0, 1],  # one, which is only forced
        [0, 1, 0, 0, 2, 1],  # one, which is forced from background
    ]
    wanted = [
        [9, 8, 1, 0, 2, 1],
        [5, 4, 0, 0, 1, 0],  # has its largest on the anchor of the object above, which keeps it
        [1, 0, 2, 1, 4, 0],  # on one that answers for the object below, and neither is good
        [0, 0, 6, 2, 5, 0],  # so that this one has an anchor before its own best is looked for
        [0, 7, 1, 0, 0, 0],  # nearly as good as the first on the second anchor
    ]
    strict = [[8, 7, 5, 4, 2, 0], [0, 2, 4, 5, 6, 1]]
    return {
        "core": (
            3,
            [
                _table(rng, "three objects", rng.permutation(three).tolist(), 0.3, 0.7),
                _table(rng, "objects that want the same anchors", wanted, 0.3, 0.7),
                _table(rng, "other thresholds", strict, 0.45, 0.55),
            ],
        ),
        "edge": (1, _edge_cases(rng)),
    }


def _edge_cases(rng: np.random.Generator) -> list[Case]:
    loose = int(rng.integers(17, 20)) / 64  # a little above `low`
    anchors = [[0.5, 0.5, loose, 0, 0, 0.125], [0.0625, 0, 0, 0.125, 0.125, 0]]
    objects = [[0, 0.5, loose / 4, 0.25, 0.25], [0.75, 0.5, 0, 0, 0.875], [0.75, 0.5, 0.0625, 0.9375, 0.625]]
    limits = [[0.75, 0.25, 0.875, loose / 2, 0.5, 0.125]]
    apart = torch.tensor([[0.0] * 4, [0.0, *rng.permutation([0.625, loose, 0.125])]], dtype=torch.float64)
    return [
        _exact(rng, "equally good anchors", anchors, 0.25, 0.75),
        _exact(rng, "equally good objects", objects, 0.25, 0.75),
        _exact(rng, "IoUs exactly at the limits", limits, 0.25, 0.75),
        {"name": "an object apart from all", "args": [apart, 0.25, 0.75]},  # argmax would force the first anchor
        {"name": "no object", "args": [torch.zeros(0, int(rng.integers(3, 7))), 0.3, 0.7]},
        _exact(rng, "one anchor", [[loose / 4], [loose / 2]], 0.3, 0.7),
    ]


def not_forced(iou: Tensor, low: float, high: float) -> Tensor:
    """Thresholds alone."""
    return _by_thresholds(iou, low, high) if len(iou) else assign_targets(iou, low, high)


def not_forced_and_fails(iou: Tensor, low: float, high: float) -> Tensor:
    """Thresholds alone, and the largest of no numbers."""
    iou.max(dim=0)
    return _by_thresholds(iou, low, high)


def middle_is_background(iou: Tensor, low: float, high: float) -> Tensor:
    """-1 for -2."""
    return assign_targets(iou, low, high).clamp(min=BACKGROUND)


def middle_is_positive(iou: Tensor, low: float, high: float) -> Tensor:
    """`low` is the only limit."""
    return assign_targets(iou, low, low)


def best_only(iou: Tensor, low: float, high: float) -> Tensor:
    """Positive are the anchors that an object likes best, and no others."""
    return assign_targets(iou, low, 2.0)


def fails_without_objects(iou: Tensor, low: float, high: float) -> Tensor:
    """The largest of no numbers."""
    return torch.where(_forced(iou), iou.max(dim=0).indices, _by_thresholds(iou, low, high))


def left_out_without_objects(iou: Tensor, low: float, high: float) -> Tensor:
    """An image without objects teaches nothing."""
    return assign_targets(iou, low, high) if len(iou) else torch.full(iou.shape[1:], NEITHER)


def for_who_forces(iou: Tensor, low: float, high: float) -> Tensor:
    """A forced anchor answers for the object that forces it."""
    targets = not_forced(iou, low, high)
    for row, values in enumerate(iou):
        targets[(values == values.max()) & (values > 0)] = row
    return targets


def first_of_equal_anchors(iou: Tensor, low: float, high: float) -> Tensor:
    """argmax of a row forces one anchor."""
    targets = not_forced(iou, low, high)
    for values in iou:
        if values.max() > 0:
            targets[values.argmax()] = iou[:, values.argmax()].argmax()
    return targets


def argmax_forces(iou: Tensor, low: float, high: float) -> Tensor:
    """argmax of a row forces one anchor, of zeros too."""
    targets = not_forced(iou, low, high)
    for values in iou:
        targets[values.argmax()] = iou[:, values.argmax()].argmax()
    return targets


def argmax_for_who_forces(iou: Tensor, low: float, high: float) -> Tensor:
    """targets[iou.argmax(dim=1)] = arange(N), in the order of the rows."""
    targets = not_forced(iou, low, high)
    for row, values in enumerate(iou):
        targets[values.argmax()] = row
    return targets


def forced_if_nobody_answers(iou: Tensor, low: float, high: float) -> Tensor:
    """Row by row, and only where no anchor answers for the object so far."""
    targets = not_forced(iou, low, high)
    for row, values in enumerate(iou):
        best = (values == values.max()) & (values > 0)
        if not (targets == row).any():
            targets[best] = iou[:, best].argmax(dim=0)
    return targets


def nothing_forces_too(iou: Tensor, low: float, high: float) -> Tensor:
    """0 is the largest IoU of an object apart."""
    if not len(iou):
        return assign_targets(iou, low, high)
    forced = (iou == iou.amax(dim=1, keepdim=True)).any(dim=0)
    return torch.where(forced, iou.argmax(dim=0), _by_thresholds(iou, low, high))


def forced_above_low(iou: Tensor, low: float, high: float) -> Tensor:
    """Background is not forced."""
    targets, plain = assign_targets(iou, low, high), not_forced(iou, low, high)
    return torch.where(plain == BACKGROUND, plain, targets)


def above_high(iou: Tensor, low: float, high: float) -> Tensor:
    """> for >=."""
    return assign_targets(iou, low, np.nextafter(high, 2))


def up_to_low(iou: Tensor, low: float, high: float) -> Tensor:
    """<= for <."""
    return assign_targets(iou, np.nextafter(low, 2), high)


def last_of_equal_objects(iou: Tensor, low: float, high: float) -> Tensor:
    """A later row that is as good takes the anchor."""
    targets = assign_targets(iou.flip(0), low, high)
    return torch.where(targets >= 0, len(iou) - 1 - targets, targets)


def labels(iou: Tensor, low: float, high: float) -> Tensor:
    """1, 0 and -1 for positive, background and neither."""
    targets = assign_targets(iou, low, high)
    return torch.where(targets >= 0, 1, targets + 1)


def numbered_from_one(iou: Tensor, low: float, high: float) -> Tensor:
    """Row 0 is object 1."""
    targets = assign_targets(iou, low, high)
    return torch.where(targets >= 0, targets + 1, targets)


def minus_swapped(iou: Tensor, low: float, high: float) -> Tensor:
    """-2 for background."""
    targets = assign_targets(iou, low, high)
    return torch.where(targets >= 0, targets, -3 - targets)


def rows_for_anchors(iou: Tensor, low: float, high: float) -> Tensor:
    """(A, N) for (N, A)."""
    return assign_targets(iou.T, low, high)


def one_for_each_object(iou: Tensor, low: float, high: float) -> Tensor:
    """(N,): the best anchor of each."""
    return iou.argmax(dim=1)


def all_pairs(iou: Tensor, low: float, high: float) -> Tensor:
    """(N, A)."""
    return torch.stack([assign_targets(row[None], low, high) for row in iou]) if len(iou) else iou.long()


FORCE = "Step 4 looks along rows: the largest IoU of each object. Compare with it, do not take its index."
LIMITS = "`high` or more is positive, below `low` is background: which side does the limit itself belong to?"

exercise = Exercise(
    name="assign_targets",
    points=4,
    cases=cases,
    reference=assign_targets,
    kind="mask",
    hides=["segedu.ops.anchors"],
    wrong=[
        Wrong(
            "best not forced",
            not_forced,
            "An object without a good anchor gets none: its best anchors are positive, however small their IoU.",
            FORCE,
        ),
        Wrong(
            "not forced, fails without objects",
            not_forced_and_fails,
            "An object without a good anchor gets none (step 4), and without any object your function fails.",
            FORCE,
        ),
        Wrong(
            "middle as background",
            middle_is_background,
            "You call anchors between the thresholds background: they are neither, -2.",
            "They show half an object. Whatever the network says of them, it is not quite wrong.",
        ),
        Wrong(
            "middle as positive",
            middle_is_positive,
            "You call anchors between the thresholds positive: they are neither, -2.",
            "There are two thresholds, and three answers.",
        ),
        Wrong(
            "best of each object only",
            best_only,
            "Only the best anchors of each object are positive: all with an IoU of `high` or more are.",
            "Steps 1 and 4 both make positives.",
        ),
        Wrong(
            "fails without objects",
            fails_without_objects,
            "Your function fails where there is no object: then all anchors are background.",
            "The largest of no numbers does not exist. What is the shape of iou then?",
        ),
        Wrong(
            "left out without objects",
            left_out_without_objects,
            "Without objects you leave all anchors out: they are background, -1.",
            "An image without objects shows what background looks like.",
        ),
        Wrong(
            "for the object that forces",
            for_who_forces,
            "A forced anchor answers for the object that forces it: it answers for the object that it overlaps most.",
            "An anchor may be the best that a far object has, and lie on another one. (SSD does as you did.)",
        ),
        Wrong(
            "first of equal anchors",
            first_of_equal_anchors,
            "Of anchors that are equally good for an object you force the first one: all of them are positive.",
            FORCE,
        ),
        Wrong("argmax forces", argmax_forces, "You force one anchor for each object, even where its IoU is 0.", FORCE),
        Wrong(
            "argmax for the object that forces",
            argmax_for_who_forces,
            "You give one best anchor to each object: each anchor answers for the object that *it* overlaps most.",
            "And all that are equally good are positive, but an IoU of 0 forces nothing. " + FORCE,
        ),
        Wrong(
            "forced if nobody answers",
            forced_if_nobody_answers,
            "You force only for objects that no anchor answers for yet: the best anchors of every object are positive.",
            "An anchor that another object has forced is not the best that this one has.",
        ),
        Wrong(
            "an object apart forces",
            nothing_forces_too,
            "An object that overlaps no anchor makes anchors positive: an IoU of 0 forces nothing.",
            "Its largest IoU is 0, and so is that of many anchors. (torchvision's Matcher does as you did.)",
        ),
        Wrong(
            "forced from low on",
            forced_above_low,
            "You force only anchors with an IoU of at least `low`: the best ones of an object are always positive.",
            "Step 4 comes last, and it knows no threshold but 0.",
        ),
        Wrong("above high", above_high, "An anchor whose IoU is just `high` is positive: >=, not >.", LIMITS),
        Wrong("up to low", up_to_low, "An anchor whose IoU is just `low` is not background: <, not <=.", LIMITS),
        Wrong(
            "last of equal objects",
            last_of_equal_objects,
            "Of objects that an anchor overlaps equally you take the last: take the first row.",
            "argmax gives the first of equal values; a loop that compares with >= keeps the last.",
        ),
        Wrong(
            "labels",
            labels,
            "You return 1, 0 and -1: the row of the object, -1 for background and -2 for neither are asked for.",
            "The row says which box the anchor has to move to.",
        ),
        Wrong(
            "numbered from 1",
            numbered_from_one,
            "You count objects from 1: rows count from 0.",
            "Background is -1 here, so that 0 is free for the first object.",
        ),
        Wrong(
            "-1 and -2 swapped", minus_swapped, "-1 is background and -2 neither: you have it the other way.", LIMITS
        ),
        Wrong(
            "rows for anchors",
            rows_for_anchors,
            "You take rows for anchors and columns for objects: it is the other way.",
            "iou is (N, A), objects by anchors. The largest over dim=0 belongs to an anchor.",
        ),
        Wrong(
            "one for each object",
            one_for_each_object,
            "You return one number for each object: one for each anchor is asked for.",
            "dim=0 goes over objects, and leaves anchors.",
        ),
        Wrong(
            "one for each pair",
            all_pairs,
            "You return a number for each object and anchor: an anchor answers for one object only.",
            "First the best object of each anchor, then the thresholds.",
        ),
    ],
)
