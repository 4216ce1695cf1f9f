"""ce_from_logits: cross-entropy of pixels from scores, safe at any size of the scores, for hard and soft targets."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad


def scores(rng: np.random.Generator, *shape: int, spread: float = 2.0) -> Tensor:
    """Random logits in float64, so that a gradient can be compared to many digits.

    Args:
        rng: of the values.
        shape: of the tensor.
        spread: their standard deviation.

    Returns:
        Values about 0.
    """
    return torch.from_numpy(rng.normal(0, spread, shape))


def classes(rng: np.random.Generator, num_classes: int, *shape: int) -> Tensor:
    """Random true classes, each of which occurs.

    Args:
        rng: of the order.
        num_classes: K.
        shape: of the tensor, with at least K pixels.

    Returns:
        int64 values from 0 to K - 1.
    """
    values = np.arange(np.prod(shape)) % num_classes
    return torch.from_numpy(rng.permutation(values).reshape(shape))


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Classes as indexes, as probabilities, and scores of a thousand.

    Args:
        rng: of scores and targets.

    Returns:
        The cases by group.
    """
    soft = torch.softmax(scores(rng, 1, 4, 2, 3), dim=1)
    large = scores(rng, 1, 3, 2, 2)
    large[0, :, 0, 0] = torch.tensor([1000.0, 0.0, -1000.0])
    large[0, :, 1, 1] = torch.tensor([-2000.0, 1000.0, 999.0])
    wrong_and_sure = classes(rng, 3, 1, 2, 2)
    wrong_and_sure[0, 0, 0], wrong_and_sure[0, 1, 1] = 2, 0
    return {
        "core": (
            1,
            [
                {
                    "name": "2 images, 3 classes",
                    "args": [scores(rng, 2, 3, 4, 5), classes(rng, 3, 2, 4, 5)],
                    "grad": [0],
                },
                {
                    "name": "1 image, 5 classes",
                    "args": [scores(rng, 1, 5, 3, 2), classes(rng, 5, 1, 3, 2)],
                    "grad": [0],
                },
            ],
        ),
        "soft": (1, [{"name": "a target of probabilities", "args": [scores(rng, 1, 4, 2, 3), soft], "grad": [0]}]),
        "safe": (1, [{"name": "scores of 1000", "args": [large, wrong_and_sure], "grad": [0]}]),
    }


def reference(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy; `torch.nn.functional.cross_entropy` takes both kinds of target."""
    return F.cross_entropy(logits, target)


def _one_hot(target: Tensor, logits: Tensor) -> Tensor:
    if target.is_floating_point():
        return target
    return F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits)


def log_of_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """log(softmax): e^-1000 is 0 and its logarithm infinite."""
    log_p = torch.log(torch.softmax(logits, dim=1))
    if target.is_floating_point():
        return -(target * log_p).sum(1).mean()
    return -log_p.gather(1, target[:, None]).mean()


def bare_exponentials(logits: Tensor, target: Tensor) -> Tensor:
    """Exponentials without the maximum subtracted: e^1000 is infinite."""
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -(_one_hot(target, logits) * p.log()).sum(1).mean()


def with_eps(logits: Tensor, target: Tensor) -> Tensor:
    """log(p + 1e-12): at most 27.6, and no gradient there."""
    return -(_one_hot(target, logits) * torch.log(torch.softmax(logits, dim=1) + 1e-12)).sum(1).mean()


def wrong_dimension(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax over the last axis."""
    return -(_one_hot(target, logits) * torch.log_softmax(logits, dim=-1)).sum(1).mean()


def refuses_soft(logits: Tensor, target: Tensor) -> Tensor:
    """Class indexes only."""
    return -torch.log_softmax(logits, dim=1).gather(1, target[:, None]).mean()


def rounds_soft(logits: Tensor, target: Tensor) -> Tensor:
    """The most probable class in place of the probabilities."""
    return F.cross_entropy(logits, target.argmax(1) if target.is_floating_point() else target)


def summed(logits: Tensor, target: Tensor) -> Tensor:
    """No mean."""
    return F.cross_entropy(logits, target, reduction="sum")


def over_classes_too(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over classes as well."""
    return F.cross_entropy(logits, target) / logits.shape[1]


def softmax_twice(logits: Tensor, target: Tensor) -> Tensor:
    """Probabilities taken for scores."""
    return F.cross_entropy(logits.softmax(1), target)


def plain_number(logits: Tensor, target: Tensor) -> float:
    """The value alone."""
    return F.cross_entropy(logits, target).item()


exercise = Exercise(
    name="ce_from_logits",
    points=3,
    cases=cases,
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "log of softmax",
            log_of_softmax,
            "You take the logarithm of the softmax: a probability that is rounded to 0 makes the loss infinite.",
            "Simplify log(e^z / sum e^z) on paper first. torch.logsumexp gives the second part without overflow.",
        ),
        Wrong(
            "bare exponentials",
            bare_exponentials,
            "Scores of 1000 give you NaN: you exponentiate them as they are, or multiply the logarithm of a 0 by 0.",
            "A constant may be subtracted from all scores of a pixel. Or look at torch.logsumexp.",
        ),
        Wrong(
            "eps in the logarithm",
            with_eps,
            "You add a small number inside the logarithm: where the net is surest and wrong, the gradient is gone.",
            "Where p is rounded to 0 the loss of a pixel is in the thousands here, not 28. Use log-probabilities.",
        ),
        Wrong(
            "wrong dimension",
            wrong_dimension,
            "Your softmax runs over the columns of the image: it has to run over the classes.",
            "Logits are (B, K, H, W). Which axis is K?",
        ),
        Wrong(
            "soft target refused",
            refuses_soft,
            "You take class indexes only: a target (B, K, H, W) of probabilities has to work as well.",
            "Ask target.is_floating_point(). Then the loss is -sum over k of y_k log p_k.",
        ),
        Wrong(
            "soft target rounded",
            rounds_soft,
            "You round a soft target to its most probable class: every class counts with its probability.",
            "The loss of a pixel is -sum over k of y_k log p_k.",
        ),
        Wrong(
            "sum",
            summed,
            "You return the sum over pixels: the mean is asked for.",
            "Twice as large an image should not have twice the loss.",
        ),
        Wrong(
            "mean over classes too",
            over_classes_too,
            "You divide by the number of classes as well: the mean is over pixels.",
            "Sum over classes, then mean over the images, rows and columns.",
        ),
        Wrong(
            "softmax twice",
            softmax_twice,
            "You apply the softmax twice: probabilities go in where scores belong.",
            "log_softmax and cross_entropy take raw scores.",
        ),
        Wrong(
            "plain number",
            plain_number,
            "You return a plain number: it has no gradient, so nothing can be learnt from it.",
            "Return the tensor as it is, without .item(), float() or .detach().",
        ),
    ],
)
