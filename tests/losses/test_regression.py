"""L1, L2 and smooth L1 against torch (value and gradient), with weights."""

import pytest
import torch
import torch.nn.functional as F
from losses.cases import assert_same

from segedu.losses.regression import l1_loss, l2_loss, smooth_l1_loss

GENERATOR = torch.Generator().manual_seed(0)
PREDS = 3 * torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
TARGET = 3 * torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
WEIGHTS = torch.rand(4, 5, generator=GENERATOR, dtype=torch.float64)
PAIRS = [
    (l1_loss, F.l1_loss, {}),
    (l2_loss, F.mse_loss, {}),
    *((smooth_l1_loss, F.smooth_l1_loss, {"beta": beta}) for beta in (0, 0.3, 1, 5)),
]


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_equals_torch(ours, theirs, options):
    for reduction in ("none", "mean", "sum"):
        peer = lambda z, r=reduction: theirs(z, TARGET, reduction=r, **options)  # noqa: E731
        assert_same(lambda z, r=reduction: ours(z, TARGET, reduction=r, **options), peer, PREDS)
        with pytest.raises(AssertionError):
            assert_same(lambda z, r=reduction: ours(z, TARGET + 1e-6, reduction=r, **options), peer, PREDS)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_weights(ours, theirs, options):
    each = theirs(PREDS, TARGET, reduction="none", **options)
    weights = torch.where(WEIGHTS < 0.3, 0.0, WEIGHTS)
    unknown = torch.where(weights == 0, torch.nan, TARGET)  # what does not count may be anything
    value = ours(PREDS, unknown, weights=weights, **options)
    torch.testing.assert_close(value, (weights * each).sum() / weights.sum())
    z = PREDS.clone().requires_grad_()
    gradient = torch.autograd.grad(ours(z, unknown, weights=weights, **options), z)[0]
    assert (gradient[weights == 0] == 0).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_gradcheck_and_huge_numbers(ours, theirs, options):
    assert torch.autograd.gradcheck(
        lambda z: ours(z, TARGET, weights=WEIGHTS, **options), PREDS.clone().requires_grad_()
    )
    z = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    value = ours(z, torch.zeros(3), **options)
    assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, z)[0]).all()


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_symmetry(ours, theirs, options):
    torch.testing.assert_close(ours(PREDS, TARGET, **options), ours(TARGET, PREDS, **options))
    assert ours(PREDS, PREDS.clone(), **options).item() == 0
