"""The queries and targets of the cases of `mask_match`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case
from segedu.teaching.checks.variants import case
from segedu.teaching.exercises.lab12_one_stage import choices

MARGIN = 0.05  # the second best match costs at least so much more
LEAST = 2.0  # no cost is closer to 0, where terms cancel and single precision is coarse compared with the tolerance
Match = Callable[..., tuple[Tensor, Tensor]]


def second_best(cost: Tensor) -> float:
    """How much more the second best match costs than the best one, infinity if there is no other match."""
    ways = torch.tensor(list(itertools.permutations(range(len(cost)), cost.shape[1])), dtype=torch.int64)
    if cost.shape[1] == 0 or len(ways) == 1:
        return float("inf")
    least = cost[ways, torch.arange(cost.shape[1])].sum(dim=1).topk(2, largest=False).values
    return float(least[1] - least[0])


def padded(args: Sequence[Tensor]) -> list[Tensor]:
    """Targets padded to Q with "no object" and empty masks: labels (Q,), masks (Q, P)."""
    class_logits, _, labels, masks = args
    more = len(class_logits) - len(labels)
    no_object = torch.full((more,), class_logits.shape[1] - 1)
    return [torch.cat([labels, no_object]), torch.cat([masks, masks.new_zeros(more, masks.shape[1])])]


def _greedy_fails(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """Three greedy choices are wrong and differ from each other."""
    in_turn = choices.one_after_the_other(cost, list(range(cost.shape[1])))
    return _all_different(cost.argmin(dim=0), in_turn, choices.cheapest_pair_first(cost, cost), queries)


def _all_different(*matches: Tensor) -> bool:
    return len({tuple(each.tolist()) for each in matches}) == len(matches)


def _mixed(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """The order of the queries is not its own inverse, and no target is matched with the query of its own number."""
    order = queries.argsort()
    return not torch.equal(order, order.argsort()) and bool((queries != torch.arange(len(queries))).all())


def _no_object_matters(args: list, cost: Tensor, queries: Tensor, match: Match) -> bool:
    """The match is different if queries that predict no object are excluded, or if no object has a cost."""
    p = args[0].softmax(dim=1)
    by_class = choices.padded(cost, p)
    by_both = match(*args[:2], *padded(args))[1][: len(queries)]
    no_object = p.argmax(dim=1) == p.shape[1] - 1
    enough = bool(no_object[queries].any()) and int((~no_object).sum()) >= len(queries)
    return enough and _all_different(by_class, by_both, queries)


@dataclass(frozen=True)
class Scene:
    """Random queries and targets.

    Attributes:
        name: of the case.
        queries: Q.
        labels: of the targets.
        points: P.
        classes: K.
        near: how closely the mask logits of some queries, in a random order, follow the masks of the targets.
        no_object: queries that predict "no object".
        empty_and_full: whether the first two targets have an empty and a full mask.
        accept: `(arguments, cost, queries, match)` -> whether the case shows what it should.
    """

    name: str
    queries: int
    labels: Sequence[int]
    points: int
    classes: int = 3
    near: float = 1.0
    no_object: Sequence[int] = ()
    empty_and_full: bool = False
    accept: Callable[..., bool] = lambda args, cost, queries, match: True

    def draw(self, rng: np.random.Generator) -> list[Tensor]:
        """Class logits, mask logits, labels and masks."""
        count = len(self.labels)
        masks = rng.random((count, self.points)) < rng.uniform(0.3, 0.6, (count, 1))
        if self.empty_and_full:
            masks[0], masks[1] = False, True
        matched = rng.permutation(self.queries)[:count]
        logits = rng.uniform(-0.5, 0.5, (self.queries, self.classes + 1))
        pixels = rng.uniform(0.2, 2.0, (self.queries, self.points)) * rng.choice([-1, 1], (self.queries, self.points))
        pixels[matched] += self.near * (2.0 * masks - 1)
        logits[matched, list(self.labels)] += 0.5
        logits[list(self.no_object), self.classes] += 3.0
        floats = [torch.from_numpy(a).float() for a in (logits, pixels)]  # single precision, as in networks
        return [*floats, torch.from_numpy(np.array(self.labels, dtype=np.int64)), torch.from_numpy(masks)]


CORE = [
    Scene("three targets", 5, [1, 0, 2], 12, accept=_mixed),
    Scene("several targets prefer one query", 5, [0, 0, 1, 1], 8, near=0.3, accept=_greedy_fails),
    Scene("some queries predict no object", 6, [2, 1, 1], 9, near=0.3, no_object=[0, 1, 2], accept=_no_object_matters),
]
EDGE = [
    Scene("an empty mask and a full one", 4, [0, 1, 1], 6, empty_and_full=True),
    Scene("all queries predict no object", 4, [2, 2], 8, no_object=[0, 1, 2, 3]),
    Scene("as many targets as queries", 3, [1, 0, 0], 7),
    Scene("one query, one target, one point", 1, [0], 1, classes=1),
    Scene("no target", 3, [], 5, classes=2),
]


def match_cases(rng: np.random.Generator, match: Match) -> dict[str, tuple[int, list[Case]]]:
    """Targets that prefer the same query, empty and full masks, queries that predict no object; N = 0, 1 and Q.

    Args:
        rng: random generator.
        match: the reference. A scene is drawn until its match is unique by `MARGIN` and no cost is close to 0.
    """

    def drawn(scene: Scene) -> Case:
        while True:
            args = scene.draw(rng)
            cost, queries = match(*args)
            clear = second_best(cost) >= MARGIN and bool((cost.abs() >= LEAST).all())
            if clear and scene.accept(args, cost, queries, match):
                return case(scene.name, *args, grad=[0, 1])

    return {"core": (3, [drawn(scene) for scene in CORE]), "edge": (1, [drawn(scene) for scene in EDGE])}
