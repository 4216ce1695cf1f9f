"""Swin's windows: how they are cut, who looks at whom, what the bias knows; and what the backbone refuses.

The same numbers as torchvision: test_parity_of_stages.py. What every backbone promises: test_backbones.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from randomise import randomise

from segedu.backbones.swin import Swin, WindowAttention, from_windows, to_windows


def test_windows_are_cut_row_by_row_and_put_together_again() -> None:
    tokens = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = to_windows(tokens, 2)
    assert windows.shape == (2, 6, 4, 1)
    assert windows[0, :2, :, 0].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9]]
    assert windows[1, 5, :, 0].tolist() == [24 + number for number in (16, 17, 22, 23)]
    assert torch.equal(from_windows(windows, 4, 6), tokens)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("window_size", "shift"), [(3, 0), (3, 1), (4, 2), (7, 3)])
@pytest.mark.parametrize("size", [(12, 12), (8, 11), (3, 10), (5, 2)])
def test_a_token_looks_at_its_window_and_not_across_the_border(
    window_size: int, shift: int, size: tuple[int, int], single: bool
) -> None:
    attention = randomise(WindowAttention(4, 2, window_size, shift, single))
    tokens = torch.rand(1, *size, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    out = attention(tokens)
    assert out.shape == tokens.shape

    def window(place: int, length: int) -> int:
        return (place - shift) // window_size if single or length > window_size else 0

    for y, x in {(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2), (0, size[1] - 1)}:
        gradient = torch.autograd.grad(out[0, y, x].sum(), tokens, retain_graph=True)[0][0]
        seen = gradient.abs().sum(dim=-1) > 1e-30  # exp(-100) is no 0 in float64
        for row in range(size[0]):
            for column in range(size[1]):
                same = window(row, size[0]) == window(y, size[0]) and window(column, size[1]) == window(x, size[1])
                assert seen[row, column] == same, (y, x, row, column)


def test_position_bias_knows_where_the_other_token_is() -> None:
    attention = randomise(WindowAttention(6, 3, 3, 0))
    table, bias = attention.relative_position_bias_table, attention.position_bias()
    assert bias.shape == (3, 9, 9)
    assert torch.equal(bias[:, 0, 0], table[12])  # no distance: the middle of 5 x 5
    assert torch.equal(bias[:, 8, 0], table[24])  # the query is two below and two to the right
    assert torch.equal(bias[:, 0, 8], table[0])
    assert torch.equal(bias[:, 1, 3], table[8])  # one above and one to the right


SIZES = (8, (2, 1, 2, 2), (2, 2, 4, 8))


def plain_and_dense() -> tuple[Swin, Swin]:
    """The two forms with the same weights; only the dense one has normalisations of the outputs."""
    plain, dense = Swin(*SIZES, window_size=3), Swin(*SIZES, window_size=3, dense=True)
    missing = dense.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == [f"norms.{i}.{name}" for i in range(4) for name in ("weight", "bias")]
    randomise(dense)
    plain.double().load_state_dict({k: v for k, v in dense.state_dict().items() if not k.startswith("norms.")})
    return plain, dense


def images(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_dense_features_are_normed_on_their_way_out_only() -> None:
    plain, dense = plain_and_dense()
    for norm, x, given in zip(dense.norms, plain(images(128, 104)), dense(images(128, 104)), strict=True):
        assert torch.equal(norm(x.movedim(1, -1)).movedim(-1, 1), given)  # 4 x 4 tokens at the end: several windows


def test_only_the_dense_form_shifts_a_single_window() -> None:
    plain, dense = plain_and_dense()
    features = zip(dense.norms, plain(images(44, 92)), dense(images(44, 92)), strict=True)
    differences = [
        float((norm(x.movedim(1, -1)).movedim(-1, 1) - given).detach().abs().max()) for norm, x, given in features
    ]
    # 11 x 23 and 6 x 12 tokens have several windows on both axes, 3 x 6 tokens have one window on an axis
    assert differences[:2] == [0, 0] and min(differences[2:]) > 0.01


def test_the_dense_form_pads_what_the_plain_one_crops() -> None:
    plain, dense = plain_and_dense()
    assert [tuple(x.shape[2:]) for x in plain(images(97, 131))] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert [tuple(x.shape[2:]) for x in dense(images(97, 131))] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    padded = torch.nn.functional.pad(images(97, 131), (0, 1, 0, 3))
    assert all(torch.equal(x, y) for x, y in zip(dense(images(97, 131)), dense(padded), strict=True))
    cropped = images(97, 131)[..., :96, :128]
    assert all(torch.equal(x, y) for x, y in zip(plain(images(97, 131)), plain(cropped), strict=True))


def test_other_numbers_of_channels_and_stages() -> None:
    model = Swin(8, (1, 2), (2, 4), in_channels=1)
    assert model.channels == (8, 16) and model.strides == (4, 8)
    assert [f.shape[1] for f in model(torch.rand(2, 1, 32, 32))] == [8, 16]


BAD = [
    (lambda: Swin(8, (), ()), "depths is empty"),
    (lambda: Swin(8, (1, 0), (2, 2)), r"depths\[1\] is 0"),
    (lambda: Swin(8, (1, 1), (2,)), "num_heads has 1 entries"),
    (lambda: Swin(8, (1,), (3,)), "embed_dim is 8"),
    (lambda: Swin(8, (1,), (0,)), r"num_heads\[0\] is 0"),
    (lambda: Swin(8, (1,), (2,), window_size=0), "window_size is 0"),
    (lambda: Swin(8, (1,), (2,), in_channels=0), "in_channels is 0"),
    (lambda: WindowAttention(0, 1, 7, 0), "embed_dim is 0"),
    (lambda: WindowAttention(8, 2, 7, 7), "shift is 7"),
    (lambda: WindowAttention(8, 2, 7, -1), "shift is -1"),
    (lambda: Swin(0, (1,), (1,)), "embed_dim is 0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
