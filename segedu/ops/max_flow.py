"""Maximum flow through a grid of pixels, and with it the minimum cut: two trees that grow towards each other.

Source: Boykov, Kolmogorov, "An Experimental Comparison of Min-Cut/Max-Flow Algorithms for Energy Minimization in
Vision", TPAMI 26(9), 2004, section 3. A tree grows from the source along edges with room left, another one from the
sink. Where they touch there is a path. It is filled; edges that are now full cut subtrees off, and every node without
a parent looks for a new one in its own tree. So the next path does not begin from nothing, as in textbooks.

Course: course/02-clustering/graphs.md. Lab: labs/02_clustering.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from segedu.ops.compiled import compiled

OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (dy, dx) of the neighbours right, down, down right and down left
ROOT, ORPHAN, NONE = 8, 9, 10  # in place of the way to a parent: child of source or sink, cut off, in no tree
FAR = 2**62  # more than any distance, and more than any flow


class Grid(NamedTuple):
    """What is left of the capacities, of pixels with an empty frame of one pixel: no index leaves the image.

    edges (H + 2, W + 2, 2 D) int64: room from each pixel to its neighbours, 2 k towards `OFFSETS[k]`, 2 k + 1 away
    from it. terminals (H + 2, W + 2) int64: room from the source if positive, to the sink if negative.

    >>> Grid(np.zeros((3, 4, 2), int), np.array([[0, 0, 0, 0], [0, 5, -1, 0], [0, 0, 0, 0]])).terminals[1, 1:-1]
    array([ 5, -1])
    """

    edges: np.ndarray
    terminals: np.ndarray


class _Forest(NamedTuple):
    """Of each node: the tree (1 source, -1 sink, 0 none), the way to its parent, and how far the root was, when."""

    side: np.ndarray
    parent: np.ndarray
    distance: np.ndarray
    time: np.ndarray


class _Queue(NamedTuple):
    """Nodes in a ring, none twice; `span` is the place of the first and how many there are."""

    ring: np.ndarray
    waiting: np.ndarray
    span: np.ndarray


def pair_slices(height: int, width: int, dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where both ends of the edges of one direction lie.

    Args:
        height: H of the image.
        width: W of the image.
        dy: rows from one end to the other, 0 or more.
        dx: columns, of any sign.

    Returns:
        Slices (rows, columns) of the pixels that have a neighbour there, and of the neighbours, in the same order.

    Raises:
        ValueError: a size or dy is negative.

    >>> here, there = pair_slices(1, 3, 0, 1)
    >>> np.array([[5, 6, 7]])[here], np.array([[5, 6, 7]])[there]
    (array([[5, 6]]), array([[6, 7]]))
    """
    if min(height, width, dy) < 0:
        raise ValueError(f"height, width and dy are {(height, width, dy)}, expected at least 0")
    here = (slice(0, max(0, height - dy)), slice(max(0, -dx), max(0, width - max(0, dx))))
    there = (slice(dy, height), slice(max(0, dx), max(0, width + min(0, dx))))
    return here, there


