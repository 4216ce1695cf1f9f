"""soft_dice: one minus the Dice of probabilities, for each image and class but the background."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.dice import dice_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab07_losses.ce_from_logits import classes, scores


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several images and classes; images of unequal content; a class that is nowhere, with and without smoothing.

    Args:
        rng: of scores and targets.

    Returns:
        The cases by group.
    """
    unequal = torch.zeros(3, 4, 3, dtype=torch.int64)
    unequal[0, : int(rng.integers(2, 4))] = 1  # image 0 half full, image 1 one pixel, image 2 nothing
    unequal[1, 2, 1] = 1
    absent = classes(rng, 2, 1, 3, 4)
    sure = F.one_hot(absent, 3).movedim(-1, 1).double() * 2000  # p is exactly 0 or 1: class 2 has sums of 0
    return {
        "core": (
            2,
            [
                {
                    "name": "1 image, 3 classes",
                    "args": [scores(rng, 1, 3, 4, 5, spread=1.5), classes(rng, 3, 1, 4, 5), 1.0],
                },
                {"name": "s = 0.25", "args": [scores(rng, 1, 2, 5, 3, spread=1.5), classes(rng, 2, 1, 5, 3), 0.25]},
            ],
        ),
        "images": (
            1,
            [{"name": "3 images of unequal content", "args": [scores(rng, 3, 2, 4, 3, spread=1.5), unequal, 1.0]}],
        ),
        "edge": (
            1,
            [
                {"name": "a class that is nowhere, s = 2", "args": [scores(rng, 1, 3, 3, 4, spread=1.5), absent, 2.0]},
                {"name": "a class with no pixel and no probability, s = 0", "args": [sure, absent, 0.0]},
                {
                    "name": "2 images, s = 5",
                    "args": [scores(rng, 2, 4, 3, 3, spread=1.5), classes(rng, 4, 2, 3, 3), 5.0],
                },
            ],
        ),
    }


