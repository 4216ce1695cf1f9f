"""focal: the focal loss, cross-entropy with small weights for easy pixels, for one logit per pixel."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.focal import sigmoid_focal_loss
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab07_losses.ce_from_logits import loss_case, random_logits, random_target


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Positive and negative pixels at several gammas and alphas; gamma 0; logits of 1000."""

    def pixels(name: str, alpha: float, gamma: float, *shape: int) -> Case:
        return loss_case(name, random_logits(rng, *shape), random_target(rng, 2, *shape), alpha, gamma)

    large = torch.tensor([[1000.0, -1000.0, 1000.0, -1000.0, 0.5]], dtype=torch.float64)
    large[0, 4] += rng.uniform(0, 1)
    core = [
        pixels("alpha 0.25, gamma 2", 0.25, 2.0, 2, 3, 4),
        pixels("alpha 0.7, gamma 1", 0.7, 1.0, 1, 5, 3),
        pixels("alpha 0.4, gamma 3", 0.4, 3.0, 7, 2),
    ]
    safe = loss_case("logits of 1000, right and wrong", large, torch.tensor([[1, 0, 0, 1, 1]]), 0.25, 2.0)
    plain = pixels("gamma 0, which is weighted cross-entropy", 0.8, 0.0, 1, 4, 4)
    return {"core": (2, core), "plain": (1, [plain]), "safe": (1, [safe])}


def reference(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The library's focal loss."""
    return sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma, ignore_index=None)


right = Variants(reference)


def _cross_entropy(a: SimpleNamespace) -> Tensor:
    return F.binary_cross_entropy_with_logits(a.logits, a.target.to(a.logits), reduction="none")


def _weighted(weight: Callable[[SimpleNamespace], Tensor], loss: Callable = _cross_entropy) -> Callable:
    """A wrong answer: the mean of weight * loss; the weight may use p, p_t and alpha_t as well as the arguments."""

    def wrong(a: SimpleNamespace) -> Tensor:
        a.p = torch.sigmoid(a.logits)
        a.p_t = torch.where(a.target == 1, a.p, 1 - a.p)
        a.alpha_t = torch.where(a.target == 1, a.alpha, 1 - a.alpha)
        return (weight(a) * loss(a)).mean()

    return right.instead(wrong)


def _with_limited_p(limit: float) -> Callable:
    """A wrong answer that keeps p away from 0 and 1."""

    def wrong(a: SimpleNamespace) -> Tensor:
        p = torch.sigmoid(a.logits).clamp(limit, 1 - limit)
        p_t = torch.where(a.target == 1, p, 1 - p)
        alpha_t = torch.where(a.target == 1, a.alpha, 1 - a.alpha)
        return -(alpha_t * (1 - p_t) ** a.gamma * p_t.log()).mean()

    return right.instead(wrong)


def _alpha_of(a: SimpleNamespace) -> Tensor:
    return torch.where(a.target == 1, a.alpha, 1 - a.alpha)


def _two_means(a: SimpleNamespace) -> Tensor:
    """The mean over the positives plus the mean over the negatives."""
    parts = [a.target == value for value in (0, 1)]
    losses = [reference(a.logits[part], a.target[part], a.alpha, a.gamma) for part in parts if part.any()]
    return torch.stack(losses).sum()


def _factor_of_the_mean(a: SimpleNamespace) -> Tensor:
    loss = _cross_entropy(a)
    return ((1 - (-loss.mean()).exp()) ** a.gamma * _alpha_of(a) * loss).mean()


