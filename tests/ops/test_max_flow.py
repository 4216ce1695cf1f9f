"""The flow through a grid against scipy's and PyMaxflow's, the side of the source against a walk, and closed forms."""

from __future__ import annotations

import itertools

import maxflow
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from segedu.ops import max_flow
from segedu.ops.max_flow import OFFSETS, empty_grid, pair_slices, source_side

SHAPES = [(1, 1), (1, 9), (8, 1), (2, 2), (5, 7), (23, 17)]


def problem(shape, seed, directions=4, largest=9):
    """Whole numbers, so that many paths and cuts are equal; a third of edges and terminals are 0."""
    rng = np.random.default_rng(seed)
    terminals = rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < 0.67)
    weights = rng.integers(0, largest + 1, (directions, *shape)) * (rng.random((directions, *shape)) < 0.67)
    return terminals, weights


def edges_of(weights):
    directions, height, width = weights.shape
    for k, y, x in itertools.product(range(directions), range(height), range(width)):
        down, right = y + OFFSETS[k][0], x + OFFSETS[k][1]
        if down < height and 0 <= right < width:
            yield y * width + x, down * width + right, int(weights[k, y, x])


def by_scipy(terminals, weights):
    """Value of the flow, and the pixels that a walk from the source reaches through what is left."""
    gain, nodes = terminals.ravel(), terminals.size
    capacity = np.zeros((nodes + 2, nodes + 2), np.int32)
    for i, j, weight in edges_of(weights):
        capacity[i, j] = capacity[j, i] = weight
    capacity[nodes, :nodes], capacity[:nodes, nodes + 1] = gain.clip(0), (-gain).clip(0)
    capacity = sparse.csr_matrix(capacity)
    result = maximum_flow(capacity, nodes, nodes + 1)
    left = sparse.csr_matrix(capacity - result.flow)
    left.eliminate_zeros()
    reached = np.zeros(nodes + 2, bool)
    reached[breadth_first_order(left, nodes, return_predecessors=False)] = True
    return result.flow_value, reached[:nodes].reshape(terminals.shape)


def by_pymaxflow(terminals, weights):
    graph = maxflow.GraphInt(terminals.size, 4 * terminals.size)
    graph.add_nodes(terminals.size)
    for i, j, weight in edges_of(weights):
        graph.add_edge(i, j, weight, weight)
    for i, gain in enumerate(terminals.ravel().tolist()):
        graph.add_tedge(i, max(gain, 0), max(-gain, 0))
    return graph.maxflow()


def cost(mask, terminals, weights):
    """Of the cut around a mask."""
    flat = mask.ravel()
    border = sum(weight for i, j, weight in edges_of(weights) if flat[i] != flat[j])
    return border + int(terminals[~mask].clip(0).sum() + (-terminals[mask]).clip(0).sum())


@pytest.mark.parametrize("directions", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_grids(shape, directions):
    for seed in range(12):
        terminals, weights = problem(shape, seed, directions)
        grid = empty_grid(terminals, weights)
        found = source_side(grid)
        value, reached = by_scipy(terminals, weights)
        np.testing.assert_array_equal(found, reached)
        assert cost(found, terminals, weights) == value == by_pymaxflow(terminals, weights)
        assert grid.edges.min() >= 0  # no edge holds more than it can
        # An edge and its way back have together what they had; a pixel gives what it gets.
        empty = empty_grid(terminals, weights)
        for k, (dy, dx) in enumerate(OFFSETS[:directions]):
            here, there = pair_slices(*shape, dy, dx)
            both = [g.edges[1:-1, 1:-1][*here, 2 * k] + g.edges[1:-1, 1:-1][*there, 2 * k + 1] for g in (grid, empty)]
            np.testing.assert_array_equal(*both)
        spent = (empty.edges - grid.edges).sum(axis=2) - (empty.terminals - grid.terminals)
        np.testing.assert_array_equal(spent[1:-1, 1:-1], 0)


@pytest.mark.parametrize("swept", [True, False])
def test_the_trees_do_not_need_the_sweep(monkeypatch, swept):
    if not swept:
        monkeypatch.setattr(max_flow, "_sweep", lambda *_: None)
    for seed in range(6):
        terminals, weights = problem((31, 29), seed, largest=10**12)
        expected = by_pymaxflow(*problem((31, 29), seed, largest=900))
        small = problem((31, 29), seed, largest=900)
        assert cost(source_side(empty_grid(*small)), *small) == expected
        found = source_side(empty_grid(terminals, weights))  # beyond int32
        for move in np.random.default_rng(seed).random((20, 31, 29)) < 0.01:
            assert cost(found ^ move, terminals, weights) >= cost(found, terminals, weights)


def test_going_on_after_terminals_were_raised():
    for seed in range(10):
        terminals, weights = problem((11, 12), seed)
        grid, before = empty_grid(terminals, weights), None
        for raised in (0, 1, 3, 7):
            grid.terminals[1:-1, 1:-1] += raised
            terminals = terminals + raised
            found = source_side(grid)
            np.testing.assert_array_equal(found, by_scipy(terminals, weights)[1])
            assert before is None or not (before & ~found).any()
            before = found


@pytest.mark.parametrize(("terminals", "side"), [(4, True), (-4, False), (0, False)])
def test_one_terminal_only(terminals, side):
    given = np.full((4, 6), terminals)
    grid = empty_grid(given, np.full((4, 4, 6), 3))
    assert (source_side(grid) == side).all()
    assert grid.terminals[1:-1, 1:-1].sum() == given.sum()  # nothing flows out


def test_without_edges_every_pixel_decides_alone():
    terminals, weights = problem((6, 5), 0)
    np.testing.assert_array_equal(source_side(empty_grid(terminals, 0 * weights)), terminals > 0)


def test_a_detour_must_be_found():
    """A wall with one gap at the far end: the sweep ends before it, only trees come through."""
    weights = np.full((2, 3, 9), 5)
    weights[1, 1, :8] = 0  # from the middle row down
    weights[0, 0], weights[1, 0] = 0, [5, *[0] * 8]
    terminals = np.zeros((3, 9), int)
    terminals[0, 0], terminals[2, 0] = 4, -9
    grid = empty_grid(terminals, weights)
    assert not source_side(grid).any() and grid.terminals[3, 1] == -5


def test_edges_out_of_the_image_are_left_out():
    terminals = np.array([[3, 0], [0, -3]])
    weights = np.zeros((4, 2, 2), int)
    weights[0, :, 1] = weights[1, 1] = weights[2, :, 1] = weights[3, :, 0] = weights[2, 1] = 9
    np.testing.assert_array_equal(source_side(empty_grid(terminals, weights)), [[True, False], [False, False]])
