"""ce_from_logits: cross-entropy from logits of any size, for hard and soft targets."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants, case


def random_logits(rng: np.random.Generator, *shape: int, spread: float = 2.0) -> Tensor:
    """Logits in float64 with this standard deviation, so that a gradient can be compared to many digits."""
    return torch.from_numpy(rng.normal(0, spread, shape))


def random_target(rng: np.random.Generator, num_classes: int, *shape: int) -> Tensor:
    """Classes from 0 to num_classes - 1, each of which occurs if there are enough pixels."""
    values = np.arange(np.prod(shape)) % num_classes
    return torch.from_numpy(rng.permutation(values).reshape(shape))


def loss_case(name: str, *args: Any) -> Case:
    """A case that also compares the gradient with respect to the first argument."""
    return case(name, *args, grad=[0])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Targets as class indices, as probabilities, and logits of a thousand."""
    soft = torch.softmax(random_logits(rng, 1, 4, 2, 3), dim=1)
    large = random_logits(rng, 1, 3, 2, 2)
    large[0, :, 0, 0] = torch.tensor([1000.0, 0.0, -1000.0])
    large[0, :, 1, 1] = torch.tensor([-2000.0, 1000.0, 999.0])
    confident_and_wrong = random_target(rng, 3, 1, 2, 2)
    confident_and_wrong[0, 0, 0], confident_and_wrong[0, 1, 1] = 2, 0
    unlikely, classes = random_logits(rng, 1, 5, 3, 2), random_target(rng, 5, 1, 3, 2)
    of_soft = random_logits(rng, 1, 4, 2, 3)
    soft[0, :, 0, 0] = 0.25
    for logits, unlikely_class in ((unlikely, classes[0, 0, 0]), (of_soft, 1)):
        pixel = logits[0, :, 0, 0]
        pixel[unlikely_class] = -torch.inf
        pixel[unlikely_class] = pixel.logsumexp(0) - 14  # a probability of 1e-6, to which 1e-8 makes a difference
    core = [
        loss_case("2 images, 3 classes", random_logits(rng, 2, 3, 4, 5), random_target(rng, 3, 2, 4, 5)),
        loss_case("1 image, 5 classes", unlikely, classes),
    ]
    return {
        "core": (1, core),
        "soft": (1, [loss_case("a target of probabilities", of_soft, soft)]),
        "safe": (1, [loss_case("logits of 1000", large, confident_and_wrong)]),
    }


