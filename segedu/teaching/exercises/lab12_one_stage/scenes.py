"""Cases of `hungarian_match` and `set_loss`: predictions and objects of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case

Cases = dict[str, tuple[int, list[Case]]]
Scene = tuple[list, Tensor]  # logits, predicted boxes, labels, boxes, size of the image; and the query of each object


def scene(
    rng: np.random.Generator,
    objects: Sequence[Sequence[float]],
    labels: Sequence[int],
    predicted: Sequence[Sequence[float]],
    peaks: Sequence[tuple[int, float]],
    classes: int = 3,
) -> Scene:
    """The arguments that both exercises share, and the query of each object.

    The predictions are shuffled. With two predictions or more, the first object never has query 0, and the second
    object has a lower query than the first; the query of the third is between them.

    Args:
        rng: draws the size of the image, the order of the predictions, and their logits.
        objects: N boxes (cx, cy, w, h), in percent of the image.
        labels: N labels.
        predicted: Q boxes in percent; the first N are those that belong to the objects.
        peaks: for each prediction a column of its logits, and by how much this logit is above the others.
        classes: C; column C is "no object".
    """
    count, total = len(objects), len(predicted)
    size = (2 * int(rng.integers(40, 60)), 2 * int(rng.integers(70, 90)))
    queries = rng.permutation(total)  # of each prediction
    low = np.sort(queries[:3])
    queries[:3] = low[[2, 0, 1]] if len(low) == 3 else low[::-1]  # a permutation that is not its own inverse
    logits = rng.uniform(-0.3, 0.3, (total, classes + 1))
    for row, (column, peak) in enumerate(peaks):
        logits[row, column] += peak
    x, y, w, h = np.array(objects, dtype=float).reshape(-1, 4).T / 100
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * np.tile(size[::-1], 2)
    order = queries.argsort()
    arrays = [logits[order], np.array(predicted, dtype=float)[order] / 100, np.array(labels, dtype=np.int64), boxes]
    return [*map(torch.from_numpy, arrays), size], torch.from_numpy(queries[:count])


def near(rng: np.random.Generator, boxes: np.ndarray, shift: float | np.ndarray = 2.0) -> np.ndarray:
    """Boxes (N, 4) near others: each coordinate is changed by 1/2 to 1 of `shift`, which may be one value for each."""
    return boxes + rng.uniform(shift / 2, shift, boxes.shape) * rng.choice([-1, 1], boxes.shape)


def match_cases(rng: np.random.Generator) -> Cases:
    """Objects that compete for a prediction, classes that decide, predictions of no object, N of 0 and of Q.

    The second best match costs at least 0.05 more than the best, so rounding decides nothing.
    """

    def match_case(name: str, *parts: Any) -> Case:
        return case(name, *scene(rng, *parts)[0])

    apart = near(rng, np.array([[25, 30, 20, 24], [70, 35, 26, 18], [45, 75, 22, 30.0]]))
    extras = near(rng, np.array([[80, 80, 16, 20], [15, 75, 24, 16], [50, 50, 40, 50.0]]))
    preds = np.concatenate([near(rng, apart), extras])
    # each pair of objects competes for the prediction between them. The first object of one pair and the second of the
    # other pair are closer to it, but have another prediction nearby
    rivals = np.array([[21, 25, 10, 14], [33, 25, 10, 14], [33, 70, 10, 14], [21, 70, 10, 14.0]])
    between = np.array([[12, 25, 10, 14], [26, 25, 10, 14], [26, 70, 10, 14], [12, 70, 10, 14.0]])
    rivals, between = (near(rng, part, 0.3) for part in (rivals, between))
    over = near(rng, np.array([[40, 40, 30, 30], [42, 41, 30, 32.0]]), 0.3)
    single = near(rng, np.array([[50, 45, 30, 40.0]]))
    best = near(rng, single, 0.5)
    silent = np.concatenate([best, best + [4, 0, 0, 0]])
    nothing = [(3, 3.0)] * 6
    core = [
        match_case("three objects", apart, [1, 0, 2], preds, [(1, 1.5), (0, 1.5), (2, 1.5), *nothing[:3]]),
        match_case("two objects compete for a prediction", rivals, [0] * 4, [*between, *extras[:2]], [(0, 1.0)] * 6),
        match_case("the class decides", over, [2, 0], [*over[::-1], *extras], [(2, 3.0), (0, 3.0), *nothing[:3]]),
    ]
    edge = [
        match_case("a prediction of no object", single, [1], [*silent, *extras], [(3, 4.0)] + [(0, 2.0)] * 4),
        match_case("all predict no object", apart[:2], [2, 2], preds[[0, 1, 3, 4]], nothing[:4]),
        match_case("as many objects as predictions", apart, [0, 0, 1], preds[:3], [(0, 1.0), (0, 1.0), (3, 1.0)]),
        match_case("exact boxes", apart[:2], [1, 1], [*apart[:2], *extras], [(1, 1.0)] * 5),
        match_case("one object, one prediction", single, [0], best + [12, -8, 4, -6], [(0, 1.0)]),
        match_case("no object", apart[:0], [], extras, nothing[:3]),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def loss_cases(rng: np.random.Generator) -> Cases:
    """Good and bad matches, other weights, one pair, large logits, no object.

    No two coordinates are equal, so every gradient is unique.
    """

    def loss_case(name: str, *parts: Any, weight: float | None = None, scale: float = 1.0) -> Case:
        args, queries = scene(rng, *parts)
        args = [args[0] * scale, *args[1:], queries]
        return case(name, *args, *([] if weight is None else [weight]), grad=[0, 1] if len(queries) else [0])

    objects = near(rng, np.array([[25, 30, 20, 24], [70, 35, 26, 18], [45, 72, 22, 30.0]]))
    extras = near(rng, np.array([[80, 80, 16, 20], [15, 78, 24, 16], [50, 50, 40, 50.0]]))
    shift = np.array([6.0, 6.0, 2.5, 2.5])  # less for the sides, so that corners and centres differ by different sums
    good, far = near(rng, objects, shift), near(rng, objects[[1, 2, 0]], shift)
    peaks = [(1, 1.0), (3, 2.0), (0, 1.5), (3, 1.0), (2, 1.0), (3, 2.0)]
    mixed = [*far[:1], *good[1:], *extras[:2]]
    core = [
        loss_case("three objects", objects, [1, 0, 2], [*good, *extras], peaks, weight=0.1),
        loss_case("a bad match", objects, [2, 2, 0], [*far, *extras], peaks, weight=0.4),
        loss_case("two objects, no_object_weight not given", objects[:2], [0, 1], [*good[:2], *extras], peaks[:5]),
    ]
    edge = [
        loss_case("one object, five predictions", objects[:1], [2], mixed, peaks[:5], weight=0.25),
        loss_case("as many objects as predictions", objects, [0, 1, 1], good, peaks[:3], weight=0.1),
        loss_case("large logits", objects[:2], [1, 2], [*good[:2], *extras], peaks[:5], weight=0.1, scale=80.0),
        loss_case("no object", objects[:0], [], extras, [(1, 4.0), (0, 4.0), (2, 3.0)], weight=0.1),
    ]
    return {"core": (3, core), "edge": (1, edge)}
