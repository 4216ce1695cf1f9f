"""soft_dice: 1 minus the Dice coefficient of probabilities, per image and class, without the background."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.dice import dice_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab07_losses.ce_from_logits import loss_case, random_logits, random_target


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several images and classes; images of unequal content; a class that does not occur, with and without s."""

    def logits(*shape: int) -> Tensor:
        return random_logits(rng, *shape, spread=1.5)

    unequal = torch.zeros(3, 4, 3, dtype=torch.int64)
    unequal[0, : int(rng.integers(2, 4))] = 1  # image 0 half full, image 1 one pixel, image 2 nothing
    unequal[1, 2, 1] = 1
    absent = random_target(rng, 2, 1, 3, 4)
    confident = F.one_hot(absent, 3).movedim(-1, 1).double() * 2000  # p is exactly 0 or 1: class 2 has sums of 0
    core = [
        loss_case("1 image, 3 classes", logits(1, 3, 4, 5), random_target(rng, 3, 1, 4, 5), 1.0),
        loss_case("s = 0.25", logits(1, 2, 5, 3), random_target(rng, 2, 1, 5, 3), 0.25),
    ]
    images = [loss_case("3 images of unequal content", logits(3, 2, 4, 3), unequal, 1.0)]
    edge = [
        loss_case("a class that does not occur, s = 2", logits(1, 3, 3, 4), absent, 2.0),
        loss_case("a class with no pixel and no probability, s = 0", confident, absent, 0.0),
        loss_case("2 images, s = 5", logits(2, 4, 3, 3), random_target(rng, 4, 2, 3, 3), 5.0),
    ]
    return {"core": (2, core), "images": (1, images), "edge": (1, edge)}