def reference(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy; `torch.nn.functional.cross_entropy` takes both kinds of target."""
    return F.cross_entropy(logits, target)


right = Variants(reference)


def _mean_loss(log_p: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return -(target * log_p).sum(1).mean()
    return -log_p.gather(1, target[:, None]).mean()


def _unshifted_exponentials(a: SimpleNamespace) -> Tensor:
    """The softmax without subtracting the maximum: e^1000 is infinite."""
    target = a.target if a.target.is_floating_point() else F.one_hot(a.target, a.logits.shape[1]).movedim(-1, 1)
    p = a.logits.exp() / a.logits.exp().sum(1, keepdim=True)
    return -(target * p.log()).sum(1).mean()


def _one_hot(a: SimpleNamespace) -> Tensor:
    if a.target.is_floating_point():
        return a.target
    return F.one_hot(a.target, a.logits.shape[1]).movedim(-1, 1).to(a.logits)


def _without_class_axis(a: SimpleNamespace) -> Tensor:
    """Rows of K neighbouring values, which are not the logits of a pixel."""
    rows = a.logits.reshape(-1, a.logits.shape[1])
    target = a.target.reshape(rows.shape) if a.target.is_floating_point() else a.target.flatten()
    return F.cross_entropy(rows, target)


def _shift_not_undone(a: SimpleNamespace) -> Tensor:
    largest = a.logits.amax(1, keepdim=True)
    log_sum = (a.logits - largest).exp().sum(1).log()
    return (log_sum - (_one_hot(a) * a.logits).sum(1)).mean()


def _one_shift(a: SimpleNamespace) -> Tensor:
    """One maximum for all pixels, with log 0 where the logits of a pixel are far below it."""
    z = a.logits - a.logits.max().detach()
    return _mean_loss(z - z.exp().sum(1, keepdim=True).log(), a.target)


def _binary_terms(a: SimpleNamespace) -> Tensor:
    log_p, y = a.logits.log_softmax(1), _one_hot(a)
    rest = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return -(y * log_p + (1 - y) * rest).sum(1).mean()


def _clipped(bound: float) -> Callable:
    return right.given(logits=lambda a: a.logits.clamp(-bound, bound))


def _soft_only(change: Callable[[SimpleNamespace], Tensor]) -> Callable:
    """A wrong answer for soft targets; hard ones are right."""
    return right.instead(lambda a: change(a) if a.target.is_floating_point() else reference(a.logits, a.target))


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
            right.instead(lambda a: _mean_loss(torch.log(torch.softmax(a.logits, dim=1)), a.target)),
            "Large logits give you an infinite loss. This looks like the logarithm of a softmax that was rounded to 0.",
            "Simplify log(e^z / sum e^z) on paper first. torch.logsumexp computes the second term without overflow.",
        ),
        Wrong(
            "bare exponentials",
            right.instead(_unshifted_exponentials),
            "Logits of 1000 give you NaN instead of a finite loss. This looks like an overflow of exp, or like 0 "
            "times log(0).",
            "You may subtract a constant from all logits of a pixel. Or use torch.logsumexp.",
        ),
        Wrong(
            "eps in the logarithm",
            right.instead(lambda a: _mean_loss(torch.log(torch.softmax(a.logits, dim=1) + 1e-12), a.target)),
            "You add a constant inside the logarithm, so the loss of a confident, wrong prediction is too small.",
            "Compute log-probabilities directly. If p is rounded to 0, the loss is in the thousands here, not 28.",
        ),
        Wrong(
            "wrong dimension",
            right.instead(lambda a: _mean_loss(torch.log_softmax(a.logits, dim=-1), a.target)),
            "Your softmax runs over the columns of the image. It has to run over the classes.",
            "Logits are (B, K, H, W). Which axis is K?",
        ),
        Wrong(
            "soft target refused",
            right.instead(lambda a: -torch.log_softmax(a.logits, dim=1).gather(1, a.target[:, None]).mean()),
            "Your function accepts class indices only. A target of probabilities, (B, K, H, W), has to work too.",
            "Check target.is_floating_point(). If it is true, the loss is -sum over k of y_k log p_k.",
        ),
        Wrong(
            "soft target rounded",
            right.given(target=lambda a: a.target.argmax(1) if a.target.is_floating_point() else a.target),
            "You round a soft target to its most probable class. Every class counts with its probability.",
            "The loss of a pixel is -sum over k of y_k log p_k.",
        ),
        Wrong(
            "sum",
            right.instead(lambda a: F.cross_entropy(a.logits, a.target, reduction="sum")),
            "You return the sum over the pixels. This exercise expects their mean.",
            "An image with twice as many pixels should not have twice the loss.",
        ),
        Wrong(
            "mean over classes too",
            right.then(lambda out, a: out / a.logits.shape[1]),
            "You divide by the number of classes as well. The mean is over pixels only.",
            "Sum over the classes, then take the mean over images, rows and columns.",
        ),
        Wrong(
            "softmax twice",
            right.given(logits=lambda a: a.logits.softmax(1)),
            "You apply the softmax twice. log_softmax and cross_entropy expect logits, not probabilities.",
            "The softmax is already part of both functions.",
        ),
        Wrong(
            "plain number",
            right.then(lambda out, a: out.item()),
            "You return a Python number, which has no gradient. Return a tensor that depends on the logits.",
            "Leave out .item(), float() and .detach(): without a gradient the network cannot learn.",
        ),
        Wrong(
            "eps of 1e-8 in the logarithm",
            right.instead(lambda a: _mean_loss(torch.log(torch.softmax(a.logits, dim=1) + 1e-8), a.target)),
            "You add a constant inside the logarithm, so a confident, wrong prediction has a loss that is too small, "
            "and no gradient.",
            "Compute log-probabilities directly. If p is rounded to 0, the loss is in the thousands here, not 18.",
        ),
        Wrong(
            "literal log of the sum",
            right.instead(lambda a: _mean_loss(a.logits - a.logits.exp().sum(1, keepdim=True).log(), a.target)),
            "Your sum of exponentials overflows for logits of 1000, so the loss is infinite.",
            "torch.logsumexp subtracts the largest logit of a pixel before it computes the exponentials.",
        ),
        Wrong(
            "one maximum for all pixels",
            right.instead(_one_shift),
            "You subtract the maximum of the whole tensor. A pixel with much smaller logits then has a sum of 0, and "
            "log 0 is infinite.",
            "Subtract each pixel's own maximum, or use torch.logsumexp.",
        ),
        Wrong(
            "logits limited to 50",
            _clipped(50.0),
            "You limit the logits to an interval, so a large error has a loss that is too small and no gradient.",
            "Nothing needs a limit if you compute log-probabilities with torch.logsumexp.",
        ),
        Wrong(
            "logits limited to 30",
            _clipped(30.0),
            "You limit the logits to a small interval, so a large error has a loss that is too small and no gradient.",
            "Nothing needs a limit if you compute log-probabilities with torch.logsumexp.",
        ),
        Wrong(
            "class axis not moved",
            right.instead(_without_class_axis),
            "You reshape (B, K, H, W) to rows of K values, but neighbouring values in memory belong to one class. Each "
            "row has to hold the K logits of one pixel.",
            "Move the class axis to the end before you reshape, or keep the shape and work along dim=1.",
        ),
        Wrong(
            "mean over classes of a soft target",
            _soft_only(lambda a: -(a.target * a.logits.log_softmax(1)).mean()),
            "For a soft target you average over the classes as well, so the loss is K times too small. Sum over the "
            "classes, and average over the pixels.",
            "mean() divides by B * K * H * W. There are B * H * W pixels.",
        ),
        Wrong(
            "entropy subtracted",
            _soft_only(lambda a: (torch.xlogy(a.target, a.target) - a.target * a.logits.log_softmax(1)).sum(1).mean()),
            "For a soft target you compute the Kullback-Leibler divergence. The cross-entropy does not subtract the "
            "entropy of the target.",
            "The loss of a pixel is -sum over k of y_k log p_k.",
        ),
        Wrong(
            "softmax of the target",
            _soft_only(lambda a: F.cross_entropy(a.logits, a.target.softmax(1))),
            "You apply a softmax to the soft target. It holds probabilities already.",
            "The values of a soft target sum to 1 over the classes.",
        ),
        Wrong(
            "divided by the images",
            right.then(lambda out, a: out * a.logits[0, 0].numel()),
            "You divide by the number of images only. The mean is over all pixels of all images.",
            "There are B * H * W pixels.",
        ),
        Wrong(
            "minus sign missing",
            right.then(lambda out, a: -out),
            "Your loss is negative: the minus sign is missing. The loss is -log p of the correct class.",
            "A logarithm of a probability is at most 0.",
        ),
        Wrong(
            "no gradient",
            right.then(lambda out, a: out.detach()),
            "Your value is correct, but it has no gradient. The result must depend on the logits.",
            "NumPy, .detach() and torch.tensor(...) cut the gradient. Compute with torch throughout.",
        ),
        Wrong(
            "maximum not added back",
            right.instead(_shift_not_undone),
            "You subtract the largest logit inside the sum of exponentials, and do not add it again outside.",
            "log sum e^z = m + log sum e^(z - m).",
        ),
        Wrong(
            "binary terms added",
            right.instead(_binary_terms),
            "You add the terms (1 - y) log(1 - p) of the binary cross-entropy. Here each pixel has one class, and only "
            "-y log p counts.",
            "With a hard target the loss of a pixel is -log p of its class, nothing else.",
        ),
    ],
)
