"""Transformer and positions: against torch's own layers, by hand, and that padding changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from randomise import randomise
from torch import Tensor, nn

from segedu.layers.position import sine_position
from segedu.layers.transformer import Transformer

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SHAPES = pytest.mark.parametrize(("height", "width"), [(3, 5), (1, 4)])


def small(dropout: float = 0.0) -> Transformer:
    return randomise(Transformer(8, 2, 2, 3, 12, dropout))


def random_input(height: int, width: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, padding, positions, queries; the first image has a padding of one column, the others of a row."""
    generator = torch.Generator().manual_seed(0)
    features, positions = torch.randn(2, batch, 8, height, width, generator=generator, dtype=torch.float64)
    padding = torch.zeros(batch, height, width, dtype=torch.bool)
    padding[0, :, -1:], padding[1:, 1:] = True, True
    return features, padding, positions, torch.randn(4, 8, generator=generator, dtype=torch.float64)


@SHAPES
@torch.no_grad()
def test_without_positions_it_is_torch_s(height: int, width: int) -> None:
    ours, theirs = small(), nn.Transformer(8, 2, 2, 3, 12, 0.0, batch_first=True).double().eval()
    theirs.encoder.norm = None
    theirs.load_state_dict(ours.state_dict(), strict=True)
    features, padding, positions, queries = random_input(height, width)
    tokens, mask = features.flatten(2).mT, padding.flatten(1)
    theirs.train()  # in evaluation torch takes a path that cuts padded places out; there is no dropout
    memory = theirs.encoder(tokens, src_key_padding_mask=mask)
    state = theirs.decoder(torch.zeros(2, 4, 8).double(), memory, memory_key_padding_mask=mask)
    states, got = ours(features, padding, 0 * positions, 0 * queries)
    assert states.shape == (3, 2, 4, 8) and got.shape == features.shape and state.std() > 0.1
    torch.testing.assert_close(got.flatten(2).mT, memory, **CLOSE)
    torch.testing.assert_close(states[-1], state, **CLOSE)


def attention(layer: nn.MultiheadAttention, *given: Tensor) -> Tensor:
    """Queries, keys and values (L, D) of one image, two heads, written out."""
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip(given, weights, biases, strict=True))
    heads = [(q[:, i] @ k[:, i].T / 2).softmax(1) @ v[:, i] for i in (slice(0, 4), slice(4, 8))]
    return layer.out_proj(torch.cat(heads, dim=1))


@torch.no_grad()
def test_positions_go_to_queries_and_keys_and_not_to_values() -> None:
    net = randomise(Transformer(8, 2, 1, 2, 12, 0.0))
    features, padding, positions, queries = random_input(3, 5, 1)
    states, memory = net(features, torch.zeros_like(padding), positions, queries)
    x, places = features[0].flatten(1).T, positions[0].flatten(1).T  # (S, D)
    layer = net.encoder.layers[0]
    x = layer.norm1(x + attention(layer.self_attn, x + places, x + places, x))
    x = layer.norm2(x + layer.linear2(layer.linear1(x).relu()))
    torch.testing.assert_close(memory[0].flatten(1).T, x, **CLOSE)
    y = torch.zeros_like(queries)
    for layer, state in zip(net.decoder.layers, states[:, 0], strict=True):
        y = layer.norm1(y + attention(layer.self_attn, y + queries, y + queries, y))
        y = layer.norm2(y + attention(layer.multihead_attn, y + queries, x + places, x))
        y = layer.norm3(y + layer.linear2(layer.linear1(y).relu()))
        torch.testing.assert_close(state, net.decoder.norm(y), **CLOSE)