def reference(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """The library's Dice loss: mean over images and over the classes without the background."""
    return dice_loss(logits, target, ignore_index=None, smooth=smooth, include_background=False)


right = Variants(reference)


def _ratio_or_one(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 1.0)


def _ratio_or_zero(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def _dice(
    p: Tensor,
    a: SimpleNamespace,
    over: tuple[int, ...] = (2, 3),
    power: int = 1,
    numerator: Callable = lambda inter, smooth: 2 * inter + smooth,
    ratio: Callable = _ratio_or_one,
) -> Tensor:
    """The right loss of probabilities p, except for the parts that are given."""
    y = F.one_hot(a.target, p.shape[1]).movedim(-1, 1).to(p)[:, 1:]
    p = p[:, 1:]
    inter, areas = y * p, y + p**power
    if over:  # torch's sum over () is the sum over all axes
        inter, areas = inter.sum(over), areas.sum(over)
    return (1 - ratio(numerator(inter, a.smooth), areas + a.smooth)).mean()


def _with(**parts: object) -> Callable:
    """A wrong answer that differs from the right one in these parts of `_dice`."""
    return right.instead(lambda a: _dice(a.logits.softmax(1), a, **parts))


def _round(a: SimpleNamespace) -> Tensor:
    return _dice(F.one_hot(a.logits.argmax(1), a.logits.shape[1]).movedim(-1, 1).to(a.logits), a)


def _unmoved_target(a: SimpleNamespace) -> Tensor:
    """The one-hot target with its class axis at the end, reshaped instead of moved."""
    k = a.logits.shape[1]
    y = F.one_hot(a.target, k).reshape(a.logits.shape).to(a.logits)[:, 1:]
    p = a.logits.softmax(1)[:, 1:]
    inter, areas = (y * p).sum((2, 3)), (y + p).sum((2, 3))
    return (1 - _ratio_or_one(2 * inter + a.smooth, areas + a.smooth)).mean()


def _losses(a: SimpleNamespace, first: int = 1, last: int | None = None) -> tuple[Tensor, Tensor]:
    """Loss and number of ground-truth pixels of each image and class."""
    p = a.logits.softmax(1)
    y = F.one_hot(a.target, p.shape[1]).movedim(-1, 1).to(p)
    p, y = p[:, first:last], y[:, first:last]
    inter, areas = (y * p).sum((2, 3)), (y + p).sum((2, 3))
    return 1 - _ratio_or_one(2 * inter + a.smooth, areas + a.smooth), y.sum((2, 3))


def _occurring_classes(a: SimpleNamespace) -> Tensor:
    losses, pixels = _losses(a)
    return (losses * (pixels > 0)).sum() / (pixels > 0).sum().clamp(min=1)


def _jaccard(a: SimpleNamespace) -> Tensor:
    p = a.logits.softmax(1)[:, 1:]
    y = F.one_hot(a.target, a.logits.shape[1]).movedim(-1, 1).to(p)[:, 1:]
    inter, areas = (y * p).sum((2, 3)), (y + p).sum((2, 3))
    return (1 - _ratio_or_one(inter + a.smooth, areas - inter + a.smooth)).mean()


def _softmax_without_background(a: SimpleNamespace) -> Tensor:
    p = torch.cat([torch.zeros_like(a.logits[:, :1]), a.logits[:, 1:].softmax(1)], dim=1)
    return _dice(p, a)


ROWS_AND_COLUMNS = "Sum over rows and columns only, then take the mean."

exercise = Exercise(
    name="soft_dice",
    points=4,
    cases=cases,
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "pixelwise",
            _with(over=()),
            "You compute one fraction per pixel and average them. Sum over the pixels first, then divide once.",
            "Three sums over the pixels of an image: of y p, of y and of p.",
        ),
        Wrong(
            "whole batch",
            _with(over=(0, 2, 3)),
            "You sum over the whole batch. Each image has its own Dice, and the loss is the mean over images.",
            ROWS_AND_COLUMNS,
        ),
        Wrong(
            "all classes in one sum",
            _with(over=(1, 2, 3)),
            "You sum over the classes, so the largest class dominates. Each class has its own Dice.",
            ROWS_AND_COLUMNS,
        ),
        Wrong(
            "background too",
            right.instead(lambda a: dice_loss(a.logits, a.target, ignore_index=None, smooth=a.smooth)),
            "You include the background. Here only the classes from 1 on have a Dice.",
            "Remove channel 0 after the softmax.",
        ),
        Wrong(
            "on logits",
            right.instead(lambda a: _dice(a.logits, a, ratio=torch.div)),
            "You use logits in the formula. The Dice loss is defined for probabilities.",
            "Apply the softmax over the classes first.",
        ),
        Wrong(
            "sigmoid",
            right.instead(lambda a: _dice(a.logits.sigmoid(), a)),
            "You apply a sigmoid per class. A pixel has exactly one class here, so it needs a softmax over classes.",
            "The probabilities of a pixel have to sum to 1.",
        ),
        Wrong(
            "coefficient",
            right.then(lambda out, a: 1 - out),
            "You return the Dice coefficient. The loss is 1 minus Dice.",
            "A perfect prediction has loss 0.",
        ),
        Wrong(
            "coefficient, 0 without a class",
            right.instead(lambda a: 1 - _dice(a.logits.softmax(1), a, ratio=_ratio_or_zero)),
            "You return the Dice coefficient, and 0 for a class with no pixel and no probability. The loss is 1 minus "
            "Dice, and only the loss of such a class is 0.",
            "A perfect prediction has loss 0.",
        ),
        Wrong(
            "minus Dice",
            right.then(lambda out, a: out - 1),
            "You return minus the Dice coefficient. The loss is 1 minus Dice, which lies between 0 and 1.",
            "The gradient is the same, but the value is not.",
        ),
        Wrong(
            "rounded",
            right.instead(_round),
            "You round the probabilities to the predicted class, which has no gradient. Use the probabilities "
            "themselves.",
            "Without a gradient the network cannot learn.",
        ),
        Wrong(
            "squares below",
            _with(power=2),
            "You square the probabilities in the denominator, as V-Net does. Add them without squaring.",
            "The denominator is the sum of y, the sum of p, and s.",
        ),
        Wrong(
            "2 lost",
            _with(numerator=lambda inter, smooth: inter + smooth),
            "You leave out the factor 2 of the intersection. Equal masks must have Dice 1.",
            "For equal masks, the intersection is half of the sum of the areas.",
        ),
        Wrong(
            "s below only",
            _with(numerator=lambda inter, smooth: 2 * inter),
            "You add s to the denominator only. It belongs to the numerator as well.",
            "A class that neither occurs nor is predicted should have loss 0.",
        ),
        Wrong(
            "0 / 0",
            _with(ratio=torch.div),
            "You divide 0 by 0. With s = 0, a class that neither occurs nor is predicted has loss 0.",
            "Check the denominator before you divide.",
        ),
        Wrong(
            "empty costs 1",
            _with(ratio=lambda part, whole: part / whole.clamp(min=1e-9)),
            "With s = 0, a class that is correctly absent has loss 1 in your function. Its loss has to be 0.",
            "A small constant in the denominator prevents 0 / 0, but 0 divided by it is 0, and the loss becomes 1.",
        ),
        Wrong(
            "s twice above",
            _with(numerator=lambda inter, smooth: 2 * (inter + smooth)),
            "You add 2 s to the numerator, because the factor 2 applies to s as well. Only the intersection has the "
            "factor 2.",
            "A class that neither occurs nor is predicted should have the fraction s / s = 1.",
        ),
        Wrong(
            "rounded, with zero gradient",
            right.instead(lambda a: _round(a) + 0 * a.logits.sum()),
            "You round the probabilities to the predicted class, so the gradient is 0 everywhere. Use the "
            "probabilities themselves.",
            "A sum with 0 times the logits lets backward() run, but the network cannot learn from it.",
        ),
        Wrong(
            "only classes that occur",
            right.instead(_occurring_classes),
            "You average over the classes that occur in an image only. A class that does not occur counts as well.",
            "If the network predicts such a class, it has to be penalised.",
        ),
        Wrong(
            "class axis not moved",
            right.instead(_unmoved_target),
            "You reshape the one-hot target to (B, K, H, W), which mixes classes and pixels. Move the class axis "
            "instead.",
            "one_hot returns (B, H, W, K). movedim(-1, 1) makes it (B, K, H, W).",
        ),
        Wrong(
            "divided by K",
            right.then(lambda out, a: out * (a.logits.shape[1] - 1) / a.logits.shape[1]),
            "You divide by all K classes, although the background is left out. There are K - 1 losses per image.",
            "Let mean() count them.",
        ),
        Wrong(
            "Jaccard",
            right.instead(_jaccard),
            "You compute the Jaccard loss, intersection over union. Dice divides twice the intersection by the sum of "
            "both areas.",
            "The denominator is the sum of y, the sum of p, and s, without subtracting the intersection.",
        ),
        Wrong(
            "last class left out",
            right.instead(lambda a: _losses(a, first=0, last=-1)[0].mean()),
            "You leave out the last class. The background is class 0.",
            "Keep the channels from 1 on.",
        ),
        Wrong(
            "softmax of the foreground",
            right.instead(_softmax_without_background),
            "You remove the background before the softmax, so the probabilities of the other classes always sum to 1. "
            "Remove it after the softmax.",
            "At a background pixel, all foreground probabilities should be close to 0.",
        ),
    ],
)
