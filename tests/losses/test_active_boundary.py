"""Active boundary loss pixel by pixel, and which way it pushes a boundary."""

import math

import pytest
import torch
from losses.cases import assert_same, random_maps

from segedu.losses.active_boundary import (
    NEIGHBOURS,
    active_boundary_loss,
    distance_to_boundary,
    neighbour_divergence,
    predicted_boundary,
)


def divergence(p, q):
    return (p * (p / q).log()).sum()


def by_hand(z, target, boundary_fraction, max_distance, smoothing, fixed):
    """`fixed` holds the probabilities of neighbours: theirs get no gradient."""
    p, count, total = z.softmax(1), 0, 0.0
    for image, other, truth in zip(p, fixed, target, strict=True):
        H, W = truth.shape
        counted = [(i, j) for i in range(H) for j in range(W) if truth[i, j] != 255]
        right_and_below = lambda i, j, ok=counted: [q for q in ((i, j + 1), (i + 1, j)) if q in ok]  # noqa: E731
        at_edge = [(i, j) for i, j in counted if any(truth[q] != truth[i, j] for q in right_and_below(i, j))]
        if not at_edge:
            continue
        distance = {place: min(math.dist(place, e) for e in at_edge) for place in counted}
        strength = {}
        for i, j in counted:
            found = [divergence(other[:, i, j], other[(slice(None), *q)]).item() for q in right_and_below(i, j)]
            strength[i, j] = max(found, default=0.0)
        kept = max(1, int(boundary_fraction * len(counted)))
        threshold = sorted(strength.values(), reverse=True)[kept - 1]
        for i, j in counted:
            around = [(i + dy, j + dx) for dy, dx in NEIGHBOURS if (i + dy, j + dx) in counted]
            if not around or strength[i, j] < threshold or strength[i, j] == 0:
                continue
            scores = torch.stack([divergence(image[:, i, j], other[(slice(None), *q)]) for q in around])
            log_q = scores.log_softmax(0)
            best = min(range(len(around)), key=lambda n: distance[around[n]])
            s = smoothing if len(around) > 1 else 0
            truth_q = torch.full_like(log_q, s / max(len(around) - 1, 1))
            truth_q[best] = 1 - s
            total = total - min(distance[i, j], max_distance) / max_distance * (truth_q * log_q).sum()
            count += 1
    return total / max(count, 1)


CHOICES = [
    {"boundary_fraction": 0.3, "max_distance": 20.0, "smoothing": 0.2},
    {"boundary_fraction": 0.01, "max_distance": 1.5, "smoothing": 0.0},
    {"boundary_fraction": 1.0, "max_distance": 3.0, "smoothing": 0.5},
]


@pytest.mark.parametrize("options", CHOICES)
def test_equals_the_formula(options):
    logits, target = random_maps((2, 3, 5, 6), seed=4, ignored=0.1)
    target = torch.where(target == 255, 255, 0)
    target[0, :, 0] = target[1, 4] = 1  # edges far away from most pixels
    fixed = logits.softmax(1)
    theirs = lambda z: by_hand(z, target, fixed=fixed, **options)  # noqa: E731
    assert_same(lambda z: active_boundary_loss(z, target, **options), theirs, logits)
    whole = lambda z: active_boundary_loss(z, target, detach_neighbours=False, **options)  # noqa: E731
    assert whole(logits).item() == pytest.approx(theirs(logits).item())
    for wrong in (whole, lambda z: active_boundary_loss(z, target, **options | {"max_distance": 2.5})):
        with pytest.raises(AssertionError):
            assert_same(wrong, theirs, logits)


def step_image(column, width=12, height=5):
    """Foreground right of a column, as a map of classes."""
    return (torch.arange(width) >= column).long().expand(1, height, width).clone()


def soft_logits(classes, size=2.0):
    return size * torch.nn.functional.one_hot(classes, 2).movedim(-1, 1).double()


def test_no_loss_where_both_boundaries_are():
    target = step_image(6)
    assert active_boundary_loss(soft_logits(target), target, boundary_fraction=0.08).item() == 0


@pytest.mark.parametrize("predicted", [3, 9])
def test_pushes_the_boundary_towards_the_true_one(predicted):
    """Steps along the gradient alone bring the divergence of boundary pixels nearer to the true edge."""
    target, logits = step_image(6), soft_logits(step_image(predicted)).requires_grad_()
    near = (predicted, predicted + 1) if predicted < 6 else (predicted - 2, predicted - 1)
    before = (logits[0, 1, 2, near[1]] - logits[0, 1, 2, near[0]]).item()
    loss = active_boundary_loss(logits, target, boundary_fraction=0.08)
    (gradient,) = torch.autograd.grad(loss, logits)
    at_boundary = predicted - 1  # the last pixel of background differs from its right neighbour
    assert gradient[0, :, :, at_boundary].abs().max() > 0
    assert before == 0 and loss.item() > 0
    moved = active_boundary_loss(logits - 5 * gradient, target, boundary_fraction=0.08)
    assert moved < loss


def test_distance_to_boundary():
    target = step_image(2, width=5, height=1)
    assert distance_to_boundary(target, torch.ones(1, 1, 5).bool()).tolist() == [[[1, 0, 1, 2, 3]]]
    assert distance_to_boundary(0 * target, torch.ones(1, 1, 5).bool()).isinf().all()
    hidden = torch.tensor([[[True, False, True, True, True]]])
    assert distance_to_boundary(target, hidden).isinf().all()  # the edge lies behind an ignored pixel


def test_predicted_boundary_keeps_its_share():
    logits, _ = random_maps((2, 3, 10, 10))
    everywhere = torch.ones(2, 10, 10).bool()
    divergences, _ = neighbour_divergence(logits.log_softmax(1), everywhere)
    for boundary_fraction, kept in (
        (0.01, 1),
        (0.1, 10),
        (0.999, 99),
        (1.0, 99),
    ):  # the last corner has no neighbour to differ from
        assert predicted_boundary(divergences, everywhere, boundary_fraction).sum((1, 2)).tolist() == [kept, kept]
