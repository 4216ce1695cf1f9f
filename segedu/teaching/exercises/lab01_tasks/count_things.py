"""count_things: how many objects a semantic map seems to hold, class by class."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.ops.masks import connected_components
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

VOID = 255


def count_things(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Connected parts (4 neighbours) of each class of things.

    Args:
        semantic: (H, W) int64, classes 0 to K - 1, or 255 for void.
        num_classes: K.
        things: classes that are counted.

    Returns:
        K whole numbers; 0 for every class that is not in `things`.
    """
    return [_parts(semantic == k) if k in things else 0 for k in range(num_classes)]


def _parts(mask: Tensor, connectivity: int = 4) -> int:
    return connected_components(mask, connectivity)[1]


def _draw(rows: list[str], rng: np.random.Generator) -> Tensor:
    """A map from letters, with empty rows and columns of class 0 added at drawn sides; `#` is void."""
    digits = {"#": VOID}
    picture = torch.tensor([[digits.get(c) or int(c) for c in row] for row in rows])
    top, left, bottom, right = rng.integers(0, 2, 4).tolist()
    return torch.nn.functional.pad(picture, (left, right, top, bottom))


def _flipped(picture: Tensor, rng: np.random.Generator) -> Tensor:
    axes = [axis for axis in (0, 1) if rng.random() < 0.5]
    return picture.flip(axes)


# 0 background, 1 and 4 stuff, 2 and 3 things. Two parts of class 2 meet in a corner only; 2 touches 3.
CORNER = ["0000000", "0220000", "0220000", "0002203", "0002203", "1111111"]
TOUCHING = ["1102211", "0002200", "0033300", "0033300", "2203322", "1100011"]
APART = ["20302", "20002", "00300", "11111", "40004"]
# void between two objects: it belongs to neither
BORDER = ["000000#", "022#220", "022#220", "0000000", "0331330", "1111111"]
# void across one object: what is left are two parts
CUT = ["00330", "0####", "00330", "11000", "11022"]
NOTHING = ["1111", "1001", "1##1"]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Objects that touch by an edge, by a corner, across classes; void between and across them; no thing.

    Args:
        rng: of margins and flips; the structure is in every draw.

    Returns:
        The cases by group.
    """

    def case(name: str, rows: list[str], things: list[int], classes: int = 5) -> Case:
        return {"name": name, "args": [_flipped(_draw(rows, rng), rng), classes, things]}

    return {
        "core": (
            2,
            [
                case("objects apart", APART, [2, 3]),
                case("two objects that meet in a corner", CORNER, [2, 3]),
                case("objects of two classes that touch", TOUCHING, [2, 3]),
            ],
        ),
        "edge": (
            1,
            [
                case("void between two objects", BORDER, [3, 2]),
                case("void across an object", CUT, [2, 3], 4),
                case("no thing at all", NOTHING, [2, 3], 6),
            ],
        ),
    }


def eight_neighbours(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Pixels that share a corner are connected."""
    return [_parts(semantic == k, connectivity=8) if k in things else 0 for k in range(num_classes)]


def stuff_counted(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Every class but 0."""
    return [_parts(semantic == k) if k > 0 else 0 for k in range(num_classes)]


def all_counted(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Background too."""
    return [_parts(semantic == k) for k in range(num_classes)]


def background_counted(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Things and class 0."""
    return count_things(semantic, num_classes, [*things, 0])


def merged(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Parts of the union of all things; each goes to the class of its first pixel."""
    parts, count = ndimage.label(torch.isin(semantic, torch.tensor(things)).numpy())
    counts = [0] * num_classes
    for part in range(1, count + 1):
        counts[int(semantic.numpy()[parts == part][0])] += 1
    return counts


def pixels(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Counts pixels."""
    return [int((semantic == k).sum()) if k in things else 0 for k in range(num_classes)]


def presence(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """1 where the class occurs."""
    return [int((semantic == k).any()) if k in things else 0 for k in range(num_classes)]


def void_joins(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """Void belongs to whatever is beside it."""
    counts = []
    for k in range(num_classes):
        parts, count = ndimage.label(((semantic == k) | (semantic == VOID)).numpy())
        found = np.unique(parts[(semantic == k).numpy()])
        counts.append(len(found[found > 0]) if k in things and count else 0)
    return counts


def only_things_listed(semantic: Tensor, num_classes: int, things: list[int]) -> list[int]:
    """One number a thing instead of one a class."""
    return [_parts(semantic == k) for k in things]


exercise = Exercise(
    name="count_things",
    points=3,
    cases=cases,
    reference=count_things,
    kind="mask",
    hides=["segedu.ops.masks"],
    wrong=[
        Wrong(
            "8 neighbours",
            eight_neighbours,
            "You connect pixels that share only a corner: neighbours here are above, below, left and right.",
            "That is 4 neighbours, not 8. Look at the `structure` or `connectivity` of your labelling.",
        ),
        Wrong(
            "stuff counted",
            stuff_counted,
            "You count stuff: road or sky have no number of pieces worth reporting; their entry is 0.",
            "Which classes are countable? The argument `things` says so.",
        ),
        Wrong(
            "everything counted",
            all_counted,
            "You count every class, background and stuff included: only things are counted.",
            "Which classes are countable? The argument `things` says so.",
        ),
        Wrong(
            "background counted",
            background_counted,
            "You count the background as an object.",
            "Class 0 is in the map, but it is not in `things`.",
        ),
        Wrong(
            "merged across classes",
            merged,
            "You join neighbours of different classes: a person beside a car becomes part of the car.",
            "Label the parts of one class at a time.",
        ),
        Wrong(
            "pixels",
            pixels,
            "You count pixels, not objects.",
            "An object is a set of pixels of one class that are connected.",
        ),
        Wrong(
            "presence",
            presence,
            "You count a class once however many objects it has.",
            "scipy.ndimage.label returns the number of connected parts as its second result.",
        ),
        Wrong(
            "void joins",
            void_joins,
            "You let void connect what it lies between: a void pixel belongs to no object.",
            "Compare with one class at a time; 255 is then False like everything else.",
        ),
        Wrong(
            "one number a thing",
            only_things_listed,
            "You return one number for each thing: entry k belongs to class k, so there are K entries.",
            "Classes that are not counted have the entry 0.",
        ),
    ],
)
