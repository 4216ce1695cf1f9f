"""Normalized cut where the answer is known: rings, groups that are all alike inside, and an image cut by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from skimage import data

from segedu.datasets.shapes import draw_shapes
from segedu.unsupervised.normalized_cut import (
    eigenvectors,
    grid_affinities,
    normalized_cut,
    segment_image,
    token_cut,
)
from segedu.weights import pretrained

WEAK_AFFINITY = 1e-5  # of an edge between patches that are not alike: the epsilon of TokenCut


# --- eigenvectors -----------------------------------------------------------------------------------------------


def ring(nodes: int) -> np.ndarray:
    return np.roll(np.eye(nodes), 1, axis=0) + np.roll(np.eye(nodes), -1, axis=0)


@pytest.mark.parametrize(("nodes", "count"), [(12, 12), (300, 7), (202, 202)])  # dense, sparse, all of a large one
def test_a_ring_has_the_eigenvalues_of_a_cosine(nodes, count):
    """Every node has degree 2: 1 - cos(2 pi k / n), each twice but the first; the first vector is constant."""
    values, vectors = eigenvectors(ring(nodes), count)
    right = sorted(1 - math.cos(2 * math.pi * k / nodes) for k in range(nodes))[:count]
    np.testing.assert_allclose(values, right, rtol=0, atol=1e-9)
    np.testing.assert_allclose(vectors[:, 0], 1 / math.sqrt(2 * nodes), rtol=0, atol=1e-8)
    np.testing.assert_allclose(2 * vectors.T @ vectors, np.eye(count), rtol=0, atol=1e-8)


def test_two_nodes_by_hand():
    """W = [[1, 3], [3, 0]]: degrees 4 and 3. y = (1, 1) / sqrt 7, and D-orthogonal to it (3, -4) / sqrt 84."""
    values, vectors = eigenvectors(np.array([[1.0, 3], [3, 0]]), 2)
    np.testing.assert_allclose(values, [0, 7 / 4], atol=1e-12)  # 3 * 7 = lambda * 4 * 3
    np.testing.assert_allclose(vectors, np.array([[1 / 7**0.5, -3 / 84**0.5], [1 / 7**0.5, 4 / 84**0.5]]), atol=1e-12)


@pytest.mark.parametrize("nodes", [9, 230])
def test_the_element_of_largest_size_is_positive(nodes):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        places = rng.random((nodes, 2))
        weights = np.exp(-((places[:, None] - places) ** 2).sum(axis=2) / 0.1)
        _, vectors = eigenvectors(weights, 6)
        assert (vectors[np.abs(vectors).argmax(axis=0), range(6)] > 0).all()
        assert (-vectors.min(axis=0) > 0.3 * vectors.max(axis=0)).any()  # signs that were free


@pytest.mark.parametrize("nodes", [6, 240])
def test_an_isolated_node_has_an_eigenvalue_0_of_its_own(nodes):
    weights = np.pad(ring(nodes), (0, 2))
    values, vectors = eigenvectors(weights, 4)
    np.testing.assert_allclose(values[:3], 0, atol=1e-9)
    assert values[3] > 1e-5
    degree = np.append(np.full(nodes, 2.0), [1, 1])  # where D is 0 it counts as 1
    np.testing.assert_allclose(vectors.T @ (degree[:, None] * vectors), np.eye(4), atol=1e-8)
    assert np.abs(vectors[-2:, 3]).max() < 1e-8 and np.ptp(vectors[:nodes, :3], axis=0).max() < 1e-8


# --- TokenCut ---------------------------------------------------------------------------------------------------


def by_groups(sizes: list[int]) -> np.ndarray:
    """Which groups are the object, patches of one group being alike and of two groups not: a graph of one node each.

    Within a group y is constant. Then group a has n_a (n_a + w (n - n_a)) of the degrees, and w n_a n_b of the
    weights go from group a to group b.
    """
    n = np.array(sizes, dtype=float)
    between = WEAK_AFFINITY * np.outer(n, n) * (1 - np.eye(len(n)))
    degree = np.diag(n * (n + WEAK_AFFINITY * (n.sum() - n)))
    y = eigh(np.diag(between.sum(axis=1)) - between, degree)[1][:, 1]
    side = y > (n * y).sum() / n.sum()
    return side == side[np.abs(y).argmax()]


def grouped(sizes: list[int], width: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Features (h, w, D) in which groups have the cosine 0.15, below tau; lengths differ. And the groups (h, w)."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).reshape(-1, width)
    directions = np.linalg.cholesky(0.85 * np.eye(len(sizes)) + 0.15)
    return torch.from_numpy(directions[groups] * rng.uniform(0.5, 4, (*groups.shape, 1))), groups


@pytest.mark.parametrize(
    ("sizes", "width"), [([30, 12], 6), ([12, 30], 7), ([20, 7, 9], 9), ([15, 16, 9], 8), ([9, 30, 3, 14], 8)]
)
def test_token_cut_of_groups(sizes, width):
    right = by_groups(sizes)
    for seed in range(6):
        features, groups = grouped(sizes, width, seed)
        found = token_cut(features).numpy()
        np.testing.assert_array_equal(found, right[groups])
        np.testing.assert_array_equal(token_cut(features.flip(-1).float()).numpy(), found)


def test_tau_decides_what_is_alike():
    features, groups = grouped([20, 8], 7, 0)
    assert not token_cut(features, tau=0.1).any()  # 0.15 is above: all alike
    np.testing.assert_array_equal(token_cut(features, tau=0.2).numpy(), groups == 1)


def test_token_cut_of_learned_features_by_another_way():
    """By D^(-1/2) W D^(-1/2) and its second largest eigenvector; on drawn things it finds things."""
    vit, hits = pretrained.load("scenes_vit"), []
    for seed in range(4):
        scene = draw_shapes(seed)
        with torch.no_grad():
            features = vit(scene["image"][None])["patches"][0].permute(1, 2, 0)
        tokens = features.flatten(0, 1).double().numpy()
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        weights = np.where(tokens @ tokens.T > 0.2, 1.0, WEAK_AFFINITY)
        root = np.sqrt(weights.sum(axis=1))
        y = np.linalg.eigh(weights / np.outer(root, root))[1][:, -2] / root
        y *= np.sign(y[np.abs(y).argmax()])
        found = token_cut(features)
        np.testing.assert_array_equal(found.numpy().ravel(), y > y.mean())
        side = scene["image"].shape[1] // features.shape[0]
        thing = torch.nn.functional.avg_pool2d((scene["semantic"] > 0).float()[None], side)[0]
        hits.append(float(thing[found].mean() - thing.mean()))
    assert np.mean(hits) > 0.1  # in the object more of things than elsewhere


# --- a photograph -----------------------------------------------------------------------------------------------


def enlarged_by_hand(labels: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel takes the label with the largest share of the four coarse pixels around its centre."""
    height, width = labels.shape
    fine = np.zeros((height * factor, width * factor), dtype=np.int64)
    for r in range(height * factor):
        for c in range(width * factor):
            y, x = ((k + 0.5) / factor - 0.5 for k in (r, c))
            shares = np.zeros(labels.max() + 1)
            for i, a in ((math.floor(y), 1 - y % 1), (math.floor(y) + 1, y % 1)):
                for j, b in ((math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)):
                    shares[labels[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]] += a * b
            fine[r, c] = np.flatnonzero(shares > shares.max() - 1e-9)[0]
    return fine