def with_gradient(function):
    """The cases of `function`, each with the gradient by the logits."""

    def differentiated(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
        groups = function(rng)
        return {name: (points, [case | {"grad": [0]} for case in some]) for name, (points, some) in groups.items()}

    return differentiated


def reference(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """The library's Dice loss: mean over images and classes but the background."""
    return dice_loss(logits, target, ignore_index=None, smooth=smooth, include_background=False)


def _sums(p: Tensor, target: Tensor, over: tuple[int, ...] = (2, 3)) -> tuple[Tensor, Tensor]:
    """Intersection and sum of areas, by image and class unless `over` says otherwise; without the background."""
    y = F.one_hot(target, p.shape[1]).movedim(-1, 1).to(p)[:, 1:]
    p = p[:, 1:]
    return (y * p).sum(over), (y + p).sum(over)


def _loss(inter: Tensor, areas: Tensor, smooth: float) -> Tensor:
    whole = areas + smooth
    return torch.where(whole > 0, 1 - (2 * inter + smooth) / torch.where(whole > 0, whole, 1.0), 0.0).mean()


def pixelwise(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """As often printed: the fraction of each pixel, then the mean."""
    return _loss(*_sums(logits.softmax(1), target, over=()), smooth)


def whole_batch(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """One sum over all images."""
    return _loss(*_sums(logits.softmax(1), target, over=(0, 2, 3)), smooth)


def all_classes(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """One sum over all classes."""
    return _loss(*_sums(logits.softmax(1), target, over=(1, 2, 3)), smooth)


def background_too(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Class 0 in the mean."""
    return dice_loss(logits, target, ignore_index=None, smooth=smooth)


def on_logits(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Scores taken for probabilities."""
    inter, areas = _sums(logits, target)
    return (1 - (2 * inter + smooth) / (areas + smooth)).mean()


def sigmoids(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Each class by itself."""
    return _loss(*_sums(logits.sigmoid(), target), smooth)


def coefficient(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """The Dice itself."""
    return 1 - reference(logits, target, smooth)


def negative(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Minus the Dice."""
    return reference(logits, target, smooth) - 1


def rounded(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """The predicted class in place of the probabilities."""
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).to(logits)
    return _loss(*_sums(hard, target), smooth)


def squared(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Squares below, as in V-Net."""
    p = logits.softmax(1)
    inter, _ = _sums(p, target)
    return _loss(inter, _sums(p**2, target)[1], smooth)


def without_two(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """The factor 2 lost."""
    inter, areas = _sums(logits.softmax(1), target)
    return _loss(inter / 2, areas, smooth)


def smooth_below_only(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """s in the denominator alone."""
    inter, areas = _sums(logits.softmax(1), target)
    whole = areas + smooth
    return torch.where(whole > 0, 1 - 2 * inter / torch.where(whole > 0, whole, 1.0), 0.0).mean()


def empty_is_nan(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """0 / 0 with s = 0."""
    inter, areas = _sums(logits.softmax(1), target)
    return (1 - (2 * inter + smooth) / (areas + smooth)).mean()


def empty_is_one(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """0 / eps with s = 0: a class that is rightly nowhere costs 1."""
    inter, areas = _sums(logits.softmax(1), target)
    return (1 - (2 * inter + smooth) / (areas + smooth).clamp(min=1e-9)).mean()


exercise = Exercise(
    name="soft_dice",
    points=4,
    cases=with_gradient(cases),
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "pixelwise",
            pixelwise,
            "You take the fraction of each pixel and average: the sums belong inside the fraction. (It is often "
            "printed without them.)",
            "First sum y p, y and p over the pixels of an image, then divide, once.",
        ),
        Wrong(
            "whole batch",
            whole_batch,
            "You sum over the whole batch: here each image has its own Dice, and the mean is over images.",
            "Sum over rows and columns only.",
        ),
        Wrong(
            "all classes in one sum",
            all_classes,
            "You sum over the classes as well: each class has its own Dice, else the largest hides the rest.",
            "Sum over rows and columns only, then take the mean.",
        ),
        Wrong(
            "background too",
            background_too,
            "You count the background as a class: here only the classes from 1 on have a Dice.",
            "Leave channel 0 out, after the softmax.",
        ),
        Wrong(
            "on logits",
            on_logits,
            "You put raw scores into the formula: Dice is about probabilities.",
            "Softmax over the classes first.",
        ),
        Wrong(
            "sigmoid",
            sigmoids,
            "You use the sigmoid of each class: a pixel has one class here, so it is the softmax over the classes.",
            "The probabilities of a pixel have to sum to 1.",
        ),
        Wrong(
            "coefficient",
            coefficient,
            "You return the Dice itself: as a loss, 1 minus Dice is asked for.",
            "A perfect prediction has loss 0.",
        ),
        Wrong(
            "minus Dice",
            negative,
            "You return minus the Dice: 1 minus Dice is asked for, which lies between 0 and 1.",
            "The gradient is the same, the value is not.",
        ),
        Wrong(
            "rounded",
            rounded,
            "You round to the predicted class: then there is no gradient and nothing can be learnt.",
            "Keep the probabilities as they are.",
        ),
        Wrong(
            "squares below",
            squared,
            "You square the probabilities in the denominator, as V-Net does: here they are added as they are.",
            "The denominator is the sum of y, the sum of p, and s.",
        ),
        Wrong(
            "2 lost",
            without_two,
            "You lost the factor 2 of the intersection.",
            "Equal masks: the intersection is half of the sum of the areas.",
        ),
        Wrong(
            "s below only",
            smooth_below_only,
            "You add s to the denominator only: it belongs to the numerator as well.",
            "A class that is nowhere should have loss 0.",
        ),
        Wrong(
            "0 / 0",
            empty_is_nan,
            "You divide 0 by 0: with s = 0, a class without a pixel and without probability has loss 0.",
            "Look at the denominator before you divide.",
        ),
        Wrong(
            "empty costs 1",
            empty_is_one,
            "A class that is rightly nowhere costs 1 in your function when s = 0: its loss is 0.",
            "A small number in the denominator saves you from 0 / 0, but 0 / small is 0, and the loss 1.",
        ),
    ],
)
