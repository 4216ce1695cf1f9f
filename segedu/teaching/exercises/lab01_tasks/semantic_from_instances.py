"""semantic_from_instances: what a detector with masks says, as one class a pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def semantic_from_instances(masks: Tensor, labels: Tensor) -> Tensor:
    """Paint the class of each instance on a background of 0, in the order of the list.

    Args:
        masks: (N, H, W) bool, from the farthest to the nearest; N may be 0.
        labels: (N,) int64, the class of each, at least 1.

    Returns:
        (H, W) int64.
    """
    semantic = torch.zeros(masks.shape[1:], dtype=torch.int64)
    for mask, label in zip(masks, labels, strict=True):
        semantic[mask] = label
    return semantic


def _rectangles(rng: np.random.Generator, corners: list[tuple[int, int, int, int]], size: tuple[int, int]) -> Tensor:
    """One mask a rectangle (rows and columns, ends excluded), with a drawn pixel switched off inside its own part."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks.roll(int(rng.integers(0, 2)), dims=2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Instances apart, two of one class; overlaps of which the larger and the smaller class lie on top; none.

    Args:
        rng: of the classes and of the shift.

    Returns:
        The cases by group.
    """
    low, middle, high = sorted(int(k) for k in rng.choice(np.arange(4, 12), 3, replace=False))
    apart = _rectangles(rng, [(0, 0, 2, 3), (3, 4, 6, 7), (0, 5, 2, 7)], (7, 9))
    over = _rectangles(rng, [(1, 1, 5, 6), (3, 3, 6, 8)], (6, 9))
    three = _rectangles(rng, [(0, 0, 4, 5), (2, 1, 6, 4), (3, 2, 5, 7)], (8, 9))
    return {
        "core": (
            2,
            [
                {"name": "three instances apart", "args": [apart, torch.tensor([high, low, high])]},
                {"name": "one instance", "args": [apart[:1], torch.tensor([middle])]},
            ],
        ),
        "overlap": (
            1,
            [
                {"name": "a small class number on top of a large one", "args": [over, torch.tensor([high, low])]},
                {"name": "a large class number on top of a small one", "args": [over, torch.tensor([low, high])]},
                {"name": "three that overlap", "args": [three, torch.tensor([middle, low, high])]},
                {"name": "no instance", "args": [over[:0], torch.zeros(0, dtype=torch.int64)]},
            ],
        ),
    }


def background_lost(masks: Tensor, labels: Tensor) -> Tensor:
    """argmax over the masks: a pixel of no mask gets the first instance."""
    if len(masks) == 0:
        return semantic_from_instances(masks, labels)
    order = torch.arange(1, len(masks) + 1)[:, None, None]
    return labels[(masks * order).argmax(0)]


def number_as_class(masks: Tensor, labels: Tensor) -> Tensor:
    """1, 2, 3, ... instead of the classes."""
    return semantic_from_instances(masks, torch.arange(1, len(masks) + 1))


def first_on_top(masks: Tensor, labels: Tensor) -> Tensor:
    """Paints from the nearest to the farthest."""
    return semantic_from_instances(masks.flip(0), labels.flip(0))


def largest_on_top(masks: Tensor, labels: Tensor) -> Tensor:
    """Maximum of the class numbers."""
    return (masks * labels[:, None, None]).max(0).values if len(masks) else semantic_from_instances(masks, labels)


def maximum(masks: Tensor, labels: Tensor) -> Tensor:
    """Maximum of the class numbers, also of none."""
    return (masks * labels[:, None, None]).max(0).values


def summed(masks: Tensor, labels: Tensor) -> Tensor:
    """Adds the class numbers."""
    return (masks * labels[:, None, None]).sum(0)


def empty_raises(masks: Tensor, labels: Tensor) -> Tensor:
    """Stacks painted planes, of which there is none."""
    planes = [mask * label * 0 for mask, label in zip(masks, labels, strict=True)]
    return torch.stack(planes).sum(0) + semantic_from_instances(masks, labels)


def mutates(masks: Tensor, labels: Tensor) -> Tensor:
    """Cuts what is hidden out of the masks it was given."""
    for i in range(len(masks)):
        masks[i] &= ~masks[i + 1 :].any(0)
    return semantic_from_instances(masks, labels)


def floats(masks: Tensor, labels: Tensor) -> Tensor:
    """A map of floats, as torch.zeros makes it."""
    return semantic_from_instances(masks, labels).float()


ORDER_HINT = "The list goes from the farthest to the nearest, so a later mask hides an earlier one."

exercise = Exercise(
    name="semantic_from_instances",
    points=3,
    cases=cases,
    reference=semantic_from_instances,
    kind="map",
    hides=["segedu.ops.masks"],
    wrong=[
        Wrong(
            "background lost",
            background_lost,
            "A pixel that no mask covers gets the class of an instance: it is background, 0.",
            "argmax has to answer something, even where all masks are False.",
        ),
        Wrong(
            "number as class",
            number_as_class,
            "You write the number of the instance, not its class.",
            "Two cars are two instances of one class: both get the same value.",
        ),
        Wrong(
            "order reversed",
            first_on_top,
            "Where masks overlap you keep the earlier instance: the later one is nearer.",
            ORDER_HINT,
        ),
        Wrong(
            "maximum",
            maximum,
            "You take the maximum over the masks: the larger class wins, not the nearer, and none has no maximum.",
            f"A class number says nothing about distance. {ORDER_HINT}",
        ),
        Wrong(
            "larger class on top",
            largest_on_top,
            "Where masks overlap you keep the larger class number: the later instance is nearer.",
            f"A class number says nothing about distance. {ORDER_HINT}",
        ),
        Wrong(
            "sum of classes",
            summed,
            "Where masks overlap you add the class numbers: the sum is the number of another class.",
            ORDER_HINT,
        ),
        Wrong(
            "no instance raises",
            empty_raises,
            "Your function fails when there is no instance: the map is then all background.",
            "Start with a map of zeros and paint on it.",
        ),
        Wrong(
            "changes its input",
            mutates,
            "You change the masks that you were given: whoever called you still needs them.",
            "Work on a copy, or write only to the map that you return.",
        ),
        Wrong(
            "floats",
            floats,
            "You return floats: classes are whole numbers, int64.",
            "Which dtype does torch.zeros give if you do not say one?",
        ),
    ],
)
