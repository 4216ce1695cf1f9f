"""Regions of a graph that grow along its edges, from the smallest to the largest.

Source: Felzenszwalb, Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 59(2), 2004, algorithm 1.

Course: course/02-clustering/proposals.md. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

import numpy as np

from segedu.ops.compiled import compiled


def merge_along(weights: np.ndarray, ends: np.ndarray, nodes: int, k: float, min_size: int) -> np.ndarray:
    """Algorithm 1 of Felzenszwalb and Huttenlocher with threshold function k / size; then small regions merge.

    Args:
        weights: (E,) in ascending order.
        ends: (2, E) nodes that an edge joins.
        nodes: their number.
        k: in the unit of the weights.
        min_size: nodes.

    Returns:
        (nodes,) one node of its region for each node, the same for all of a region.

    Raises:
        ValueError: weights descend or are NaN, shapes do not fit, or an end is no node.

    >>> merge_along(np.array([1.0, 2.0, 9.0]), np.array([[0, 1, 2], [1, 2, 3]]), 4, k=4.0, min_size=0)
    array([0, 0, 0, 3])
    """
    if weights.ndim != 1 or ends.shape != (2, len(weights)):
        shapes = tuple(weights.shape), tuple(ends.shape)
        raise ValueError(f"weights and ends have shapes {shapes[0]} and {shapes[1]}, expected (E,) and (2, E)")
    if ends.min(initial=0) < 0 or ends.max(initial=-1) >= nodes:
        raise ValueError(f"ends are from {ends.min()} to {ends.max()}, expected 0 to {nodes - 1}")
    if not (np.diff(weights) >= 0).all():
        raise ValueError("weights descend or are NaN, expected ascending numbers")
    parent = np.arange(nodes)
    _merge(weights, ends, parent, k, min_size)
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


@compiled
def _merge(weights, ends, parent, k, min_size):
    """Fills in `parent`, a forest: a root is its own parent."""
    size = np.ones(len(parent), np.int64)
    limit = np.full(len(parent), float(k))  # of a root: largest edge inside plus k / size
    for again in range(2):
        for edge in range(len(weights)):
            one, other = _root(parent, ends[0, edge]), _root(parent, ends[1, edge])
            if one == other:
                continue
            weight = weights[edge]
            joins = min(size[one], size[other]) < min_size if again else weight <= min(limit[one], limit[other])
            if joins:
                if size[one] < size[other]:
                    one, other = other, one
                parent[other] = one
                size[one] += size[other]
                limit[one] = weight + k / size[one]  # edges are sorted: this one is the largest inside


@compiled
def _root(parent, node):
    """Walks to the root, and halves the path for those who come later."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
