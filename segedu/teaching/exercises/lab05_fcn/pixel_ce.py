"""pixel_ce: mean cross-entropy over all pixels that are not ignored."""

from __future__ import annotations

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
    ],
)
