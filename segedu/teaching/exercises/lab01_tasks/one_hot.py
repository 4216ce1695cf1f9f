"""one_hot: a map of class numbers as one mask a class, (H, W) -> (K, H, W)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

VOID = 255


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """One plane a class: 1 where the pixel has the class, 0 elsewhere; void pixels are 0 in every plane.

    Args:
        target: (H, W) int64, classes 0 to K - 1, or 255 for void.
        num_classes: K.

    Returns:
        (K, H, W) float32.
    """
    return (target == torch.arange(num_classes, device=target.device)[:, None, None]).float()


def class_map(rng: np.random.Generator, shape: tuple[int, int], classes: list[int]) -> Tensor:
    """A map in which each of the given classes occurs.

    Args:
        rng: of the order.
        shape: H, W.
        classes: to be drawn from.

    Returns:
        (H, W) int64.
    """
    size = shape[0] * shape[1]
    values = np.concatenate([classes, rng.choice(classes, size - len(classes))])
    return torch.from_numpy(rng.permutation(values).reshape(shape)).long()


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """All classes; the last class absent; void; all void.

    Args:
        rng: of the drawn maps.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            2,
            [
                {"name": "a map of three classes", "args": [class_map(rng, (4, 5), [0, 1, 2]), 3]},
                {"name": "a map without the last classes", "args": [class_map(rng, (5, 3), [0, 2]), 6]},
            ],
        ),
        "void": (
            1,
            [
                {"name": "a map with void pixels", "args": [class_map(rng, (6, 4), [0, 1, 3, VOID]), 5]},
                {"name": "a map of void pixels only", "args": [torch.full((3, 4), VOID), 2]},
            ],
        ),
    }


def channel_last(target: Tensor, num_classes: int) -> Tensor:
    """(H, W, K)."""
    return one_hot(target, num_classes).permute(1, 2, 0)


def void_raises(target: Tensor, num_classes: int) -> Tensor:
    """torch's one_hot, which refuses a class of 255."""
    return torch.nn.functional.one_hot(target, num_classes).permute(2, 0, 1).float()


def void_is_last(target: Tensor, num_classes: int) -> Tensor:
    """Clips 255 to the largest class."""
    return one_hot(target.clamp(max=num_classes - 1), num_classes)


def void_wraps(target: Tensor, num_classes: int) -> Tensor:
    """255 modulo K."""
    return one_hot(target % num_classes, num_classes)


def void_is_background(target: Tensor, num_classes: int) -> Tensor:
    """255 becomes class 0."""
    return one_hot(torch.where(target == VOID, 0, target), num_classes)


def booleans(target: Tensor, num_classes: int) -> Tensor:
    """True and False."""
    return one_hot(target, num_classes).bool()


def integers(target: Tensor, num_classes: int) -> Tensor:
    """0 and 1 as whole numbers."""
    return one_hot(target, num_classes).long()


def classes_from_map(target: Tensor, num_classes: int) -> Tensor:
    """K is the largest class of this map, plus one."""
    found = target[target != VOID]
    return one_hot(target, int(found.max()) + 1 if len(found) else 0)


def classes_that_occur(target: Tensor, num_classes: int) -> Tensor:
    """One plane for each class that occurs."""
    found = target[target != VOID].unique()
    return (target == found[:, None, None]).float()


VOID_HINT = "255 is no class: nobody could say what the pixel is. All its K values are 0."

exercise = Exercise(
    name="one_hot",
    points=3,
    cases=cases,
    reference=one_hot,
    kind="map",
    wrong=[
        Wrong(
            "channel last",
            channel_last,
            "You put the classes last, (H, W, K): the course writes (K, H, W).",
            "Which axis counts the classes in the shape that the statement asks for?",
        ),
        Wrong(
            "void raises", void_raises, "Your function fails on void pixels: 255 is larger than any class.", VOID_HINT
        ),
        Wrong("void is the last class", void_is_last, "You give void pixels to the last class.", VOID_HINT),
        Wrong("void wraps", void_wraps, "You wrap 255 around: void pixels get the class 255 modulo K.", VOID_HINT),
        Wrong("void is background", void_is_background, "You give void pixels to class 0.", VOID_HINT),
        Wrong(
            "bool",
            booleans,
            "You return True and False: the result is multiplied with probabilities, so it holds floats.",
            "Convert the comparison at the end.",
        ),
        Wrong(
            "whole numbers",
            integers,
            "You return whole numbers: the result is multiplied with probabilities, so it holds floats.",
            "Look at the dtype of your result.",
        ),
        Wrong(
            "K from the map",
            classes_from_map,
            "You infer the number of classes from the map: a class that does not occur here still has its plane.",
            "K is an argument. Every image of a batch must give the same shape.",
        ),
        Wrong(
            "classes that occur",
            classes_that_occur,
            "You make a plane for each class that occurs: plane k must be class k, empty or not.",
            "Take a map with the classes 0 and 2 only. Where is class 2?",
        ),
    ],
)
