"""The mutex watershed against a version with sets of exclusions, and small graphs by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.mutex_watershed import mutex_watershed


def by_sets(nodes: int, edges: list, weights: list, attractive: list) -> list[int]:
    """Algorithm 1 as it reads: clusters are sets of nodes, exclusions a set of pairs of nodes."""
    clusters = [{node} for node in range(nodes)]
    apart = []
    for i in sorted(range(len(edges)), key=lambda i: -weights[i]):
        a, b = (next(c for c in clusters if node in c) for node in edges[i])
        if weights[i] == 0 or a is b:
            continue
        if not attractive[i]:
            apart.append(tuple(edges[i]))
        elif not any((p in a and q in b) or (p in b and q in a) for p, q in apart):
            clusters.remove(b)
            a |= b
    clusters.sort(key=min)
    return [next(i for i, c in enumerate(clusters) if node in c) for node in range(nodes)]


def graph(seed: int) -> tuple[int, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    nodes, count = int(rng.integers(2, 25)), int(rng.integers(0, 120))
    edges = rng.integers(0, nodes, (count, 2))  # loops and double edges too
    weights = rng.random(count) if seed % 2 else rng.integers(0, 4, count) / 4.0  # every other one full of ties
    attractive = rng.random(count) < rng.choice([0.3, 0.5, 0.8])
    return nodes, torch.from_numpy(edges), torch.from_numpy(weights), torch.from_numpy(attractive)


def test_equals_sets_on_random_graphs() -> None:
    several = 0
    for seed in range(300):
        nodes, edges, weights, attractive = graph(seed)
        expected = by_sets(nodes, edges.tolist(), weights.tolist(), attractive.tolist())
        assert mutex_watershed(nodes, edges, weights, attractive).tolist() == expected, seed
        several += 1 < len(set(expected)) < nodes
    assert several > 100


def test_exclusions_are_inherited_through_joins_on_both_sides() -> None:
    # 0-1 and 2-3 are joined, 1 and 2 exclude each other: no pair of the four may join 0-1 to 2-3 any more
    edges = torch.tensor([[0, 1], [2, 3], [1, 2], [0, 3], [0, 2], [1, 3]])
    weights = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    attractive = torch.tensor([True, True, False, True, True, True])
    assert mutex_watershed(4, edges, weights, attractive).tolist() == [0, 0, 1, 1]
    # had the exclusion come last, all were one
    late = torch.tensor([0.9, 0.8, 0.1, 0.6, 0.5, 0.4])
    assert mutex_watershed(4, edges, late, attractive).tolist() == [0, 0, 0, 0]


def test_nothing_to_join() -> None:
    none = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    assert mutex_watershed(3, *none).tolist() == [0, 1, 2]
    assert mutex_watershed(0, *none).tolist() == []
    pair = torch.tensor([[0, 1]])
    assert mutex_watershed(2, pair, torch.zeros(1), torch.ones(1).bool()).tolist() == [0, 1]  # weight 0 says nothing
    assert mutex_watershed(2, pair, torch.full((1,), 1e-9), torch.ones(1).bool()).tolist() == [0, 0]
