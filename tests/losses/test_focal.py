"""Focal loss against torchvision (sigmoid) and MONAI (softmax), by hand, and where the power has no slope."""

import math

import pytest
import torch
import torchvision
from losses.cases import SHAPES, VOLUME, assert_same, one_hot, random_maps
from monai.losses import FocalLoss

from segedu.losses.cross_entropy import binary_cross_entropy, cross_entropy
from segedu.losses.focal import focal_loss, sigmoid_focal_loss


def compare_sigmoid(ours):
    for shape in [(2, 6, 8), (7, 3), (5,)]:
        generator = torch.Generator().manual_seed(1)
        logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        hard = torch.randint(2, shape, generator=generator)
        soft = torch.rand(shape, generator=generator, dtype=torch.float64)
        for target in (hard, soft):
            for alpha, gamma, reduction in [(0.25, 2, "mean"), (0.6, 1.5, "sum"), (None, 3, "none"), (1, 0, "mean")]:
                options = {"gamma": gamma, "reduction": reduction}
                assert_same(
                    lambda z, t=target, a=alpha, o=options: ours(z, t, alpha=a, **o),
                    lambda z, t=target, a=alpha, o=options: torchvision.ops.sigmoid_focal_loss(
                        z, t.double(), alpha=-1 if a is None else a, **o
                    ),
                    logits,
                )


def by_monai(logits, target, gamma, class_weights, reduction):
    """Computes in float32, whatever it is given."""
    loss = FocalLoss(use_softmax=True, gamma=gamma, weight=class_weights, reduction="none")
    each = loss(logits, one_hot(target, logits.shape[1])).sum(1)  # its other classes are 0
    weights = torch.ones_like(each) if class_weights is None else class_weights[target]
    return {"none": each, "sum": each.sum(), "mean": each.sum() / weights.sum()}[reduction]


def by_hand(logits, target, gamma, class_weights, reduction):
    """Pixel by pixel."""
    each, weights = [], []
    for scores, true in zip(logits.movedim(1, -1).reshape(-1, logits.shape[1]), target.flatten(), strict=True):
        p = scores.exp()[true] / scores.exp().sum()
        weights.append(1.0 if class_weights is None else class_weights[true].item())
        each.append(-weights[-1] * (1 - p) ** gamma * p.log())
    total = sum(each)
    return {"none": torch.stack(each).reshape(target.shape), "sum": total, "mean": total / sum(weights)}[reduction]


def compare_softmax(ours, theirs=by_monai, atol=2e-6):
    for shape in [*SHAPES, VOLUME]:
        logits, target = random_maps(shape)
        weights = torch.linspace(0.3, 2, shape[1], dtype=torch.float64)
        for gamma, alpha, reduction in [(2.0, None, "mean"), (0.5, weights, "mean"), (3.0, weights, "none")]:
            options = {"gamma": gamma, "class_weights": alpha, "reduction": reduction}
            assert_same(
                lambda z, t=target, o=options: ours(z, t, **o),
                lambda z, t=target, o=options: theirs(z, t, **o),
                logits,
                atol,
            )


def test_sigmoid_equals_torchvision():
    compare_sigmoid(sigmoid_focal_loss)


def test_softmax_equals_monai():
    compare_softmax(focal_loss)


def test_softmax_equals_the_formula():
    compare_softmax(focal_loss, by_hand, 1e-12)


def exponent_lost(z, t, alpha, gamma, **k):
    """The slip of print: (1 - p) γ α instead of a power."""
    p_t = torch.where(t > 0.5, z.sigmoid(), 1 - z.sigmoid())
    each = gamma * (1 - p_t) * binary_cross_entropy(z, t, reduction="none") * (alpha or 1)
    return each.mean()


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: sigmoid_focal_loss(z, t, **k) * (1 + 1e-9),
        lambda z, t, alpha, **k: sigmoid_focal_loss(z, t, alpha=1 - (alpha or 0), **k),
        lambda z, t, gamma, **k: sigmoid_focal_loss(z, t, gamma=gamma + 1e-6, **k),
        lambda z, t, **k: sigmoid_focal_loss(z, (t > 0.5).long(), **k),
        exponent_lost,
    ],
)
def test_comparison_with_torchvision_refuses(perturbed):
    with pytest.raises(AssertionError):
        compare_sigmoid(perturbed)


@pytest.mark.parametrize(
    "perturbed",
    [
        lambda z, t, **k: focal_loss(z, t, **k) * (1 + 1e-4),
        lambda z, t, class_weights, **k: focal_loss(z, t, **k),
        lambda z, t, gamma, **k: focal_loss(z, t, gamma=2.0, **k),
        lambda z, t, **k: focal_loss(z.softmax(1), t, **k),
        lambda z, t, **k: focal_loss(z.detach(), t, **k) + 0 * z.sum(),
    ],
)
def test_comparison_with_monai_refuses(perturbed):
    with pytest.raises(AssertionError):
        compare_softmax(perturbed)


def test_gamma_0_is_cross_entropy():
    logits, target = random_maps((2, 3, 6, 8), ignored=0.2)
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        options = {"class_weights": weights, "reduction": reduction}
        assert_same(
            lambda z, o=options: focal_loss(z, target, gamma=0, **o),
            lambda z, o=options: cross_entropy(z, target, **o),
            logits,
        )
    binary = torch.where(target == 255, 255, target % 2)
    assert_same(
        lambda z: sigmoid_focal_loss(z, binary, alpha=None, gamma=0),
        lambda z: binary_cross_entropy(z, binary),
        logits[:, 0],
    )


def test_a_hundred_times_smaller_where_nine_tenths_sure():
    logits = torch.tensor([math.log(9), 0.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    assert focal_loss(logits, target).item() == pytest.approx(-0.01 * math.log(0.9), abs=1e-15)
    assert cross_entropy(logits, target).item() == pytest.approx(-math.log(0.9), abs=1e-15)


def test_two_classes_with_one_score_fixed_is_the_sigmoid():
    z, target = torch.randn(2, 4, 5, dtype=torch.float64), torch.randint(2, (2, 4, 5))
    two = torch.stack([torch.zeros_like(z), z], dim=1)
    torch.testing.assert_close(sigmoid_focal_loss(z, target, alpha=None), focal_loss(two, target))
    alpha = torch.tensor([0.75, 0.25], dtype=torch.float64)
    torch.testing.assert_close(
        sigmoid_focal_loss(z, target, reduction="sum"), focal_loss(two, target, class_weights=alpha, reduction="sum")
    )


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_slope_is_finite_where_the_power_is_of_nothing(gamma):
    for size in (1e4, 1e2, 0.0):
        z = torch.tensor([size, -size], requires_grad=True)
        loss = sigmoid_focal_loss(z, torch.tensor([1, 0]), gamma=gamma)
        assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()
        z = torch.tensor([size, 0.0, -size]).reshape(1, 3, 1, 1).requires_grad_()
        for true in range(3):
            loss = focal_loss(z, torch.full((1, 1, 1), true), gamma=gamma)
            assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_gradcheck(gamma):
    logits, target = random_maps((2, 3, 3, 2), ignored=0.2)
    options = {"gamma": gamma, "class_weights": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)}
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, target, **options), logits.requires_grad_())
    binary = torch.where(target == 255, 255, target % 2)
    z = logits[:, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sigmoid_focal_loss(z, binary, gamma=gamma), z)
