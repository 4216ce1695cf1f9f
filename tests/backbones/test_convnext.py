"""ConvNeXt: its normalisation and its blocks at the start, and what the backbone refuses.

The same numbers as torchvision: test_parity_of_stages.py. What every backbone promises: test_backbones.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from randomise import randomise

from segedu.backbones import convnext
from segedu.backbones.convnext import ConvNeXt, LayerNorm2d


def test_normalisation_is_over_the_channels_of_one_place() -> None:
    norm = randomise(LayerNorm2d(5))
    features = torch.rand(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    place = features[1, :, 2, 3]
    by_hand = (place - place.mean()) / (place.var(unbiased=False) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(features)[1, :, 2, 3], by_hand)


def test_a_fresh_block_passes_on_what_it_was_given() -> None:
    torch.manual_seed(0)
    features = torch.rand(1, 6, 9, 9)
    torch.testing.assert_close(convnext.ConvNeXtBlock(6, 1e-6)(features), features, rtol=0, atol=1e-5)


def test_other_numbers_of_channels_and_stages() -> None:
    model = ConvNeXt((1, 2), (8, 12), in_channels=1)
    assert model.channels == (8, 12) and model.strides == (4, 8)
    assert [tuple(f.shape) for f in model(torch.rand(2, 1, 8, 9))] == [(2, 8, 2, 2), (2, 12, 1, 1)]


BAD = [
    (lambda: ConvNeXt((), ()), "depths is empty"),
    (lambda: ConvNeXt((1, 0), (4, 4)), r"depths\[1\] is 0"),
    (lambda: ConvNeXt((1, 1), (4, 0)), r"widths\[1\] is 0"),
    (lambda: ConvNeXt((1, 1), (4,)), "widths has 1 entries"),
    (lambda: ConvNeXt((1,), (4,), in_channels=0), "in_channels is 0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
