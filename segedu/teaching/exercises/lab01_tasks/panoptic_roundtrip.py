"""panoptic_roundtrip: encode class and instance as one integer, and decode them again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Triple = tuple[Tensor, Tensor, Tensor]
VOID = 255


def panoptic_roundtrip(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Encode one map as class * 1000 + instance, decode another one.

    Args:
        category: (H, W) uint8, a class, or 255 for void.
        instance: (H, W) int32, below 1000; only pixels of things keep it.
        things: the countable classes.
        codes: (H', W') int64, a map that is already encoded.

    Returns:
        The encoded map (H, W), then class and instance of `codes`, each (H', W'), all int64.
    """
    category, instance = category.long(), instance.long()
    is_thing = torch.isin(category, torch.tensor(things))
    return category * 1000 + torch.where(is_thing, instance, 0), codes // 1000, codes % 1000


def _maps(rng: np.random.Generator, shape: tuple[int, int], classes: list[int]) -> list[Tensor]:
    """Category and instance: every class occurs, every pixel has an instance, on both sides of 256 and of 500."""
    size = shape[0] * shape[1]
    category = np.concatenate([classes, rng.choice(classes, size - len(classes))])
    numbers = [*rng.integers(1, 200, size // 2), *rng.integers(600, 999, size - size // 2)]
    instance = rng.permutation(np.array(numbers))
    category = category[rng.permutation(size)]
    return [
        torch.from_numpy(category.reshape(shape)).to(torch.uint8),
        torch.from_numpy(instance.reshape(shape)).to(torch.int32),
    ]


def _codes(rng: np.random.Generator, shape: tuple[int, int]) -> Tensor:
    classes = torch.from_numpy(rng.integers(1, 34, shape))
    numbers = torch.from_numpy(rng.integers(0, 400, shape))
    numbers[0, :2] = torch.tensor([0, 731])
    numbers[1, 0] = 999
    classes[-1, -1] = VOID
    numbers[-1, -1] = 0
    return classes * 1000 + numbers


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Things and stuff; then void, class 0, and a map without any thing."""
    only_things = _maps(rng, (3, 5), [11, 13])
    mixed = _maps(rng, (4, 6), [7, 11, 21])
    void = _maps(rng, (5, 4), [0, 3, 12, VOID])
    stuff = _maps(rng, (2, 3), [1, 2, VOID])
    core = [
        case("a map of things", *only_things, [11, 13], _codes(rng, (4, 3))),
        case("things and stuff", *mixed, [11, 12], _codes(rng, (2, 5))),
    ]
    with_void = [
        case("a map with void and class 0", *void, [3, 12], _codes(rng, (3, 4))),
        case("a map of stuff and void", *stuff, [11], _codes(rng, (3, 2))),
    ]
    return {"core": (3, core), "void": (1, with_void)}


def mutates(category: Tensor, instance: Tensor, things: list[int], codes: Tensor) -> Triple:
    """Clear the instances of stuff in the map that was passed in."""
    instance[~torch.isin(category.long(), torch.tensor(things))] = 0
    return panoptic_roundtrip(category, instance, things, codes)


def _base_256(a) -> Triple:
    encoded = panoptic_roundtrip(a.category, a.instance, a.things, a.codes)[0]
    return encoded // 1000 * 256 + encoded % 1000, a.codes // 256, a.codes % 256


def _in_int16(a) -> Triple:
    encoded, *decoded = panoptic_roundtrip(a.category, a.instance, a.things, a.codes)
    return encoded.to(torch.int16), *decoded


def _is_stuff(a) -> Tensor:
    return ~torch.isin(a.category.long(), torch.tensor(a.things))


right = Variants(panoptic_roundtrip)

wrong = [
    Wrong(
        "stuff gets numbers",
        right.given(things=lambda a: a.category.unique().tolist()),
        "You keep the instance id of stuff and void pixels. Only things have instances; all others get instance 0.",
        "Keep the instance id only where the class is in `things`.",
    ),
    Wrong(
        "uint8 overflow",
        right.then(lambda out, a: (a.category * 1000 + out[0] % 1000, *out[1:])),
        "You multiply in uint8, where 11 * 1000 wraps around without a warning. The codes need a larger type.",
        "Convert the maps to int64 before you compute with them.",
    ),
    Wrong(
        "true division",
        right.then(lambda out, a: (out[0], a.codes / 1000, out[2])),
        "You divide with /, which gives floats. Classes are integers.",
        "Which Python operator divides and drops the remainder?",
    ),
    Wrong(
        "rounding",
        right.then(lambda out, a: (out[0], (a.codes / 1000).round().long(), out[2])),
        "You round to the nearest class, so from instance 500 on it is too large by one. Always round down.",
        "Drop the remainder instead of rounding.",
    ),
    Wrong(
        "void becomes class 0",
        right.then(lambda out, a: (torch.where(a.category == VOID, 0, out[0]), *out[1:])),
        "You encode void as 0, which is the code of class 0. Encode it like the other classes without instances.",
        "Treat void like any other class: 255 * 1000.",
    ),
    Wrong(
        "void gets numbers",
        right.given(things=lambda a: [*a.things, VOID]),
        "You keep the instance id of void pixels. Void is not a thing, so its instance is 0.",
        "Keep the instance id only where the class is in `things`.",
    ),
    Wrong(
        "swapped",
        right.then(lambda out, a: (out[0], out[2], out[1])),
        "You return the instance before the class. Return the encoded map, the class and the instance, in this order.",
        "The thousands are the class. Look at the order of the results in the exercise.",
    ),
    Wrong(
        "decodes its own map",
        right.then(lambda out, a: (out[0], out[0] // 1000, out[0] % 1000)),
        "You decode the map that you have just encoded. Decode the argument `codes` instead.",
        "The last two results have the shape of `codes`.",
    ),
    Wrong(
        "changes its input",
        mutates,
        "You change the instance map that was passed to you. The caller still needs it.",
        "`torch.where` writes its result into a new tensor.",
    ),
    Wrong(
        "void as 255",
        right.then(lambda out, a: (torch.where(a.category == VOID, VOID, out[0]), *out[1:])),
        "You encode void as 255. Encode it like any other class without instances, 255 * 1000.",
        "Decoded with // 1000, your code 255 is class 0.",
    ),
    Wrong(
        "stuff as the class alone",
        right.then(
            lambda out, a: (
                torch.where(_is_stuff(a) & (a.category != VOID), a.category.long(), out[0]),
                *out[1:],
            )
        ),
        "You encode stuff as the class alone, as the files of Cityscapes do. Here every code is class * 1000 + "
        "instance.",
        "Stuff has the instance 0, so its code ends in 000.",
    ),
    Wrong(
        "stuff and void as 0",
        right.then(lambda out, a: (torch.where(_is_stuff(a), 0, out[0]), *out[1:])),
        "You encode stuff and void as 0. They keep their class; only their instance is 0.",
        "Their code is class * 1000.",
    ),
    Wrong(
        "base 256",
        right.instead(_base_256),
        "You use 256 as the factor. Use 1000.",
        "The last three decimal digits of a code are the instance.",
    ),
    Wrong(
        "from the first thing on",
        right.given(things=lambda a: [k for k in a.category.unique().tolist() if min(a.things) <= k < VOID]),
        "You treat every class from the smallest thing on as a thing. Only the classes in `things` are.",
        "`torch.isin` compares with all entries of a list.",
    ),
    Wrong(
        "first thing only",
        right.given(things=lambda a: a.things[:1]),
        "Only the first class in `things` keeps its instances. All of them do.",
        "`torch.isin` compares with all entries of a list.",
    ),
    Wrong(
        "instances from 0",
        right.given(instance=lambda a: a.instance - 1),
        "You subtract 1 from the instance ids. Encode them as they are.",
        "Instance 0 is reserved for classes without instances.",
    ),
    Wrong(
        "decoded in uint8",
        right.then(lambda out, a: (out[0], out[1].to(torch.uint8), out[2].to(torch.uint8))),
        "You store the decoded instances in uint8, where ids above 255 wrap around. They need int64.",
        "An instance id can be as large as 999.",
    ),
    Wrong(
        "encoded in int16",
        right.instead(_in_int16),
        "Your codes are int16, which ends at 32,767. Void has the code 255,000.",
        "Convert the maps to int64 before you compute with them.",
    ),
    Wrong(
        "things without instances",
        right.given(things=lambda a: [k for k in a.category.unique().tolist() if k not in a.things]),
        "Your condition is inverted: stuff and void keep their instance ids, and things lose them.",
        "Keep the instance id only where the class is in `things`.",
    ),
]

exercise = Exercise(
    name="panoptic_roundtrip", points=4, cases=cases, reference=panoptic_roundtrip, wrong=wrong, kind="matrix"
)
