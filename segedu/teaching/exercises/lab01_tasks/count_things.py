"""count_things: count the objects of each thing class by the connected components of a semantic map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.ops.masks import connected_components
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

VOID = 255


def count_things(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Count the connected components (4 neighbours) of each thing class.

    Args:
        semantic: (H, W) int64, classes 0 to K - 1, or 255 for void.
        num_classes: K.
        things: the classes that are counted.

    Returns:
        K integers; 0 for every class that is not in `things`.
    """
    return [_components(semantic == k) if k in things else 0 for k in range(num_classes)]


def _components(mask: Tensor, connectivity: int = 4) -> int:
    return connected_components(mask, connectivity)[1]


# 0 is background, 1 and 4 are stuff, 2 and 3 are things, # is void.
APART = ["20302", "20002", "00300", "11111", "40004"]
CORNER = ["0000000", "0220000", "0220000", "0002203", "0002203", "1111111"]
TOUCHING = ["1102211", "0002200", "0033300", "0033300", "2203322", "1100011"]
VOID_BETWEEN = ["000000#", "022#220", "022#220", "0000000", "0331330", "1111111"]
VOID_ACROSS = ["00330", "0####", "00330", "11000", "11022"]
BENT = ["2020222", "2020202", "2220202", "0000000", "3330000", "3030011", "3330011"]
NO_THING = ["1111", "1001", "1##1"]


def _map(rows: list[str], rng: np.random.Generator) -> Tensor:
    """The map of these rows, with random margins of background, and randomly flipped."""
    semantic = torch.tensor([[VOID if c == "#" else int(c) for c in row] for row in rows])
    top, left, bottom, right = rng.integers(0, 2, 4).tolist()
    padded = torch.nn.functional.pad(semantic, (left, right, top, bottom))
    return _flipped(padded, rng)


def _flipped(semantic: Tensor, rng: np.random.Generator) -> Tensor:
    return semantic.flip([axis for axis in (0, 1) if rng.random() < 0.5])


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects that touch along an edge, at a corner, across classes; void between and across them; no thing."""
    core = [
        case("objects apart", _map(APART, rng), 5, [2, 3]),
        case("two objects that meet in a corner", _map(CORNER, rng), 5, [2, 3]),
        case("objects of two classes that touch", _map(TOUCHING, rng), 5, [2, 3]),
    ]
    edge = [
        case("void between two objects", _map(VOID_BETWEEN, rng), 5, [3, 2]),
        case("void across an object", _map(VOID_ACROSS, rng), 4, [2, 3]),
        case(
            "bent objects, and one with a hole",
            _flipped(torch.tensor([[int(c) for c in row] for row in BENT]), rng),
            4,
            [2, 3],
        ),
        case("no thing at all", _map(NO_THING, rng), 6, [2, 3]),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def eight_neighbours(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Connect pixels that share only a corner."""
    return [_components(semantic == k, connectivity=8) if k in things else 0 for k in range(num_classes)]


