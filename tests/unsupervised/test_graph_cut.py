"""Graph cut against PyMaxflow's flow, all labellings of tiny images, and closed forms."""

from __future__ import annotations

import itertools

import maxflow
import pytest
import torch
from torch import Tensor

from segedu.ops.max_flow import OFFSETS
from segedu.unsupervised import graph_cut
from segedu.unsupervised.graph_cut import contrast_weights, min_cut, parametric_cuts

SCALE = 1000


def scene(height: int, width: int, seed: int, directions: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    unary = 10 * torch.rand(2, height, width, generator=generator, dtype=torch.float64)
    return unary, 1.5 * torch.rand(directions, height, width, generator=generator, dtype=torch.float64)


def edges_of(pairwise: Tensor):
    """Every edge inside the image, one at a time: two pixels and the weight, rounded."""
    directions, height, width = pairwise.shape
    for k, row, column in itertools.product(range(directions), range(height), range(width)):
        y, x = row + OFFSETS[k][0], column + OFFSETS[k][1]
        if y < height and 0 <= x < width:
            yield row * width + column, y * width + x, round(float(pairwise[k, row, column]) * SCALE)


def peer_flow(unary: Tensor, pairwise: Tensor) -> int:
    costs = (unary * SCALE).round().long().reshape(2, -1).tolist()
    edges = list(edges_of(pairwise))
    graph = maxflow.GraphInt(len(costs[0]), len(edges))
    graph.add_nodes(len(costs[0]))
    for i, j, weight in edges:
        graph.add_edge(i, j, weight, weight)
    for i, (background, foreground) in enumerate(zip(*costs, strict=True)):
        graph.add_tedge(i, background, foreground)
    return graph.maxflow()


def energy(mask: Tensor, unary: Tensor, pairwise: Tensor) -> int:
    labels = mask.ravel().tolist()
    costs = (unary * SCALE).round().long().reshape(2, -1).tolist()
    border = sum(weight for i, j, weight in edges_of(pairwise) if labels[i] != labels[j])
    return border + sum(costs[int(label)][i] for i, label in enumerate(labels))


SIZES = [(1, 1), (1, 7), (6, 1), (5, 8), (13, 11), (32, 40)]


@pytest.mark.parametrize("directions", [4, 2])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_flow_is_pymaxflows_and_the_energy_of_the_mask(height, width, directions):
    for seed in range(3):
        unary, pairwise = scene(height, width, seed, directions)
        cut = min_cut(unary, pairwise, scale=SCALE)
        flow = round(cut.flow * SCALE)
        assert flow == peer_flow(unary, pairwise) == energy(cut.mask, unary, pairwise)


@pytest.mark.parametrize("mistake", ["edges", "terminals", "nothing flows"])
def test_parity_fails_when_our_function_is_perturbed(monkeypatch, mistake):
    unary, pairwise = scene(13, 11, 0)
    empty = graph_cut.empty_grid
    if mistake == "edges":
        monkeypatch.setattr(graph_cut, "empty_grid", lambda gain, weights: empty(gain, weights[[0, 1, 3, 2]]))
    elif mistake == "terminals":
        monkeypatch.setattr(graph_cut, "empty_grid", lambda gain, weights: empty(-gain, weights))
    else:
        monkeypatch.setattr(graph_cut, "source_side", lambda grid: grid.terminals[1:-1, 1:-1] > 0)
    assert round(min_cut(unary, pairwise, scale=SCALE).flow * SCALE) != peer_flow(unary, pairwise)


def test_no_labelling_of_a_tiny_image_is_cheaper_and_the_foreground_is_the_smallest():
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):  # small whole numbers: many ties
        unary = torch.randint(0, 3, (2, 3, 3), generator=generator).double()
        pairwise = torch.randint(0, 2, (4, 3, 3), generator=generator).double()
        cut = min_cut(unary, pairwise, scale=SCALE)
        masks = [torch.tensor(labels).reshape(3, 3) for labels in itertools.product([False, True], repeat=9)]
        energies = [energy(mask, unary, pairwise) for mask in masks]
        assert round(cut.flow * SCALE) == min(energies)
        cheapest = [mask for mask, value in zip(masks, energies, strict=True) if value == min(energies)]
        assert torch.equal(cut.mask, torch.stack(cheapest).all(dim=0))


def test_forbidden_labels():
    unary, pairwise = scene(9, 9, 1)
    unary[1, 0], unary[0, 8] = torch.inf, torch.inf
    unary[0, 0], unary[1, 8] = 1e6, 1e6  # the other label is dear, and yet the only one
    cut = min_cut(unary, 10 * pairwise)
    assert not cut.mask[0].any() and cut.mask[8].all()
    assert torch.isfinite(torch.tensor(cut.flow))


@pytest.mark.parametrize("label", [0, 1])
def test_all_one_label(label):
    unary = torch.zeros(2, 6, 5)
    unary[1 - label] = 1.0
    cut = min_cut(unary, torch.ones(4, 6, 5))
    assert cut.flow == 0 and (cut.mask == bool(label)).all()


def test_a_single_odd_pixel_is_smoothed_away_or_kept():
    unary = torch.zeros(2, 5, 5)
    unary[1] = 3.0  # background everywhere
    unary[0, 2, 2], unary[1, 2, 2] = 7.0, 0.0
    assert min_cut(unary, torch.ones(4, 5, 5)).flow == 7.0  # its border would cost 8
    kept = min_cut(unary, torch.full((4, 5, 5), 0.5))
    assert kept.flow == 4.0 and kept.mask.sum() == 1


