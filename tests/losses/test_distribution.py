"""Top-k and distance-map cross-entropy against the formula, pixel by pixel."""

import math

import pytest
import torch
from losses.cases import SHAPES, VOLUME, assert_same, random_maps

from segedu.losses.cross_entropy import cross_entropy
from segedu.losses.distribution import boundary_nearness, distance_map_cross_entropy, top_k_loss


def entropies(logits, target, class_weights):
    """(loss, weight) of the pixels that count, in order."""
    for scores, true in zip(logits.movedim(1, -1).reshape(-1, logits.shape[1]), target.flatten().tolist(), strict=True):
        if true != 255:
            weight = 1.0 if class_weights is None else class_weights[true].item()
            yield -torch.log(scores.exp()[true] / scores.exp().sum()), weight


def top_k_by_hand(logits, target, k, class_weights=None):
    losses = sorted((weight * loss for loss, weight in entropies(logits, target, class_weights)), reverse=True)
    kept = losses[: max(1, math.floor(len(losses) * k / 100))]
    return sum(kept) / len(kept)


def compare_top_k(ours):
    for shape in [*SHAPES, VOLUME]:
        logits, target = random_maps(shape, ignored=0.2)
        weights = torch.linspace(0.3, 2, shape[1], dtype=torch.float64)
        for k, class_weights in [(10, None), (37.5, weights), (100, None), (0.01, weights)]:
            assert_same(
                lambda z, t=target, k=k, w=class_weights: ours(z, t, k=k, class_weights=w),
                lambda z, t=target, k=k, w=class_weights: top_k_by_hand(z, t, k, w),
                logits,
            )


def test_top_k_equals_the_formula():
    compare_top_k(top_k_loss)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: top_k_loss(z, t, **k) * (1 + 1e-9),
        lambda z, t, k, **more: top_k_loss(z, t, k=min(100, 2 * k), **more),
        lambda z, t, k, **more: -top_k_loss(-z, t, k=k, **more),
        lambda z, t, class_weights, **k: top_k_loss(z, t, **k),
    ],
)
def test_comparison_refuses_another_top_k(perturbed):
    with pytest.raises(AssertionError):
        compare_top_k(perturbed)


def test_all_pixels_are_cross_entropy():
    logits, target = random_maps((2, 3, 6, 8), ignored=0.2)
    torch.testing.assert_close(top_k_loss(logits, target, k=100), cross_entropy(logits, target))


def nearness_by_hand(target):
    """Loops over all pairs of pixels."""
    places = [tuple(place) for place in torch.ones_like(target).nonzero().tolist()]
    nearness = torch.zeros(target.shape, dtype=torch.float64)
    distance = {}
    for place in places:
        others = [p for p in places if p[0] == place[0] and target[p] not in (255, target[place])]
        if target[place] != 255 and others:
            distance[place] = min(math.dist(place, other) for other in others)
    for place, d in distance.items():
        same = [v for p, v in distance.items() if p[0] == place[0] and target[p] == target[place]]
        nearness[place] = max(same) - d
    return nearness


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 2, 9, 5), (1, 3, 3, 5, 4)])
def test_distance_map_equals_the_formula(shape):
    logits, target = random_maps(shape, ignored=0.1)
    target[..., :3] = torch.where(target[..., :3] == 255, 255, 0)  # a region that is deeper than a pixel
    near = nearness_by_hand(target)
    torch.testing.assert_close(boundary_nearness(target, shape[1], target != 255), near)
    assert near.max() > 1
    weights = torch.linspace(0.3, 2, shape[1], dtype=torch.float64)
    for class_weights in (None, weights):

        def by_hand(z, class_weights=class_weights):
            each = list(entropies(z, target, class_weights))
            factors = 1 + near[target != 255]
            return sum(f * w * loss for f, (loss, w) in zip(factors, each, strict=True)) / sum(w for _, w in each)

        assert_same(lambda z, w=class_weights: distance_map_cross_entropy(z, target, class_weights=w), by_hand, logits)
        with pytest.raises(AssertionError):
            assert_same(lambda z, w=class_weights: cross_entropy(z, target, class_weights=w), by_hand, logits)


def test_one_class_has_no_boundary():
    logits, _ = random_maps((1, 2, 4, 4))
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    torch.testing.assert_close(distance_map_cross_entropy(logits, target), cross_entropy(logits, target))
