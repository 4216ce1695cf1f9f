"""Soft counts against sums over one-hot maps."""

import pytest
import torch
from losses.cases import SHAPES, VOLUME, assert_same, one_hot, random_maps

from segedu.losses.overlap import class_probabilities, mean_over_classes, power_from_zero, ratio_or_one, soft_counts


def test_soft_counts_are_sums():
    for shape in [*SHAPES, VOLUME]:
        logits, target = random_maps(shape, ignored=0.2)
        y, counted = one_hot(target, shape[1]), (target != 255)[:, None]
        space = tuple(range(2, len(shape)))
        for per_image, axes in ((True, space), (False, (0, *space))):

            def by_hand(z, y=y, counted=counted, axes=axes):
                p = z.softmax(1)
                parts = (y * p, (1 - y) * p * counted, y * (1 - p))
                return torch.stack([part.sum(axes).reshape(-1, z.shape[1]) for part in parts])

            assert_same(lambda z, t=target, i=per_image: torch.stack(soft_counts(z, t, 255, i)), by_hand, logits)


def test_counts_are_never_negative():
    logits = 20 * torch.randn(2, 5, 50, 50, generator=torch.Generator().manual_seed(0))
    for count in soft_counts(logits, logits.argmax(1)):
        assert (count >= 0).all()


def test_class_probabilities():
    logits, target = random_maps((2, 3, 4, 5), ignored=0.3)
    p, y = class_probabilities(logits, target, 255)
    torch.testing.assert_close(y, one_hot(target, 3).flatten(2))
    torch.testing.assert_close(p, (logits.softmax(1) * (target != 255)[:, None]).flatten(2))


def test_nothing_there_and_nothing_predicted_is_perfect():
    x = torch.zeros(2, requires_grad=True)
    value = ratio_or_one(2 * x, x)
    assert value.tolist() == [1, 1]
    assert torch.autograd.grad(value.sum(), x)[0].tolist() == [0, 0]


def test_mean_over_classes():
    loss = torch.tensor([[0.0, 1.0, 4.0], [2.0, 3.0, 6.0]])
    assert mean_over_classes(3 * loss).item() == 8
    assert mean_over_classes(loss, include_background=False).item() == 14 / 4
    weights = torch.tensor([0.0, 1.0, 3.0])
    assert mean_over_classes(loss, class_weights=weights).item() == (4 + 30) / 8
    assert mean_over_classes(loss, class_weights=0 * weights).item() == 0


def test_power_from_zero():
    x = torch.tensor([0.0, 4.0, 1e-30], requires_grad=True)
    value = power_from_zero(x, 0.5)
    assert value.tolist() == pytest.approx([0, 2, 1e-15])
    assert torch.autograd.grad(value.sum(), x)[0].tolist() == pytest.approx([0, 0.25, 5e14])
