"""Cases of `best_of_three`: mask logits, predicted IoUs and targets."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

GAP = 0.02  # between the losses of the best and the second-best mask of each image


def _terms(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, M) each: 20 times the focal loss, the Dice loss, the IoU."""
    y, p = targets[:, None].double().expand_as(logits), logits.sigmoid()
    entropy = F.binary_cross_entropy(p, y, reduction="none")
    focal = ((0.75 - 0.5 * y) * (p - y) ** 2 * entropy).mean((2, 3))
    dice = 1 - (2 * (p * y).sum((2, 3)) + 1) / (p.sum((2, 3)) + y.sum((2, 3)) + 1)
    both, either = ((logits > 0) & (y > 0)).sum((2, 3)), ((logits > 0) | (y > 0)).sum((2, 3))
    return 20 * focal, dice, both / either.clamp(min=1)


def _best_is_clear(focal: Tensor, dice: Tensor) -> bool:
    """Whether the best masks win by GAP, and the separate minima of both terms have the same or a clearly lower sum."""
    least = (focal + dice).sort(dim=1).values
    lower = least[:, 0] - focal.amin(dim=1) - dice.amin(dim=1)
    return least.shape[1] == 1 or bool(
        (least[:, 1] - least[:, 0] >= GAP).all() and ((lower < 1e-9) | (lower >= GAP / 2)).all()
    )


def _other_choices_differ(focal: Tensor, dice: Tensor, iou: Tensor, iou_pred: Tensor) -> bool:
    """Whether the loss, each wrong criterion and "always mask 0" all choose different masks."""
    losses = focal + dice
    chosen = [losses.argmin(1), focal.argmin(1), dice.argmin(1), iou.argmax(1), iou_pred.argmax(1)]
    chosen += [(losses + (iou_pred - iou) ** 2).argmin(1), losses.mean(dim=0).argmin().expand(len(losses))]
    chosen.append(torch.zeros(len(losses), dtype=torch.int64))
    return all(not torch.equal(one, other) for one, other in itertools.combinations(chosen, 2))


def _drawn(
    rng: np.random.Generator, shape: tuple[int, int, int, int], ambiguous: bool = False, first: bool | None = None
) -> list[Tensor]:
    """The arguments: masks that are more or less similar to their target.

    Args:
        shape: B, M, H, W.
        ambiguous: whether other criteria have to choose other masks.
        first: fills the first target and its last mask with this value.
    """
    B, M, H, W = shape
    while True:
        targets = torch.from_numpy(rng.random((B, H, W)) < rng.uniform(0.3, 0.6, (B, 1, 1)))
        if first is not None:
            targets[0] = first
        noise = rng.uniform(0.1, 2.5, shape) * rng.choice([-1, 1], shape)
        signal = rng.uniform(0.0, 1.5, (B, M, 1, 1)) * (2.0 * targets[:, None].numpy() - 1)
        logits = torch.from_numpy(noise + signal)
        if first is not None:
            logits[0, -1] = logits[0, -1].abs() * (1 if first else -1)
        iou_pred = torch.from_numpy(rng.uniform(-0.5, 1.5, (B, M)))
        focal, dice, iou = _terms(logits, targets)
        if _best_is_clear(focal, dice) and not (ambiguous and not _other_choices_differ(focal, dice, iou, iou_pred)):
            return [logits, iou_pred, targets]


def _one_logit_is_zero(rng: np.random.Generator) -> list[Tensor]:
    """The arguments for one image; the IoU of its worst mask depends on whether a logit of 0 is inside the mask.

    The worst mask gets no gradient. Right ways to write the entropy differ in their derivative at 0.
    """
    while True:
        logits, iou_pred, targets = _drawn(rng, (1, 3, 4, 4))
        focal, dice, _ = _terms(logits, targets)
        worst = int((focal + dice).argmax())
        as_inside = logits.clone()
        logits[0, worst, 1, 2], as_inside[0, worst, 1, 2] = 0.0, 1.0
        if _terms(logits, targets)[2][0, worst] != _terms(as_inside, targets)[2][0, worst]:
            return [logits, iou_pred, targets]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Criteria that choose different masks; one mask, one image, one pixel, an empty target, large logits."""
    drawn, graded = partial(_drawn, rng), partial(case, grad=[0, 1])
    large, zero = drawn((2, 1, 3, 3)), _one_logit_is_zero(rng)
    pixel = drawn((2, 3, 1, 1), first=True)
    large[0] = 100 * large[0].sign() * large[0].abs().clamp(min=0.5)  # only probabilities 0 and 1
    core = [
        graded("six images, choices that differ", *drawn((6, 3, 3, 3), ambiguous=True)),
        graded("four masks", *drawn((2, 4, 4, 3))),
    ]
    edge = [
        graded("an empty target and an empty mask", *drawn((2, 3, 3, 3), first=False)),
        graded("one mask", *drawn((3, 1, 2, 4))),
        graded("one image, a logit of exactly 0", *zero),
        graded("one pixel", *pixel),
        graded("large logits, whose sigmoids are exactly 0 or 1", *large),
    ]
    return {"core": (2, core), "edge": (1, edge)}
