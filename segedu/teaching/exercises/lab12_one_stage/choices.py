"""Wrong ways to choose a query for each object, given the cost (Q, N) of every query and object."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.matching import hungarian_matching


def _best(cost: Tensor) -> Tensor:
    return hungarian_matching(cost.T)[1]


def one_after_the_other(cost: Tensor, objects: list[int]) -> Tensor:
    """Each object takes the query with the least cost that is left."""
    cost, queries = cost.clone(), torch.zeros(cost.shape[1], dtype=torch.int64)
    for n in objects:
        queries[n] = cost[:, n].argmin()
        cost[queries[n]] = torch.inf
    return queries


def cheapest_pair_first(cost: Tensor, _: Tensor) -> Tensor:
    """Greedy matching."""
    cost, queries = cost.clone(), torch.zeros(cost.shape[1], dtype=torch.int64)
    for _ in range(cost.shape[1]):
        q, n = divmod(int(cost.argmin()), cost.shape[1])
        queries[n] = q
        cost[q], cost[:, n] = torch.inf, torch.inf
    return queries


def only_with_objects(cost: Tensor, p: Tensor) -> Tensor:
    """Queries whose most probable class is "no object" are left out."""
    candidates = (p.argmax(dim=1) < p.shape[1] - 1).nonzero()[:, 0]
    return candidates[_best(cost[candidates])]


def padded(cost: Tensor, p: Tensor) -> Tensor:
    """The objects are padded to Q with "no object", at a cost of minus its probability."""
    no_object = -p[:, -1:].expand(-1, len(cost) - cost.shape[1])
    return _best(torch.cat([cost, no_object], dim=1))[: cost.shape[1]]


def for_queries(cost: Tensor, _: Tensor) -> Tensor:
    """The object of each query, -1 for none."""
    objects = torch.full((len(cost),), -1)
    objects[_best(cost)] = torch.arange(cost.shape[1])
    return objects


def queries_by_objects(cost: Tensor) -> Tensor:
    """scipy's queries, indexed by scipy's objects: the inverse of the right order."""
    queries, objects = hungarian_matching(cost)
    return queries[objects]
