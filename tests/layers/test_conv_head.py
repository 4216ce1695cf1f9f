"""The head of two convolutions against torchvision's."""

from __future__ import annotations

import pytest
import torch
from randomise import randomise
from torchvision.models.segmentation.fcn import FCNHead

from segedu.layers.conv import conv_head


@pytest.mark.parametrize("size", [(8, 12), (5, 7)])
def test_parity_with_torchvision(size: tuple[int, int]) -> None:
    ours, theirs = randomise(conv_head(16, 4, 5)), FCNHead(16, 5).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    features = torch.rand(2, 16, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), rtol=0, atol=1e-12)


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="num_classes is 0, expected"):
        conv_head(4, 4, 0)
    with pytest.raises(ValueError, match="width is 0, expected"):
        conv_head(4, 0, 3)


def test_a_quarter_of_the_channels_and_one_at_least() -> None:
    assert conv_head(16, None, 5)[0].out_channels == 4 and conv_head(3, None, 5)[0].out_channels == 1
