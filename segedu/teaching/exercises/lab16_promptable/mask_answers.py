"""The masks and guesses that `best_of_three` is tried on."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case

GAP = 0.02  # the second best mask of each image has at least so much more loss


def _terms(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, M) each: 20 times the focal loss, the Dice loss, the IoU."""
    y, p = targets[:, None].double().expand_as(logits), logits.sigmoid()
    entropy = F.binary_cross_entropy(p, y, reduction="none")
    focal = ((0.75 - 0.5 * y) * (p - y) ** 2 * entropy).mean((2, 3))
    dice = 1 - (2 * (p * y).sum((2, 3)) + 1) / (p.sum((2, 3)) + y.sum((2, 3)) + 1)
    both, either = ((logits > 0) & (y > 0)).sum((2, 3)), ((logits > 0) | (y > 0)).sum((2, 3))
    return 20 * focal, dice, both / either.clamp(min=1)


def _apart(focal: Tensor, dice: Tensor) -> bool:
    """No two of the best are as good; where focal and Dice loss have other masks for the best, it costs something."""
    least = (focal + dice).sort(dim=1).values
    split = least[:, 0] - focal.amin(dim=1) - dice.amin(dim=1)
    return least.shape[1] == 1 or bool(
        (least[:, 1] - least[:, 0] >= GAP).all() and ((split < 1e-9) | (split >= GAP / 2)).all()
    )


def _contested(focal: Tensor, dice: Tensor, iou: Tensor, guess: Tensor) -> bool:
    """Who chooses by anything else than the loss of each image's masks chooses another one somewhere."""
    losses = focal + dice
    best = losses.argmin(dim=1)
    others = [focal.argmin(1), dice.argmin(1), iou.argmax(1), guess.argmax(1), (losses + (guess - iou) ** 2).argmin(1)]
    others.append(losses.mean(dim=0).argmin().expand(len(losses)))
    pairs = itertools.combinations([best, *others], 2)
    return all(not torch.equal(one, other) for one, other in pairs)


def _case(
    rng: np.random.Generator,
    name: str,
    shape: tuple[int, int, int, int],
    contested: bool = False,
    empty: bool = False,
    full: bool = False,
) -> Case:
    """Masks that follow their target more or less.

    Args:
        rng: of all.
        name: of the case.
        shape: B, M, H, W.
        contested: other choices than the right one find other masks.
        empty: the first target is, and so is one of its masks.
        full: likewise.

    Returns:
        The case.
    """
    B, M, H, W = shape
    while True:
        targets = torch.from_numpy(rng.random((B, H, W)) < rng.uniform(0.3, 0.6, (B, 1, 1)))
        if empty or full:
            targets[0] = full
        size = rng.uniform(0.1, 2.5, shape) * rng.choice([-1, 1], shape)
        follow = rng.uniform(0.0, 1.5, (B, M, 1, 1)) * (2.0 * targets[:, None].numpy() - 1)
        logits = torch.from_numpy(size + follow)
        if empty or full:
            logits[0, -1] = logits[0, -1].abs() * (1 if full else -1)
        guess = torch.from_numpy(rng.uniform(-0.5, 1.5, (B, M)))
        focal, dice, iou = _terms(logits, targets)
        if _apart(focal, dice) and (not contested or _contested(focal, dice, iou, guess)):
            return {"name": name, "args": [logits, guess, targets], "grad": [0, 1]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Choices that differ by what they look at; one mask, one image, one pixel, an empty target, large logits.

    Args:
        rng: of targets, logits and guesses.

    Returns:
        The cases by group. The best mask of each image is the best by 0.02.
    """
    case = partial(_case, rng)
    large = case("large logits, whose sigmoids are exactly 0 or 1", (2, 1, 3, 3))
    zero, pixel = case("one image, a logit of exactly 0", (1, 3, 4, 4)), case("one pixel", (2, 3, 1, 1), full=True)
    focal, dice, _ = _terms(zero["args"][0], zero["args"][2])
    # in the worst mask, which gets no gradient: some right ways to write the entropy have two slopes at 0
    zero["args"][0][0, int((focal + dice).argmax()), 1, 2] = 0.0
    logits = large["args"][0]
    large["args"][0] = 100 * logits.sign() * logits.abs().clamp(min=0.5)  # no probability but 0 and 1
    return {
        "core": (
            2,
            [case("six images, choices that differ", (6, 3, 3, 3), contested=True), case("four masks", (2, 4, 4, 3))],
        ),
        "edge": (
            1,
            [
                case("an empty target and an empty mask", (2, 3, 3, 3), empty=True),
                case("one mask", (3, 1, 2, 4)),
                zero,
                pixel,
                large,
            ],
        ),
    }
