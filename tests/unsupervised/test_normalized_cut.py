"""Normalized cut against dense solvers, scikit-learn, scikit-image, all splits of a tiny graph, and closed forms."""

from __future__ import annotations

import itertools
import math

import networkx
import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import eigh
from skimage import data
from skimage.graph._ncut import DW_matrices, ncut_cost
from sklearn.cluster import spectral_clustering
from sklearn.manifold import spectral_embedding

from segedu.unsupervised import normalized_cut as cut_file
from segedu.unsupervised.normalized_cut import (
    best_threshold,
    eigenvectors,
    grid_affinities,
    ncut_value,
    normalized_cut,
    segment_image,
    token_cut,
)


def photo(height: int, width: int) -> torch.Tensor:
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 255
    return torch.nn.functional.interpolate(image.double(), (height, width), mode="area")[0]


def random_graph(nodes: int, seed: int) -> np.ndarray:
    weights = np.triu(np.random.default_rng(seed).random((nodes, nodes)), 1)
    weights *= weights > 0.4
    return weights + weights.T


def by_loops(weights: np.ndarray, labels: list[int]) -> float:
    nodes, total = range(len(labels)), 0.0
    for segment in set(labels):
        own = [i for i in nodes if labels[i] == segment]
        cut = sum(weights[i, j] for i in own for j in nodes if labels[j] != segment)
        assoc = sum(weights[i, j] for i in own for j in nodes)
        total += cut / assoc if assoc else 0.0
    return total


def blocks(sizes=(4, 5), bridge=0.01) -> np.ndarray:
    """Groups in which all weights are 1, in a chain of weak bridges."""
    weights = np.zeros((sum(sizes), sum(sizes)))
    start = 0
    for size in sizes:
        weights[start : start + size, start : start + size] = 1 - np.eye(size)
        start += size
        if start < sum(sizes):
            weights[start - 1, start] = weights[start, start - 1] = bridge
    return weights


@pytest.mark.parametrize(("height", "width"), [(3, 4), (1, 6), (7, 5)])
def test_affinities_by_loops(height, width):
    image = photo(height, width)
    weights = grid_affinities(image, radius=2.5, colour_sigma=0.2, position_sigma=3.0).toarray()
    pixels = list(itertools.product(range(height), range(width)))
    for (a, p), (b, q) in itertools.product(enumerate(pixels), repeat=2):
        far = math.dist(p, q)
        alike = float((image[:, *p] - image[:, *q]).square().sum())
        expected = math.exp(-alike / 0.04 - far**2 / 9) if 0 < far < 2.5 else 0.0
        assert weights[a, b] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("segments", [1, 2, 3, 5])
def test_ncut_value_by_loops(segments):
    for seed in range(5):
        weights = random_graph(9, seed)
        labels = np.random.default_rng(seed).integers(0, segments, 9)
        expected = by_loops(weights, labels.tolist())
        for given in (weights, sparse.csr_array(weights), torch.from_numpy(weights)):
            assert ncut_value(given, labels) == pytest.approx(expected, abs=1e-12)


def test_ncut_value_is_scikit_images():
    weights = random_graph(10, 3)
    graph = networkx.Graph()
    graph.add_weighted_edges_from((i, j, weights[i, j]) for i, j in zip(*np.nonzero(np.triu(weights)), strict=True))
    order = list(graph.nodes)
    mask = np.random.default_rng(0).random(10) > 0.5
    d, w = DW_matrices(graph)
    assert ncut_value(weights, mask.astype(int)) == pytest.approx(ncut_cost(mask[order], d, w), abs=1e-12)


def test_isolated_nodes_cost_nothing():
    weights = np.pad(blocks(), (0, 1))
    labels = np.array([0] * 4 + [1] * 5 + [2])
    assert ncut_value(weights, labels) == pytest.approx(ncut_value(blocks(), labels[:-1]))
    assert ncut_value(np.zeros((3, 3)), np.array([0, 1, 2])) == 0.0
    assert ncut_value(weights, np.zeros(10, int)) == 0.0


@pytest.mark.parametrize(("height", "width"), [(6, 9), (23, 17)])  # dense and sparse solver
def test_eigenvalues_are_the_dense_solvers(height, width):
    weights = grid_affinities(photo(height, width), radius=3)
    values, vectors = eigenvectors(weights, 5)
    dense = weights.toarray()
    degree = np.diag(dense.sum(axis=1))
    np.testing.assert_allclose(values, eigh(degree - dense, degree, eigvals_only=True)[:5], atol=1e-8)
    np.testing.assert_allclose((degree - dense) @ vectors, degree @ vectors * values, atol=1e-6)
    np.testing.assert_allclose(vectors.T @ degree @ vectors, np.eye(5), atol=1e-6)
    again = eigenvectors(weights, 5)[1]
    np.testing.assert_array_equal(vectors, again)


def test_second_vector_is_scikit_learns():
    weights = grid_affinities(photo(8, 7), radius=3)
    peer = spectral_embedding(weights.toarray(), n_components=1, eigen_solver="arpack", random_state=0)[:, 0]
    ours = eigenvectors(weights, 2)[1][:, 1]
    assert abs(np.corrcoef(ours, peer)[0, 1]) == pytest.approx(1, abs=1e-6)


def test_eigenvalue_parity_fails_when_perturbed(monkeypatch):
    weights = grid_affinities(photo(23, 17), radius=3)
    before = eigenvectors(weights, 5)[0]
    monkeypatch.setattr(cut_file, "SHIFT", 0.5)  # the shift only says where to look: the values must stay
    np.testing.assert_allclose(eigenvectors(weights, 5)[0], before, atol=1e-6)
    other = eigenvectors(grid_affinities(photo(23, 17), radius=3, colour_sigma=0.11), 5)[0]
    assert np.abs(other - before).max() > 1e-6


