"""The predictions and objects that `hungarian_match` and `set_loss` are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case

Cases = dict[str, tuple[int, list[Case]]]
Scene = tuple[list, Tensor]  # logits, predicted boxes, labels, boxes, size of the image; and the query of each object


def scene(
    rng: np.random.Generator,
    objects: Sequence[Sequence[float]],
    labels: Sequence[int],
    predicted: Sequence[Sequence[float]],
    sure: Sequence[tuple[int, float]],
    classes: int = 3,
) -> Scene:
    """Mix the predictions, draw the rest.

    Args:
        rng: of the image's size, the order of the predictions, and their logits.
        objects: N boxes (cx, cy, w, h), in percents of the image.
        labels: N.
        predicted: Q boxes in percents; the first N are those that belong to the objects.
        sure: for each prediction a column of its logits, and by how much it is above the others.
        classes: C; column C is "no object".

    Returns:
        The arguments of both exercises, and the query of each object. With two predictions or more, the first object
        never has query 0, and the second one has a lower query than the first; the third one's is between them.
    """
    count, total = len(objects), len(predicted)
    size = (2 * int(rng.integers(40, 60)), 2 * int(rng.integers(70, 90)))
    places = rng.permutation(total)  # of each prediction in the mixed list
    low = np.sort(places[:3])
    places[:3] = low[[2, 0, 1]] if len(low) == 3 else low[::-1]  # a permutation that is not its own inverse
    logits = rng.uniform(-0.3, 0.3, (total, classes + 1))
    for row, (column, above) in enumerate(sure):
        logits[row, column] += above
    x, y, w, h = np.array(objects, dtype=float).reshape(-1, 4).T / 100
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * np.tile(size[::-1], 2)
    order = places.argsort()
    arrays = [logits[order], np.array(predicted, dtype=float)[order] / 100, np.array(labels, dtype=np.int64), boxes]
    return [*map(torch.from_numpy, arrays), size], torch.from_numpy(places[:count])


def near(rng: np.random.Generator, boxes: np.ndarray, way: float | np.ndarray = 2.0) -> np.ndarray:
    """Boxes a little beside others.

    Args:
        rng: of the ways.
        boxes: (N, 4), in percents.
        way: each coordinate moves by 1/2 to 1 of it; perhaps one for each.

    Returns:
        (N, 4).
    """
    return boxes + rng.uniform(way / 2, way, boxes.shape) * rng.choice([-1, 1], boxes.shape)


def match_cases(rng: np.random.Generator) -> Cases:
    """Objects that want the same prediction, classes that decide, predictions that say "no object"; N of 0 and Q.

    Args:
        rng: of boxes, logits, image sizes, and the order of the predictions.

    Returns:
        The cases by group. The second best match costs at least 0.05 more, so rounding decides nothing.
    """

    def case(name: str, *parts: Any) -> Case:
        return {"name": name, "args": scene(rng, *parts)[0]}

    apart = near(rng, np.array([[25, 30, 20, 24], [70, 35, 26, 18], [45, 75, 22, 30.0]]))
    extras = near(rng, np.array([[80, 80, 16, 20], [15, 75, 24, 16], [50, 50, 40, 50.0]]))
    mine = np.concatenate([near(rng, apart), extras])
    # each pair of objects wants the prediction between them; the first of the one pair, and the second of the other,
    # wants it more, but has another one near
    wish = np.array([[21, 25, 10, 14], [33, 25, 10, 14], [33, 70, 10, 14], [21, 70, 10, 14.0]])
    between = np.array([[12, 25, 10, 14], [26, 25, 10, 14], [26, 70, 10, 14], [12, 70, 10, 14.0]])
    wish, between = (near(rng, part, 0.3) for part in (wish, between))
    over = near(rng, np.array([[40, 40, 30, 30], [42, 41, 30, 32.0]]), 0.3)
    single = near(rng, np.array([[50, 45, 30, 40.0]]))
    best = near(rng, single, 0.5)
    silent = np.concatenate([best, best + [4, 0, 0, 0]])
    nothing = [(3, 3.0)] * 6
    return {
        "core": (
            3,
            [
                case("three objects", apart, [1, 0, 2], mine, [(1, 1.5), (0, 1.5), (2, 1.5), *nothing[:3]]),
                case("two objects want one prediction", wish, [0] * 4, [*between, *extras[:2]], [(0, 1.0)] * 6),
                case("the class decides", over, [2, 0], [*over[::-1], *extras], [(2, 3.0), (0, 3.0), *nothing[:3]]),
            ],
        ),
        "edge": (
            1,
            [
                case("a prediction says no object", single, [1], [*silent, *extras], [(3, 4.0)] + [(0, 2.0)] * 4),
                case("all say no object", apart[:2], [2, 2], mine[[0, 1, 3, 4]], nothing[:4]),
                case("as many objects as predictions", apart, [0, 0, 1], mine[:3], [(0, 1.0), (0, 1.0), (3, 1.0)]),
                case("exact", apart[:2], [1, 1], [*apart[:2], *extras], [(1, 1.0)] * 5),
                case("one of each", single, [0], best + [12, -8, 4, -6], [(0, 1.0)]),
                case("no object", apart[:0], [], extras, nothing[:3]),
            ],
        ),
    }


def loss_cases(rng: np.random.Generator) -> Cases:
    """Pairs that are near and far; another weight, one pair, as many objects as predictions, large logits, no object.

    Args:
        rng: of boxes, logits, image sizes, and the order of the predictions.

    Returns:
        The cases by group. No two coordinates are equal, so that every gradient is unique.
    """

    def case(name: str, *parts: Any, weight: float | None = None, times: float = 1.0) -> Case:
        args, queries = scene(rng, *parts)
        args = [args[0] * times, *args[1:], queries]
        grad = [0, 1] if len(queries) else [0]
        return {"name": name, "args": args if weight is None else [*args, weight], "grad": grad}

    objects = near(rng, np.array([[25, 30, 20, 24], [70, 35, 26, 18], [45, 72, 22, 30.0]]))
    extras = near(rng, np.array([[80, 80, 16, 20], [15, 78, 24, 16], [50, 50, 40, 50.0]]))
    ways = np.array([6.0, 6.0, 2.5, 2.5])  # centres move more than sides: then corners do not move as much as both
    good, far = near(rng, objects, ways), near(rng, objects[[1, 2, 0]], ways)
    several = [(1, 1.0), (3, 2.0), (0, 1.5), (3, 1.0), (2, 1.0), (3, 2.0)]
    return {
        "core": (
            3,
            [
                case("three objects", objects, [1, 0, 2], [*good, *extras], several, weight=0.1),
                case("a bad match", objects, [2, 2, 0], [*far, *extras], several, weight=0.4),
                case("two objects, the weight left out", objects[:2], [0, 1], [*good[:2], *extras], several[:5]),
            ],
        ),
        "edge": (
            1,
            [
                case(
                    "one object, five predictions",
                    objects[:1],
                    [2],
                    [*far[:1], *good[1:], *extras[:2]],
                    several[:5],
                    weight=0.25,
                ),
                case("as many objects as predictions", objects, [0, 1, 1], good, several[:3], weight=0.1),
                case("large logits", objects[:2], [1, 2], [*good[:2], *extras], several[:5], weight=0.1, times=80.0),
                case("no object", objects[:0], [], extras, [(1, 4.0), (0, 4.0), (2, 3.0)], weight=0.1),
            ],
        ),
    }
