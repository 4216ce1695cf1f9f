"""Batch normalisation of one value a channel, and with statistics that stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d as oracle

from segedu.layers.batch_norm import FrozenBatchNorm2d, PooledBatchNorm2d, freeze_batch_norm


def pair() -> tuple[PooledBatchNorm2d, nn.BatchNorm2d]:
    ours, theirs = PooledBatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    state = {"weight": [2.0, 3, 4], "bias": [1.0, 2, 3], "running_mean": [0.5, 1, 2], "running_var": [4.0, 1, 9]}
    for norm in (ours, theirs):
        norm.load_state_dict({k: torch.tensor(v) for k, v in state.items()} | {"num_batches_tracked": torch.tensor(0)})
    return ours, theirs


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (4, 3, 5, 7)])
@pytest.mark.parametrize("training", [True, False])
def test_two_values_and_more_are_normalised_as_torch_does(shape: tuple[int, ...], training: bool) -> None:
    features = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = (norm.train(training) for norm in pair())
    assert torch.equal(ours(features), theirs(features))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_one_value_is_normalised_by_the_running_statistics_and_leaves_them() -> None:
    ours, theirs = pair()
    features = torch.tensor([2.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs.train()(features)
    out = ours.train()(features).flatten()
    expected = torch.tensor([1 + 2 * 2 / 4.00001**0.5, 2 + 3 / 1.00001**0.5, 3 + 4 * 6 / 9.00001**0.5])
    torch.testing.assert_close(out, expected.double(), rtol=0, atol=1e-6)
    assert ours.running_mean.tolist() == [0.5, 1, 2]


def drawn_state(channels: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("weight", "bias", "running_mean", "running_var")
    return {name: 0.5 + torch.rand(channels, generator=generator, dtype=torch.float64) for name in names}


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3])
def test_frozen_equals_torchvision_and_torch_in_evaluation(eps: float) -> None:
    ours = FrozenBatchNorm2d(5, eps).double()
    theirs, plain = oracle(5, eps).double(), nn.BatchNorm2d(5, eps).double().eval()
    state = drawn_state(5)
    ours.load_state_dict(state | {"num_batches_tracked": torch.tensor(7)}, strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(state), plain.load_state_dict(state | {"num_batches_tracked": torch.tensor(7)})
    for shape in ((2, 5, 4, 6), (1, 5, 3, 1), (0, 5, 2, 2)):
        results = []
        for norm in (ours, theirs, plain):
            features = torch.linspace(-2, 3, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
            out = norm(features.requires_grad_())
            results.append((out, *torch.autograd.grad(out.square().sum(), features)))
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
        torch.testing.assert_close(results[0], results[2], rtol=0, atol=1e-12)


def test_frozen_stays_as_it_is_in_training() -> None:
    norm = FrozenBatchNorm2d(3).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    first, second = norm(10 * torch.rand(2, 3, 4, 4)), norm(torch.zeros(2, 3, 4, 4))
    assert first.max() > 1 and not second.any() and not list(norm.parameters())
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    assert repr(norm) == "FrozenBatchNorm2d(3, eps=1e-05)"


def test_freezing_keeps_what_a_network_computes() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, eps=0.1), PooledBatchNorm2d(5))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), inner).double()
    for norm in (net[1], net[3][1], net[3][2]):
        norm.load_state_dict(norm.state_dict() | drawn_state(norm.num_features))
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        expected = net.eval()(images)
        assert freeze_batch_norm(net) is net
        torch.testing.assert_close(net.train()(images), expected, rtol=0, atol=1e-12)
    frozen = [module for module in net.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert [norm.eps for norm in frozen] == [1e-5, 0.1, 1e-5]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_freezing_with_another_eps_and_of_a_layer_itself() -> None:
    norm = freeze_batch_norm(nn.BatchNorm2d(3).eval(), eps=0.0)
    assert isinstance(norm, FrozenBatchNorm2d) and norm.eps == 0 and not norm.training
    with pytest.raises(ValueError, match="eps is -1, expected"):
        freeze_batch_norm(nn.BatchNorm2d(3), eps=-1)
    for options in ({"affine": False}, {"track_running_stats": False}):
        with pytest.raises(ValueError, match="module has BatchNorm2d.* expected affine=True"):
            freeze_batch_norm(nn.Sequential(nn.BatchNorm2d(3, **options)))
