"""TinyViT: the bias of its windows, blocks at the start, the step that MobileSAM leaves out, and what it refuses.

The same numbers as timm: test_parity_of_stages.py. What every backbone promises: test_backbones.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from randomise import randomise
from torch import Tensor

from segedu.backbones.tiny_vit import InvertedBottleneck, TinyViT, WindowAttention


def small(**options: object) -> TinyViT:
    return TinyViT((4, 8, 8, 12), (1, 1, 2, 1), (1, 2, 2, 4), (7, 3, 4, 2), **options)


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("window_size", [1, 2, 3, 7])
def test_bias_has_a_number_for_each_distance_in_the_order_in_which_distances_come_up(window_size: int) -> None:
    """The authors number distances as they meet them, pair by pair; so their files are in this order."""
    attention = randomise(WindowAttention(4, 2, window_size))
    points, numbers = list(itertools.product(range(window_size), repeat=2)), {}
    bias = attention.position_bias()
    for (i, (y, x)), (j, (v, u)) in itertools.product(enumerate(points), repeat=2):
        number = numbers.setdefault((abs(y - v), abs(x - u)), len(numbers))
        assert torch.equal(bias[:, i, j], attention.attention_biases[:, number])
    assert len(numbers) == attention.attention_biases.shape[1]


@torch.no_grad()
def test_weights_loaded_after_eval_are_those_that_count() -> None:
    """The authors' network keeps its table of biases from the moment of `eval()`, also over a loading."""
    given = randomise(small(), seed=1).state_dict()
    late = small().double().eval()
    late(images(40, 33))
    late.load_state_dict(given)
    early = small().double()
    early.load_state_dict(given)
    for got, expected in zip(late(images(40, 33)), early.eval()(images(40, 33)), strict=True):
        assert torch.equal(got, expected)


@torch.no_grad()
def test_a_window_looks_at_itself_only() -> None:
    attention, tokens = randomise(WindowAttention(4, 2, 3)), torch.rand(1, 6, 5, 4, dtype=torch.float64)
    before = attention(tokens)
    tokens[:, 3:, :3] += 1
    changed = (attention(tokens) != before).any(dim=-1)[0]
    assert changed[3:, :3].all() and int(changed.sum()) == 9


def test_last_stride() -> None:
    fine, coarse = small(last_stride=1), small()
    assert fine.strides == (4, 8, 16, 16) and coarse.strides == (4, 8, 16, 32)
    coarse.load_state_dict(fine.state_dict(), strict=True)
    assert [f.shape[2:] for f in fine(torch.rand(2, 3, 64, 40))] == [(16, 10), (8, 5), (4, 3), (4, 3)]


def test_a_fresh_bottleneck_passes_on_what_it_was_given() -> None:
    features = torch.rand(2, 6, 5, 4)
    torch.testing.assert_close(InvertedBottleneck(6)(features), torch.nn.functional.gelu(features))
    assert InvertedBottleneck(6, 8, stride=2)(features).shape == (2, 8, 3, 2)


def test_other_numbers_of_channels_and_stages() -> None:
    model = TinyViT((4, 8), (1, 2), (1, 2), (7, 3), in_channels=1, last_stride=1)
    assert model.channels == (4, 8) and model.strides == (4, 4)
    assert [tuple(f.shape) for f in model(torch.rand(2, 1, 8, 9))] == [(2, 4, 2, 3), (2, 8, 2, 3)]
    assert TinyViT((4,), (1,), (1,), (7,)).strides == (4,)


BAD = [
    (lambda: TinyViT((), (), (), ()), "depths is empty"),
    (lambda: TinyViT((4, 4), (1, 0), (1, 2), (7, 7)), r"depths\[1\] is 0"),
    (lambda: TinyViT((4, 4), (1, 1), (1,), (7, 7)), "num_heads has 1 entries"),
    (lambda: TinyViT((4, 4), (1, 1), (1, 1)), "window_sizes has 4 entries"),
    (lambda: TinyViT((4, 4), (1, 1), (1, 2), (7, 0)), r"window_sizes\[1\] is 0"),
    (lambda: TinyViT((4, 0), (1, 1), (1, 2), (7, 7)), r"embed_dims\[1\] is 0"),
    (lambda: TinyViT((1, 4), (1, 1), (1, 2), (7, 7)), r"embed_dims\[0\] is 1"),
    (lambda: TinyViT((4, 4), (1, 1), (1, 3), (7, 7)), "embed_dim is 4"),
    (lambda: TinyViT((4,), (1,), (1,), (7,), last_stride=4), "last_stride is 4"),
    (lambda: TinyViT((4,), (1,), (1,), (7,), in_channels=0), "in_channels is 0"),
    (lambda: WindowAttention(0, 1, 7), "embed_dim is 0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
