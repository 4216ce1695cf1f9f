"""best_of_three: of several masks only the best one learns, and all learn how good they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab16_promptable.mask_answers import cases


def best_of_three(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> Tensor:
    """The loss of SAM's answers: a click may mean several things, so only the best of M masks has to be right.

    Each mask m of image b has the loss 20 focal + dice, where p are the sigmoids of its logits, y is 1 in the target
    and 0 outside, and s is a sum over the pixels:

    - focal: the mean over the pixels of -1/4 (1 - p)^2 log p inside the target, -3/4 p^2 log(1 - p) outside;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1).

    Of each image the mask with the least loss counts, and the others do not; the mean over the images is taken.

    The network also guesses the IoU of each of its masks. To this is added the mean, over all masks of all images, of
    (guess - IoU)^2. The IoU is that of the pixels whose logit is above 0 with the target, 1 if both are empty; no
    gradient flows through it.

    Args:
        mask_logits: (B, M, H, W) floats; SAM has M = 3. Perhaps far from 0, where a sigmoid is exactly 0 or 1.
        iou_pred: (B, M) floats, the guesses.
        targets: (B, H, W) bool.

    Returns:
        A tensor of one number, with gradients by mask_logits and iou_pred.

    Example: one mask of one pixel, undecided. Focal 1/16 log 2, Dice 1 - 2 / 2.5, and an IoU of 0 that was foreseen.

        >>> best_of_three(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1, 1).bool())
        tensor(1.0664)
    """
    y = targets[:, None].to(mask_logits).expand_as(mask_logits)
    losses = 20 * _focal(mask_logits, y) + _dice(mask_logits, y)
    return losses.amin(dim=1).mean() + ((iou_pred - _iou(mask_logits, y)) ** 2).mean()


def _focal(x: Tensor, y: Tensor) -> Tensor:
    """(B, M)."""
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    wrong = (x.sigmoid() - y).abs()
    return ((0.75 - 0.5 * y) * wrong**2 * entropy).mean(dim=(2, 3))


def _dice(x: Tensor, y: Tensor, smooth: float = 1.0) -> Tensor:
    """(B, M)."""
    p = x.sigmoid()
    return 1 - (2 * (p * y).sum(dim=(2, 3)) + smooth) / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + smooth)


def _iou(x: Tensor, y: Tensor) -> Tensor:
    """(B, M), without a gradient."""
    inside, truth = x > 0, y > 0
    both, any_ = (inside & truth).sum(dim=(2, 3)), (inside | truth).sum(dim=(2, 3))
    return torch.where(any_ == 0, 1.0, both / any_.clamp(min=1))


Losses = Callable[[Tensor, Tensor], Tensor]


def _mask_losses(x: Tensor, y: Tensor) -> Tensor:
    return 20 * _focal(x, y) + _dice(x, y)


def _error(guess: Tensor, iou: Tensor, _: Tensor) -> Tensor:
    return ((guess - iou) ** 2).mean()


def _loss(
    losses: Losses = _mask_losses,
    best: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda losses, guess, iou: losses.amin(dim=1).mean(),
    iou: Losses = _iou,
    error: Callable[[Tensor, Tensor, Tensor], Tensor] = _error,
) -> Callable[..., Tensor]:
    """The right answer, each step replaced by another."""

    def answer(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> Tensor:
        y = targets[:, None].to(mask_logits).expand_as(mask_logits)
        each, real = losses(mask_logits, y), iou(mask_logits, y)
        return best(each, iou_pred, real) + error(iou_pred, real, each)

    return answer


def _of(losses: Tensor, chosen: Tensor) -> Tensor:
    return losses.gather(1, chosen[:, None]).mean()


def _entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")


def _focal_with(weight: Callable[[Tensor], Tensor], power: float) -> Losses:
    def losses(x: Tensor, y: Tensor) -> Tensor:
        focal = (weight(y) * (x.sigmoid() - y).abs() ** power * _entropy(x, y)).mean(dim=(2, 3))
        return 20 * focal + _dice(x, y)

    return losses


def _focal_by(entropy: Losses) -> Losses:
    """The focal loss with another cross-entropy."""

    def losses(x: Tensor, y: Tensor) -> Tensor:
        wrong = (x.sigmoid() - y).abs()
        return 20 * ((0.75 - 0.5 * y) * wrong**2 * entropy(x, y)).mean(dim=(2, 3)) + _dice(x, y)

    return losses


def _logarithms(x: Tensor, y: Tensor) -> Tensor:
    return -(y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log())


def _entropy_of_sigmoids(x: Tensor, y: Tensor) -> Tensor:
    return _entropy(x.sigmoid(), y)


def _easy_first(x: Tensor, y: Tensor) -> Tensor:
    focal = ((0.75 - 0.5 * y) * (1 - (x.sigmoid() - y).abs()) ** 2 * _entropy(x, y)).mean(dim=(2, 3))
    return 20 * focal + _dice(x, y)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    sums = p.square().sum(dim=(2, 3)) + y.sum(dim=(2, 3))
    return 20 * _focal(x, y) + 1 - (2 * (p * y).sum(dim=(2, 3)) + 1) / (sums + 1)


def _dice_of_the_cut(x: Tensor, y: Tensor) -> Tensor:
    cut = (x > 0).to(x)
    return 20 * _focal(x, y) + 1 - (2 * (cut * y).sum(dim=(2, 3)) + 1) / (cut.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + 1)


def _batch_dice(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    dice = 1 - (2 * (p * y).sum(dim=(0, 2, 3)) + 1) / (p.sum(dim=(0, 2, 3)) + y.sum(dim=(0, 2, 3)) + 1)
    return 20 * _focal(x, y) + dice


def _soft_iou(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    both = (p * y).sum(dim=(2, 3))
    return both / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) - both)


def _iou_without(value: float) -> Losses:
    """Another number where both are empty."""
    return lambda x, y: torch.where(((x > 0) | (y > 0)).any(dim=(2, 3)), _iou(x, y), value)


def separate_minima(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> Tensor:
    """The least focal loss and the least Dice loss, perhaps of two masks."""
    y = targets[:, None].to(mask_logits).expand_as(mask_logits)
    least = 20 * _focal(mask_logits, y).amin(dim=1).mean() + _dice(mask_logits, y).amin(dim=1).mean()
    return least + _error(iou_pred, _iou(mask_logits, y), y)


def plain_number(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> float:
    """No tensor."""
    return float(best_of_three(mask_logits, iou_pred, targets).detach())


def without_gradient(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> Tensor:
    """A tensor that no gradient leads to."""
    return best_of_three(mask_logits, iou_pred, targets).detach()


mean = _loss(best=lambda x, guess, iou: x.mean())
summed = _loss(best=lambda x, guess, iou: x.sum(dim=1).mean())
worst = _loss(best=lambda x, guess, iou: x.amax(dim=1).mean())
first = _loss(best=lambda x, guess, iou: x[:, 0].mean())
by_guess = _loss(best=lambda x, guess, iou: _of(x, guess.argmax(dim=1)))
by_iou = _loss(best=lambda x, guess, iou: _of(x, iou.argmax(dim=1)))
per_batch = _loss(best=lambda x, guess, iou: x.mean(dim=0).amin())
least_of_each_mask = _loss(best=lambda x, guess, iou: x.amin(dim=0).mean())
one_of_all = _loss(best=lambda x, guess, iou: x.amin())
sum_over_images = _loss(best=lambda x, guess, iou: x.amin(dim=1).sum())
weighted = _loss(best=lambda x, guess, iou: (x * (-x).softmax(dim=1)).sum(dim=1).mean())
with_error = _loss(best=lambda x, guess, iou: _of(x, (x + (guess - iou) ** 2).argmin(dim=1)))
masks_untrained = _loss(best=lambda x, guess, iou: x.amin(dim=1).mean().detach())
guess_untrained = _loss(error=lambda guess, iou, x: 0)
guess_without_gradient = _loss(error=lambda guess, iou, x: _error(guess, iou, x).detach())
guess_of_the_best = _loss(error=lambda guess, iou, x: ((guess - iou) ** 2).gather(1, x.argmin(1)[:, None]).mean())
guess_summed = _loss(error=lambda guess, iou, x: ((guess - iou) ** 2).sum(dim=1).mean())
guesses_all_summed = _loss(error=lambda guess, iou, x: ((guess - iou) ** 2).sum())
guess_squeezed = _loss(error=lambda guess, iou, x: _error(guess.sigmoid(), iou, x))
guess_absolute = _loss(error=lambda guess, iou, x: (guess - iou).abs().mean())
guess_by_entropy = _loss(error=lambda guess, iou, x: F.binary_cross_entropy_with_logits(guess, iou.to(guess)))
guess_times_twenty = _loss(error=lambda guess, iou, x: 20 * _error(guess, iou, x))
soft_iou, soft_iou_learns = _loss(iou=lambda x, y: _soft_iou(x, y).detach()), _loss(iou=_soft_iou)
cut_at_half = _loss(iou=lambda x, y: _iou(x - 0.5, y))
iou_of_everything = _loss(iou=lambda x, y: _iou(x.sigmoid(), y))
zero_is_inside = _loss(iou=lambda x, y: _iou(torch.where(x == 0, 1.0, x), y))
empty_is_zero, empty_is_nan = _loss(iou=_iou_without(0.0)), _loss(iou=_iou_without(torch.nan))
dice_for_iou = _loss(iou=lambda x, y: 2 * _iou(x, y) / (1 + _iou(x, y)))
focal_missing, dice_missing = _loss(losses=_dice), _loss(losses=lambda x, y: 20 * _focal(x, y))
no_twenty = _loss(losses=lambda x, y: _focal(x, y) + _dice(x, y))
twenty_for_dice = _loss(losses=lambda x, y: _focal(x, y) + 20 * _dice(x, y))
focal_summed = _loss(losses=lambda x, y: 20 * _focal(x, y) * y[0, 0].numel() + _dice(x, y))
entropy = _loss(losses=lambda x, y: 20 * _entropy(x, y).mean(dim=(2, 3)) + _dice(x, y))
of_probabilities = _loss(losses=_focal_by(lambda x, y: F.binary_cross_entropy(x.sigmoid(), y, reduction="none")))
logarithm_of_0 = _loss(losses=_focal_by(_logarithms), best=lambda x, guess, iou: x.min(dim=1).values.mean())
sigmoid_twice = _loss(losses=_focal_by(_entropy_of_sigmoids))
easy_first, squares, dice_of_the_cut = (_loss(losses=f) for f in (_easy_first, _squares, _dice_of_the_cut))
quarter = _loss(losses=_focal_with(lambda y: torch.full_like(y, 0.25), 2))
no_alpha = _loss(losses=_focal_with(torch.ones_like, 2))
alpha_swapped = _loss(losses=_focal_with(lambda y: 0.25 + 0.5 * y, 2))
power_of_one = _loss(losses=_focal_with(lambda y: 0.75 - 0.5 * y, 1))
dice_not_smooth = _loss(losses=lambda x, y: 20 * _focal(x, y) + _dice(x, y, 0.0))
dice_over_batch = _loss(losses=_batch_dice)


BEST = "(B, M) losses: amin(dim=1), then the mean over B."
WHY = "One click on a shirt may mean the shirt or the person. Who has to learn both in one mask learns a blur of both."
GUESS = "((iou_pred - iou) ** 2).mean(), over all masks, or those that are not the best could not be told from it."
IOU = "(mask_logits > 0) and the target: both / either."
EMPTY = "torch.where(either == 0, 1.0, both / either.clamp(min=1))"
FOCAL = "alpha_t (1 - p_t)^2 times the cross-entropy, alpha_t = 1/4 inside and 3/4 outside, the mean over H and W."
LOGITS = 'binary_cross_entropy_with_logits(mask_logits, y, reduction="none"), or logsigmoid.'
DICE = "1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), with sums over H and W."

exercise = Exercise(
    name="best_of_three",
    points=3,
    cases=cases,
    reference=best_of_three,
    tolerance=1e-6,
    kind="numbers",
    probe=call_grad,
    hides=["segedu.promptable.sam.interactive"],
    wrong=[
        Wrong("mean", mean, "You take the mean over the masks: only the best one counts.", WHY),
        Wrong("sum of masks", summed, "You add up the losses of all masks: only the best one counts.", WHY),
        Wrong("worst", worst, "You take the largest loss: the least counts.", BEST),
        Wrong("first mask", first, "You always take the first mask: the best one counts.", BEST),
        Wrong(
            "argmax IoU at training",
            by_guess,
            "You choose the mask by its guessed IoU: that is for use. In training the least loss decides.",
            "At first the guesses mean nothing.",
        ),
        Wrong("argmax of the true IoU", by_iou, "You choose the mask by its true IoU: the least loss decides.", BEST),
        Wrong(
            "per batch", per_batch, "You choose one mask for the whole batch: each image has its own best one.", BEST
        ),
        Wrong(
            "least of all", one_of_all, "You take the least loss of all images: each image has its own best mask.", BEST
        ),
        Wrong(
            "least of each mask",
            least_of_each_mask,
            "You find the best image for each mask: find the best mask for each image.",
            BEST,
        ),
        Wrong("sum over images", sum_over_images, "You add up the images: take their mean.", BEST),
        Wrong("weighted", weighted, "You weigh the masks by a softmax of their losses: only the best one counts.", WHY),
        Wrong(
            "error of the guess too",
            with_error,
            "You choose by the loss and the error of the guess: the loss of the mask decides alone.",
            BEST,
        ),
        Wrong(
            "best of each term",
            separate_minima,
            "You take the least focal loss and the least Dice loss, perhaps of two masks: add first, then choose.",
            BEST,
        ),
        Wrong(
            "masks without gradient",
            masks_untrained,
            "Your masks have no gradient: the best one learns.",
            "argmin has no gradient; the loss of the mask that it chose has one.",
        ),
        Wrong(
            "IoU head untrained",
            guess_untrained,
            "You leave out the guesses: nobody would learn how good a mask is.",
            GUESS,
        ),
        Wrong(
            "guess without gradient",
            guess_without_gradient,
            "Your guesses have no gradient: it is the true IoU that has none.",
            GUESS,
        ),
        Wrong(
            "guess of the best only",
            guess_of_the_best,
            "Only the best mask learns its IoU with you: all of them do.",
            GUESS,
        ),
        Wrong("guesses summed", guess_summed, "You add up the errors of an image's guesses: take the mean.", GUESS),
        Wrong("all guesses summed", guesses_all_summed, "You add up the errors of all guesses: take the mean.", GUESS),
        Wrong("sigmoid of guesses", guess_squeezed, "You take a sigmoid of the guesses: they are IoUs already.", GUESS),
        Wrong("absolute error", guess_absolute, "You take the absolute error of the guesses: take its square.", GUESS),
        Wrong(
            "guess as logit",
            guess_by_entropy,
            "You take the guesses as logits, with a cross-entropy: take the squared error.",
            GUESS,
        ),
        Wrong(
            "guess times 20",
            guess_times_twenty,
            "You multiply the error of the guesses by 20: that is for the focal loss.",
            GUESS,
        ),
        Wrong("soft IoU", soft_iou, "You take the IoU of probabilities: cut the mask first, at logits above 0.", IOU),
        Wrong(
            "soft IoU with gradient",
            soft_iou_learns,
            "Your IoU is one of probabilities, with a gradient: cut the mask at logits above 0, and detach.",
            IOU,
        ),
        Wrong(
            "cut at logit 1/2", cut_at_half, "You cut the logits at 1/2: the sigmoid is 1/2 where the logit is 0.", IOU
        ),
        Wrong("sigmoid above 0", iou_of_everything, "You ask whether the sigmoid is above 0: it always is.", IOU),
        Wrong("0 is inside", zero_is_inside, "A logit of exactly 0 is in your mask: only above 0 it is.", IOU),
        Wrong("Dice for IoU", dice_for_iou, "You take the Dice coefficient for the true IoU.", IOU),
        Wrong("empty is 0", empty_is_zero, "The IoU of two empty masks is 0 with you: they are equal, it is 1.", EMPTY),
        Wrong("empty is nan", empty_is_nan, "The IoU of two empty masks is not a number with you: it is 1.", EMPTY),
        Wrong("focal missing", focal_missing, "You leave out the focal loss.", FOCAL),
        Wrong("Dice missing", dice_missing, "You leave out Dice.", DICE),
        Wrong("20 missing", no_twenty, "You leave out the 20 of the focal loss.", "20 focal + dice."),
        Wrong(
            "20 for Dice", twenty_for_dice, "You multiply Dice by 20: that is for the focal loss.", "20 focal + dice."
        ),
        Wrong("focal summed", focal_summed, "You add up the focal loss of the pixels: take the mean.", FOCAL),
        Wrong("cross-entropy", entropy, "You take the cross-entropy: take the focal loss.", FOCAL),
        Wrong(
            "logarithm of 0",
            logarithm_of_0,
            "You take the logarithm of 0: far from 0, a sigmoid is exactly 0 or 1. The result is not a number.",
            LOGITS,
        ),
        Wrong(
            "entropy of probabilities",
            of_probabilities,
            "Your cross-entropy starts from probabilities: torch stops its logarithm at -100.",
            LOGITS,
        ),
        Wrong(
            "sigmoid twice",
            sigmoid_twice,
            "You take the sigmoid twice: the cross-entropy with logits wants logits.",
            LOGITS,
        ),
        Wrong(
            "easy pixels count",
            easy_first,
            "You weigh a pixel by how right it is: what is wrong counts, (1 - p) inside and p outside.",
            FOCAL,
        ),
        Wrong("1/4 everywhere", quarter, "You take 1/4 outside, too: a pixel outside has 3/4.", FOCAL),
        Wrong("no alpha", no_alpha, "You leave out 1/4 and 3/4.", FOCAL),
        Wrong("alpha swapped", alpha_swapped, "You swap 1/4 and 3/4: a pixel inside has 1/4.", FOCAL),
        Wrong("power of 1", power_of_one, "You leave out the square of what is missing.", FOCAL),
        Wrong("Dice not smooth", dice_not_smooth, "You leave out the + 1 of Dice, above and below.", DICE),
        Wrong("squares in Dice", squares, "You add up squares for Dice, as V-Net does: here p itself.", DICE),
        Wrong(
            "Dice of the cut mask",
            dice_of_the_cut,
            "You cut the mask before Dice: a cut has no gradient. Take p.",
            DICE,
        ),
        Wrong(
            "Dice over the batch",
            dice_over_batch,
            "You add up pixels of all images for Dice: each mask has its own.",
            DICE,
        ),
        Wrong(
            "plain number",
            plain_number,
            "You return a plain number: a tensor with gradients is asked for.",
            "No float(...) and no .item().",
        ),
        Wrong(
            "no gradient",
            without_gradient,
            "Your loss has no gradient.",
            "detach() or no_grad() around the true IoU and the choice only.",
        ),
    ],
)
