"""The queries and targets that `mask_match` is tried on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.exercises.lab12_one_stage import choices

MARGIN = 0.05  # the second best match costs at least so much more
LEAST = 2.0  # no cost is nearer to 0, where terms cancel out and single precision is coarse beside the tolerance
Match = Callable[..., tuple[Tensor, Tensor]]


def second_best(cost: Tensor) -> float:
    """By how much the best match is cheaper than any other; infinite where there is no other."""
    ways = torch.tensor(list(itertools.permutations(range(len(cost)), cost.shape[1])), dtype=torch.int64)
    if cost.shape[1] == 0 or len(ways) == 1:
        return float("inf")
    least = cost[ways, torch.arange(cost.shape[1])].sum(dim=1).topk(2, largest=False).values
    return float(least[1] - least[0])


def padded(args: Sequence[Tensor]) -> list[Tensor]:
    """Targets filled up to Q with "no object" and empty masks: labels (Q,), masks (Q, P)."""
    class_logits, _, labels, masks = args
    more = len(class_logits) - len(labels)
    nothing = torch.full((more,), class_logits.shape[1] - 1)
    return [torch.cat([labels, nothing]), torch.cat([masks, masks.new_zeros(more, masks.shape[1])])]


def _greedy_fails(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """The cheapest query of each, one after the other, the cheapest pair first: none is right, no two are equal."""
    found = [
        cost.argmin(dim=0),
        choices.one_after_the_other(cost, list(range(cost.shape[1]))),
        choices.cheapest_pair_first(cost, cost),
        queries,
    ]
    return len({tuple(each.tolist()) for each in found}) == len(found)


def _mixed(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """The order of the queries is not its own inverse, and no target has the query of its own number."""
    order = queries.argsort()
    return not torch.equal(order, order.argsort()) and bool((queries != torch.arange(len(queries))).all())


def _silence_counts(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """Who leaves out queries that say no object, or pays for no object, finds another match."""
    p = args[0].softmax(dim=1)
    by_class = choices.padded(cost, p)
    by_both = match(*args[:2], *padded(args))[1][: len(queries)]
    silent = p.argmax(dim=1) == p.shape[1] - 1
    enough = bool(silent[queries].any()) and int((~silent).sum()) >= len(queries)
    return enough and len({tuple(each.tolist()) for each in (by_class, by_both, queries)}) == 3


def _empty_and_full(masks: np.ndarray) -> np.ndarray:
    masks[0], masks[1] = False, True
    return masks


@dataclass(frozen=True)
class Scene:
    """Queries and targets to be drawn.

    Attributes:
        name: of the case.
        queries: Q.
        labels: of the targets.
        points: P.
        classes: K.
        near: how far the logits of some queries, in a mixed order, follow the masks of the targets.
        silent: queries that say "no object".
        masks: changes the masks of the targets.
        asked: whether what was drawn shows what it should, of `(arguments, cost, queries, match)`.
    """

    name: str
    queries: int
    labels: Sequence[int]
    points: int
    classes: int = 3
    near: float = 1.0
    silent: Sequence[int] = ()
    masks: Callable[[np.ndarray], np.ndarray] = lambda masks: masks
    asked: Callable[..., bool] = lambda args, cost, queries, match: True

    def draw(self, rng: np.random.Generator) -> list[Tensor]:
        """Logits of classes and masks, labels and masks."""
        count = len(self.labels)
        truth = self.masks(rng.random((count, self.points)) < rng.uniform(0.3, 0.6, (count, 1)))
        places = rng.permutation(self.queries)[:count]
        logits = rng.uniform(-0.5, 0.5, (self.queries, self.classes + 1))
        pixels = rng.uniform(0.2, 2.0, (self.queries, self.points)) * rng.choice([-1, 1], (self.queries, self.points))
        pixels[places] += self.near * (2.0 * truth - 1)
        logits[places, list(self.labels)] += 0.5
        logits[list(self.silent), self.classes] += 3.0
        numbers = [torch.from_numpy(a).float() for a in (logits, pixels)]  # single precision, as networks have it
        return [*numbers, torch.from_numpy(np.array(self.labels, dtype=np.int64)), torch.from_numpy(truth)]


CORE = [
    Scene("three targets", 5, [1, 0, 2], 12, asked=_mixed),
    Scene("targets want one query", 5, [0, 0, 1, 1], 8, near=0.3, asked=_greedy_fails),
    Scene("queries that say no object", 6, [2, 1, 1], 9, near=0.3, silent=[0, 1, 2], asked=_silence_counts),
]
EDGE = [
    Scene("an empty mask and a full one", 4, [0, 1, 1], 6, masks=_empty_and_full),
    Scene("all say no object", 4, [2, 2], 8, silent=[0, 1, 2, 3]),
    Scene("as many targets as queries", 3, [1, 0, 0], 7),
    Scene("one of each, one point", 1, [0], 1, classes=1),
    Scene("no target", 3, [], 5, classes=2),
]


def match_cases(rng: np.random.Generator, match: Match) -> dict[str, tuple[int, list[Case]]]:
    """Targets that want the same query, empty and full masks, queries that say no object; N of 0, of 1 and of Q.

    Args:
        rng: of logits, masks and the order of the queries.
        match: the right answer; a scene is drawn until its second best match costs 0.05 more, and no cost is near 0.

    Returns:
        The cases by group.
    """

    def case(scene: Scene) -> Case:
        while True:
            args = scene.draw(rng)
            cost, queries = match(*args)
            clear = second_best(cost) >= MARGIN and bool((cost.abs() >= LEAST).all())
            if clear and scene.asked(args, cost, queries, match):
                return {"name": scene.name, "args": args, "grad": [0, 1]}

    return {"core": (3, [case(scene) for scene in CORE]), "edge": (1, [case(scene) for scene in EDGE])}