def _alpha_before_p_t(a: SimpleNamespace) -> Tensor:
    weighted = _alpha_of(a) * _cross_entropy(a)
    return ((1 - (-weighted).exp()).clamp(min=1e-30) ** a.gamma * weighted).mean()


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
            _weighted(lambda a: a.target * a.alpha * (1 - a.p_t) ** a.gamma),
            "Background pixels have loss 0 in your function. For target 0, the probability of the ground truth is 1 "
            "- p.",
            "A network that predicts 'object' everywhere would have loss 0. Define p_t for both targets.",
        ),
        Wrong(
            "one alpha",
            _weighted(lambda a: a.alpha * (1 - a.p_t) ** a.gamma),
            "You use alpha for all pixels. The weight is alpha for positives and 1 - alpha for negatives.",
            "alpha_t depends on the target, as p_t does.",
        ),
        Wrong(
            "alpha swapped",
            _weighted(lambda a: (1 - a.alpha_t) * (1 - a.p_t) ** a.gamma),
            "You give the weight alpha to the negatives. It belongs to the positives.",
            "Target 1: alpha. Target 0: 1 - alpha.",
        ),
        Wrong(
            "gamma outside",
            _weighted(lambda a: a.alpha_t * (1 - a.p_t**a.gamma)),
            "Your factor is 1 - p_t^gamma. The power applies to the difference, (1 - p_t)^gamma.",
            "At p_t = 0.9 and gamma = 2 the factor is 0.01, not 0.19.",
        ),
        Wrong(
            "gamma as a factor",
            _weighted(lambda a: a.alpha_t * (1 - a.p_t) * a.gamma),
            "You multiply by gamma. Use it as an exponent: it is often misprinted as a factor.",
            "With gamma = 0 the loss is weighted cross-entropy, not 0.",
        ),
        Wrong(
            "easy pixels first",
            _weighted(lambda a: a.alpha_t * a.p_t**a.gamma),
            "Your factor is p_t^gamma, which is large for easy pixels. It has to be small for easy pixels.",
            "An easy pixel has p_t close to 1. Its factor should be close to 0.",
        ),
        Wrong(
            "p for both",
            _weighted(lambda a: a.alpha_t * (1 - a.p) ** a.gamma),
            "Your factor is (1 - p)^gamma for background pixels too. For them it has to be p^gamma.",
            "Use p_t, the probability of the ground truth: (1 - p_t)^gamma.",
        ),
        Wrong(
            "factor detached",
            _weighted(lambda a: a.alpha_t * (1 - a.p_t.detach()) ** a.gamma),
            "Your value is correct, but your gradient is not. The factor (1 - p_t)^gamma depends on the logits, too.",
            "Use neither detach nor no_grad: the whole product is differentiated.",
        ),
        Wrong(
            "log of 0",
            _weighted(lambda a: -a.alpha_t * (1 - a.p_t) ** a.gamma, loss=lambda a: a.p_t.log()),
            "You take the logarithm of the sigmoid, which can be log(0). Compute the log-probability from the logit.",
            "torch.nn.functional.logsigmoid(z) is log(sigmoid(z)) for any z, and 1 - sigmoid(z) is sigmoid(-z).",
        ),
        Wrong(
            "sum",
            right.then(lambda out, a: out * a.logits.numel()),
            "You return the sum over the pixels. This exercise expects their mean.",
            "Divide by the number of pixels.",
        ),
        Wrong(
            "p limited to 1e-7",
            _with_limited_p(1e-7),
            "You limit the probability to an interval inside 0 to 1, so a confident, wrong pixel has a loss that is "
            "too small and no gradient.",
            "Nothing needs a limit if you compute the log-probability from the logit with "
            "torch.nn.functional.logsigmoid.",
        ),
        Wrong(
            "p limited to 1e-6",
            _with_limited_p(1e-6),
            "You keep the probability away from 0 and 1, so a confident, wrong pixel has a loss that is too small and "
            "no gradient.",
            "Nothing needs a limit if you compute the log-probability from the logit with "
            "torch.nn.functional.logsigmoid.",
        ),
        Wrong(
            "divided by the positives",
            right.then(lambda out, a: out * a.target.numel() / a.target.sum().clamp(min=1)),
            "You divide by the number of pixels with target 1, as RetinaNet does. This exercise expects the mean over "
            "all pixels.",
            "Divide the sum by the number of pixels.",
        ),
        Wrong(
            "divided by the alphas",
            right.then(lambda out, a: out * a.target.numel() / _alpha_of(a).sum()),
            "You divide by the sum of the weights alpha_t. This exercise expects the mean over all pixels.",
            "The loss is not a weighted mean: divide the sum by the number of pixels.",
        ),
        Wrong(
            "no alpha",
            _weighted(lambda a: (1 - a.p_t) ** a.gamma),
            "You do not use alpha. Positives have the weight alpha, and negatives the weight 1 - alpha.",
            "With gamma = 0 the loss is weighted cross-entropy, not plain cross-entropy.",
        ),
        Wrong(
            "alpha to the power of gamma",
            _weighted(lambda a: (a.alpha_t * (1 - a.p_t)) ** a.gamma),
            "You raise alpha_t to the power of gamma as well. Only the factor 1 - p_t has an exponent.",
            "With gamma = 0 the weight alpha_t must remain.",
        ),
        Wrong(
            "two means added",
            right.instead(_two_means),
            "You average over the positives and over the negatives separately. This exercise expects one mean over all "
            "pixels.",
            "The imbalance is the task of alpha, not of the mean.",
        ),
        Wrong(
            "one factor for all pixels",
            right.instead(_factor_of_the_mean),
            "You compute p_t from the mean cross-entropy, so all pixels share one factor. Each pixel has its own.",
            "Do not average before you multiply by (1 - p_t)^gamma.",
        ),
        Wrong(
            "alpha inside p_t",
            right.instead(_alpha_before_p_t),
            "You compute p_t from a cross-entropy that is weighted by alpha already. p_t is the predicted probability "
            "of the ground truth, without a weight.",
            "p_t = exp(-CE) holds for the unweighted cross-entropy only.",
        ),
    ],
)
