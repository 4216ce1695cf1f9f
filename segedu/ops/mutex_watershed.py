"""The mutex watershed: cluster a graph with attractive and repulsive edges, processed in order of decreasing weight.

Source: Wolf, Pape, Bailoni, Rahaman, Kreshuk, Koethe, Hamprecht, "The Mutex Watershed: Efficient, Parameter-Free
Image Partitioning", ECCV 2018, algorithm 1.

The algorithm extends Kruskal's algorithm for minimum spanning trees by mutual exclusion (mutex) constraints. A
repulsive edge adds a constraint between two clusters, so that they can never be merged. An attractive edge merges two
clusters unless there is a constraint between them. Each cluster has a linked list of the nodes that it must not
contain. To look for a constraint, the shorter of the two lists is searched. When clusters merge, their lists are
concatenated in constant time.

Course: course/10-embeddings. Lab: labs/10_embeddings.ipynb.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.compiled import compiled
from segedu.validation.numbers import check_integer
from segedu.validation.tensors import check_dtype, check_floats, check_integer_tensor


def mutex_watershed(nodes: int, edges: Tensor, weights: Tensor, attractive: Tensor) -> Tensor:
    """Cluster the nodes of a graph; the number of clusters follows from the edges.

    Args:
        nodes: N, the number of nodes.
        edges: (E, 2) integers, pairs of nodes in [0, N).
        weights: (E,) finite, non-negative floats. Edges with equal weights are processed in the given order; edges of
            weight 0 are ignored.
        attractive: (E,) bool, True for attractive edges and False for repulsive ones.

    Returns:
        (N,) int64, the cluster of each node; clusters are numbered from 0 in the order of their first nodes.

    The edge of weight 0.9 merges nodes 0 and 1. The repulsive edge of weight 0.5 then excludes node 2 from their
    cluster, so the attractive edge of weight 0.3 between nodes 1 and 2 has no effect.

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
    """Whether cluster b contains a node of the exclusion list of cluster a; a and b are root nodes."""
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
    heads, tails = np.full(nodes, -1), np.full(nodes, -1)  # ends of the exclusion list of each root
    lengths = np.zeros(nodes, np.int64)
    entries = np.empty((2 * (len(first) - attractive.sum()), 2), np.int64)  # (excluded node, next entry)
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
        if lengths[a] > 0:  # concatenate the lists: a's entries, then b's
            entries[tails[a], 1] = heads[b]
            heads[b], lengths[b] = heads[a], lengths[a] + lengths[b]
        if size[a] > size[b]:  # union by size: the larger cluster keeps its root
            a, b = b, a
            heads[b], tails[b], lengths[b] = heads[a], tails[a], lengths[a]
        parent[a] = b
        size[b] += size[a]
    for node in range(nodes):
        parent[node] = _find(parent, node)
    return parent


def _check_graph(nodes: int, edges: Tensor, weights: Tensor, attractive: Tensor) -> None:
    check_integer("nodes", nodes, 0)
    sizes = check_integer_tensor("edges", edges, "E? 2")
    check_floats("weights", weights, "E?", sizes)
    check_dtype("attractive", attractive, torch.bool, "E?", sizes)
    edges = edges.long()  # torch has no comparisons for uint16
    if len(edges) and not (edges.min() >= 0 and edges.max() < nodes):
        raise ValueError(f"edges has nodes from {edges.min()} to {edges.max()}, expected nodes in [0, {nodes})")
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError("weights has a negative, infinite or NaN value, expected finite weights of at least 0")