def empty_grid(terminals: np.ndarray, weights: np.ndarray) -> Grid:
    """A grid through which nothing flows yet.

    Args:
        terminals: (H, W) int64, capacity from the source (positive) or to the sink (negative).
        weights: (D, H, W) int64, at least 0, D at most 4: capacity, both ways, of the edges to `OFFSETS[:D]`. Edges
            out of the image are left out. A pixel's terminal and edges together must stay below 2^62.

    Returns:
        The grid.

    Raises:
        TypeError: an array is not of integers.
        ValueError: a shape is another one, or a weight is negative.

    >>> grid = empty_grid(np.array([[5, -1]]), np.array([[[3, 9]]]))
    >>> grid.edges[1, 1:3].tolist(), grid.terminals[1].tolist()
    ([[3, 0], [0, 3]], [0, 5, -1, 0])
    """
    for name, array in (("terminals", terminals), ("weights", weights)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected integers")
    if terminals.ndim != 2 or weights.shape[1:] != terminals.shape or not 1 <= len(weights) <= len(OFFSETS):
        given = tuple(terminals.shape), tuple(weights.shape)
        raise ValueError(
            f"terminals and weights have shapes {given[0]} and {given[1]}, expected (H, W) and (1 to 4, H, W)"
        )
    if weights.min(initial=0) < 0:
        raise ValueError(f"weights reaches {weights.min()}, expected at least 0")
    directions, height, width = weights.shape
    edges = np.zeros((height + 2, width + 2, 2 * directions), np.int64)
    inside = edges[1:-1, 1:-1]
    for k, (dy, dx) in enumerate(OFFSETS[:directions]):
        here, there = pair_slices(height, width, dy, dx)
        inside[*here, 2 * k] = inside[*there, 2 * k + 1] = weights[k, *here]
    return Grid(edges, np.pad(terminals.astype(np.int64), 1))


def source_side(grid: Grid) -> np.ndarray:
    """Send the maximum flow through a grid, and say which pixels the source still reaches.

    They are the smallest set whose border, together with what leads from it to the sink and from the source past
    it, is a minimum cut. The grid changes in place, to what is left of it. Where terminals are raised afterwards, a
    second call goes on from there.

    Args:
        grid: from `empty_grid`, or from an earlier call.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: the grid has another layout.

    >>> grid = empty_grid(np.array([[5, 0, -4]]), np.array([[[3, 2, 0]]]))
    >>> source_side(grid), grid.terminals[1, 1:-1]  # two flow, and the second edge is full
    (array([[ True,  True, False]]), array([ 3,  0, -2]))
    """
    if grid.edges.ndim != 3 or grid.edges.shape[:2] != grid.terminals.shape or grid.edges.shape[2] not in (2, 4, 6, 8):
        shapes = tuple(grid.edges.shape), tuple(grid.terminals.shape)
        raise ValueError(f"grid has arrays of shapes {shapes[0]} and {shapes[1]}, expected what empty_grid gives")
    height, width, ways = grid.edges.shape
    steps = np.array([sign * (dy * width + dx) for dy, dx in OFFSETS[: ways // 2] for sign in (1, -1)])
    edges, terminals = grid.edges.reshape(-1, ways), grid.terminals.reshape(-1)
    for k in range(min(ways, 4)):
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
    """Carry what comes from the source along one direction, as far as there is room.

    Room from the source to a node is worth as much at its neighbour, if it is taken off the edge between them: no
    cut's cost changes but by a constant. Most of it meets room to the sink on the way, without any tree.
    """
    nodes = len(terminals)
    for place in range(nodes):
        node = place if step > 0 else nodes - 1 - place
        if terminals[node] > 0 and edges[node, k] > 0:
            amount = min(terminals[node], edges[node, k])
            terminals[node] -= amount
            terminals[node + step] += amount
            edges[node, k] -= amount
            edges[node + step, k ^ 1] += amount


@compiled
def _flow(edges, terminals, steps, forest, active, orphans):
    """Growth, augmentation and adoption in turn, until no tree can grow."""
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
        amount = min(edges[node, k], _room(node, 1, edges, terminals, steps, forest.parent))
        amount = min(amount, _room(other, -1, edges, terminals, steps, forest.parent))
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
        place = queue.span[0] + queue.span[1]
        queue.ring[place if place < len(queue.ring) else place - len(queue.ring)] = node
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
    """Take in the neighbours of a node; gives the way to one of the other tree, or -1 if there is none."""
    side, parent, distance, time = forest
    own = side[node]
    if own == 0:  # it has left its tree since it became active
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
            continue  # it stays where it is: near its root, or known better
        parent[other], distance[other], time[other] = k ^ 1, distance[node] + 1, time[node]
    return -1


@compiled
def _room(node, own, edges, terminals, steps, parent):
    """The least room on the way from a node up to its terminal."""
    least = FAR
    while parent[node] != ROOT:
        up = parent[node]
        above = node + steps[up]
        least = min(least, edges[above, up ^ 1] if own > 0 else edges[node, up])
        node = above
    return min(least, abs(terminals[node]))


@compiled
def _fill(node, amount, edges, terminals, steps, parent, orphans):
    """Send an amount down from the source, or a negative one up to the sink; what hangs on a full edge is cut off."""
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
    """Find the orphan a parent as near to the root as can be; without one it leaves, and its children are orphans."""
    side, parent, distance, time = forest
    own, nearest, way = side[node], FAR, NONE
    for k in range(len(steps)):
        other = node + steps[k]
        if side[other] == own and (edges[other, k ^ 1] if own > 0 else edges[node, k]) > 0:
            away = _distance(other, clock, steps, parent, distance, time)
            if away < nearest:
                nearest, way = away, k
    parent[node] = way
    if way != NONE:
        distance[node], time[node] = nearest + 1, clock
        return
    side[node] = 0
    for k in range(len(steps)):
        other = node + steps[k]
        if side[other] == own:
            if (edges[other, k ^ 1] if own > 0 else edges[node, k]) > 0:
                _put(active, other)  # it may want to take the node in again
            if parent[other] == k ^ 1:
                parent[other] = ORPHAN
                _put(orphans, other)


@compiled
def _distance(node, clock, steps, parent, distance, time):
    """From a node to its root, FAR if an orphan is on the way. What is known as of now is noted, for the next ones."""
    place, away = node, 0
    while time[place] != clock:
        if parent[place] == ORPHAN:
            return FAR
        if parent[place] == ROOT:
            time[place], distance[place] = clock, 1
            break
        place += steps[parent[place]]
        away += 1
    away += distance[place]
    place, left = node, away
    while time[place] != clock:
        time[place], distance[place] = clock, left
        place += steps[parent[place]]
        left -= 1
    return away
