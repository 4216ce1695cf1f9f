"""mask_loss: the loss of Mask R-CNN's mask head, on the channel of the true class and nowhere else."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Compare the mask of each proposal's true class with its target, pixel by pixel.

    The mask head draws one mask for each class, and the classes do not compete: of a proposal with label c only
    channel c counts, with a sigmoid and binary cross-entropy. What the other channels say costs nothing.

        loss = mean over all pixels of all positive proposals of  -(t log s + (1 - t) log(1 - s)),  s = sigmoid(logit)

    A proposal with label 0 is background: it has no object, its target means nothing, and it does not count.
    Without a positive proposal the loss is 0, and its gradient by the logits is 0, too: a 0 that does not depend on
    them would stop `loss.backward()`. Large logits, such as 200, must cost what the formula says.

    Args:
        logits: (P, K, M, M) floats; channel c belongs to class c. Channel 0 is never used.
        labels: (P,) integers from 0 to K - 1, the true classes.
        targets: (P, M, M) floats, 1 on the object and 0 off it.

    Returns:
        A tensor of one number, with a gradient.

    Example: one pixel, logits 5, 0 and 7 of three classes. Class 1 is true; sigmoid(0) = 1/2 costs log(2) = 0.69.

        >>> logits = torch.tensor([5.0, 0.0, 7.0]).reshape(1, 3, 1, 1)
        >>> mask_loss(logits, torch.tensor([1]), torch.ones(1, 1, 1))
        tensor(0.6931)
    """
    positive = labels.nonzero()[:, 0]
    if len(positive) == 0:
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[positive, labels[positive]], targets[positive])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Positives of several classes, background among them; large logits, one proposal, no positive, none at all.

    Args:
        rng: of logits, targets and the order of the labels.

    Returns:
        The cases by group.
    """

    def case(name: str, labels: list[int], classes: int, size: int, spread: float = 3.0) -> Case:
        numbers = torch.from_numpy(rng.permutation(np.array(labels, dtype=np.int64)))
        logits = rng.uniform(-spread, spread, (len(labels), classes, size, size))
        targets = rng.random((len(labels), size, size)) < 0.5
        arrays = [torch.from_numpy(a).float() for a in (logits, targets)]
        return {"name": name, "args": [arrays[0], numbers, arrays[1]], "grad": [0]}

    return {
        "core": (
            2,
            [
                case("three objects", [1, 2, 3], 4, 5),
                case("background among the proposals", [0, 3, 1, 0, 1], 5, 4),
                case("two classes", [1, 0, 1, 1], 2, 3),
            ],
        ),
        "edge": (
            1,
            [
                case("large logits", [2, 1, 0], 3, 4, spread=200.0),
                case("one proposal", [2], 3, 6),
                case("background only", [0, 0], 3, 4),
                case("no proposal", [], 3, 4),
            ],
        ),
    }


def _costs(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    """Channel of the true class, of all proposals."""
    return logits[torch.arange(len(labels)), labels]


def _positive_mean(values: Tensor, labels: Tensor) -> Tensor:
    return values[labels > 0].mean() if (labels > 0).any() else values.sum() * 0


def every_channel(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """All channels should draw the object."""
    return _positive_mean(_costs(logits, targets[:, None].expand_as(logits)), labels)


def others_empty(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The channels of the other classes should be 0."""
    wanted = F.one_hot(labels, logits.shape[1])[:, :, None, None] * targets[:, None]
    return _positive_mean(_costs(logits, wanted), labels)


