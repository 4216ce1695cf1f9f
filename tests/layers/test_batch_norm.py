"""Batch normalisation of one value a channel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segedu.layers.batch_norm import PooledBatchNorm2d


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
