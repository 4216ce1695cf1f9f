"""mask_loss: the loss of the mask head of Mask R-CNN, which uses only the channel of the ground-truth class."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants, case


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Compare the mask that is predicted for each proposal's ground-truth class with its target, pixel by pixel.

    The mask head predicts one mask per class, and the classes do not compete: for a proposal with label c, the loss is
    the binary cross-entropy of the sigmoid of channel c. The other channels do not contribute.

        loss = mean over all pixels of all positive proposals of  -(t log s + (1 - t) log(1 - s)),  s = sigmoid(logit)

    A proposal with label 0 is background. It has no object, its target has no meaning, and it does not contribute.
    Without a positive proposal the loss is 0. Its gradient with respect to the logits is 0 then too: with a 0 that does
    not depend on the logits, `loss.backward()` would fail. The formula must also hold for large logits, such as 200.

    Args:
        logits: (P, K, M, M) floats; channel c belongs to class c. Channel 0 is never used.
        labels: (P,) integers from 0 to K - 1, the ground-truth classes.
        targets: (P, M, M) floats, 1 on the object and 0 elsewhere.

    Returns:
        A tensor with one value and a gradient.

    Example: one pixel, and logits 5, 0 and 7 of three classes. For class 1 the loss is -log(sigmoid(0)) = log(2).

        >>> logits = torch.tensor([5.0, 0.0, 7.0]).reshape(1, 3, 1, 1)
        >>> mask_loss(logits, torch.tensor([1]), torch.ones(1, 1, 1))
        tensor(0.6931)
    """
    positive = labels.nonzero()[:, 0]
    if len(positive) == 0:
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[positive, labels[positive]], targets[positive])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Positives of several classes, background among them; large logits, one proposal, no positive, no proposal."""

    def proposals(name: str, labels: list[int], classes: int, size: int, spread: float = 3.0) -> Case:
        shuffled = torch.from_numpy(rng.permutation(np.array(labels, dtype=np.int64)))
        logits = rng.uniform(-spread, spread, (len(labels), classes, size, size))
        targets = rng.random((len(labels), size, size)) < 0.5
        return case(name, torch.from_numpy(logits).float(), shuffled, torch.from_numpy(targets).float(), grad=[0])

    core = [
        proposals("three objects", [1, 2, 3], 4, 5),
        proposals("background among the proposals", [0, 3, 1, 0, 1], 5, 4),
        proposals("two classes", [1, 0, 1, 1], 2, 3),
    ]
    edge = [
        proposals("large logits", [2, 1, 0], 3, 4, spread=200.0),
        proposals("one proposal", [2], 3, 6),
        proposals("background only", [0, 0], 3, 4),
        proposals("no proposal", [], 3, 4),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(mask_loss)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _channel(logits: Tensor, classes: Tensor) -> Tensor:
    """(P, M, M): one channel per proposal."""
    return logits[torch.arange(len(classes)), classes]


def _one_hot(a: SimpleNamespace) -> Tensor:
    return F.one_hot(a.labels, a.logits.shape[1])[:, :, None, None]


def _averaged(losses: Callable[[SimpleNamespace], Tensor]) -> Callable[..., Tensor]:
    """Other losses per pixel, averaged over the positive proposals."""

    def mean(a: SimpleNamespace) -> Tensor:
        values = losses(a)
        return values[a.labels > 0].mean() if (a.labels > 0).any() else values.sum() * 0

    return right.instead(mean)


def _softmax_over_classes(a: SimpleNamespace) -> Tensor:
    own, log_own = _channel(a.logits, a.labels), _channel(a.logits.log_softmax(1), a.labels)
    others = a.logits.masked_fill(_one_hot(a).bool(), -torch.inf).logsumexp(1)
    return -(a.targets * log_own + (1 - a.targets) * (others - torch.logaddexp(others, own)))


def _with_negatives(a: SimpleNamespace, targets: Tensor) -> Tensor:
    return _bce(_channel(a.logits, a.labels), targets).mean() if len(a.labels) else a.logits.sum() * 0


def _mean_per_class(a: SimpleNamespace) -> Tensor:
    losses = _bce(_channel(a.logits, a.labels), a.targets)
    means = [losses[a.labels == c].mean() for c in a.labels[a.labels > 0].unique()]
    return torch.stack(means).mean() if means else a.logits.sum() * 0


def _naive_logarithms(a: SimpleNamespace) -> Tensor:
    s = _channel(a.logits, a.labels).sigmoid()
    return -(a.targets * s.log() + (1 - a.targets) * (1 - s).log())


CHANNEL = "logits[p, labels[p]] is the only mask (M, M) of proposal p that contributes."
POSITIVE = "Which proposals have labels > 0? Select these in logits, labels and targets."
STABLE = "F.binary_cross_entropy_with_logits and F.logsigmoid are stable for logits of any size."
DEPENDENT = "logits.sum() * 0 is 0, and so is its gradient."

exercise = Exercise(
    name="mask_loss",
    points=3,
    cases=cases,
    reference=mask_loss,
    kind="mask",
    hides=["segedu.instance.mask_rcnn"],
    probe=call_grad,
    wrong=[
        Wrong(
            "every channel",
            _averaged(lambda a: _bce(a.logits, a.targets[:, None].expand_as(a.logits))),
            "All channels of a proposal contribute to your loss. Use only the channel of its ground-truth class.",
            CHANNEL,
        ),
        Wrong(
            "other channels empty",
            _averaged(lambda a: _bce(a.logits, _one_hot(a) * a.targets[:, None])),
            "You require empty masks in the channels of the other classes. These channels do not contribute.",
            "Classes do not compete in the mask head. " + CHANNEL,
        ),
        Wrong(
            "softmax over classes",
            _averaged(_softmax_over_classes),
            "You apply a softmax over the classes. Apply a sigmoid to each channel.",
            "The box head predicts the class, so the mask head does not have to. " + CHANNEL,
        ),
        Wrong(
            "classes of pixels",
            _averaged(
                lambda a: F.cross_entropy(a.logits, (a.targets * a.labels[:, None, None]).long(), reduction="none")
            ),
            "You classify each pixel, as in semantic segmentation. Use only the channel of the proposal's "
            "ground-truth class.",
            CHANNEL,
        ),
        Wrong(
            "predicted class",
            _averaged(lambda a: _bce(_channel(a.logits, a.logits.mean((2, 3)).argmax(1)), a.targets)),
            "You use the channel with the largest mean. Use the channel of the ground-truth class, which is known.",
            CHANNEL,
        ),
        Wrong(
            "largest logit of a pixel",
            _averaged(lambda a: _bce(a.logits.amax(1), a.targets)),
            "You use the largest logit of each pixel, from any channel. Use the channel of the ground-truth class.",
            CHANNEL,
        ),
        Wrong(
            "negatives included",
            right.instead(lambda a: _with_negatives(a, a.targets)),
            "Proposals with label 0 contribute to your loss. They are background and have no mask.",
            POSITIVE,
        ),
        Wrong(
            "negatives should be empty",
            right.instead(lambda a: _with_negatives(a, a.targets * (a.labels > 0)[:, None, None])),
            "You require empty masks for proposals with label 0. Background does not contribute at all.",
            POSITIVE,
        ),
        Wrong(
            "divided by all proposals",
            right.then(lambda out, a: out * ((a.labels > 0).sum() / max(len(a.labels), 1))),
            "You divide by the number of all proposals. Divide by the number of positive proposals.",
            POSITIVE,
        ),
        Wrong(
            "a mean for each class",
            right.instead(_mean_per_class),
            "You average within each class first. Average over all pixels of all positive proposals at once.",
            "A class with two proposals has twice the weight of a class with one.",
        ),
        Wrong(
            "summed over pixels",
            right.then(lambda out, a: out * a.targets[0].numel() if len(a.labels) else out),
            "You sum over the pixels of a mask. Take their mean.",
            "Divide by the number of positive proposals times M * M.",
        ),
        Wrong(
            "channel before",
            _averaged(lambda a: _bce(_channel(a.logits, a.labels - 1), a.targets)),
            "You use channel c - 1 for class c. Here channel c belongs to class c, and channel 0 is never used.",
            CHANNEL,
        ),
        Wrong(
            "no positive fails",
            right.instead(lambda a: _bce(_channel(a.logits, a.labels), a.targets)[a.labels > 0].mean()),
            "Without a positive proposal your loss is the mean of an empty tensor. It should be 0.",
            "An image may contain only background.",
        ),
        Wrong(
            "0 without a gradient",
            right.then(lambda out, a: out if (a.labels > 0).any() else torch.tensor(0.0)),
            "Without a positive proposal your 0 does not depend on the logits, so loss.backward() would fail.",
            DEPENDENT,
        ),
        Wrong(
            "0 is no tensor",
            right.then(lambda out, a: out if (a.labels > 0).any() else 0.0),
            "Without a positive proposal your 0 is a Python number, which has no backward(). Return a tensor.",
            DEPENDENT,
        ),
        Wrong(
            "sigmoid twice",
            right.given(logits=lambda a: a.logits.sigmoid()),
            "You apply the sigmoid twice. Apply it once.",
            "Functions with `with_logits` in their names apply a sigmoid themselves.",
        ),
        Wrong(
            "logarithm of 0",
            _averaged(_naive_logarithms),
            "Your loss is infinite or not a number for large logits: sigmoid(200) rounds to 1, and log(1 - 1) is "
            "infinite. Use a stable formula.",
            STABLE,
        ),
        Wrong(
            "logarithm cut at -100",
            _averaged(
                lambda a: F.binary_cross_entropy(_channel(a.logits, a.labels).sigmoid(), a.targets, reduction="none")
            ),
            "Your loss is too small for large logits. Their sigmoid rounds to 0 or 1, and the log is clamped at -100.",
            STABLE,
        ),
        Wrong(
            "squared error",
            _averaged(lambda a: (_channel(a.logits, a.labels).sigmoid() - a.targets) ** 2),
            "You use the squared error. Use the binary cross-entropy.",
            STABLE,
        ),
    ],
)
