"""one_hot: turn a map of class indices into one binary plane per class, (H, W) -> (K, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

VOID = 255


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Make one plane per class: 1 where the pixel has the class, else 0; void pixels are 0 in every plane.

    Args:
        target: (H, W) int64, classes 0 to K - 1, or 255 for void.
        num_classes: K.

    Returns:
        (K, H, W) float32.
    """
    return (target == torch.arange(num_classes, device=target.device)[:, None, None]).float()


def _class_map(rng: np.random.Generator, shape: tuple[int, int], classes: list[int]) -> Tensor:
    """A random map in which each of the given classes occurs."""
    size = shape[0] * shape[1]
    values = np.concatenate([classes, rng.choice(classes, size - len(classes))])
    return torch.from_numpy(rng.permutation(values).reshape(shape)).long()


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """All classes; the last class absent; some void; only void."""
    core = [
        case("a map of three classes", _class_map(rng, (4, 5), [0, 1, 2]), 3),
        case("a map without the last classes", _class_map(rng, (5, 3), [0, 2]), 6),
    ]
    void = [
        case("a map with void pixels", _class_map(rng, (6, 4), [0, 1, 3, VOID]), 5),
        case("a map of void pixels only", torch.full((3, 4), VOID), 2),
    ]
    return {"core": (2, core), "void": (1, void)}


def _labelled(target: Tensor) -> Tensor:
    return target[target != VOID]


right = Variants(one_hot)


def _if_only_void(change: Callable) -> Callable:
    """An answer that raises an error where no pixel has a class."""

    def compute(a):
        if not (a.target != VOID).any():
            raise RuntimeError("no class")
        return change(a)

    return right.instead(compute)


def target_changed(target: Tensor, num_classes: int) -> Tensor:
    """Overwrite void pixels of the argument."""
    planes = one_hot(target, num_classes)
    target[target == VOID] = num_classes
    return planes


def _reshaped(planes: Tensor, a) -> Tensor:
    """(H, W, K), reshaped to (K, H, W) instead of permuted."""
    return planes.permute(1, 2, 0).reshape(planes.shape)