def softmax_over_classes(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """A softmax over the channels, then binary cross-entropy of the true one."""
    logs = logits.log_softmax(1)
    own, rest = _own(logs, labels), _own(logits, labels)
    others = logits.masked_fill(F.one_hot(labels, logits.shape[1]).bool()[:, :, None, None], -torch.inf)
    away = others.logsumexp(1) - torch.logaddexp(others.logsumexp(1), rest)
    return _positive_mean(-(targets * own + (1 - targets) * away), labels)


def pixel_classes(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Semantic segmentation: cross-entropy over the classes, background where the target is 0."""
    wanted = (targets * labels[:, None, None]).long()
    return _positive_mean(F.cross_entropy(logits, wanted, reduction="none"), labels)


def strongest_channel(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The class that the net would predict: the channel with the largest mean."""
    best = logits.mean((2, 3)).argmax(1)
    return _positive_mean(_costs(_own(logits, best), targets), labels)


def strongest_pixel(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The largest logit of each pixel."""
    return _positive_mean(_costs(logits.amax(1), targets), labels)


def negatives_too(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Background has channel 0."""
    return _costs(_own(logits, labels), targets).mean() if len(labels) else logits.sum() * 0


def negatives_empty(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Background has channel 0, which should draw nothing."""
    return negatives_too(logits, labels, targets * (labels > 0)[:, None, None])


def over_all_proposals(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The sum over positives, divided by the number of all proposals."""
    share = (labels > 0).sum() / max(len(labels), 1)
    return mask_loss(logits, labels, targets) * share


def a_mean_for_each_class(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The mean within each class, then over classes."""
    costs = _costs(_own(logits, labels), targets)
    means = [costs[labels == c].mean() for c in labels[labels > 0].unique()]
    return torch.stack(means).mean() if means else logits.sum() * 0


def summed(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """A sum over the pixels of a proposal."""
    return mask_loss(logits, labels, targets) * targets[0].numel() if len(labels) else logits.sum() * 0


def channel_before(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """labels - 1, as if there were no channel for background."""
    return _positive_mean(_costs(_own(logits, labels - 1), targets), labels)


def nothing_is_nan(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The mean of nothing."""
    return _costs(_own(logits, labels), targets)[labels > 0].mean()


def constant_nothing(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """A tensor that nothing went into."""
    return mask_loss(logits, labels, targets) if (labels > 0).any() else torch.tensor(0.0)


def plain_nothing(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor | float:
    """A number."""
    return mask_loss(logits, labels, targets) if (labels > 0).any() else 0.0


def sigmoid_twice(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """A sigmoid before the loss that has its own."""
    return mask_loss(logits.sigmoid(), labels, targets)


def logs_that_overflow(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """log(sigmoid(x)), as the formula is written."""
    s = _own(logits, labels).sigmoid()
    return _positive_mean(-(targets * s.log() + (1 - targets) * (1 - s).log()), labels)


def logs_that_are_cut(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """F.binary_cross_entropy of the sigmoid: logarithms end at -100."""
    s = _own(logits, labels).sigmoid()
    return _positive_mean(F.binary_cross_entropy(s, targets, reduction="none"), labels)


def squares(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the sigmoid."""
    return _positive_mean((_own(logits, labels).sigmoid() - targets) ** 2, labels)


CHANNEL = "logits[p, labels[p]] is the one mask (M, M) of proposal p that counts."
POSITIVE = "Which proposals have labels > 0? Only these, for logits, labels and targets alike."
STABLE = "F.binary_cross_entropy_with_logits and F.logsigmoid take logits of any size."

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
            every_channel,
            "All channels of a proposal count: only that of its true class does.",
            CHANNEL,
        ),
        Wrong(
            "other channels empty",
            others_empty,
            "You ask the channels of the other classes to be empty: what they say costs nothing.",
            "Classes do not compete in the mask head. " + CHANNEL,
        ),
        Wrong(
            "softmax over classes",
            softmax_over_classes,
            "You put a softmax over the classes: each channel has a sigmoid of its own.",
            "Which class it is, the box head says. " + CHANNEL,
        ),
        Wrong(
            "classes of pixels",
            pixel_classes,
            "You classify pixels, as in semantic segmentation: ask the channel of the true class, object or not.",
            CHANNEL,
        ),
        Wrong(
            "predicted class",
            strongest_channel,
            "You take the channel that is strongest, which is the net's guess: in training the true class is known.",
            CHANNEL,
        ),
        Wrong(
            "largest logit of a pixel",
            strongest_pixel,
            "You take the largest logit of each pixel, from whatever channel: take the channel of the true class.",
            CHANNEL,
        ),
        Wrong(
            "negatives included",
            negatives_too,
            "Proposals with label 0 count in your loss: they are background and have no mask.",
            POSITIVE,
        ),
        Wrong(
            "negatives should be empty",
            negatives_empty,
            "You ask for empty masks where the label is 0: background does not count at all.",
            POSITIVE,
        ),
        Wrong(
            "divided by all proposals",
            over_all_proposals,
            "You divide by the number of all proposals: divide by that of the positive ones.",
            POSITIVE,
        ),
        Wrong(
            "a mean for each class",
            a_mean_for_each_class,
            "You take the mean within each class first: take it over all pixels of all positive proposals at once.",
            "A class with two proposals counts twice as much as one with one.",
        ),
        Wrong(
            "summed over pixels",
            summed,
            "You add the pixels of a mask up: take their mean.",
            "Divide by P+ * M * M, where P+ is the number of positive proposals.",
        ),
        Wrong(
            "channel before",
            channel_before,
            "You use channel c - 1 for class c: here channel c belongs to class c, and channel 0 to none.",
            CHANNEL,
        ),
        Wrong(
            "no positive fails",
            nothing_is_nan,
            "Without a positive proposal your loss is the mean of nothing: it is 0.",
            "An image may be all background.",
        ),
        Wrong(
            "0 without a gradient",
            constant_nothing,
            "Without a positive proposal your 0 does not depend on the logits: loss.backward() would fail.",
            "logits.sum() * 0 is 0, and so is its gradient.",
        ),
        Wrong(
            "0 is no tensor",
            plain_nothing,
            "Without a positive proposal your 0 is a plain number: loss.backward() would fail.",
            "logits.sum() * 0 is 0, and so is its gradient.",
        ),
        Wrong(
            "sigmoid twice",
            sigmoid_twice,
            "Your sigmoid is applied twice.",
            "The functions with `with_logits` in their names have one inside.",
        ),
        Wrong(
            "logarithm of 0",
            logs_that_overflow,
            "Large logits make your loss infinite or not a number: sigmoid(200) is 1, and log(1 - 1) fails.",
            STABLE,
        ),
        Wrong(
            "logarithm cut at -100",
            logs_that_are_cut,
            "Large logits lose their cost: after a sigmoid they are 0 or 1, and the logarithm is cut at -100.",
            STABLE,
        ),
        Wrong(
            "squared error",
            squares,
            "You take the squared difference: take the binary cross-entropy.",
            STABLE,
        ),
    ],
)
