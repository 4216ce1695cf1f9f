"""ncut_value: what a cut costs, as a share of all that each side is tied to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def ncut_value(weights: Tensor, inside: Tensor) -> float:
    """The normalised cut of a graph into the nodes inside and those outside.

    Args:
        weights: (N, N), symmetric, at least 0; the diagonal ties nodes to themselves.
        inside: (N,) bool.

    Returns:
        A number from 0 to 2; a side that no edge ends in adds 0.
    """
    return _share(weights, inside) + _share(weights, ~inside)


def _cut(weights: Tensor, side: Tensor) -> float:
    return float(weights[side][:, ~side].sum())


def _share(weights: Tensor, side: Tensor) -> float:
    """cut / assoc of one side."""
    assoc = float(weights[side].sum())
    return _cut(weights, side) / assoc if assoc > 0 else 0.0


def _graph(rng: np.random.Generator, nodes: int, near: int = 3) -> Tensor:
    """Weights in eighths, heavier between nodes whose numbers are near; nodes are tied to themselves by 1."""
    weights = rng.integers(1, 9, (nodes, nodes)) / 8
    places = np.arange(nodes)
    weights *= np.abs(places[:, None] - places) < near
    weights += rng.integers(0, 2, (nodes, nodes)) / 8
    weights = np.triu(weights, 1)
    return torch.from_numpy(weights + weights.T + np.eye(nodes))


def _side(nodes: int, first: int) -> Tensor:
    return torch.arange(nodes) < first


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The smaller side inside and outside, in any order; a node without edges, an empty side, two parts.

    Args:
        rng: of the weights.

    Returns:
        The cases by group.
    """
    order = torch.from_numpy(rng.permutation(7))
    apart = _graph(rng, 6)
    apart[:2, 2:] = apart[2:, :2] = 0
    lone = _graph(rng, 5)
    lone[0] = lone[:, 0] = 0
    loose = _graph(rng, 6)
    loose.fill_diagonal_(0)
    loose[4] = loose[:, 4] = 0
    return {
        "core": (
            2,
            [
                {"name": "a few nodes against many", "args": [_graph(rng, 8), _side(8, 2)]},
                {"name": "nodes in any order", "args": [_graph(rng, 7), _side(7, 5)[order]]},
                {"name": "no node tied to itself", "args": [_graph(rng, 6).fill_diagonal_(0) / 64, _side(6, 2)]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "a node without edges on its own side", "args": [lone, _side(5, 1)]},
                {"name": "a node without edges in company", "args": [loose, _side(6, 2)]},
                {"name": "two parts that nothing ties", "args": [apart, _side(6, 2)]},
                {"name": "everything on one side", "args": [_graph(rng, 4), torch.ones(4, dtype=torch.bool)]},
            ],
        ),
    }


def cut_only(weights: Tensor, inside: Tensor) -> float:
    """The minimum cut's cost."""
    return _cut(weights, inside)


def _sum(weights: Tensor, inside: Tensor, below: object, empty: float = 0.0) -> float:
    """The cut over what `below` gives for each side."""
    cut, total = _cut(weights, inside), 0.0
    for side in (inside, ~inside):
        bottom = float(below(side))
        total += cut / bottom if bottom > 0 else empty
    return total


def within(weights: Tensor, inside: Tensor) -> float:
    """Divides by what ties a side to itself."""
    return _sum(weights, inside, lambda side: weights[side][:, side].sum())


def both_ways(weights: Tensor, inside: Tensor) -> float:
    """Each cut edge is counted from both of its ends."""
    return 2 * ncut_value(weights, inside)


def over_counts(weights: Tensor, inside: Tensor) -> float:
    """The ratio cut: divides by numbers of nodes."""
    return _sum(weights, inside, lambda side: side.sum())


def empty_is_nan(weights: Tensor, inside: Tensor) -> float:
    """0/0 for a side without edges."""
    return _sum(weights, inside, lambda side: weights[side].sum(), float("nan"))


