"""assign_targets: the ground-truth box that each anchor is matched with, or background, or ignored."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

BACKGROUND, IGNORED = -1, -2


def assign_targets(iou: Tensor, low: float, high: float) -> Tensor:
    """Match each anchor with an object, given the IoU of every object with every anchor.

    The best object of an anchor is the object with which it has the largest IoU. Of equal ones it is the first row.

    1. An anchor whose best IoU is at least `high` is positive: it is matched with its best object.
    2. An anchor whose best IoU is below `low` is background, -1.
    3. An anchor in between is ignored by the loss, -2.
    4. Every object should have an anchor. Therefore the anchors that have the largest IoU of an object, all of them if
       several are equal, are positive too, however small this IoU is. They are matched with *their own* best object,
       as in step 1. But an object that overlaps no anchor at all, so that its largest IoU is 0, forces nothing.

    Args:
        iou: (N, A) floats. Row n belongs to an object, column a to an anchor. N may be 0; A is at least 1.
        low: anchors with a smaller IoU are background.
        high: at least `low`.

    Returns:
        (A,) integers: the row of the object, -1 for background, -2 for ignored.

    Example: one object. Anchor 2 is below `high`, but it is the best that the object has.

        >>> assign_targets(torch.tensor([[0.1, 0.4, 0.6]]), 0.3, 0.7)
        tensor([-1, -2,  0])
    """
    if len(iou) == 0:
        return torch.full(iou.shape[1:], BACKGROUND)
    return torch.where(_forced(iou), iou.argmax(dim=0), _by_thresholds(iou, low, high))


def _by_thresholds(iou: Tensor, low: float, high: float) -> Tensor:
    best = iou.amax(dim=0)  # (A,)
    targets = torch.where(best >= high, iou.argmax(dim=0), IGNORED)
    return torch.where(best < low, BACKGROUND, targets)


def _forced(iou: Tensor) -> Tensor:
    """(A,) bool: whether an object has its largest IoU with this anchor."""
    return ((iou == iou.amax(dim=1, keepdim=True)) & (iou > 0)).any(dim=0)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Good, forced and ignored anchors, ties, thresholds, no overlap; at most 6 anchors, which a picture can show."""
    three = [
        [9, 8, 5, 1, 0, 0],  # two good anchors, and one in between
        [0, 0, 0, 6, 0, 1],  # one anchor, which is only forced
        [0, 1, 0, 0, 2, 1],  # one anchor, which would be background if it were not forced
    ]
    shared = [
        [9, 8, 1, 0, 2, 1],
        [5, 4, 0, 0, 1, 0],  # its best anchor is matched with the object above
        [1, 0, 2, 1, 4, 0],  # its best anchor is matched with the object below, and neither IoU is good
        [0, 0, 6, 2, 5, 0],  # so that this object has an anchor before its own best one is forced
        [0, 7, 1, 0, 0, 0],  # its IoU with the second anchor is nearly that of the first object
    ]
    strict = [[8, 7, 5, 4, 2, 0], [0, 2, 4, 5, 6, 1]]
    core = [
        case("three objects", _tenths(rng, rng.permutation(three)), 0.3, 0.7),
        case("objects that share their best anchors", _tenths(rng, np.array(shared)), 0.3, 0.7),
        case("other thresholds", _tenths(rng, np.array(strict)), 0.45, 0.55),
    ]
    loose = int(rng.integers(17, 20)) / 64  # a little above `low`
    anchors = [[0.5, 0.5, loose, 0, 0, 0.125], [0.0625, 0, 0, 0.125, 0.125, 0]]
    objects = [[0, 0.5, loose / 4, 0.25, 0.25], [0.75, 0.5, 0, 0, 0.875], [0.75, 0.5, 0.0625, 0.9375, 0.625]]
    limits = [[0.75, 0.25, 0.875, loose / 2, 0.5, 0.125]]
    apart = torch.tensor([[0.0] * 4, [0.0, *rng.permutation([0.625, loose, 0.125])]], dtype=torch.float64)
    edge = [
        case("equally good anchors", _shuffled(rng, anchors), 0.25, 0.75),
        case("equally good objects", _shuffled(rng, objects), 0.25, 0.75),
        case("IoUs exactly at the limits", _shuffled(rng, limits), 0.25, 0.75),
        case("an object that overlaps no anchor", apart, 0.25, 0.75),  # argmax would force the first anchor
        case("no object", torch.zeros(0, int(rng.integers(3, 7))), 0.3, 0.7),
        case("one anchor", _shuffled(rng, [[loose / 4], [loose / 2]]), 0.3, 0.7),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def _tenths(rng: np.random.Generator, rows: np.ndarray) -> Tensor:
    """IoUs given in tenths, exact in single precision; up to 3/64 more than that, so that none is at a threshold."""
    iou = np.round(rows * 6.4) / 64 + np.where(rows >= 1, rng.integers(1, 4, rows.shape), 0) / 128
    return _shuffled(rng, iou)


def _shuffled(rng: np.random.Generator, rows: list[list[float]] | np.ndarray) -> Tensor:
    """The anchors in random order."""
    return torch.from_numpy(np.array(rows, dtype=float)[:, rng.permutation(len(rows[0]))])


right = Variants(assign_targets)


def _not_forced(a: SimpleNamespace) -> Tensor:
    return _by_thresholds(a.iou, a.low, a.high) if len(a.iou) else assign_targets(a.iou, a.low, a.high)


def _forced_by_rows(
    best: Callable[[Tensor], Tensor], forcing_object: bool = False, only_unmatched: bool = False
) -> Callable[..., Tensor]:
    """Objects force anchors one after the other: those where `best(IoUs of the object)` is True.

    An anchor is matched with its own best object, or with the object that forces it (`forcing_object`).
    """

    def targets_of(a: SimpleNamespace) -> Tensor:
        targets = _not_forced(a)
        for row, values in enumerate(a.iou):
            if not (only_unmatched and (targets == row).any()):
                anchors = best(values)
                targets[anchors] = row if forcing_object else a.iou[:, anchors].argmax(dim=0)
        return targets

    return right.instead(targets_of)


def _all_largest(values: Tensor) -> Tensor:
    return (values == values.max()) & (values > 0)


def _first_largest(values: Tensor) -> Tensor:
    return torch.arange(len(values)) == values.argmax()


def _forced_by_zeros(a: SimpleNamespace) -> Tensor:
    if not len(a.iou):
        return assign_targets(a.iou, a.low, a.high)
    forced = (a.iou == a.iou.amax(dim=1, keepdim=True)).any(dim=0)
    return torch.where(forced, a.iou.argmax(dim=0), _by_thresholds(a.iou, a.low, a.high))


def _all_pairs(a: SimpleNamespace) -> Tensor:
    return torch.stack([assign_targets(row[None], a.low, a.high) for row in a.iou]) if len(a.iou) else a.iou.long()


FORCE = "Step 4 works along the rows of iou. Compare with the largest IoU of each object instead of taking its index."
LIMITS = "`high` or more is positive, below `low` is background. To which side does the threshold itself belong?"

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
            right.instead(_not_forced),
            "You leave out step 4: the best anchors of every object are positive, even if their IoU is below `high`.",
            FORCE,
        ),
        Wrong(
            "not forced, fails without objects",
            right.instead(lambda a: _by_thresholds(a.iou, a.low, a.high)),
            "You leave out step 4, in which the best anchors of every object become positive. Your function also "
            "fails if there are no objects.",
            FORCE,
        ),
        Wrong(
            "middle as background",
            right.then(lambda out, a: out.clamp(min=BACKGROUND)),
            "You label anchors between the thresholds as background. They should be ignored, -2.",
            "They cover half an object, so whatever the network predicts for them is not quite wrong.",
        ),
        Wrong(
            "middle as positive",
            right.given(high=lambda a: a.low),
            "You label anchors between the thresholds as positive. They should be ignored, -2.",
            "There are two thresholds and three possible results.",
        ),
        Wrong(
            "best of each object only",
            right.given(high=lambda a: 2.0),
            "You make only the best anchors of each object positive. All anchors with an IoU of at least `high` "
            "are positive too.",
            "Steps 1 and 4 both make anchors positive.",
        ),
        Wrong(
            "fails without objects",
            right.instead(lambda a: torch.where(_forced(a.iou), a.iou.argmax(dim=0), _not_forced(a))),
            "Your function fails if there are no objects. All anchors should then be background, -1.",
            "An empty tensor has no largest value. Which shape does iou have without objects?",
        ),
        Wrong(
            "left out without objects",
            right.then(lambda out, a: out if len(a.iou) else torch.full_like(out, IGNORED)),
            "If there are no objects, you label all anchors as ignored. They should be background, -1.",
            "An image without objects shows what background looks like.",
        ),
        Wrong(
            "for the object that forces",
            _forced_by_rows(_all_largest, forcing_object=True),
            "You match an anchor of step 4 with the object whose best anchor it is. Match it with the object "
            "that it overlaps most.",
            "The best anchor of one object may overlap another object more. (SSD matches as you did.)",
        ),
        Wrong(
            "first of equal anchors",
            _forced_by_rows(lambda values: _first_largest(values) & (values > 0)),
            "If several anchors are equally good for an object, you make only the first one positive. All of "
            "them should be.",
            FORCE,
        ),
        Wrong(
            "argmax forces",
            _forced_by_rows(_first_largest),
            "In step 4 you make exactly one anchor per object positive, even if its IoU is 0. All equally good "
            "anchors should be positive, but none at IoU 0.",
            FORCE,
        ),
        Wrong(
            "argmax for the object that forces",
            _forced_by_rows(_first_largest, forcing_object=True),
            "In step 4 you choose exactly one anchor per object and match it with this object. Choose all "
            "equally good anchors, and match each with the object that it overlaps most.",
            "Anchors that are equally good are all positive, but an IoU of 0 forces nothing. " + FORCE,
        ),
        Wrong(
            "forced if nobody answers",
            _forced_by_rows(_all_largest, only_unmatched=True),
            "You apply step 4 only to objects without a positive anchor. Apply it to every object.",
            "An anchor that was forced by another object need not be the best one of this object.",
        ),
        Wrong(
            "an object apart forces",
            right.instead(_forced_by_zeros),
            "You make anchors positive for an object that overlaps none of them. In step 4, an IoU of 0 does not "
            "count.",
            "The largest IoU of this object is 0, and many anchors have it. (torchvision's Matcher does as you did.)",
        ),
        Wrong(
            "forced from low on",
            right.then(lambda out, a: torch.where(_not_forced(a) == BACKGROUND, BACKGROUND, out)),
            "You apply step 4 only to anchors with an IoU of at least `low`. Apply it to every IoU above 0.",
            "Step 4 comes last, and its only threshold is 0.",
        ),
        Wrong(
            "above high",
            right.given(high=lambda a: np.nextafter(a.high, 2)),
            "You compare with > `high`. An anchor whose IoU equals `high` is positive, so use >=.",
            LIMITS,
        ),
        Wrong(
            "up to low",
            right.given(low=lambda a: np.nextafter(a.low, 2)),
            "You compare with <= `low`. An anchor whose IoU equals `low` is not background, so use <.",
            LIMITS,
        ),
        Wrong(
            "last of equal objects",
            Variants(right.given(iou=lambda a: a.iou.flip(0))).then(
                lambda out, a: torch.where(out >= 0, len(a.iou) - 1 - out, out)
            ),
            "If an anchor overlaps several objects equally, you choose the last. Choose the first row.",
            "argmax returns the first of equal values. A loop that compares with >= keeps the last.",
        ),
        Wrong(
            "labels",
            right.then(lambda out, a: torch.where(out >= 0, 1, out + 1)),
            "You return 1, 0 and -1. Return the row of the object, -1 for background, or -2 for ignored.",
            "The row says which box the anchor is regressed to.",
        ),
        Wrong(
            "numbered from 1",
            right.then(lambda out, a: torch.where(out >= 0, out + 1, out)),
            "You number the objects from 1. The first row is object 0.",
            "Background is -1 here, so 0 is free for the first object.",
        ),
        Wrong(
            "-1 and -2 swapped",
            right.then(lambda out, a: torch.where(out >= 0, out, -3 - out)),
            "You swap -1 and -2. Background is -1, and ignored is -2.",
            LIMITS,
        ),
        Wrong(
            "rows for anchors",
            right.given(iou=lambda a: a.iou.T),
            "You treat the rows of iou as anchors and its columns as objects. It is the other way round.",
            "iou is (N, A), objects by anchors. The largest value over dim=0 belongs to an anchor.",
        ),
        Wrong(
            "one for each object",
            right.instead(lambda a: a.iou.argmax(dim=1)),
            "You return one value per object. Return one value per anchor.",
            "A reduction over dim=0 removes the objects and leaves the anchors.",
        ),
        Wrong(
            "one for each pair",
            right.instead(_all_pairs),
            "You return one value per pair of object and anchor. An anchor is matched with one object only.",
            "Find the best object of each anchor first, then compare with the thresholds.",
        ),
    ],
)
