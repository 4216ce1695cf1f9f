"""ncut_value: the cost of a normalised cut, the cut weight relative to the association of each side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def ncut_value(weights: Tensor, inside: Tensor) -> float:
    """The normalised cut between the nodes inside and those outside.

    Args:
        weights: (N, N), symmetric, at least 0; the diagonal holds the weight of each node to itself.
        inside: (N,) bool.

    Returns:
        A number from 0 to 2; a side without edges adds 0.
    """
    return _fraction(weights, inside) + _fraction(weights, ~inside)


def _cut(weights: Tensor, side: Tensor) -> float:
    return float(weights[side][:, ~side].sum())


def _fraction(weights: Tensor, side: Tensor) -> float:
    """cut / assoc of one side."""
    assoc = float(weights[side].sum())
    return _cut(weights, side) / assoc if assoc > 0 else 0.0


def _graph(rng: np.random.Generator, nodes: int, near: int = 3) -> Tensor:
    """Weights in eighths, larger between nodes whose indices are near; 1 on the diagonal."""
    weights = rng.integers(1, 9, (nodes, nodes)) / 8
    index = np.arange(nodes)
    weights *= np.abs(index[:, None] - index) < near
    weights += rng.integers(0, 2, (nodes, nodes)) / 8
    weights = np.triu(weights, 1)
    return torch.from_numpy(weights + weights.T + np.eye(nodes))


def _side(nodes: int, first: int) -> Tensor:
    return torch.arange(nodes) < first


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The smaller side inside and outside, in any order; a node without edges, an empty side, two separate parts."""
    order = torch.from_numpy(rng.permutation(7))
    apart = _graph(rng, 6)
    apart[:2, 2:] = apart[2:, :2] = 0
    lone = _graph(rng, 5)
    lone[0] = lone[:, 0] = 0
    loose = _graph(rng, 6)
    loose.fill_diagonal_(0)
    loose[4] = loose[:, 4] = 0
    core = [
        case("a few nodes against many", _graph(rng, 8), _side(8, 2)),
        case("nodes in any order", _graph(rng, 7), _side(7, 5)[order]),
        case("zeros on the diagonal", _graph(rng, 6).fill_diagonal_(0) / 64, _side(6, 2)),
    ]
    edge = [
        case("a node without edges, alone on its side", lone, _side(5, 1)),
        case("a node without edges, together with others", loose, _side(6, 2)),
        case("two parts without an edge between them", apart, _side(6, 2)),
        case("everything on one side", _graph(rng, 4), torch.ones(4, dtype=torch.bool)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(ncut_value)


def _cut_over(denominator: Callable[[Tensor, Tensor], Tensor], empty: float = 0.0) -> Callable:
    """An answer with another denominator (weights, side), or another value for a fraction whose denominator is 0."""

    def compute(a):
        cut = _cut(a.weights, a.inside)
        denominators = [float(denominator(a.weights, side)) for side in (a.inside, ~a.inside)]
        return sum(cut / total if total > 0 else empty for total in denominators)

    return right.instead(compute)


def _association(weights: Tensor, side: Tensor) -> Tensor:
    return weights[side].sum()


def _association_within(weights: Tensor, side: Tensor) -> Tensor:
    return weights[side][:, side].sum()


def divides_by_zero(weights: Tensor, inside: Tensor) -> float:
    """Do not check the association before dividing."""
    return sum(_cut(weights, inside) / float(_association(weights, side)) for side in (inside, ~inside))


def normalised_association(weights: Tensor, inside: Tensor) -> float:
    """Nassoc, the weights within each side over its association."""
    sides = [side for side in (inside, ~inside) if _association(weights, side) > 0]
    return sum(float(_association_within(weights, side) / _association(weights, side)) for side in sides)


def _pairs_of_nodes(a) -> float:
    """Index with both masks at once, which pairs the nodes of the two sides."""
    cut = float(a.weights[a.inside, ~a.inside].sum())
    totals = [float(_association(a.weights, side)) for side in (a.inside, ~a.inside)]
    return sum(cut / total for total in totals if total > 0)


def _geometric_mean(a) -> float:
    product = float(_association(a.weights, a.inside)) * float(_association(a.weights, ~a.inside))
    return 2 * _cut(a.weights, a.inside) / product**0.5 if product > 0 else 0.0


def _only_empty_sides(a) -> float:
    """Check whether a side has nodes, not whether it has edges."""
    sides = [side for side in (a.inside, ~a.inside) if side.any()]
    cut = torch.tensor(_cut(a.weights, a.inside))
    return float(sum(cut / _association(a.weights, side) for side in sides))


def _counted_edges(a) -> float:
    count = int((a.weights[a.inside][:, ~a.inside] > 0).sum())
    totals = [float(_association(a.weights, side)) for side in (a.inside, ~a.inside)]
    return sum(count / total for total in totals if total > 0)


def _each_edge_once(weights: Tensor, side: Tensor) -> Tensor:
    """The weights of all edges with an end on the side, each counted once."""
    return (weights * (side[:, None] | side)).triu().sum()


EMPTY_HINT = "A side without edges has cut 0 and association 0. Check the association before you divide by it."
ROWS_HINT = "assoc(A, V) sums whole rows of the weight matrix."
FRACTIONS_HINT = "Ncut is the sum of two fractions, one for each side."

wrong = [
    Wrong(
        "cut only",
        right.instead(lambda a: _cut(a.weights, a.inside)),
        "You return the cut itself. Divide it by the association of each side, and add the two fractions.",
        FRACTIONS_HINT,
    ),
    Wrong(
        "association within",
        _cut_over(_association_within),
        "You divide by the weights within a side. The association sums the weights from that side to all nodes.",
        ROWS_HINT,
    ),
    Wrong(
        "edges counted twice",
        right.then(lambda out, a: 2 * out),
        "You count every cut edge twice, from A to B and from B to A. Count it once.",
        "The weight matrix is symmetric. The cut sums the rows of A over the columns of B only.",
    ),
    Wrong(
        "over numbers of nodes",
        _cut_over(lambda weights, side: side.sum()),
        "You divide by numbers of nodes, which gives the ratio cut. The normalised cut divides by associations.",
        ROWS_HINT,
    ),
    Wrong(
        "isolated side is NaN",
        _cut_over(_association, empty=float("nan")),
        "For a side without edges, you divide 0 by 0 and return NaN. Its fraction is 0.",
        EMPTY_HINT,
    ),
    Wrong(
        "isolated side is 1",
        _cut_over(_association, empty=1.0),
        "You add 1 for a side without edges. Nothing is cut there, so its fraction is 0.",
        EMPTY_HINT,
    ),
    Wrong(
        "isolated side raises",
        divides_by_zero,
        "Your function raises an error for a side without edges. Its fraction is 0.",
        EMPTY_HINT,
    ),
    Wrong(
        "one side",
        right.instead(lambda a: _fraction(a.weights, a.inside)),
        "You return only the fraction of A. Add the fraction of B.",
        "With one fraction alone, a cut with nearly all nodes in A would be inexpensive.",
    ),
    Wrong(
        "mean of the sides",
        right.then(lambda out, a: out / 2),
        "You average the two fractions. Add them.",
        "The normalised cut can be as large as 2.",
    ),
    Wrong(
        "larger fraction",
        right.instead(lambda a: max(_fraction(a.weights, a.inside), _fraction(a.weights, ~a.inside))),
        "You return the larger of the two fractions. Add them.",
        "The larger fraction alone is called the conductance.",
    ),
    Wrong(
        "share of everything",
        right.instead(lambda a: _cut(a.weights, a.inside) / float(a.weights.sum())),
        "You divide by the total weight of the graph. Divide by the association of each side, and add the fractions.",
        FRACTIONS_HINT,
    ),
    Wrong(
        "both over everything",
        right.instead(lambda a: 2 * _cut(a.weights, a.inside) / float(a.weights.sum())),
        "Your result is twice the cut divided by the total weight of the graph. Divide the cut by the association of "
        "each side, and add the two fractions.",
        FRACTIONS_HINT,
    ),
    Wrong(
        "diagonal left out",
        right.given(weights=lambda a: a.weights - a.weights.diag().diag()),
        "You leave out the diagonal. The weight of a node to itself belongs to the association.",
        "Sum the rows as they are.",
    ),
    Wrong(
        "normalised association",
        normalised_association,
        "You return the normalised association, which measures the weights within the sides. Return the normalised "
        "cut.",
        "The cut is the numerator, the association is the denominator.",
    ),
    Wrong(
        "isolated side is infinite",
        _cut_over(_association, empty=float("inf")),
        "You return infinity if a side has no edges. Its fraction is 0.",
        EMPTY_HINT,
    ),
    Wrong(
        "both masks at once",
        right.instead(_pairs_of_nodes),
        "You index with both masks at once, which selects pairs of nodes. The cut sums a whole block of the matrix.",
        "Select the rows first, then the columns: `weights[a][:, b]`.",
    ),
    Wrong(
        "edges counted",
        right.given(weights=lambda a: (a.weights > 0).to(a.weights)),
        "You count edges. Add their weights.",
        "An edge of weight 0.125 counts for one eighth.",
    ),
    Wrong(
        "cut edges counted",
        right.instead(_counted_edges),
        "You count the edges that are cut. The cut is the sum of their weights.",
        "An edge of weight 0.125 counts for one eighth.",
    ),
    Wrong(
        "geometric mean",
        right.instead(_geometric_mean),
        "You divide by the geometric mean of the two associations. Add the two fractions.",
        FRACTIONS_HINT,
    ),
    Wrong(
        "fractions multiplied",
        right.instead(lambda a: _fraction(a.weights, a.inside) * _fraction(a.weights, ~a.inside)),
        "You multiply the two fractions. Add them.",
        FRACTIONS_HINT,
    ),
    Wrong(
        "only empty sides",
        right.instead(_only_empty_sides),
        "You check only whether a side has nodes. A side whose nodes have no edges adds 0, too.",
        EMPTY_HINT,
    ),
    Wrong(
        "association of at least 1",
        _cut_over(lambda weights, side: _association(weights, side).clamp(min=1)),
        "You replace associations below 1 by 1. A small association is right as it is; only 0 needs care.",
        EMPTY_HINT,
    ),
    Wrong(
        "each edge once",
        _cut_over(_each_edge_once),
        "You count an edge within a side once. The association sums whole rows, so it counts such an edge twice.",
        ROWS_HINT,
    ),
    Wrong(
        "empty side is 2",
        right.then(lambda out, a: 2.0 if bool(a.inside.all()) or not bool(a.inside.any()) else out),
        "If a side has no nodes, you return 2. Nothing is cut then, so the result is 0.",
        EMPTY_HINT,
    ),
]

exercise = Exercise(
    name="ncut_value",
    points=3,
    cases=cases,
    reference=ncut_value,
    wrong=wrong,
    kind="mask",
    hides=["segedu.unsupervised.normalized_cut"],
)
