"""Robust T-loss against the density of scipy's multivariate Student-t, and what its tails are for."""

import pytest
import torch
from losses.cases import assert_same, random_maps
from scipy.stats import multivariate_t

from segedu.losses.robust_t import robust_t_loss


def errors_of(z, target, include_background):
    """The vector of an image: truth minus probability of the pixels that count, class by class."""
    p = z.softmax(0)
    parts = [((target == k).double() - p[k])[target != 255] for k in range(0 if include_background else 1, len(p))]
    return torch.cat(parts)


@pytest.mark.parametrize("nu", [0.5, 1.0, 7.0])
@pytest.mark.parametrize("background", [True, False])
def test_equals_scipy(nu, background):
    logits, target = random_maps((2, 3, 4, 5), ignored=0.2)
    values = []
    for z, t in zip(logits, target, strict=True):
        delta = errors_of(z, t, background).numpy()
        values.append(-multivariate_t(shape=torch.eye(len(delta)).numpy(), df=nu).logpdf(delta))
    ours = robust_t_loss(logits, target, nu, include_background=background).item()
    assert ours == pytest.approx(sum(values) / 2, abs=1e-9)
    assert robust_t_loss(logits, target, 1.5 * nu, include_background=background).item() != pytest.approx(ours)
    assert robust_t_loss(logits, target, nu, include_background=not background).item() != pytest.approx(ours)


def test_gradient_is_that_of_the_formula():
    logits, target = random_maps((1, 2, 4, 5), ignored=0.2)
    nu = 2.5

    def by_hand(z):
        delta = errors_of(z[0], target[0], False)
        constant = robust_t_loss(logits, target, nu) - kernel(errors_of(logits[0], target[0], False))
        return kernel(delta) + constant

    def kernel(delta):
        return (nu + len(delta)) / 2 * torch.log(1 + (delta**2).sum() / nu)

    assert_same(lambda z: robust_t_loss(z, target, nu), by_hand, logits)


def test_nu_is_learnt():
    logits, target = random_maps((2, 2, 4, 5))
    nu = torch.tensor([1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n: robust_t_loss(logits, target, n), nu)


def test_wrong_labels_cost_less_and_less():
    """10 and 100 wrong labels of 1000: the squared error grows tenfold, this loss less than fourfold."""
    losses = []
    for wrong in (0, 10, 100):
        target = torch.zeros(1, 1, 1000, dtype=torch.int64)
        target[..., :wrong] = 1
        logits = torch.tensor([1e4, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 1000)
        losses.append(robust_t_loss(logits, target).item())
    assert losses[2] - losses[0] < 4 * (losses[1] - losses[0])


def test_a_million_pixels_in_float32():
    logits = torch.zeros(1, 2, 1000, 1000)
    target = torch.zeros(1, 1000, 1000, dtype=torch.int64)
    exact = robust_t_loss(logits.double(), target).item()
    assert robust_t_loss(logits, target).item() == pytest.approx(exact, rel=1e-6)
