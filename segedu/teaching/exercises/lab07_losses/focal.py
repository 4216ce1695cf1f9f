"""focal: cross-entropy in which an easy pixel hardly counts, for one score a pixel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.focal import sigmoid_focal_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.exercises.lab07_losses.ce_from_logits import classes, scores


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Both kinds of pixel at several gammas and alphas; gamma 0; scores of 1000.

    Args:
        rng: of scores and targets.

    Returns:
        The cases by group.
    """

    def case(name: str, alpha: float, gamma: float, *shape: int) -> Case:
        return {"name": name, "args": [scores(rng, *shape), classes(rng, 2, *shape), alpha, gamma], "grad": [0]}

    large = torch.tensor([[1000.0, -1000.0, 1000.0, -1000.0, 0.5]], dtype=torch.float64)
    large[0, 4] += rng.uniform(0, 1)
    return {
        "core": (
            2,
            [
                case("alpha 0.25, gamma 2", 0.25, 2.0, 2, 3, 4),
                case("alpha 0.7, gamma 1", 0.7, 1.0, 1, 5, 3),
                case("alpha 0.4, gamma 3", 0.4, 3.0, 7, 2),
            ],
        ),
        "plain": (1, [case("gamma 0, which is weighted cross-entropy", 0.8, 0.0, 1, 4, 4)]),
        "safe": (
            1,
            [
                {
                    "name": "scores of 1000, right and wrong",
                    "args": [large, torch.tensor([[1, 0, 0, 1, 1]]), 0.25, 2.0],
                    "grad": [0],
                }
            ],
        ),
    }


def reference(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The library's focal loss."""
    return sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma, ignore_index=None)


def _parts(logits: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, p_t and alpha_t of each pixel."""
    y = target.to(logits)
    ce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    p = torch.sigmoid(logits)
    return ce, torch.where(target == 1, p, 1 - p), torch.where(target == 1, alpha, 1 - alpha)


def positives_only(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """No (1 - p) branch: background costs nothing."""
    ce, p_t, _ = _parts(logits, target, alpha)
    return (target * alpha * (1 - p_t) ** gamma * ce).mean()


def one_alpha(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """alpha for both kinds of pixel."""
    ce, p_t, _ = _parts(logits, target, alpha)
    return (alpha * (1 - p_t) ** gamma * ce).mean()


def alpha_swapped(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """alpha for the negatives."""
    ce, p_t, alpha_t = _parts(logits, target, alpha)
    return ((1 - alpha_t) * (1 - p_t) ** gamma * ce).mean()


def gamma_outside(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """1 - p^gamma."""
    ce, p_t, alpha_t = _parts(logits, target, alpha)
    return (alpha_t * (1 - p_t**gamma) * ce).mean()


def gamma_lost(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The exponent lost in print: (1 - p) gamma."""
    ce, p_t, alpha_t = _parts(logits, target, alpha)
    return (alpha_t * (1 - p_t) * gamma * ce).mean()


def easy_first(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """p^gamma in place of (1 - p)^gamma."""
    ce, p_t, alpha_t = _parts(logits, target, alpha)
    return (alpha_t * p_t**gamma * ce).mean()


def p_for_both(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """(1 - p)^gamma for the negatives as well, where it has to be p^gamma."""
    ce, _, alpha_t = _parts(logits, target, alpha)
    return (alpha_t * (1 - torch.sigmoid(logits)) ** gamma * ce).mean()


def detached(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The factor taken for a constant: the right value with a wrong gradient."""
    ce, p_t, alpha_t = _parts(logits, target, alpha)
    return (alpha_t * (1 - p_t.detach()) ** gamma * ce).mean()


def log_of_zero(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """log(sigmoid)."""
    _, p_t, alpha_t = _parts(logits, target, alpha)
    return (-alpha_t * (1 - p_t) ** gamma * p_t.log()).mean()


def summed(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """No mean."""
    return reference(logits, target, alpha, gamma) * logits.numel()


exercise = Exercise(
    name="focal",
    points=4,
    cases=cases,
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "no (1 - p) branch",
            positives_only,
            "Your background pixels cost nothing: for a target of 0 the probability of what is true is 1 - p.",
            "A net that answers 'object' everywhere would have loss 0. Define p_t for both kinds of pixel.",
        ),
        Wrong(
            "one alpha",
            one_alpha,
            "You use alpha for both kinds of pixel: it is alpha for the positives and 1 - alpha for the negatives.",
            "alpha_t follows the target, as p_t does.",
        ),
        Wrong(
            "alpha swapped",
            alpha_swapped,
            "You give alpha to the negatives: it belongs to the positives.",
            "Target 1: alpha. Target 0: 1 - alpha.",
        ),
        Wrong(
            "gamma outside",
            gamma_outside,
            "Your factor is 1 - p^gamma: the power belongs around the difference, (1 - p)^gamma.",
            "At p = 0.9 and gamma = 2 the factor is 0.01, not 0.19.",
        ),
        Wrong(
            "gamma as a factor",
            gamma_lost,
            "You multiply by gamma: it is an exponent. (It is often lost in print.)",
            "With gamma = 0 the loss is weighted cross-entropy, not 0.",
        ),
        Wrong(
            "easy pixels first",
            easy_first,
            "Your factor is p^gamma: it turns the hard pixels down and keeps the easy ones.",
            "An easy pixel has a p_t near 1. Its factor should be near 0.",
        ),
        Wrong(
            "p for both",
            p_for_both,
            "Your factor is (1 - p)^gamma for the background as well: there it has to be p^gamma.",
            "Write it with p_t, the probability of what is true: (1 - p_t)^gamma.",
        ),
        Wrong(
            "factor detached",
            detached,
            "Your value is right and your gradient is not: the factor (1 - p_t)^gamma depends on the logits too.",
            "No detach and no no_grad: the whole product is differentiated.",
        ),
        Wrong(
            "log of 0",
            log_of_zero,
            "You take the logarithm of the sigmoid: where the net is sure and wrong, that is the logarithm of 0.",
            "torch.nn.functional.logsigmoid(z) is log(sigmoid(z)) at any z, and 1 - sigmoid(z) is sigmoid(-z).",
        ),
        Wrong(
            "sum",
            summed,
            "You return the sum over pixels: the mean is asked for.",
            "Divide by the number of pixels.",
        ),
    ],
)
