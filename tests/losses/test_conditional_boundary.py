"""Conditional boundary loss pixel by pixel, and what it does to features."""

import pytest
import torch
from losses.cases import assert_same, random_maps

from segedu.losses.conditional_boundary import conditional_boundary_loss


def by_hand(f, fixed, logits, target, window, temperature, pull, push):
    """`fixed` are the features as goals: centres get no gradient."""
    right, half = (logits.argmax(1) == target) & (target != 255), window // 2
    pulled, pushed = [], []
    for b in range(len(f)):
        unit = f[b] / f[b].norm(dim=0)
        goal = fixed[b] / fixed[b].norm(dim=0)
        H, W = target.shape[1:]
        for i, j in ((i, j) for i in range(H) for j in range(W) if target[b, i, j] != 255):
            rows, columns = range(max(0, i - half), min(H, i + half + 1)), range(max(0, j - half), min(W, j + half + 1))
            around = [(y, x) for y in rows for x in columns if (y, x) != (i, j) and target[b, y, x] != 255]
            if all(target[b][q] == target[b, i, j] for q in around):
                continue
            same = [q for q in around if target[b][q] == target[b, i, j] and right[b][q]]
            other = [q for q in around if target[b][q] != target[b, i, j] and right[b][q]]
            if same:
                centre = sum(goal[:, y, x] for y, x in same) / len(same)
                pulled.append(((unit[:, i, j] - centre) ** 2).sum())
            if same and other:
                like = lambda q, i=i, j=j, u=unit: torch.exp(u[:, i, j] @ u[(slice(None), *q)] / temperature)  # noqa: E731
                against = sum(like(q) for q in other)
                pushed.append(sum(-torch.log(like(q) / (like(q) + against)) for q in same) / len(same))
    mean = lambda values: sum(values) / max(len(values), 1)  # noqa: E731
    return pull * mean(pulled) + push * mean(pushed)


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize(("pull", "push"), [(1.0, 0.0), (0.0, 1.0), (0.7, 2.0)])
def test_equals_the_formula(window, pull, push):
    logits, target = random_maps((2, 3, 5, 6), ignored=0.1)
    target[0, :, :3] = 0
    features = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    options = {"window": window, "temperature": 0.5, "pull": pull, "push": push}
    theirs = lambda f: by_hand(f, features, logits, target, **options)  # noqa: E731
    ours = lambda f, **k: conditional_boundary_loss(f, logits, target, **options | k)  # noqa: E731
    assert_same(ours, theirs, features)
    wrongs = [lambda f: ours(f) * (1 + 1e-9), lambda f: ours(f, window=window + 2)]
    wrongs += [lambda f: conditional_boundary_loss(f, -logits, target, **options)]
    wrongs += [lambda f: ours(f, temperature=0.6)] if push else []
    for wrong in wrongs:
        with pytest.raises(AssertionError):
            assert_same(wrong, theirs, features)


def test_only_boundary_pixels_and_their_neighbours_have_a_gradient():
    target = (torch.arange(12) >= 6).long().expand(1, 4, 12)
    logits = torch.stack([1.0 - target, 1.0 * target], dim=1)
    features = torch.randn(1, 3, 4, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = conditional_boundary_loss(features, logits, target, window=3)
    (gradient,) = torch.autograd.grad(loss, features)
    assert torch.equal(gradient.abs().sum((0, 1, 2)) > 0, (torch.arange(12) >= 4) & (torch.arange(12) < 8))


def test_wrong_pixels_take_no_part():
    target = (torch.arange(12) >= 6).long().expand(1, 4, 12)
    features = torch.randn(1, 3, 4, 12, generator=torch.Generator().manual_seed(0))
    wrong = torch.stack([1.0 * target, 1.0 - target], dim=1)
    assert conditional_boundary_loss(features, wrong, target).item() == 0


def test_training_draws_classes_apart():
    target = (torch.arange(12) >= 6).long().expand(1, 6, 12)
    logits = torch.stack([1.0 - target, 1.0 * target], dim=1)
    features = torch.randn(1, 3, 6, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([features], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        conditional_boundary_loss(features, logits, target).backward()
        optimiser.step()
    unit = torch.nn.functional.normalize(features.detach(), dim=1)[0]
    left, right = unit[:, :, 5], unit[:, :, 6]  # both sides of the edge
    assert (left[:, 1:] * left[:, :-1]).sum(0).mean() > 0.5  # neighbours of one class
    assert (left * right).sum(0).mean() < -0.2  # neighbours of two classes