@pytest.mark.parametrize(("segments", "limit", "colour_sigma"), [(8, 0.1, 0.1), (3, 0.5, 0.3), (9, 0.02, 0.05)])
def test_a_photograph_coarse_cut_and_enlarged_by_hand(segments, limit, colour_sigma):
    image = torch.from_numpy(data.coffee()[:300:5, 90:490:5].copy()).permute(2, 0, 1).double() / 255  # 60 x 80
    coarse = image.reshape(3, 15, 4, 20, 4).mean(dim=(2, 4))
    labels = normalized_cut(grid_affinities(coarse, colour_sigma=colour_sigma), limit, segments).reshape(15, 20)
    found = segment_image(image, segments, limit, longest=20, colour_sigma=colour_sigma)
    np.testing.assert_array_equal(found.numpy(), enlarged_by_hand(labels, 4))
    assert 1 < found.max() + 1 <= segments
    tall = segment_image(image.mT, segments, limit, longest=20, colour_sigma=colour_sigma)
    turned = normalized_cut(grid_affinities(coarse.mT, colour_sigma=colour_sigma), limit, segments).reshape(20, 15)
    np.testing.assert_array_equal(tall.numpy(), enlarged_by_hand(turned, 4))


def test_a_small_photograph_is_cut_as_it_is():
    image = torch.from_numpy(data.coffee()[:300:20, 90:490:20].copy()).permute(2, 0, 1).double() / 255  # 15 x 20
    labels = normalized_cut(grid_affinities(image), 0.1, 8).reshape(15, 20)
    np.testing.assert_array_equal(segment_image(image, longest=64).numpy(), labels)
    assert labels.max() > 0
