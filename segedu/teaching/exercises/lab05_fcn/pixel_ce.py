"""pixel_ce: the cross-entropy of all pixels that count."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.losses.cross_entropy import cross_entropy
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.probes import call_grad


def pixel_ce(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The library's `cross_entropy` without weights."""
    return cross_entropy(logits, target, ignore_index=ignore_index)


def _case(rng: np.random.Generator, name: str, shape: tuple[int, int, int, int], ignored: list, void: int) -> Case:
    """Scores in float64; all classes occur; as many pixels of each image are ignored as `ignored` says."""
    B, K, H, W = shape
    target = np.stack([rng.permutation(np.arange(H * W) % K) for _ in range(B)])
    for image, count in zip(target, ignored, strict=True):
        image[rng.permutation(H * W)[:count]] = void
    args = [torch.from_numpy(rng.normal(0, 2, shape)), torch.from_numpy(target.reshape(B, H, W)), void]
    return {"name": name, "args": args, "grad": [0]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """No pixel ignored, some; then images that differ in how many, -1 as the mark, a class as the mark, all ignored.

    Args:
        rng: of scores and targets.

    Returns:
        The cases by group.
    """
    everything = _case(rng, "all pixels ignored", (1, 3, 2, 2), [4], 255) | {"grad": []}
    return {
        "core": (
            2,
            [
                _case(rng, "2 images, 3 classes, no void", (2, 3, 4, 5), [0, 0], 255),
                _case(rng, "void in both images", (2, 4, 3, 5), [4, 4], 255),
            ],
        ),
        "edge": (
            1,
            [
                _case(rng, "much void in one image, none in the other", (2, 3, 4, 4), [12, 0], 255),
                _case(rng, "void is -1", (1, 5, 3, 4), [3], -1),
                _case(rng, "class 0 is not to be learnt", (1, 3, 3, 3), [0], 0),
                everything,
            ],
        ),
    }


def _pixel_losses(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    counted = target != ignore_index
    safe = torch.where(counted, target, 0)
    return -torch.log_softmax(logits, 1).gather(1, safe[:, None])[:, 0], counted


def softmax_twice(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Probabilities taken for scores."""
    return pixel_ce(logits.softmax(1), target, ignore_index)


def last_axis(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Softmax over the columns."""
    counted = target != ignore_index
    loss = -torch.log_softmax(logits, -1).gather(1, torch.where(counted, target, 0)[:, None])[:, 0]
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def divides_by_all(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The sum over the pixels that count, divided by all pixels."""
    loss, counted = _pixel_losses(logits, target, ignore_index)
    return (loss * counted).mean()


def summed(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """No mean."""
    loss, counted = _pixel_losses(logits, target, ignore_index)
    return (loss * counted).sum()


def nothing_ignored(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Void becomes class 0 and counts."""
    return _pixel_losses(logits, target, ignore_index)[0].mean()


def mean_of_images(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The mean of each image first."""
    loss, counted = _pixel_losses(logits, target, ignore_index)
    each = (loss * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
    return each.mean()


def always_255(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Ignores 255, whatever the mark is."""
    loss, counted = _pixel_losses(logits, target.where(target >= 0, target + logits.shape[1]), 255)
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def mark_unknown(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """torch's own, without the mark."""
    return F.cross_entropy(logits, target)


def not_a_number(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """torch's own: 0 / 0 where all is ignored."""
    return F.cross_entropy(logits, target, ignore_index=ignore_index)


def axes_reshaped(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Rows of K numbers cut from the logits as they lie in memory."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[1]), target.reshape(-1), ignore_index=ignore_index)


def logarithm_lost(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """nll_loss, which expects logarithms, of probabilities."""
    return F.nll_loss(logits.softmax(1), target, ignore_index=ignore_index)


def sign_lost(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The mean log-probability."""
    return -pixel_ce(logits, target, ignore_index)


def plain_number(logits: Tensor, target: Tensor, ignore_index: int) -> float:
    """The value alone."""
    return pixel_ce(logits, target, ignore_index).item()


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
            softmax_twice,
            "You apply the softmax twice: probabilities go in where scores belong.",
            "log_softmax and cross_entropy take raw scores.",
        ),
        Wrong(
            "softmax along the columns",
            last_axis,
            "Your softmax runs over the last axis, the columns of the image: it has to run over the classes.",
            "Logits are (B, K, H, W). Which axis is K?",
        ),
        Wrong(
            "void counted in the mean",
            divides_by_all,
            "You divide by all pixels: void ones add nothing to the sum, and must not be counted either.",
            "Half an image of void should not halve the loss.",
        ),
        Wrong(
            "sum",
            summed,
            "You return the sum over pixels: the mean is asked for.",
            "Twice as large an image should not have twice the loss.",
        ),
        Wrong(
            "void taken for class 0",
            nothing_ignored,
            "You count void pixels, as if they were of class 0.",
            "Which pixels have a target other than ignore_index?",
        ),
        Wrong(
            "mean of the images' means",
            mean_of_images,
            "You take the mean of each image first: a pixel then counts more where its image has much void.",
            "One sum over all pixels of the batch, one division.",
        ),
        Wrong(
            "ignore_index unused",
            mark_unknown,
            "You do not use ignore_index: void pixels are taken for a class, or stop the function.",
            "Find the pixels whose target is ignore_index, and leave them out.",
        ),
        Wrong(
            "255 in place of ignore_index",
            always_255,
            "You ignore 255 whatever ignore_index says.",
            "Compare target with the argument.",
        ),
        Wrong(
            "0 / 0",
            not_a_number,
            "Where no pixel counts you return NaN: one such image would spoil all weights. The statement asks for 0.",
            "Divide by the number of pixels, or by 1 if there are none.",
        ),
        Wrong(
            "sign",
            sign_lost,
            "Your loss is negative: it is minus the log-probability.",
            "A probability of 1 gives 0, smaller ones give more.",
        ),
        Wrong(
            "reshaped",
            axes_reshaped,
            "You reshape (B, K, H, W) to rows of K: a row then holds pixels of a class, not classes of a pixel.",
            "reshape keeps the order of the values. Which function moves an axis?",
        ),
        Wrong(
            "logarithm left out",
            logarithm_lost,
            "You take the mean of probabilities: nll_loss expects their logarithms, from log_softmax.",
            "A probability of 1 gives 0, smaller ones give more.",
        ),
        Wrong(
            "plain number",
            plain_number,
            "You return a plain number: it has no gradient, so nothing can be learnt from it.",
            "Return the tensor as it is, without .item(), float() or .detach().",
        ),
    ],
)
