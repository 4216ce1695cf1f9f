"""Maximum flow through a grid of pixels, and the minimum cut: two search trees that grow towards each other.

Source: Boykov, Kolmogorov, "An Experimental Comparison of Min-Cut/Max-Flow Algorithms for Energy Minimization in
Vision", TPAMI 26(9), 2004, section 3. One tree grows from the source along edges with residual capacity, the other from
the sink. Where they touch, there is an augmenting path. The flow along it saturates edges, which cut off subtrees, and
every node without a parent looks for a new parent in its own tree. So the search for the next path does not start from
scratch, unlike in textbook algorithms.

Course: course/02-clustering/graphs.md. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from segedu.ops.compiled import compiled

OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (dy, dx) of the neighbours right, down, down right and down left
ROOT, ORPHAN, NONE = 8, 9, 10  # instead of the direction of a parent: child of source or sink, cut off, in no tree
FAR = 2**62  # more than any distance, and more than any flow


class Grid(NamedTuple):
    """Residual capacities of all pixels, with an empty frame of one pixel, so that no index leaves the array.

    edges (H + 2, W + 2, 2 D) int64: from each pixel to its neighbours, 2 k towards `OFFSETS[k]`, 2 k + 1 the
    other way. terminals (H + 2, W + 2) int64: from the source if positive, to the sink if negative.

    >>> Grid(np.zeros((3, 4, 2), int), np.array([[0, 0, 0, 0], [0, 5, -1, 0], [0, 0, 0, 0]])).terminals[1, 1:-1]
    array([ 5, -1])
    """

    edges: np.ndarray
    terminals: np.ndarray


class _Forest(NamedTuple):
    """For each node: its tree (1 source, -1 sink, 0 none), direction of its parent, root distance and its time."""

    side: np.ndarray
    parent: np.ndarray
    distance: np.ndarray
    time: np.ndarray


class _Queue(NamedTuple):
    """Nodes in a ring buffer, none twice; `span` has the index of the first node and the number of nodes."""

    ring: np.ndarray
    waiting: np.ndarray
    span: np.ndarray


def pair_slices(height: int, width: int, dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of both ends of all edges in one direction.

    Args:
        height: H of the image.
        width: W of the image.
        dy: rows from one end to the other, at least 0.
        dx: columns, of any sign.

    Returns:
        Slices (rows, columns) of the pixels that have such a neighbour, and of the neighbours, in the same order.

    >>> pixels, neighbours = pair_slices(1, 3, 0, 1)
    >>> np.array([[5, 6, 7]])[pixels], np.array([[5, 6, 7]])[neighbours]
    (array([[5, 6]]), array([[6, 7]]))
    """
    if min(height, width, dy) < 0:
        raise ValueError(f"height, width and dy are {(height, width, dy)}, expected at least 0")
    pixels = (slice(0, max(0, height - dy)), slice(max(0, -dx), max(0, width - max(0, dx))))
    neighbours = (slice(dy, height), slice(max(0, dx), max(0, width + min(0, dx))))
    return pixels, neighbours


