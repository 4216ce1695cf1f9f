"""weighted_ce: cross-entropy with larger weights for rare classes, divided by the sum of the weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab07_losses.ce_from_logits import loss_case, random_logits, random_target


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Rare and frequent classes; ignored pixels; classes counted once and never; no pixel that counts."""

    def counts(num_classes: int) -> Tensor:
        return torch.from_numpy(rng.permutation(num_classes) * 7 + rng.integers(2, 6) + 1)

    def logits_and_target(classes: int, batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        logits = random_logits(rng, batch, classes, height, width)
        return logits, random_target(rng, classes, batch, height, width)

    ignored = random_target(rng, 3, 1, 4, 3)
    ignored[0, :2, 1] = 255
    once_and_never = counts(4)
    once_and_never[1:3] = torch.tensor([1, 0])
    void = torch.full((1, 2, 2), 255)
    core = [
        loss_case("3 classes", *logits_and_target(3, 2, 3, 4), 50 * counts(3), 255),
        loss_case("2 % foreground", *logits_and_target(2, 1, 5, 3), torch.tensor([98, 2]), 255),
    ]
    minus_one = torch.where(ignored == 255, -1, ignored)
    unequal = random_target(rng, 3, 2, 4, 3)
    unequal[0, 1:] = 255
    some_ignored = [
        loss_case("ignored pixels", random_logits(rng, 1, 3, 4, 3), ignored, counts(3), 255),
        loss_case("ignored pixels marked -1", random_logits(rng, 1, 3, 4, 3), minus_one, counts(3), -1),
        loss_case("2 images, one of them mostly ignored", random_logits(rng, 2, 3, 4, 3), unequal, counts(3), 255),
    ]
    edge = [
        loss_case("a class that was never counted", *logits_and_target(4, 1, 3, 4), once_and_never, 255),
        loss_case("only ignored pixels", random_logits(rng, 1, 2, 2, 2), void, torch.tensor([5, 3]), 255),
    ]
    return {"core": (1, core), "ignored": (1, some_ignored), "edge": (1, edge)}


def _weights(pixel_counts: Tensor) -> Tensor:
    return torch.where(pixel_counts > 0, 1 / pixel_counts.clamp(min=1).double(), 0.0)


def reference(logits: Tensor, target: Tensor, pixel_counts: Tensor, ignore_index: int) -> Tensor:
    """The library's cross-entropy with weights 1 / n."""
    return cross_entropy(logits, target, ignore_index=ignore_index, class_weights=_weights(pixel_counts))


right = Variants(reference)


def _counted(a: SimpleNamespace) -> Tensor:
    """True where a pixel is not ignored."""
    return a.target != a.ignore_index


def _pixels(a: SimpleNamespace, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Loss and weight of each pixel; the weight is 0 where the pixel is ignored."""
    weights = _weights(a.pixel_counts) if weights is None else weights
    target = torch.where(_counted(a), a.target, 0)
    loss = F.cross_entropy(a.logits, target, reduction="none")
    return loss, weights[target].to(loss) * _counted(a)


def _mean(loss: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum()
    return (loss * weight).sum() / torch.where(total > 0, total, 1.0)


def _divide_by_n(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return (loss * weight).sum() / _counted(a).sum().clamp(min=1)


def _weights_by_prediction(a: SimpleNamespace) -> Tensor:
    loss, _ = _pixels(a)
    return _mean(loss, _weights(a.pixel_counts)[a.logits.argmax(1)].to(loss) * _counted(a))


def _ignored_in_divisor(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return (loss * weight).sum() / _weights(a.pixel_counts)[torch.where(_counted(a), a.target, 0)].sum()


def _zero_by_zero(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return (loss * weight).sum() / weight.sum()


def _of_weights(weights: Callable[[SimpleNamespace], Tensor]) -> Callable:
    """A wrong answer with other class weights; a class without pixels has weight 0."""
    return right.instead(lambda a: _mean(*_pixels(a, torch.where(a.pixel_counts > 0, weights(a).double(), 0.0))))


def _counts_of_batch(a: SimpleNamespace) -> Tensor:
    return torch.bincount(a.target[_counted(a)], minlength=a.logits.shape[1])


def _mean_of_images(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return torch.stack([_mean(*image) for image in zip(loss, weight, strict=True)]).mean()


def _divide_by_class_weights(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return (loss * weight).sum() / _weights(a.pixel_counts).sum()


def _divide_by_at_least_1(a: SimpleNamespace) -> Tensor:
    loss, weight = _pixels(a)
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def _ones_only(a: SimpleNamespace) -> Tensor:
    """The weights as integers: 1 for a class that was counted once, and 0 for all others."""
    loss, weight = _pixels(a, (a.pixel_counts == 1).double())
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def _zero_selected_late(a: SimpleNamespace) -> Tensor:
    """The value is 0 if no pixel counts, but backward() goes through 0 / 0."""
    total = _pixels(a)[1].sum()
    return torch.where(total > 0, _zero_by_zero(a), 0.0)


exercise = Exercise(
    name="weighted_ce",
    points=3,
    cases=cases,
    reference=reference,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "divides by N",
            right.instead(_divide_by_n),
            "You divide by the number of pixels. A weighted mean is divided by the sum of the weights.",
            "If all weights are multiplied by 10, a mean must not change.",
        ),
        Wrong(
            "weights by prediction",
            right.instead(_weights_by_prediction),
            "You weight each pixel by its predicted class. Its ground-truth class determines the weight.",
            "A missed pixel of a rare class is predicted as background, and should have a large weight.",
        ),
        Wrong(
            "ignored as background",
            right.given(target=lambda a: torch.where(_counted(a), a.target, 0), ignore_index=lambda a: -100),
            "You count ignored pixels as class 0. They must not count at all.",
            "Make their weight 0. Their target is not a class index, so replace it before you use it as an index.",
        ),
        Wrong(
            "ignored in the divisor",
            right.instead(_ignored_in_divisor),
            "You exclude ignored pixels from the sum, but not from the divisor. Exclude them from both.",
            "Their weight is 0 both in the numerator and in the sum of the weights.",
        ),
        Wrong(
            "1 / 0",
            right.instead(lambda a: _mean(*_pixels(a, 1 / a.pixel_counts.double()))),
            "You divide by a count of 0, so the weight becomes infinite. A class with a count of 0 has weight 0.",
            "torch.where selects between two values, here 1 / count and 0.",
        ),
        Wrong(
            "both zeros",
            right.instead(
                lambda a: F.cross_entropy(
                    a.logits, a.target, weight=1 / a.pixel_counts.double(), ignore_index=a.ignore_index
                )
            ),
            "You divide by a count of 0, and by a sum of weights that is 0. Both the weight and the loss are 0 then.",
            "Check a number before you divide by it: one such batch would make all parameters NaN.",
        ),
        Wrong(
            "0 taken for 1",
            right.given(pixel_counts=lambda a: a.pixel_counts.clamp(min=1)),
            "You treat a count of 0 as 1, so that class gets the largest weight of all. Its weight has to be 0.",
            "A class without pixels in the training set should have no influence on the loss.",
        ),
        Wrong(
            "not inverse",
            right.instead(lambda a: _mean(*_pixels(a, a.pixel_counts.double()))),
            "You use the count itself as the weight. Use its inverse, so that rare classes get larger weights.",
            "The weight is 1 / count.",
        ),
        Wrong(
            "0 / 0",
            right.instead(_zero_by_zero),
            "You divide 0 by 0 if no pixel counts. The loss has to be 0 then.",
            "Check the sum of the weights before you divide by it. One such batch would make all parameters NaN.",
        ),
        Wrong(
            "a fresh 0",
            right.then(lambda out, a: out if _pixels(a)[1].sum() else torch.tensor(0.0)),
            "If no pixel counts you return a new 0, which has no gradient. The result must depend on the logits.",
            "0 times a sum of logits is also 0, and backward() works on it. Its gradient is 0.",
        ),
        Wrong(
            "no weights",
            right.given(pixel_counts=lambda a: torch.ones_like(a.pixel_counts)),
            "You return the cross-entropy without class weights. Weight each pixel by 1 / count of its class.",
            "The class is the one of the ground truth, not the predicted one.",
        ),
        Wrong(
            "always ignores 255",
            right.given(
                target=lambda a: torch.where(a.target == 255, 255, torch.where(_counted(a), a.target, 0)),
                ignore_index=lambda a: 255,
            ),
            "You ignore the value 255, whatever ignore_index is. Compare the target with the argument.",
            "Here ignore_index may also be -1.",
        ),
        Wrong(
            "-1 as the last class",
            right.instead(
                lambda a: cross_entropy(
                    a.logits,
                    torch.where(a.target < 0, a.target + a.logits.shape[1], a.target).where(a.target < 255, 255),
                    ignore_index=255,
                    class_weights=_weights(a.pixel_counts),
                )
            ),
            "You count pixels with the target -1 as pixels of the last class. They have to be ignored here.",
            "An index of -1 selects the last entry. Compare the target with ignore_index.",
        ),
        Wrong(
            "one minus the frequency",
            _of_weights(lambda a: 1 - a.pixel_counts / a.pixel_counts.sum().clamp(min=1)),
            "You use 1 minus the relative frequency as the weight. The weight is 1 / count.",
            "If every class is rare, all your weights are close to 1. The inverse counts still differ.",
        ),
        Wrong(
            "square root of the counts",
            _of_weights(lambda a: 1 / a.pixel_counts.clamp(min=1).double().sqrt()),
            "You use 1 / sqrt(count) as the weight. The weight is 1 / count.",
            "A class that is 100 times rarer gets a weight that is 100 times larger.",
        ),
        Wrong(
            "counts plus 1",
            _of_weights(lambda a: 1 / (a.pixel_counts + 1.0)),
            "You add 1 to every count, which changes all weights. The weight is 1 / count, and 0 for a count of 0.",
            "torch.where selects between two values, here 1 / count and 0.",
        ),
        Wrong(
            "counts of the batch",
            right.given(pixel_counts=_counts_of_batch),
            "You count the pixels of the batch. The weights come from pixel_counts, the counts of the training set.",
            "A class that a batch shows once would get another weight in each batch.",
        ),
        Wrong(
            "weights of integers",
            right.instead(_ones_only),
            "Your weights are integers, so 1 / count is rounded to 0. They have to be floating-point numbers.",
            "Make the tensor of weights with the dtype of the logits, not with that of the counts.",
        ),
        Wrong(
            "mean of each image",
            right.instead(_mean_of_images),
            "You compute a weighted mean for each image and average these means. The loss is one weighted mean over "
            "all pixels of the batch.",
            "An image with few counted pixels should not weigh as much as one with many.",
        ),
        Wrong(
            "divides by the class weights",
            right.instead(_divide_by_class_weights),
            "You divide by the sum of the K class weights. A weighted mean is divided by the sum of the weights of the "
            "pixels.",
            "Each pixel adds the weight of its class to the divisor.",
        ),
        Wrong(
            "divisor of at least 1",
            right.instead(_divide_by_at_least_1),
            "You divide by at least 1, but the sum of the weights is usually smaller than 1. The divisor is the sum "
            "itself, unless it is 0.",
            "The weights are 1 / count, so they are small.",
        ),
        Wrong(
            "0 selected after the division",
            right.instead(_zero_selected_late),
            "If no pixel counts, your value is 0, but its gradient is NaN. Replace the divisor before you divide.",
            "torch.where differentiates both branches, and the derivative of 0 / 0 is NaN.",
        ),
    ],
)
