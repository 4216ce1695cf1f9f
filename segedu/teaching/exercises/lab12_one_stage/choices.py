"""Ways of choosing a query for each object, or something else: what students do in place of a match."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.matching import hungarian_matching


def _best(cost: Tensor) -> Tensor:
    return hungarian_matching(cost.T)[1]


def one_after_the_other(cost: Tensor, objects: list[int]) -> Tensor:
    """Each object takes the cheapest query that is left."""
    cost, taken = cost.clone(), torch.zeros(cost.shape[1], dtype=torch.int64)
    for n in objects:
        taken[n] = cost[:, n].argmin()
        cost[taken[n]] = torch.inf
    return taken


def cheapest_pair_first(cost: Tensor, _: Tensor) -> Tensor:
    """Greedy."""
    left, taken = cost.clone(), torch.zeros(cost.shape[1], dtype=torch.int64)
    for _ in range(cost.shape[1]):
        q, n = divmod(int(left.argmin()), cost.shape[1])
        taken[n] = q
        left[q], left[:, n] = torch.inf, torch.inf
    return taken


def only_with_objects(cost: Tensor, p: Tensor) -> Tensor:
    """Queries that say "no object" are left out."""
    says = (p.argmax(dim=1) < p.shape[1] - 1).nonzero()[:, 0]
    return says[_best(cost[says])]


def padded(cost: Tensor, p: Tensor) -> Tensor:
    """Objects filled up to Q with "no object", which cost the probability of it."""
    fill = -p[:, -1:].expand(-1, len(cost) - cost.shape[1])
    return _best(torch.cat([cost, fill], dim=1))[: cost.shape[1]]


def for_queries(cost: Tensor, _: Tensor) -> Tensor:
    """The object of each query, -1 for none."""
    found = torch.full((len(cost),), -1)
    found[_best(cost)] = torch.arange(cost.shape[1])
    return found


def queries_by_objects(cost: Tensor) -> Tensor:
    """scipy's queries, in an order that is the inverse of the right one."""
    queries, objects = hungarian_matching(cost)
    return queries[objects]
