"""semantic_from_instances: paint instance masks onto one semantic map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


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
    """One mask per rectangle (top, left, bottom, right, ends excluded), all shifted right by 0 or 1 pixels."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks.roll(int(rng.integers(0, 2)), dims=2)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Instances apart, two of one class; overlaps with the larger and the smaller class on top; no instance."""
    low, middle, high = sorted(int(k) for k in rng.choice(np.arange(4, 12), 3, replace=False))
    apart = _rectangles(rng, [(0, 0, 2, 3), (3, 4, 6, 7), (0, 5, 2, 7)], (7, 9))
    over = _rectangles(rng, [(1, 1, 5, 6), (3, 3, 6, 8)], (6, 9))
    three = _rectangles(rng, [(0, 0, 4, 5), (2, 1, 6, 4), (3, 2, 5, 7)], (8, 9))
    core = [
        case("three instances apart", apart, torch.tensor([high, low, high])),
        case("one instance", apart[:1], torch.tensor([middle])),
    ]
    overlap = [
        case("a small class index on top of a large one", over, torch.tensor([high, low])),
        case("a large class index on top of a small one", over, torch.tensor([low, high])),
        case("three that overlap", three, torch.tensor([middle, low, high])),
        case("a large instance in front of a small one", over.flip(0), torch.tensor([middle, low])),
        case("no instance", over[:0], torch.zeros(0, dtype=torch.int64)),
    ]
    return {"core": (2, core), "overlap": (1, overlap)}


def background_lost(masks: Tensor, labels: Tensor) -> Tensor:
    """Take the argmax over the masks, which is the first instance where no mask is True."""
    if len(masks) == 0:
        return semantic_from_instances(masks, labels)
    order = torch.arange(1, len(masks) + 1)[:, None, None]
    return labels[(masks * order).argmax(0)]


def maximum(masks: Tensor, labels: Tensor) -> Tensor:
    """Take the maximum of the class indices."""
    return (masks * labels[:, None, None]).max(0).values


def mutates(masks: Tensor, labels: Tensor) -> Tensor:
    """Remove the hidden pixels from the masks that were passed in."""
    for i in range(len(masks)):
        masks[i] &= ~masks[i + 1 :].any(0)
    return semantic_from_instances(masks, labels)


def _uncovered_by_nearest(masks: Tensor, labels: Tensor) -> Tensor:
    """Take the argmax from the nearest instance on, which is the nearest one where no mask is True."""
    if len(masks) == 0:
        return semantic_from_instances(masks, labels)
    return labels.flip(0)[masks.flip(0).int().argmax(0)]


def _argmax_of_all(masks: Tensor, labels: Tensor) -> Tensor:
    """Fail without instances, because an argmax over no masks does not exist."""
    nearest = masks.flip(0).int().argmax(0)
    return torch.where(masks.any(0), labels.flip(0)[nearest], 0)


def _by_area(a) -> dict:
    order = a.masks.flatten(1).sum(1).argsort(descending=True)
    return {"masks": a.masks[order], "labels": a.labels[order]}


ORDER_HINT = "The list goes from the farthest to the nearest, so a later mask hides an earlier one."
CLASS_HINT = f"A class index says nothing about distance. {ORDER_HINT}"
right = Variants(semantic_from_instances)

wrong = [
    Wrong(
        "background lost",
        background_lost,
        "You assign the class of an instance to pixels that no mask covers. They are background, 0.",
        "`argmax` returns an index even where all masks are False.",
    ),
    Wrong(
        "number as class",
        right.given(labels=lambda a: torch.arange(1, len(a.masks) + 1)),
        "You write the index of the instance. Write its class.",
        "Two cars are two instances of one class, so both get the same value.",
    ),
    Wrong(
        "order reversed",
        right.given(masks=lambda a: a.masks.flip(0), labels=lambda a: a.labels.flip(0)),
        "Where masks overlap, you keep the earlier instance. The later instance is nearer and hides it.",
        ORDER_HINT,
    ),
    Wrong(
        "maximum",
        maximum,
        "You take the maximum over the masks, which keeps the larger class and fails if N is 0. Keep the later "
        "instance.",
        CLASS_HINT,
    ),
    Wrong(
        "larger class on top",
        right.then(lambda out, a: maximum(a.masks, a.labels) if len(a.masks) else out),
        "Where masks overlap, you keep the larger class index. Keep the class of the later instance.",
        CLASS_HINT,
    ),
    Wrong(
        "sum of classes",
        right.instead(lambda a: (a.masks * a.labels[:, None, None]).sum(0)),
        "Where masks overlap, you add the class indices. Keep only the class of the later instance.",
        ORDER_HINT,
    ),
    Wrong(
        "no instance raises",
        right.given(masks=lambda a: torch.stack(list(a.masks))),
        "Your function raises an error when there is no instance. The map is then all background.",
        "Start with a map of zeros and paint on it.",
    ),
    Wrong(
        "changes its input",
        mutates,
        "You change the masks that were passed to you. The caller still needs them.",
        "Work on a copy, or write only into the map that you return.",
    ),
    Wrong(
        "floats",
        right.then(lambda out, a: out.float()),
        "You return floats. Classes are integers, int64.",
        "Which dtype does `torch.zeros` use if you do not pass one?",
    ),
    Wrong(
        "background as void",
        right.then(lambda out, a: torch.where(out == 0, 255, out)),
        "You give pixels without a mask the value 255, void. They are background, 0.",
        "Start with a map of zeros.",
    ),
    Wrong(
        "uncovered as the nearest",
        _uncovered_by_nearest,
        "You assign the class of the nearest instance to pixels that no mask covers. They are background, 0.",
        "`argmax` returns 0 where all masks are False.",
    ),
    Wrong(
        "no instance to choose from",
        _argmax_of_all,
        "Your function raises an error when there is no instance, because it reduces over no masks. The map is then "
        "all background.",
        "Start with a map of zeros and paint on it.",
    ),
    Wrong(
        "empty without instances",
        right.then(lambda out, a: out if len(a.masks) else torch.zeros(0, dtype=torch.int64)),
        "You return an empty tensor when there is no instance. Return a map of zeros, (H, W).",
        "The shape of masks is (0, H, W), so height and width are known.",
    ),
    Wrong(
        "class minus 1",
        right.then(lambda out, a: torch.where(a.masks.any(0) if len(a.masks) else out > 0, out - 1, out)),
        "You subtract 1 from the classes. Write them as they are.",
        "Class 0 is the background, so the classes of instances begin at 1.",
    ),
    Wrong(
        "overlaps as background",
        right.then(lambda out, a: torch.where(a.masks.sum(0) > 1, 0, out)),
        "You set pixels in more than one mask to background. Keep the class of the later instance there.",
        ORDER_HINT,
    ),
    Wrong(
        "first instance skipped",
        right.given(masks=lambda a: a.masks[1:], labels=lambda a: a.labels[1:]),
        "You skip the first instance. Index 0 is an instance like the others.",
        "The background is not in the list.",
    ),
    Wrong(
        "smallest on top",
        right.given(masks=lambda a: _by_area(a)["masks"], labels=lambda a: _by_area(a)["labels"]),
        "You sort the instances by area and paint the smallest last. Paint them in the given order.",
        ORDER_HINT,
    ),
]

exercise = Exercise(
    name="semantic_from_instances",
    points=3,
    cases=cases,
    reference=semantic_from_instances,
    wrong=wrong,
    kind="map",
    hides=["segedu.ops.masks"],
)
