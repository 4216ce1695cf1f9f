"""weighted_ce: cross-entropy in which a rare class weighs more, divided by the sum of the weights."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab07_losses.ce_from_logits import classes, scores


def _counts(rng: np.random.Generator, num_classes: int) -> Tensor:
    return torch.from_numpy(rng.permutation(num_classes) * 7 + rng.integers(2, 6) + 1)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Unequal classes, weights that sum to less than 1; ignored pixels; classes counted once and never; no pixel.

    Args:
        rng: of scores, targets and counts.

    Returns:
        The cases by group.
    """
    ignored = classes(rng, 3, 1, 4, 3)
    ignored[0, :2, 1] = 255
    counts = _counts(rng, 4)
    counts[1:3] = torch.tensor([1, 0])
    nothing = torch.full((1, 2, 2), 255)
    plain = {"args": [scores(rng, 2, 3, 3, 4), classes(rng, 3, 2, 3, 4), 50 * _counts(rng, 3), 255], "grad": [0]}
    two = {"args": [scores(rng, 1, 2, 5, 3), classes(rng, 2, 1, 5, 3), torch.tensor([98, 2]), 255], "grad": [0]}
    with_ignored = {"args": [scores(rng, 1, 3, 4, 3), ignored, _counts(rng, 3), 255], "grad": [0]}
    minus_one = {"args": [scores(rng, 1, 3, 4, 3), torch.where(ignored == 255, -1, ignored), _counts(rng, 3), -1]}
    never = {"args": [scores(rng, 1, 4, 3, 4), classes(rng, 4, 1, 3, 4), counts, 255], "grad": [0]}
    none_left = {"args": [scores(rng, 1, 2, 2, 2), nothing, torch.tensor([5, 3]), 255], "grad": [0]}
    return {
        "core": (1, [plain | {"name": "3 classes"}, two | {"name": "2 % foreground"}]),
        "ignored": (
            1,
            [with_ignored | {"name": "ignored pixels"}, minus_one | {"name": "ignored pixels marked -1", "grad": [0]}],
        ),
        "edge": (
            1,
            [never | {"name": "a class that was never counted"}, none_left | {"name": "only ignored pixels"}],
        ),
    }


def _weights(pixel_counts: Tensor) -> Tensor:
    return torch.where(pixel_counts > 0, 1 / pixel_counts.clamp(min=1).double(), 0.0)


def reference(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """The library's cross-entropy with weights 1 / n."""
    return cross_entropy(logits, target, ignore_index=ignore_index, class_weights=_weights(pixel_counts))


def _parts(logits: Tensor, target: Tensor, weights: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Loss and weight of each pixel, 0 where ignored."""
    counted = target != ignore_index
    safe = torch.where(counted, target, 0)
    loss = F.cross_entropy(logits, safe, reduction="none")
    return loss, weights[safe].to(loss) * counted


def _mean(loss: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum()
    return (loss * weight).sum() / torch.where(total > 0, total, 1.0)


def over_pixels(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """Divides by N."""
    loss, weight = _parts(logits, target, _weights(pixel_counts), ignore_index)
    return (loss * weight).sum() / (target != ignore_index).sum().clamp(min=1)


def by_prediction(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """The weight of the predicted class."""
    loss, _ = _parts(logits, target, _weights(pixel_counts), ignore_index)
    return _mean(loss, _weights(pixel_counts)[logits.argmax(1)].to(loss) * (target != ignore_index))


def ignored_as_background(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """Ignored pixels count as class 0."""
    return _mean(*_parts(logits, torch.where(target == ignore_index, 0, target), _weights(pixel_counts), -100))


def ignored_in_divisor(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """Ignored pixels add nothing to the sum but their weight to the divisor."""
    loss, weight = _parts(logits, target, _weights(pixel_counts), ignore_index)
    return (loss * weight).sum() / _weights(pixel_counts)[torch.where(target == ignore_index, 0, target)].sum()


def infinite(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """1 / 0."""
    return _mean(*_parts(logits, target, 1 / pixel_counts.double(), ignore_index))


def of_torch(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """torch's own, with 1 / n as it is."""
    return F.cross_entropy(logits, target, weight=1 / pixel_counts.double(), ignore_index=ignore_index)


def clamped(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """A count of 0 taken for 1: the largest weight of all."""
    return _mean(*_parts(logits, target, 1 / pixel_counts.clamp(min=1).double(), ignore_index))


def frequent_first(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """The count itself as the weight."""
    return _mean(*_parts(logits, target, pixel_counts.double(), ignore_index))


def nothing_is_nan(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """0 / 0, as in torch."""
    loss, weight = _parts(logits, target, _weights(pixel_counts), ignore_index)
    return (loss * weight).sum() / weight.sum()


def constant_zero(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """A fresh zero where nothing counts."""
    if _parts(logits, target, _weights(pixel_counts), ignore_index)[1].sum() == 0:
        return torch.tensor(0.0)
    return reference(logits, target, pixel_counts, ignore_index)


def unweighted(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """Plain cross-entropy."""
    return _mean(*_parts(logits, target, torch.ones(len(pixel_counts)), ignore_index))


exercise = Exercise(
    name="weighted_ce",
    points=3,
    cases=cases,
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "divides by N",
            over_pixels,
            "You divide by the number of pixels: a weighted mean is divided by the sum of the weights.",
            "Multiply all weights by 10: a mean must not change.",
        ),
        Wrong(
            "weights by prediction",
            by_prediction,
            "You weight a pixel by its predicted class: its true class decides.",
            "A missed pixel of a rare class is predicted as background, and should cost most.",
        ),
        Wrong(
            "ignored as background",
            ignored_as_background,
            "You count ignored pixels as class 0: they must not count at all.",
            "Make their weight 0. Their label is no index of a class, so replace it before you look anything up.",
        ),
        Wrong(
            "ignored in the divisor",
            ignored_in_divisor,
            "You leave ignored pixels out of the sum but not out of the divisor.",
            "Their weight is 0, in the numerator and in the sum of the weights.",
        ),
        Wrong(
            "1 / 0",
            infinite,
            "You divide by a count of 0: the weight of that class is infinite, and the loss no number.",
            "A class with no counted pixel has weight 0. torch.where chooses.",
        ),
        Wrong(
            "both zeros",
            of_torch,
            "You divide by a count of 0, and by a sum of weights of 0: both make the loss no number.",
            "A class with no counted pixel has weight 0, and where all weights are 0, so is the loss.",
        ),
        Wrong(
            "0 taken for 1",
            clamped,
            "You take a count of 0 for 1: a class that was never seen gets the largest weight of all.",
            "Its weight is 0.",
        ),
        Wrong(
            "not inverse",
            frequent_first,
            "You weight by the count itself: frequent classes get even more weight.",
            "The weight is 1 / count.",
        ),
        Wrong(
            "0 / 0",
            nothing_is_nan,
            "You divide 0 by 0 where no pixel counts: the loss is 0 there.",
            "Look at the sum of the weights before you divide by it. One such batch would ruin the whole training.",
        ),
        Wrong(
            "a fresh 0",
            constant_zero,
            "Where nothing counts you return a new 0, which has no gradient: the result must depend on the logits.",
            "0 times a sum of logits is 0 too, and backward() works on it. Its gradient is 0.",
        ),
        Wrong(
            "no weights",
            unweighted,
            "You return the plain cross-entropy: no class weighs more than another.",
            "Each pixel has the weight of its true class, 1 / count.",
        ),
    ],
)