VOID_HINT = "255 is not a class. It marks pixels without a label, so their K values are all 0."
wrong = [
    Wrong(
        "channel last",
        right.then(lambda planes, a: planes.permute(1, 2, 0)),
        "You put the class axis last, (H, W, K). It must come first, (K, H, W).",
        "Which axis counts the classes in the shape that the exercise asks for?",
    ),
    Wrong(
        "void raises",
        right.instead(lambda a: torch.nn.functional.one_hot(a.target, a.num_classes).permute(2, 0, 1).float()),
        "Your function raises an error if the map has void pixels. They have to be 0 in every plane.",
        VOID_HINT,
    ),
    Wrong(
        "void is the last class",
        right.given(target=lambda a: a.target.clamp(max=a.num_classes - 1)),
        "You assign void pixels to the last class. They have to be 0 in every plane.",
        VOID_HINT,
    ),
    Wrong(
        "void wraps",
        right.given(target=lambda a: a.target % a.num_classes),
        "You assign void pixels to class 255 modulo K. They have to be 0 in every plane.",
        VOID_HINT,
    ),
    Wrong(
        "void is background",
        right.given(target=lambda a: torch.where(a.target == VOID, 0, a.target)),
        "You assign void pixels to class 0. They have to be 0 in every plane.",
        VOID_HINT,
    ),
    Wrong(
        "bool",
        right.then(lambda planes, a: planes.bool()),
        "You return booleans. The result must hold floats, because it is multiplied by probabilities.",
        "Convert the result of the comparison at the end.",
    ),
    Wrong(
        "whole numbers",
        right.then(lambda planes, a: planes.long()),
        "You return integers. The result must hold floats, because it is multiplied by probabilities.",
        "Look at the dtype of your result.",
    ),
    Wrong(
        "K from the map",
        right.given(num_classes=lambda a: 1 + max(_labelled(a.target).tolist(), default=-1)),
        "You infer the number of classes from the map. A class that does not occur in it still has its plane.",
        "K is an argument, so that every image of a batch gives the same shape.",
    ),
    Wrong(
        "classes that occur",
        right.instead(lambda a: (a.target == _labelled(a.target).unique()[:, None, None]).float()),
        "You make planes only for the classes that occur. Plane k must belong to class k, even if it is empty.",
        "Take a map with the classes 0 and 2 only. Which plane belongs to class 2?",
    ),
    Wrong(
        "classes that occur, error if none",
        _if_only_void(lambda a: (a.target == _labelled(a.target).unique()[:, None, None]).float()),
        "You make planes only for the classes that occur, and fail if none does. Plane k must belong to class k, even "
        "if it is empty.",
        "Make K planes of zeros first.",
    ),
    Wrong(
        "K from the map, error if none",
        _if_only_void(lambda a: one_hot(a.target, 1 + int(_labelled(a.target).max()))),
        "You infer the number of classes from the map, which fails if all pixels are void. Use the argument K.",
        "K is an argument, so that every image of a batch gives the same shape.",
    ),
    Wrong(
        "classes from 1",
        right.given(target=lambda a: torch.where(a.target == VOID, VOID, a.target - 1)),
        "Your planes begin with class 1. Plane 0 belongs to class 0.",
        "Classes run from 0 to K - 1, as `range(K)` does.",
    ),
    Wrong(
        "void stays 255",
        right.then(lambda planes, a: torch.where(a.target == VOID, 255.0, planes)),
        "You keep the value 255 of void pixels in every plane. They have to be 0 there.",
        VOID_HINT,
    ),
    Wrong(
        "target changed",
        target_changed,
        "You overwrite the void pixels of the map that was passed to you. The caller still needs it.",
        "Work on a copy: `clone()` makes one.",
    ),
    Wrong(
        "planes transposed",
        right.then(lambda planes, a: planes.transpose(1, 2)),
        "Your planes are (W, H): rows and columns are exchanged. They should be (H, W), as the map is.",
        "Move the class axis to the front and keep the order of the other two: permute(2, 0, 1).",
    ),
    Wrong(
        "reshaped",
        right.then(_reshaped),
        "You reshape (H, W, K) to (K, H, W), which mixes pixels and classes. Permute the axes instead.",
        "A reshape keeps the order of the values in memory.",
    ),
    Wrong(
        "plane for void",
        right.then(lambda planes, a: torch.cat([planes, (a.target == VOID).float()[None]])),
        "You return a further plane for void, K + 1 in all. Return K planes.",
        VOID_HINT,
    ),
    Wrong(
        "last class empty",
        right.given(target=lambda a: torch.where(a.target < a.num_classes - 1, a.target, VOID)),
        "The plane of the last class stays empty. Classes run from 0 to K - 1, and the last of them counts, too.",
        "Compare with < K, not with < K - 1.",
    ),
    Wrong(
        "class 0 empty",
        right.given(target=lambda a: torch.where(a.target > 0, a.target, VOID)),
        "The plane of class 0 stays empty. Class 0 has a plane like every other class.",
        "In this map, 0 is a class. Void is 255.",
    ),
    Wrong(
        "class 0 without a plane",
        right.then(lambda planes, a: planes[1:]),
        "You return K - 1 planes, without class 0. Return one plane for each of the K classes.",
        "In this map, 0 is a class. Void is 255.",
    ),
    Wrong(
        "class index instead of 1",
        right.then(lambda planes, a: planes * torch.arange(a.num_classes)[:, None, None]),
        "Plane k holds the value k at the pixels of class k. It should hold 1.",
        "Each labelled pixel has exactly one 1.",
    ),
    Wrong(
        "void indexes the identity",
        right.instead(lambda a: torch.eye(a.num_classes)[a.target].permute(2, 0, 1)),
        "You use void as an index, 255, into K rows. Void pixels have to be 0 in every plane.",
        VOID_HINT,
    ),
]

exercise = Exercise(name="one_hot", points=3, cases=cases, reference=one_hot, wrong=wrong, kind="map")