@torch.no_grad()
def test_what_lies_in_the_padding_changes_nothing() -> None:
    net, (features, padding, positions, queries) = small(), random_input(3, 5)
    states, memory = net(features, padding, positions, queries)
    other = torch.where(padding[:, None], 100.0, features), padding, torch.where(padding[:, None], -9.0, positions)
    other_states, other_memory = net(*other, queries)
    torch.testing.assert_close(other_states, states, rtol=0, atol=1e-12)
    inside = ~padding[:, None].expand_as(memory)
    torch.testing.assert_close(other_memory[inside], memory[inside], rtol=0, atol=1e-12)
    alone, _ = net(features[:1, ..., :4], padding[:1, :, :4], positions[:1, ..., :4], queries)
    torch.testing.assert_close(alone, states[:, :1], rtol=0, atol=1e-12)
    unmasked, _ = net(features, torch.zeros_like(padding), positions, queries)
    assert (unmasked - states).abs().max() > 1e-3  # and without the mask it would


@torch.no_grad()
def test_positions_and_queries_are_looked_at() -> None:
    net, (features, padding, positions, queries) = small(), random_input(3, 5)
    states, memory = net(features, padding, positions, queries)
    for change in ((positions.roll(1, 3), queries), (positions, queries.roll(1, 0))):
        assert (net(features, padding, *change)[0] - states).abs().max() > 1e-3
    permuted, _ = net(features, padding, positions, queries.flip(0))  # queries have no order
    torch.testing.assert_close(permuted, states.flip(2), **CLOSE)
    assert (net(features, padding, positions, 2 * queries)[1] == memory).all()


def test_dropout_only_in_training() -> None:
    net, given = small(0.5), random_input(3, 5)
    assert torch.equal(net(*given)[0], net(*given)[0])
    net.train()
    assert not torch.equal(net(*given)[0], net(*given)[0])


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="embed_dim is 8, expected a multiple of num_heads, which is 3"):
        Transformer(8, 3)
    with pytest.raises(ValueError, match="decoder_layers is 0, expected an integer of at least 1"):
        Transformer(8, 2, 0, 0)


# --- positions --------------------------------------------------------------------------------------------------


def test_positions_by_hand() -> None:
    # 2 rows and 3 columns, the last of which is padding: rows at pi and 2 pi, columns too; waves of length 1 and 100.
    padding = torch.tensor([[[False, False, True]] * 2])
    maps = sine_position(padding, 8, torch.float64)
    assert maps.shape == (1, 8, 2, 3)
    for i, row in enumerate((math.pi, 2 * math.pi)):
        for j, column in enumerate((math.pi, 2 * math.pi)):
            angles = (row, row / 100, column, column / 100)
            expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
            assert maps[0, :, i, j].tolist() == pytest.approx(expected, abs=1e-5)


def test_positions_are_of_the_image_not_of_the_batch() -> None:
    padding = torch.ones(2, 6, 7, dtype=torch.bool)
    padding[0, :4, :5] = padding[1] = False
    maps = sine_position(padding, 12)
    assert torch.equal(maps[0, :, :4, :5], sine_position(torch.zeros(1, 4, 5, dtype=torch.bool), 12)[0])
    assert maps.isfinite().all() and maps.dtype == torch.float32
    places = maps[1].flatten(1).T  # no two places have the same numbers
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 0.05


def test_positions_in_half_precision_are_rounded_once() -> None:
    padding = torch.zeros(1, 30, 40, dtype=torch.bool)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(sine_position(padding, 16, dtype), sine_position(padding, 16).to(dtype))


@pytest.mark.parametrize(
    ("padding", "embed_dim", "error", "words"),
    [
        (torch.zeros(1, 2, 2), 8, TypeError, "padding has dtype torch.float32, expected torch.bool"),
        ([[[False]]], 8, TypeError, "padding has type list, expected a tensor of torch.bool"),
        (torch.zeros(2, 2).bool(), 8, ValueError, r"padding has shape \(2, 2\), expected \(B, h, w\)"),
        (torch.zeros(1, 2, 2).bool(), 6, ValueError, "embed_dim is 6, expected a multiple of 4"),
    ],
)
def test_bad_padding(padding: object, embed_dim: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sine_position(padding, embed_dim)