@pytest.mark.parametrize("sizes", [(4, 5), (3, 4, 6), (30, 40, 50)])
def test_segments_are_scikit_learns(sizes):
    weights = blocks(sizes)
    ours = normalized_cut(weights, limit=0.5, segments=len(sizes))
    truth = np.repeat(np.arange(len(sizes)), sizes)
    np.testing.assert_array_equal(ours, truth)
    peer = spectral_clustering(weights, n_clusters=len(sizes), random_state=0)
    assert len(set(zip(ours.tolist(), peer.tolist(), strict=True))) == len(sizes)
    np.testing.assert_array_equal(normalized_cut(weights, limit=0.5), truth)  # and the limit stops by itself


def test_no_split_of_a_tiny_graph_is_better():
    weights = blocks((3, 5), bridge=0.3)
    splits = [list(labels) for labels in itertools.product([0, 1], repeat=8) if 0 < sum(labels) < 8]
    mask, value = best_threshold(sparse.csr_array(weights), eigenvectors(weights, 2)[1][:, 1])
    assert value == pytest.approx(min(by_loops(weights, labels) for labels in splits))
    assert value == pytest.approx(ncut_value(weights, mask.astype(int)))


def test_parts_without_a_bridge_and_isolated_nodes_come_apart_first():
    weights = np.pad(blocks((3, 4), bridge=0.0), (0, 1))
    np.testing.assert_array_equal(normalized_cut(weights, limit=0.0), [0, 0, 0, 1, 1, 1, 1, 2])


def test_limit_segments_and_smallest():
    weights = blocks((4, 5))
    assert normalized_cut(weights, limit=0.0).max() == 0
    assert normalized_cut(weights, limit=np.inf, segments=1).max() == 0
    assert normalized_cut(weights, limit=np.inf, segments=2).max() == 1
    assert normalized_cut(weights, limit=np.inf).max() == 8
    assert normalized_cut(weights, limit=np.inf, smallest=5).max() == 0
    np.testing.assert_array_equal(normalized_cut(np.zeros((1, 1))), [0])


def test_segment_image_of_two_halves_one_colour_and_one_pixel():
    image = torch.zeros(3, 150, 200)
    image[:, :, 100:] = 1.0
    labels = segment_image(image, segments=2)
    assert labels.shape == (150, 200) and labels.dtype == torch.int64
    assert (labels[:, :98] == 0).all() and (labels[:, 102:] == 1).all()
    assert segment_image(torch.full((3, 20, 20), 0.5), limit=0.01).max() == 0
    assert segment_image(torch.full((3, 1, 1), 0.5)).tolist() == [[0]]


def test_token_cut_finds_the_object_and_does_not_depend_on_scale():
    generator = torch.Generator().manual_seed(0)
    back, front = torch.eye(8)[0], torch.eye(8)[1]
    features = back.repeat(9, 11, 1)
    features[2:6, 3:7] = front
    features = features + 0.05 * torch.randn(9, 11, 8, generator=generator)
    expected = torch.zeros(9, 11, dtype=torch.bool)
    expected[2:6, 3:7] = True
    assert torch.equal(token_cut(features), expected)
    assert torch.equal(token_cut(7 * features.double()), expected)


def test_token_cut_of_one_patch_and_of_patches_all_alike():
    assert token_cut(torch.ones(1, 1, 4)).tolist() == [[False]]
    assert not token_cut(torch.ones(3, 4, 5)).any()
    assert not token_cut(torch.zeros(3, 4, 5)).any()


W, I = blocks(), torch.full((3, 4, 5), 0.5)
NAN = torch.full((3, 4, 5), torch.nan)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: grid_affinities(I.int()), TypeError, "image has dtype torch.int32"),
        (lambda: grid_affinities(I[0]), ValueError, r"image has shape \(4, 5\)"),
        (lambda: grid_affinities(NAN), ValueError, "image has the value nan"),
        (lambda: grid_affinities(I, radius=1), ValueError, "radius is 1"),
        (lambda: grid_affinities(I, colour_sigma=0), ValueError, "colour_sigma is 0"),
        (lambda: ncut_value(W, np.zeros(9)), TypeError, "labels has dtype float64"),
        (lambda: ncut_value(W, np.zeros(8, int)), ValueError, "labels has 8 elements, expected 9"),
        (lambda: ncut_value(-W, np.zeros(9, int)), ValueError, "affinities has negative"),
        (lambda: ncut_value(np.triu(W), np.zeros(9, int)), ValueError, "affinities is not symmetric"),
        (lambda: ncut_value(W * np.nan, np.zeros(9, int)), ValueError, "affinities has negative values, NaN"),
        (lambda: normalized_cut(W[:3]), ValueError, r"affinities has shape \(3, 9\)"),
        (lambda: normalized_cut(W, limit=-1), ValueError, "limit is -1"),
        (lambda: normalized_cut(W, segments=0), ValueError, "segments is 0"),
        (lambda: eigenvectors(W, 10), ValueError, "count is 10"),
        (lambda: segment_image(I.int()), TypeError, "image has dtype torch.int32"),
        (lambda: segment_image(I[0]), ValueError, r"image has shape \(4, 5\), expected"),
        (lambda: token_cut(I.int()), TypeError, "features has dtype"),
        (lambda: token_cut(I[0]), ValueError, "features has shape"),
        (lambda: token_cut(NAN), ValueError, "features has the value nan"),
        (lambda: token_cut(I, tau=2), ValueError, "tau is 2"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