def empty_grid(terminals: np.ndarray, weights: np.ndarray) -> Grid:
    """A grid without flow.

    Args:
        terminals: (H, W) int64, capacity from the source (positive) or to the sink (negative).
        weights: (D, H, W) int64, at least 0, D at most 4: capacity, in both directions, of the edges to `OFFSETS[:D]`.
            Edges that leave the image are ignored. The capacities of a pixel must add up to less than 2^62.

    >>> grid = empty_grid(np.array([[5, -1]]), np.array([[[3, 9]]]))
    >>> grid.edges[1, 1:3].tolist(), grid.terminals[1].tolist()
    ([[3, 0], [0, 3]], [0, 5, -1, 0])
    """
    for name, array in (("terminals", terminals), ("weights", weights)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected integers")
    if terminals.ndim != 2 or weights.shape[1:] != terminals.shape or not 1 <= len(weights) <= len(OFFSETS):
        shapes = f"{tuple(terminals.shape)} and {tuple(weights.shape)}"
        raise ValueError(f"terminals and weights have shapes {shapes}, expected (H, W) and (1 to 4, H, W)")
    if weights.min(initial=0) < 0:
        raise ValueError(f"weights has the value {weights.min()}, expected at least 0")
    directions, height, width = weights.shape
    edges = np.zeros((height + 2, width + 2, 2 * directions), np.int64)
    inside = edges[1:-1, 1:-1]
    for k, (dy, dx) in enumerate(OFFSETS[:directions]):
        pixels, neighbours = pair_slices(height, width, dy, dx)
        inside[*pixels, 2 * k] = inside[*neighbours, 2 * k + 1] = weights[k, *pixels]
    return Grid(edges, np.pad(terminals.astype(np.int64), 1))


def source_side(grid: Grid) -> np.ndarray:
    """Compute the maximum flow through a grid, and the pixels that are still connected to the source.

    These pixels are the smallest source side of a minimum cut. The grid is changed in place to the residual capacities.
    If terminals are increased afterwards, a second call continues from there.

    Args:
        grid: from `empty_grid`, or from an earlier call.

    Returns:
        (H, W) bool.

    >>> grid = empty_grid(np.array([[5, 0, -4]]), np.array([[[3, 2, 0]]]))
    >>> source_side(grid), grid.terminals[1, 1:-1]  # the flow is 2, and the second edge is saturated
    (array([[ True,  True, False]]), array([ 3,  0, -2]))
    """
    if grid.edges.ndim != 3 or grid.edges.shape[:2] != grid.terminals.shape or grid.edges.shape[2] not in (2, 4, 6, 8):
        shapes = f"{tuple(grid.edges.shape)} and {tuple(grid.terminals.shape)}"
        raise ValueError(f"grid has arrays of shapes {shapes}, expected a grid from empty_grid")
    height, width, directions = grid.edges.shape
    steps = np.array([sign * (dy * width + dx) for dy, dx in OFFSETS[: directions // 2] for sign in (1, -1)])
    edges, terminals = grid.edges.reshape(-1, directions), grid.terminals.reshape(-1)
    for k in range(min(directions, 4)):
        _sweep(edges, terminals, k, steps[k])
    nodes, roots = len(terminals), np.flatnonzero(terminals)
    parent = np.where(terminals != 0, ROOT, NONE).astype(np.int8)
    side = np.sign(terminals).astype(np.int8)
    forest = _Forest(side, parent, np.ones(nodes, np.int32), np.zeros(nodes, np.int32))
    active = _Queue(np.zeros(nodes, np.int32), terminals != 0, np.array([0, len(roots)]))
    active.ring[: len(roots)] = roots
    orphans = _Queue(np.zeros(nodes, np.int32), np.zeros(nodes, bool), np.zeros(2, np.int64))
    _flow(edges, terminals, steps, forest, active, orphans)
    return side.reshape(height, width)[1:-1, 1:-1] > 0


@compiled
def _sweep(edges, terminals, k, step):
    """Push flow from the source along one direction, as far as residual capacities allow.

    Capacity from the source to a node can be moved to its neighbour if it is subtracted from the edge between them:
    the costs of all cuts change by the same constant. Most of the flow reaches the sink this way, without any tree.
    """
    nodes = len(terminals)
    for i in range(nodes):
        node = i if step > 0 else nodes - 1 - i
        if terminals[node] > 0 and edges[node, k] > 0:
            amount = min(terminals[node], edges[node, k])
            terminals[node] -= amount
            terminals[node + step] += amount
            edges[node, k] -= amount
            edges[node + step, k ^ 1] += amount


@compiled
def _flow(edges, terminals, steps, forest, active, orphans):
    """Repeat growth, augmentation and adoption until no tree can grow."""
    clock = 0
    while active.span[1] > 0:
        node = active.ring[active.span[0]]
        k = _grow(node, edges, steps, forest, active)
        if k < 0:
            _take(active)
            continue
        clock += 1
        other = node + steps[k]
        if forest.side[node] < 0:
            node, other, k = other, node, k ^ 1
        amount = min(edges[node, k], _residual(node, 1, edges, terminals, steps, forest.parent))
        amount = min(amount, _residual(other, -1, edges, terminals, steps, forest.parent))
        edges[node, k] -= amount
        edges[other, k ^ 1] += amount
        _fill(node, amount, edges, terminals, steps, forest.parent, orphans)
        _fill(other, -amount, edges, terminals, steps, forest.parent, orphans)
        while orphans.span[1] > 0:
            _adopt(_take(orphans), clock, edges, steps, forest, active, orphans)


@compiled
def _put(queue, node):
    if not queue.waiting[node]:
        queue.waiting[node] = True
        index = queue.span[0] + queue.span[1]
        queue.ring[index if index < len(queue.ring) else index - len(queue.ring)] = node
        queue.span[1] += 1


@compiled
def _take(queue):
    node = queue.ring[queue.span[0]]
    queue.waiting[node] = False
    queue.span[0] = queue.span[0] + 1 if queue.span[0] + 1 < len(queue.ring) else 0
    queue.span[1] -= 1
    return node


@compiled
def _grow(node, edges, steps, forest, active):
    """Add the neighbours of a node to its tree; returns the direction of a neighbour in the other tree, or -1."""
    side, parent, distance, time = forest
    own = side[node]
    if own == 0:  # the node has left its tree since it became active
        return -1
    for k in range(len(steps)):
        other = node + steps[k]
        if (edges[node, k] if own > 0 else edges[other, k ^ 1]) == 0:
            continue
        if side[other] == -own:
            return k
        if side[other] == 0:
            side[other] = own
            _put(active, other)
        elif distance[other] <= distance[node] + 1 or time[other] > time[node]:
            continue  # it keeps its parent: its distance is smaller, or more recent
        parent[other], distance[other], time[other] = k ^ 1, distance[node] + 1, time[node]
    return -1


@compiled
def _residual(node, own, edges, terminals, steps, parent):
    """The smallest residual capacity on the path from a node to its terminal."""
    smallest = FAR
    while parent[node] != ROOT:
        up = parent[node]
        above = node + steps[up]
        smallest = min(smallest, edges[above, up ^ 1] if own > 0 else edges[node, up])
        node = above
    return min(smallest, abs(terminals[node]))


@compiled
def _fill(node, amount, edges, terminals, steps, parent, orphans):
    """Send flow from the source down to a node, or negative flow to the sink; saturated edges make orphans."""
    while parent[node] != ROOT:
        up = parent[node]
        above = node + steps[up]
        edges[above, up ^ 1] -= amount
        edges[node, up] += amount
        if (edges[above, up ^ 1] if amount > 0 else edges[node, up]) == 0:
            parent[node] = ORPHAN
            _put(orphans, node)
        node = above
    terminals[node] -= amount
    if terminals[node] == 0:
        parent[node] = ORPHAN
        _put(orphans, node)


@compiled
def _adopt(node, clock, edges, steps, forest, active, orphans):
    """Give an orphan a new parent, close to the root; without one, it leaves the tree, and its children are orphans."""
    side, parent, distance, time = forest
    own, nearest, direction = side[node], FAR, NONE
    for k in range(len(steps)):
        other = node + steps[k]
        if side[other] == own and (edges[other, k ^ 1] if own > 0 else edges[node, k]) > 0:
            root_distance = _distance(other, clock, steps, parent, distance, time)
            if root_distance < nearest:
                nearest, direction = root_distance, k
    parent[node] = direction
    if direction != NONE:
        distance[node], time[node] = nearest + 1, clock
        return
    side[node] = 0
    for k in range(len(steps)):
        other = node + steps[k]
        if side[other] == own:
            if (edges[other, k ^ 1] if own > 0 else edges[node, k]) > 0:
                _put(active, other)  # this neighbour may add the node to the tree again
            if parent[other] == k ^ 1:
                parent[other] = ORPHAN
                _put(orphans, other)


@compiled
def _distance(node, clock, steps, parent, distance, time):
    """Distance of a node to its root, FAR if an orphan is on the path. Stores the distances on the path."""
    ancestor, total = node, 0
    while time[ancestor] != clock:
        if parent[ancestor] == ORPHAN:
            return FAR
        if parent[ancestor] == ROOT:
            time[ancestor], distance[ancestor] = clock, 1
            break
        ancestor += steps[parent[ancestor]]
        total += 1
    total += distance[ancestor]
    ancestor, remaining = node, total
    while time[ancestor] != clock:
        time[ancestor], distance[ancestor] = clock, remaining
        ancestor += steps[parent[ancestor]]
        remaining -= 1
    return total