def test_the_cuts_of_a_sweep_are_nested_and_each_is_a_minimum():
    unary, pairwise = scene(14, 17, 2)
    biases = [-6.0, -2.0, -0.5, 0.0, 0.5, 2.0, 6.0]
    cuts = parametric_cuts(unary, pairwise, biases)
    assert len({int(cut.mask.sum()) for cut in cuts}) > 3
    for smaller, larger in itertools.pairwise(cuts):
        assert not (smaller.mask & ~larger.mask).any()
    for bias, cut in zip(biases, cuts, strict=True):
        alone = min_cut(unary - torch.tensor([0.0, bias]).view(2, 1, 1), pairwise)
        assert torch.equal(alone.mask, cut.mask)
        assert cut.flow == pytest.approx(alone.flow, abs=1e-9)


def test_a_sweep_with_forbidden_labels_and_negative_biases():
    unary, pairwise = scene(9, 8, 3)
    unary[1, 0], unary[0, 8, 3] = torch.inf, torch.inf
    biases = [-1e4, -2.0, 0.0, 2.0, 1e4]
    cuts = parametric_cuts(unary, pairwise, biases)
    for bias, cut in zip(biases, cuts, strict=True):
        assert not cut.mask[0].any() and cut.mask[8, 3]
        alone = min_cut(unary - torch.tensor([0.0, bias]).view(2, 1, 1), pairwise)
        assert torch.equal(alone.mask, cut.mask) and cut.flow == pytest.approx(alone.flow, abs=1e-9)
    assert cuts[0].mask.sum() == 1 and cuts[-1].mask[1:].all()


def test_contrast_weights_by_hand():
    image = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    right, down, diagonal, other = contrast_weights(image, gamma=2.0)
    # contrasts 0, 1 to the right; 0, 1 down; 1 and 0 along the diagonals: mean 1/2, beta 1
    fall = torch.tensor(-1.0).exp().item()
    assert right.flatten().tolist() == pytest.approx([2, 0, 2 * fall, 0])
    assert down.flatten().tolist() == pytest.approx([2, 2 * fall, 0, 0])
    assert diagonal.flatten().tolist() == pytest.approx([2**0.5 * fall, 0, 0, 0])
    assert other.flatten().tolist() == pytest.approx([0, 2**0.5, 0, 0])
    assert contrast_weights(image, neighbours=4).shape == (2, 2, 2)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 6)])
def test_contrast_weights_of_one_colour(shape):
    weights = contrast_weights(torch.full(shape, 0.3), gamma=1.0)
    assert weights.isfinite().all() and set(weights[0].unique().tolist()) <= {0.0, 1.0}


U, P = torch.zeros(2, 4, 5), torch.ones(4, 4, 5)


def at(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed[..., 0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: min_cut(U.int(), P), TypeError, "unary has dtype torch.int32"),
        (lambda: min_cut(U, P.int()), TypeError, "pairwise has dtype torch.int32"),
        (lambda: min_cut(U[:1], P), ValueError, r"unary has shape \(1, 4, 5\)"),
        (lambda: min_cut(U, P[:3]), ValueError, r"pairwise has shape \(3, 4, 5\)"),
        (lambda: min_cut(U, P[:, :3]), ValueError, r"pairwise has shape \(4, 3, 5\)"),
        (lambda: min_cut(at(U, torch.nan), P), ValueError, "unary has NaN"),
        (lambda: min_cut(at(U, torch.inf), P), ValueError, "two labels are inf"),
        (lambda: min_cut(U, at(P, -1.0)), ValueError, "pairwise contains negative"),
        (lambda: min_cut(U, at(P, torch.nan)), ValueError, "pairwise contains negative values, infinity or NaN"),
        (
            lambda: min_cut(U, 1e13 * P),
            ValueError,
            r"unary and pairwise add up to .*expected at most 2\^53 / scale, 9.007",
        ),
        (lambda: min_cut(U + 1e17, P), ValueError, r"unary and pairwise add up to 4e\+18"),
        (lambda: min_cut(U.double() + 1e308, P), ValueError, "unary and pairwise add up to"),
        (lambda: parametric_cuts(U, P, [0.0, 1e15]), ValueError, r"unary and pairwise add up to 2e\+16"),
        (lambda: min_cut(U, P, scale=0), ValueError, "scale is 0"),
        (lambda: parametric_cuts(U, P, [1.0, 0.0]), ValueError, "biases is"),
        (lambda: parametric_cuts(U, P, []), ValueError, "biases is"),
        (lambda: contrast_weights(P[:3].long()), TypeError, "image has dtype torch.int64"),
        (lambda: contrast_weights(P[:2]), ValueError, "image has shape"),
        (lambda: contrast_weights(at(P[:3], torch.nan)), ValueError, "image has values outside"),
        (lambda: contrast_weights(P[:3], neighbours=6), ValueError, "neighbours is 6"),
        (lambda: contrast_weights(P[:3], gamma=-1), ValueError, "gamma is -1"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_flow_beyond_int32_is_exact():
    unary = torch.zeros(2, 1, 400)
    unary[0, :, ::2], unary[1, :, 1::2] = 1e5, 1e5
    weights = torch.full((4, 1, 400), 1.2e5)
    assert min_cut(unary, weights).flow == min_cut(unary, weights, scale=1).flow == 2e7
    assert min_cut(1e6 * unary.double(), 1e6 * weights.double(), scale=1).flow == 1e6 * 2e7