def empty_is_one(weights: Tensor, inside: Tensor) -> float:
    """1 for a side without edges."""
    return _sum(weights, inside, lambda side: weights[side].sum(), 1.0)


def empty_divides(weights: Tensor, inside: Tensor) -> float:
    """ZeroDivisionError for a side without edges."""
    cut = _cut(weights, inside)
    return cut / float(weights[inside].sum()) + cut / float(weights[~inside].sum())


def one_side(weights: Tensor, inside: Tensor) -> float:
    """The side inside only."""
    return _share(weights, inside)


def mean_of_sides(weights: Tensor, inside: Tensor) -> float:
    """Half of it."""
    return ncut_value(weights, inside) / 2


def smaller_side(weights: Tensor, inside: Tensor) -> float:
    """The conductance: over the smaller association."""
    return max(_share(weights, inside), _share(weights, ~inside))


def over_everything(weights: Tensor, inside: Tensor) -> float:
    """A share of all edges."""
    return _cut(weights, inside) / float(weights.sum())


def without_diagonal(weights: Tensor, inside: Tensor) -> float:
    """Leaves out what ties a node to itself."""
    return ncut_value(weights - weights.diag().diag(), inside)


def association(weights: Tensor, inside: Tensor) -> float:
    """Nassoc, which is 2 - Ncut."""
    return sum(
        float(weights[side][:, side].sum() / weights[side].sum()) if weights[side].sum() > 0 else 0.0
        for side in (inside, ~inside)
    )


EMPTY = "A side without edges has cut 0 and association 0, and adds nothing. Look before you divide."

exercise = Exercise(
    name="ncut_value",
    points=3,
    cases=cases,
    reference=ncut_value,
    kind="mask",
    hides=["segedu.unsupervised.normalized_cut"],
    wrong=[
        Wrong(
            "cut only",
            cut_only,
            "You return the cut itself: it is smallest for a single node. Divide it by the association of each side.",
            "Two fractions, added.",
        ),
        Wrong(
            "association within",
            within,
            "You divide by what ties a side to itself: the association is with all nodes, the cut among them.",
            "assoc(A, V) sums whole rows of the matrix.",
        ),
        Wrong(
            "edges counted twice",
            both_ways,
            "You count every cut edge twice: from A to B, and from B to A.",
            "The matrix is symmetric; the cut sums rows of A at columns of B only.",
        ),
        Wrong(
            "over numbers of nodes",
            over_counts,
            "You divide by numbers of nodes: that is the ratio cut. The normalised cut divides by weights.",
            "assoc(A, V) sums whole rows of the matrix.",
        ),
        Wrong("isolated side is NaN", empty_is_nan, "A side without edges gives you 0/0, which is NaN.", EMPTY),
        Wrong("isolated side is 1", empty_is_one, "You count a side without edges as 1: nothing is cut there.", EMPTY),
        Wrong("isolated side raises", empty_divides, "You divide by zero for a side without edges.", EMPTY),
        Wrong(
            "one side",
            one_side,
            "You have only the first of the two fractions.",
            "The other side counts too: else all nodes but one would be the cheapest cut.",
        ),
        Wrong("mean of the sides", mean_of_sides, "You average the two fractions: they are added.", "It may reach 2."),
        Wrong(
            "larger fraction",
            smaller_side,
            "You take the larger of the two fractions: they are added.",
            "What you have is called conductance.",
        ),
        Wrong(
            "share of everything",
            over_everything,
            "You divide by the weight of the whole graph: each side is compared with its own association.",
            "Two fractions, added.",
        ),
        Wrong(
            "diagonal left out",
            without_diagonal,
            "You leave out what ties a node to itself: the diagonal belongs to the association.",
            "Sum the rows as they are.",
        ),
        Wrong(
            "normalised association",
            association,
            "You return how well each side holds together, not what the cut costs.",
            "The cut is above, the association below.",
        ),
    ],
)