def merged(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Label the union of all things; each component counts for the class of its first pixel."""
    components, count = ndimage.label(torch.isin(semantic, torch.tensor(things)).numpy())
    counts = [0] * num_classes
    for component in range(1, count + 1):
        counts[int(semantic.numpy()[components == component][0])] += 1
    return counts


def void_joins(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Count void as part of whatever is next to it."""
    counts = [0] * num_classes
    for k in things:
        components, _ = ndimage.label(((semantic == k) | (semantic == VOID)).numpy())
        counts[k] = len(np.unique(components[(semantic == k).numpy()]))
    return counts


def labelled_together(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Label the union of all things, then count its components class by class."""
    components, _ = ndimage.label(torch.isin(semantic, torch.tensor(things)).numpy())
    return [len(np.unique(components[(semantic == k).numpy()])) if k in things else 0 for k in range(num_classes)]


right = Variants(count_things)


def _of_masks(number: Callable[[np.ndarray], int]) -> Callable:
    """An answer that counts the components of one mask, (H, W) bool, in another way."""
    return right.instead(
        lambda a: [number((a.semantic == k).numpy()) if k in a.things else 0 for k in range(a.num_classes)]
    )


def _larger_than_a_pixel(mask: np.ndarray) -> int:
    components, _ = ndimage.label(mask)
    return int((np.bincount(components.ravel())[1:] > 1).sum())


def _around_the_border(mask: np.ndarray) -> int:
    """Components on a torus: of nine copies, those that meet the one in the middle, joined across its borders."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    for _ in range(mask.size):
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            numbers = np.maximum(numbers, np.roll(numbers, shift, axis) * mask)
    return len(np.unique(numbers[mask]))


def _first_corners(mask: np.ndarray) -> int:
    """Pixels with no pixel of the class above and none to the left."""
    padded = np.pad(mask, 1)
    return int((mask & ~padded[:-2, 1:-1] & ~padded[1:-1, :-2]).sum())


def _euler_number(mask: np.ndarray) -> int:
    """Pixels minus edges plus squares: components minus holes."""
    m = mask.astype(int)
    edges = (m[1:] * m[:-1]).sum() + (m[:, 1:] * m[:, :-1]).sum()
    return int(m.sum() - edges + (m[1:, 1:] * m[1:, :-1] * m[:-1, 1:] * m[:-1, :-1]).sum())


THINGS_HINT = "The argument `things` lists the classes that are counted. All other entries are 0."
wrong = [
    Wrong(
        "8 neighbours",
        eight_neighbours,
        "You connect pixels that touch only at a corner. The neighbours of a pixel are above, below, left and right.",
        "This is called 4-connectivity. Look at the `structure` or `connectivity` of your labelling function.",
    ),
    Wrong(
        "stuff counted",
        right.given(things=lambda a: range(1, a.num_classes)),
        "You count the components of stuff classes too, such as road or sky. Only things are counted.",
        THINGS_HINT,
    ),
    Wrong(
        "everything counted",
        right.given(things=lambda a: range(a.num_classes)),
        "You count every class, including background and stuff. Only things are counted.",
        THINGS_HINT,
    ),
    Wrong(
        "background counted",
        right.given(things=lambda a: [*a.things, 0]),
        "You count the background as if it were a thing. Its entry must be 0.",
        "Class 0 occurs in the map, but it is not in `things`.",
    ),
    Wrong(
        "merged across classes",
        merged,
        "You label all things together, so touching objects of different classes merge. Label each class separately.",
        "Label the components of one class at a time.",
    ),
    Wrong(
        "pixels",
        right.instead(lambda a: [int((a.semantic == k).sum()) if k in a.things else 0 for k in range(a.num_classes)]),
        "You count pixels. Count objects instead.",
        "An object is a connected set of pixels of one class.",
    ),
    Wrong(
        "presence",
        right.then(lambda counts, a: [min(count, 1) for count in counts]),
        "You only record whether a class occurs. A class can have several objects, and each of them counts.",
        "`scipy.ndimage.label` returns the number of components as its second result.",
    ),
    Wrong(
        "void joins",
        void_joins,
        "You let void pixels connect the objects next to them. Void pixels belong to no object.",
        "Compare the map with one class at a time. Void pixels are then False, like those of any other class.",
    ),
    Wrong(
        "one number a thing",
        right.then(lambda counts, a: [counts[k] for k in a.things]),
        "You return one entry per thing class. The result has K entries, and entry k belongs to class k.",
        "Classes that are not counted have the entry 0.",
    ),
    Wrong(
        "things labelled together",
        labelled_together,
        "You label all things together, so touching objects of different classes are one component. Label each class "
        "separately.",
        "Label the components of one class at a time.",
    ),
    Wrong(
        "background of the mask counted",
        right.then(lambda counts, a: [count + (k in a.things) for k, count in enumerate(counts)]),
        "You also count 0, the number of all pixels outside the components. Count the components only.",
        "`scipy.ndimage.label` numbers components from 1, and returns their number as its second result.",
    ),
    Wrong(
        "class 0 left out",
        right.then(lambda counts, a: counts[1:]),
        "You return K - 1 entries, without class 0. The result has K entries, and entry k belongs to class k.",
        "Class 0 has an entry, even if it is not in `things`.",
    ),
    Wrong(
        "position in the list",
        right.instead(
            lambda a: [
                _components(a.semantic == list(a.things).index(k)) if k in a.things else 0 for k in range(a.num_classes)
            ]
        ),
        "You compare the map with the position of a class in `things`. Compare it with the class itself.",
        "`for k in things` gives classes, `enumerate(things)` gives positions first.",
    ),
    Wrong(
        "single pixels dropped",
        _of_masks(_larger_than_a_pixel),
        "You drop components of a single pixel. Each component counts, whatever its size.",
        "Noise is not removed in this exercise.",
    ),
    Wrong(
        "opposite borders",
        _of_masks(_around_the_border),
        "You connect pixels across opposite borders of the image. A pixel at the border has no neighbour beyond it.",
        "`np.roll` moves what leaves on one side back in on the other.",
    ),
    Wrong(
        "one direction only",
        _of_masks(_first_corners),
        "You connect a pixel only with those above and to its left, so a U counts as two objects. A shape may continue "
        "in any of the four directions.",
        "Try a mask in the form of a U.",
    ),
    Wrong(
        "Euler number",
        _of_masks(_euler_number),
        "You compute the Euler number, which subtracts the holes. An object with a hole is one object.",
        "Count connected components.",
    ),
]

exercise = Exercise(
    name="count_things",
    points=3,
    cases=cases,
    reference=count_things,
    wrong=wrong,
    kind="mask",
    hides=["segedu.ops.masks"],
)
