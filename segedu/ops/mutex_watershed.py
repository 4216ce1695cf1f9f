"""The mutex watershed: clusters of a graph whose edges say "together" or "apart", taken strongest first.

Source: Wolf, Pape, Bailoni, Rahaman, Kreshuk, Koethe, Hamprecht, "The Mutex Watershed: Efficient, Parameter-Free
Image Partitioning", ECCV 2018, algorithm 1. As in Kruskal's minimum spanning tree an attractive edge joins two
clusters, unless they exclude each other; a repulsive edge makes them do so for good. Every cluster keeps a list of
nodes that it excludes: lists are joined with their clusters in one step, and the shorter of two is searched.

Course: course/10-embeddings. Lab: labs/10_embeddings.ipynb.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled


def mutex_watershed(nodes: int, edges: Tensor, weights: Tensor, attractive: Tensor) -> Tensor:
    """Cluster the nodes of a graph; nobody says how many clusters there are.

    Args:
        nodes: N.
        edges: (E, 2) integers, pairs of nodes in [0, N).
        weights: (E,) strength, at least 0. Larger ones come first, equal ones in their order; an edge of weight 0
            says nothing.
        attractive: (E,) bool, false for repulsive edges.

    Returns:
        (N,) int64, numbers of clusters from 0 in the order of their first nodes.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: shapes do not fit, a node is outside [0, N), or a weight is negative, infinite or NaN.

    Example:
        0 and 1 are joined first; then 2 is kept from 0, and so the weak attraction of 1 and 2 comes too late.

        >>> edges = torch.tensor([[0, 1], [1, 2], [0, 2]])
        >>> mutex_watershed(3, edges, torch.tensor([0.9, 0.3, 0.5]), torch.tensor([True, True, False]))
        tensor([0, 0, 1])
    """
    _check_graph(nodes, edges, weights, attractive)
    pairs = edges.detach().cpu().numpy().astype(np.int64)
    strength = weights.detach().cpu().double().numpy()
    order = np.flatnonzero(strength > 0)
    order = order[np.argsort(-strength[order], kind="stable")]
    roots = _cluster(nodes, pairs[order, 0], pairs[order, 1], attractive.detach().cpu().numpy()[order])
    _, first, index = np.unique(roots, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[index]).to(edges.device)


@compiled
def _find(parent, node):
    root = node
    while parent[root] != root:
        root = parent[root]
    while parent[node] != root:
        parent[node], node = root, parent[node]
    return root


@compiled
def _excludes(parent, heads, entries, a, b):
    """Whether a node that cluster a excludes lies in cluster b."""
    entry = heads[a]
    while entry >= 0:
        if _find(parent, entries[entry, 0]) == b:
            return True
        entry = entries[entry, 1]
    return False


@compiled
def _cluster(nodes, first, second, attractive):
    parent = np.arange(nodes)
    size = np.ones(nodes, np.int64)
    heads, tails = np.full(nodes, -1), np.full(nodes, -1)  # of the list of each root
    lengths = np.zeros(nodes, np.int64)
    entries = np.empty((2 * (len(first) - attractive.sum()), 2), np.int64)  # an excluded node, and the next entry
    used = 0
    for edge in range(len(first)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a == b:
            continue
        if not attractive[edge]:
            for root, other in ((a, b), (b, a)):
                entries[used, 0], entries[used, 1] = other, heads[root]
                heads[root] = used
                if tails[root] < 0:
                    tails[root] = used
                lengths[root] += 1
                used += 1
            continue
        if lengths[a] > lengths[b]:
            a, b = b, a
        if _excludes(parent, heads, entries, a, b):
            continue
        if lengths[a] > 0:  # both lists become one: that of a, then that of b, which is not shorter
            entries[tails[a], 1] = heads[b]
            heads[b], lengths[b] = heads[a], lengths[a] + lengths[b]
        if size[a] > size[b]:  # the larger one's root stays
            a, b = b, a
            heads[b], tails[b], lengths[b] = heads[a], tails[a], lengths[a]
        parent[a] = b
        size[b] += size[a]
    for node in range(nodes):
        parent[node] = _find(parent, node)
    return parent


def _check_graph(nodes: int, edges: Tensor, weights: Tensor, attractive: Tensor) -> None:
    for name, tensor in (("edges", edges), ("weights", weights), ("attractive", attractive)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} has type {type(tensor).__name__}, expected a torch.Tensor")
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edges has dtype {edges.dtype}, expected integers")
    if not weights.is_floating_point() or attractive.dtype != torch.bool:
        raise TypeError(
            f"weights and attractive have dtypes {weights.dtype}, {attractive.dtype}, expected floats, bool"
        )
    if edges.ndim != 2 or edges.shape[1] != 2 or not edges.shape[:1] == weights.shape == attractive.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (edges, weights, attractive))
        raise ValueError(f"edges, weights and attractive have shapes {shapes}, expected (E, 2), (E,), (E,)")
    if nodes < 0:
        raise ValueError(f"nodes is {nodes}, expected at least 0")
    edges = edges.long()  # torch compares no uint16
    if len(edges) and not (edges.min() >= 0 and edges.max() < nodes):
        raise ValueError(f"edges joins nodes {edges.min()} to {edges.max()}, expected numbers in [0, {nodes})")
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError("weights has a negative, infinite or NaN number, expected finite ones of at least 0")
