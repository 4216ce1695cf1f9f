"""pixel_ce: mean cross-entropy over all pixels that are not ignored."""

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
from segedu.teaching.checks.variants import Variants, case


def pixel_ce(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The library's `cross_entropy` without weights."""
    return cross_entropy(logits, target, ignore_index=ignore_index)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """No ignored pixel, some; then images that differ in how many, -1 or a class as ignore_index, all ignored."""

    def batch(name: str, shape: tuple[int, int, int, int], ignored: list[int], void: int, grad: tuple = (0,)) -> Case:
        """Float64 logits; all classes occur; `ignored` pixels of each image are void."""
        B, K, H, W = shape
        target = np.stack([rng.permutation(np.arange(H * W) % K) for _ in range(B)])
        for image, count in zip(target, ignored, strict=True):
            image[rng.permutation(H * W)[:count]] = void
        logits, target = torch.from_numpy(rng.normal(0, 2, shape)), torch.from_numpy(target.reshape(B, H, W))
        return case(name, logits, target, void, grad=list(grad))

    everything = batch("all pixels ignored", (1, 3, 2, 2), [4], 255, grad=())
    core = [
        batch("2 images, 3 classes, no void", (2, 3, 4, 5), [0, 0], 255),
        batch("void in both images", (2, 4, 3, 5), [4, 4], 255),
    ]
    edge = [
        batch("much void in one image, none in the other", (2, 3, 4, 4), [12, 0], 255),
        batch("void is -1", (1, 5, 3, 4), [3], -1),
        batch("class 0 is ignored", (1, 3, 3, 3), [0], 0),
        everything,
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(pixel_ce)


def _counted(a: SimpleNamespace) -> Tensor:
    """True where a pixel is not ignored."""
    return a.target != a.ignore_index


def _softmax_over_columns(a: SimpleNamespace) -> Tensor:
    target = torch.where(_counted(a), a.target, 0)
    loss = -torch.log_softmax(a.logits, -1).gather(1, target[:, None])[:, 0]
    return (loss * _counted(a)).sum() / _counted(a).sum().clamp(min=1)


def _mean_of_image_means(a: SimpleNamespace) -> Tensor:
    pairs = zip(a.logits.split(1), a.target.split(1), strict=True)
    return torch.stack([pixel_ce(logits, target, a.ignore_index) for logits, target in pairs]).mean()


def _softmax_over_rows(a: SimpleNamespace) -> Tensor:
    target = torch.where(_counted(a), a.target, 0)
    loss = -torch.log_softmax(a.logits, 2).gather(1, target[:, None])[:, 0]
    return (loss * _counted(a)).sum() / _counted(a).sum().clamp(min=1)


def _mean_of(loss: Callable[[SimpleNamespace, Tensor], Tensor]) -> Callable:
    """A wrong answer with another loss (B, H, W) of the pixels, computed from a target without void."""

    def compute(a: SimpleNamespace) -> Tensor:
        losses = loss(a, torch.where(_counted(a), a.target, 0)[:, None])
        return (losses * _counted(a)).sum() / _counted(a).sum().clamp(min=1)

    return right.instead(compute)


def _mean_of_classes(a: SimpleNamespace) -> Tensor:
    classes = [k for k in a.target.unique().tolist() if k != a.ignore_index]
    log_p = a.logits.log_softmax(1)
    losses = [-log_p[:, k][a.target == k].mean() for k in classes]
    return torch.stack(losses).mean() if losses else a.logits.sum() * 0


def _only_classes_counted(a: SimpleNamespace) -> Tensor:
    """Count each target from 0 to K - 1, also where it is ignore_index."""
    is_class = (a.target >= 0) & (a.target < a.logits.shape[1])
    return pixel_ce(a.logits, torch.where(is_class, a.target, -100), -100)


def _ignored_class_masked(a: SimpleNamespace) -> Tensor:
    logits = a.logits
    if 0 <= a.ignore_index < logits.shape[1]:
        logits = logits.clone()
        logits[:, a.ignore_index] = -1e9
    return pixel_ce(logits, a.target, a.ignore_index)


def _logits_zeroed(a: SimpleNamespace) -> Tensor:
    """The logits of ignored pixels are 0, so each adds log K."""
    total = F.cross_entropy(a.logits * _counted(a)[:, None], torch.where(_counted(a), a.target, 0), reduction="sum")
    return total / _counted(a).sum() if _counted(a).any() else a.logits.sum() * 0


exercise = Exercise(
    name="pixel_ce",
    points=3,
    cases=cases,
    reference=pixel_ce,
    probe=call_grad,
    hides=["segedu.losses"],
    wrong=[
        Wrong(
            "softmax twice",
            right.given(logits=lambda a: a.logits.softmax(1)),
            "You apply the softmax twice. log_softmax and cross_entropy expect logits, not probabilities.",
            "The softmax is already part of both functions.",
        ),
        Wrong(
            "softmax along the columns",
            right.instead(_softmax_over_columns),
            "Your softmax runs over the last axis, the columns of the image. It has to run over the classes.",
            "Logits are (B, K, H, W). Which axis is K?",
        ),
        Wrong(
            "void counted in the mean",
            right.then(lambda out, a: out * _counted(a).double().mean()),
            "You divide by the number of all pixels. Void pixels must not be counted in the mean.",
            "If half of an image is void, its loss should not be half as large.",
        ),
        Wrong(
            "sum",
            right.then(lambda out, a: out * _counted(a).sum()),
            "You return the sum over the pixels. This exercise expects their mean.",
            "An image with twice as many pixels should not have twice the loss.",
        ),
        Wrong(
            "void taken for class 0",
            right.given(target=lambda a: torch.where(_counted(a), a.target, 0), ignore_index=lambda a: -100),
            "You count void pixels as if their class were 0. They must not count at all.",
            "Which pixels have a target other than ignore_index?",
        ),
        Wrong(
            "mean of the images' means",
            right.instead(_mean_of_image_means),
            "You average over each image first. Take one mean over all pixels of the batch that are not void.",
            "Otherwise a pixel has a larger weight in an image with many void pixels.",
        ),
        Wrong(
            "ignore_index unused",
            right.instead(lambda a: F.cross_entropy(a.logits, a.target)),
            "You do not use ignore_index. Pixels whose target has this value must not count.",
            "Find these pixels and leave them out, both of the sum and of the number of pixels.",
        ),
        Wrong(
            "255 in place of ignore_index",
            right.given(
                target=lambda a: a.target.where(a.target >= 0, a.target + a.logits.shape[1]),
                ignore_index=lambda a: 255,
            ),
            "You ignore the value 255, whatever ignore_index is. Ignore the value that is passed to you.",
            "Compare target with the argument.",
        ),
        Wrong(
            "0 / 0",
            right.instead(lambda a: F.cross_entropy(a.logits, a.target, ignore_index=a.ignore_index)),
            "If all pixels are void you return NaN, which would turn all weights into NaN. Return 0 instead.",
            "Divide by the number of pixels, or by 1 if there are none.",
        ),
        Wrong(
            "sign",
            right.then(lambda out, a: -out),
            "Your loss is negative. It should be the negative log-probability, which is at least 0.",
            "A probability of 1 gives 0, and smaller probabilities give more.",
        ),
        Wrong(
            "reshaped",
            right.instead(
                lambda a: F.cross_entropy(
                    a.logits.reshape(-1, a.logits.shape[1]), a.target.reshape(-1), ignore_index=a.ignore_index
                )
            ),
            "You reshape the logits to (-1, K). A row then holds several pixels, not the K scores of one pixel.",
            "reshape keeps the order of the values. Which function moves an axis?",
        ),
        Wrong(
            "logarithm left out",
            right.instead(lambda a: F.nll_loss(a.logits.softmax(1), a.target, ignore_index=a.ignore_index)),
            "You average probabilities without their logarithm. The loss is the mean of negative log-probabilities.",
            "nll_loss expects log-probabilities, as log_softmax returns them.",
        ),
        Wrong(
            "plain number",
            right.then(lambda out, a: out.item()),
            "You return a Python number, which has no gradient. Return a tensor that depends on the logits.",
            "Leave out .item(), float() and .detach(): without a gradient the network cannot learn.",
        ),
        Wrong(
            "softmax along the rows",
            right.instead(_softmax_over_rows),
            "Your softmax runs over the rows of the image. It has to run over the classes.",
            "Logits are (B, K, H, W). Which axis is K?",
        ),
        Wrong(
            "no gradient",
            right.then(lambda out, a: out.detach()),
            "Your value is correct, but it has no gradient. The result must depend on the logits.",
            "NumPy, .item() and torch.tensor(...) cut the gradient. Compute with torch throughout.",
        ),
        Wrong(
            "only classes counted",
            right.instead(_only_classes_counted),
            "You leave out targets that are not a class, but ignore_index may be one of the classes. Compare the "
            "target with ignore_index.",
            "With ignore_index 0, the pixels of class 0 must not count.",
        ),
        Wrong(
            "mean of each class",
            right.instead(_mean_of_classes),
            "You average over each class first. Take one mean over all pixels that are not void.",
            "Otherwise a pixel of a rare class has a larger weight.",
        ),
        Wrong(
            "1 - p",
            _mean_of(lambda a, target: 1 - a.logits.softmax(1).gather(1, target)[:, 0]),
            "You average 1 - p, without a logarithm. The loss of a pixel is -log p.",
            "For p close to 0 the cross-entropy grows without limit.",
        ),
        Wrong(
            "sigmoid",
            _mean_of(lambda a, target: -F.logsigmoid(a.logits.gather(1, target)[:, 0])),
            "You apply a sigmoid to the logit of the ground-truth class. The other classes count, too: use a softmax.",
            "The probabilities of a pixel have to sum to 1.",
        ),
        Wrong(
            "ignored class not in the softmax",
            right.instead(_ignored_class_masked),
            "If ignore_index is a class, you remove its logit from the softmax. Only its pixels are left out.",
            "The softmax runs over all K logits of a pixel.",
        ),
        Wrong(
            "one pixel too many",
            right.then(lambda out, a: out * _counted(a).sum() / (_counted(a).sum() + 1)),
            "You add 1 to the number of pixels, which makes every loss too small. Divide by at least 1 instead.",
            "clamp(min=1) changes a number only if it is 0.",
        ),
        Wrong(
            "logits of void zeroed",
            right.instead(_logits_zeroed),
            "You set the logits of void pixels to 0, so each of them adds log K. They must add nothing.",
            "Multiply the losses of the pixels by 0, not their logits.",
        ),
    ],
)
