"""panoptic_roundtrip: class and instance in one whole number, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Triple = tuple[Tensor, Tensor, Tensor]
VOID = 255


def panoptic_roundtrip(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Encode one map as class * 1000 + instance, decode another.

    Args:
        category: (H, W) uint8, a class, or 255 for void.
        instance: (H, W) int32, below 1000; only pixels of things keep it.
        things: classes that are counted.
        codes: (H', W') int64, a map that is encoded already.

    Returns:
        The encoded map (H, W), then class and instance of `codes`, each (H', W'), all int64.
    """
    category, instance = category.long(), instance.long()
    is_thing = torch.isin(category, torch.tensor(things))
    return category * 1000 + torch.where(is_thing, instance, 0), codes // 1000, codes % 1000


def _encode(category: Tensor, instance: Tensor, things: list[int]) -> Tensor:
    return panoptic_roundtrip(category, instance, things, torch.zeros(1, 1, dtype=torch.int64))[0]


def _maps(rng: np.random.Generator, shape: tuple[int, int], classes: list[int]) -> tuple[Tensor, Tensor]:
    """Every class occurs, with an instance number that is not 0; numbers lie on both sides of 256 and of 500."""
    size = shape[0] * shape[1]
    category = np.concatenate([classes, rng.choice(classes, size - len(classes))])
    numbers = [*rng.integers(1, 200, size // 2), *rng.integers(600, 999, size - size // 2)]
    instance = rng.permutation(np.array(numbers))
    order = rng.permutation(size)
    as_map = [torch.from_numpy(values.reshape(shape)) for values in (category[order], instance)]
    return as_map[0].to(torch.uint8), as_map[1].to(torch.int32)


def _codes(rng: np.random.Generator, shape: tuple[int, int]) -> Tensor:
    classes = torch.from_numpy(rng.integers(1, 34, shape))
    numbers = torch.from_numpy(rng.integers(0, 400, shape))
    numbers[0, :2] = torch.tensor([0, 731])
    numbers[1, 0] = 999
    classes[-1, -1] = VOID
    numbers[-1, -1] = 0
    return classes * 1000 + numbers


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Things and stuff; then void, class 0, and a map without a thing.

    Args:
        rng: of the maps.

    Returns:
        The cases by group.
    """
    only_things = _maps(rng, (3, 5), [11, 13])
    mixed = _maps(rng, (4, 6), [7, 11, 21])
    void = _maps(rng, (5, 4), [0, 3, 12, VOID])
    stuff = _maps(rng, (2, 3), [1, 2, VOID])
    return {
        "core": (
            3,
            [
                {"name": "a map of things", "args": [*only_things, [11, 13], _codes(rng, (4, 3))]},
                {"name": "things and stuff", "args": [*mixed, [11, 12], _codes(rng, (2, 5))]},
            ],
        ),
        "void": (
            1,
            [
                {"name": "a map with void and class 0", "args": [*void, [3, 12], _codes(rng, (3, 4))]},
                {"name": "a map of stuff and void", "args": [*stuff, [11], _codes(rng, (3, 2))]},
            ],
        ),
    }


def stuff_numbered(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Every pixel keeps its instance number."""
    return category.long() * 1000 + instance, codes // 1000, codes % 1000


def uint8_overflow(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Multiplies in uint8."""
    is_thing = torch.isin(category.long(), torch.tensor(things))
    return (category * 1000 + torch.where(is_thing, instance, 0)).long(), codes // 1000, codes % 1000


def true_division(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """`/` gives floats."""
    return _encode(category, instance, things), codes / 1000, codes % 1000


def rounded(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Rounds to the nearest class."""
    return _encode(category, instance, things), (codes / 1000).round().long(), codes % 1000


def void_is_class_0(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Void gets the code 0."""
    encoded = _encode(category, instance, things)
    return torch.where(category == VOID, 0, encoded), codes // 1000, codes % 1000


def void_numbered(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Void counts as a thing."""
    return _encode(category, instance, [*things, VOID]), codes // 1000, codes % 1000


def swapped(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Instance before class."""
    return _encode(category, instance, things), codes % 1000, codes // 1000


def echo(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Decodes its own map."""
    own = _encode(category, instance, things)
    return own, own // 1000, own % 1000


def mutates(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Clears the numbers of stuff in the map that it was given."""
    instance[~torch.isin(category.long(), torch.tensor(things))] = 0
    return category.long() * 1000 + instance, codes // 1000, codes % 1000


exercise = Exercise(
    name="panoptic_roundtrip",
    points=4,
    cases=cases,
    reference=panoptic_roundtrip,
    kind="matrix",
    wrong=[
        Wrong(
            "stuff gets numbers",
            stuff_numbered,
            "You keep instance numbers on stuff: stuff is not counted, its number is 0.",
            "Only pixels whose class is in `things` keep their number. Void is no thing either.",
        ),
        Wrong(
            "uint8 overflow",
            uint8_overflow,
            "You multiply in uint8: 11 * 1000 does not fit into 8 bits and wraps around, without a warning.",
            "Convert the maps to int64 before you calculate.",
        ),
        Wrong(
            "true division",
            true_division,
            "You divide with /: classes are whole numbers, and / gives floats.",
            "Which operator of Python divides and drops the remainder?",
        ),
        Wrong(
            "rounding",
            rounded,
            "You round to the nearest class: from instance 500 on the class is one too large.",
            "Drop the remainder instead of rounding.",
        ),
        Wrong(
            "void becomes class 0",
            void_is_class_0,
            "You encode void as 0: decoded, it is class 0, instance 0, an ordinary class.",
            "Void keeps its number 255 as any class does: 255 * 1000.",
        ),
        Wrong(
            "void gets numbers",
            void_numbered,
            "You keep instance numbers on void pixels: void is no thing.",
            "Only pixels whose class is in `things` keep their number.",
        ),
        Wrong(
            "swapped",
            swapped,
            "You return the instance before the class.",
            "The thousands are the class. Look at the order that the statement asks for.",
        ),
        Wrong(
            "decodes its own map",
            echo,
            "You decode the map that you encoded: decode `codes`, which came from elsewhere.",
            "The last two results have the shape of `codes`.",
        ),
        Wrong(
            "changes its input",
            mutates,
            "You change the instance map that you were given: whoever called you still needs it.",
            "torch.where writes into a new tensor.",
        ),
    ],
)
