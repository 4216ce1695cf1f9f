"""Regions of a graph, merged along its edges in the order of their weights.

Source: Felzenszwalb, Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 59(2), 2004, algorithm 1.

Course: course/02-clustering/proposals.md. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

import numpy as np

from segedu.ops.compiled import compiled


def merge_regions(weights: np.ndarray, ends: np.ndarray, nodes: int, k: float, min_size: int) -> np.ndarray:
    """Algorithm 1 of Felzenszwalb and Huttenlocher with threshold function k / size; then merge small regions.

    Args:
        weights: (E,) in ascending order.
        ends: (2, E) the two nodes of each edge.
        nodes: number of nodes.
        k: scale parameter, in the unit of the weights.
        min_size: regions with fewer nodes are merged with a neighbour.

    Returns:
        (nodes,) for each node a node that represents its region.

    >>> merge_regions(np.array([1.0, 2.0, 9.0]), np.array([[0, 1, 2], [1, 2, 3]]), 4, k=4.0, min_size=0)
    array([0, 0, 0, 3])
    """
    if weights.ndim != 1 or ends.shape != (2, len(weights)):
        shapes = f"{tuple(weights.shape)} and {tuple(ends.shape)}"
        raise ValueError(f"weights and ends have shapes {shapes}, expected (E,) and (2, E)")
    if ends.min(initial=0) < 0 or ends.max(initial=-1) >= nodes:
        raise ValueError(f"ends has nodes from {ends.min()} to {ends.max()}, expected nodes in [0, {nodes})")
    if not (np.diff(weights) >= 0).all():
        raise ValueError("weights is not in ascending order or contains NaN, expected ascending values")
    parent = np.arange(nodes)
    _merge(weights, ends, parent, k, min_size)
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


@compiled
def _merge(weights, ends, parent, k, min_size):
    """Fill in `parent`, a forest in which a root is its own parent."""
    size = np.ones(len(parent), np.int64)
    limit = np.full(len(parent), float(k))  # for each root: largest weight inside its region plus k / size
    for small_only in (False, True):
        for edge in range(len(weights)):
            one, other = _root(parent, ends[0, edge]), _root(parent, ends[1, edge])
            if one == other:
                continue
            weight = weights[edge]
            merges = min(size[one], size[other]) < min_size if small_only else weight <= min(limit[one], limit[other])
            if merges:
                if size[one] < size[other]:
                    one, other = other, one
                parent[other] = one
                size[one] += size[other]
                limit[one] = weight + k / size[one]  # edges are sorted, so this weight is the largest inside


@compiled
def _root(parent, node):
    """Find the root of a node, and halve the path to it for later calls."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
