"""Swin: our backbone and torchvision's with the same random weights, who looks at whom, and what it promises."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from segedu.backbones import swin
from segedu.backbones.fpn import FPN
from segedu.backbones.swin import Swin, WindowAttention, from_windows, to_windows
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

TOLERANCE = 1e-9
RENAME = {
    r"^features\.0\.0\.": "features.0.proj.",
    r"^features\.0\.2\.": "features.0.norm.",
    r"\.mlp\.0\.": ".mlp.fc1.",
    r"\.mlp\.3\.": ".mlp.fc2.",
}


def images(batch: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def tiny(**options: object) -> Swin:
    torch.manual_seed(0)
    return Swin(8, (2, 1, 2, 2), (2, 2, 4, 8), **{"window_size": 3, **options})


# --- parity with torchvision --------------------------------------------------------------------------------------


def our_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's weights under our keys, without the classifier and without the tables that we compute."""
    ours = {}
    for key, tensor in state.items():
        if not key.startswith(("norm.", "head.")) and not key.endswith(".relative_position_index"):
            for pattern, replacement in RENAME.items():
                key = re.sub(pattern, replacement, key)
            ours[key] = tensor
    return ours


def their_features(theirs: nn.Module, x: Tensor) -> list[Tensor]:
    """Behind every stage, channels first."""
    out = []
    for i, layer in enumerate(theirs.features):
        x = layer(x)
        if i % 2:
            out.append(x.permute(0, 3, 1, 2))
    return out


def small_pair(window_size: int) -> tuple[Swin, nn.Module]:
    depths, heads = (2, 3, 2, 2), (2, 1, 4, 8)
    theirs = SwinTransformer([4, 4], 8, depths, heads, [window_size] * 2, stochastic_depth_prob=0.0, num_classes=2)
    ours = Swin(8, depths, heads, window_size=window_size).double().eval()
    ours.load_state_dict(our_keys(randomise(theirs).state_dict()), strict=True)
    return ours, theirs


def assert_equal(ours: Swin, theirs: nn.Module, size: tuple[int, int], batch: int = 2) -> None:
    with torch.no_grad():
        got, expected = ours(images(batch, *size)), their_features(theirs, images(batch, *size))
    assert len(got) == len(expected) == len(ours.channels) == len(ours.strides) == 4
    for g, e in zip(got, expected, strict=True):
        assert e.std() > 0.1  # the weights are such that an error would show
        torch.testing.assert_close(g, e, rtol=TOLERANCE, atol=TOLERANCE)


# One window, several, sizes that need padding, an axis with one window beside one with many, one token.
@pytest.mark.parametrize("window_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("size", [(64, 96), (47, 65), (131, 30), (28, 113), (4, 5)])
def test_features_of_every_stage(window_size: int, size: tuple[int, int]) -> None:
    assert_equal(*small_pair(window_size), size)


@pytest.mark.parametrize("size", [(96, 64), (93, 121)])
def test_features_of_swin_t(size: tuple[int, int]) -> None:
    theirs = randomise(torchvision.models.swin_t())
    ours = swin.swin_t().double().eval()
    ours.load_state_dict(our_keys(theirs.state_dict()), strict=True)
    assert_equal(ours, theirs, size, batch=1)


# Of torchvision's models, without the last normalisation and the classifier.
@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("swin_t", 27_517_818, (96, 192, 384, 768)),
        ("swin_s", 48_835_722, (96, 192, 384, 768)),
        ("swin_b", 86_741_176, (128, 256, 512, 1024)),
    ],
)
def test_keys_shapes_and_number_of_weights(name: str, parameters: int, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        ours, theirs = getattr(swin, name)(), getattr(torchvision.models, name)()
    shapes = {key: tensor.shape for key, tensor in our_keys(theirs.state_dict()).items()}
    assert shapes == {key: tensor.shape for key, tensor in ours.state_dict().items()}
    head = sum(p.numel() for part in (theirs.norm, theirs.head) for p in part.parameters())
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert sum(p.numel() for p in theirs.parameters()) == parameters + head
    assert ours.channels == channels and ours.strides == (4, 8, 16, 32)


def test_gradients_agree() -> None:
    ours, theirs = small_pair(3)
    for features in (ours(images(1, 61, 50)), their_features(theirs, images(1, 61, 50))):
        sum(f.square().mean() for f in features).backward()
    expected = our_keys({key: p.grad for key, p in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert parameter.grad.abs().sum() > 0, key
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-8, atol=1e-9)


def every(model: Swin, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def other_order_of_four(model: Swin) -> None:
    for merging in every(model, swin.PatchMerging):
        first, second, third, fourth = merging.reduction.weight.data.chunk(4, dim=1)
        merging.reduction.weight.data = torch.cat([first, third, second, fourth], dim=1)


def turned_table(model: Swin) -> None:
    for attention in every(model, WindowAttention):
        table = attention.relative_position_bias_table
        table.data = table.data.unflatten(0, (5, 5)).transpose(0, 1).flatten(0, 1)


def keys_for_queries(model: Swin) -> None:
    for attention in every(model, WindowAttention):
        q, k, v = attention.qkv.weight.data.chunk(3)
        attention.qkv.weight.data = torch.cat([k, q, v])


def tanh_gelu(model: Swin) -> None:
    for mlp in every(model, swin.MLP):
        mlp.forward = lambda tokens, mlp=mlp: mlp.fc2(F.gelu(mlp.fc1(tokens), approximate="tanh"))


PERTURBED: list[Callable[[Swin], object]] = [
    other_order_of_four,
    turned_table,
    tanh_gelu,
    lambda model: [setattr(module, "eps", 1e-6) for module in every(model, nn.LayerNorm)],
    lambda model: [setattr(module, "shift", 0) for module in every(model, WindowAttention)],
    lambda model: [setattr(module, "shift", 2 * module.shift) for module in every(model, WindowAttention)],
    keys_for_queries,
    lambda model: setattr(model.features[0].proj.weight, "data", model.features[0].proj.weight.data.mT),
    lambda model: setattr(model, "normalize", Normalize(IMAGENET_MEAN, IMAGENET_STD).double()),
]


@pytest.mark.parametrize("change", PERTURBED, ids=range(len(PERTURBED)))
@torch.no_grad()
def test_parity_fails_when_the_forward_pass_is_changed(change: Callable[[Swin], object]) -> None:
    ours, theirs = small_pair(3)
    assert_equal(ours, theirs, (47, 65))
    change(ours)
    expected = their_features(theirs, images(2, 47, 65))
    worst = max((g - e).abs().max() for g, e in zip(ours(images(2, 47, 65)), expected, strict=True))
    assert worst > 100 * TOLERANCE


def test_parity_fails_without_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = small_pair(3)
    monkeypatch.setattr(swin, "APART", 0.0)
    with pytest.raises(AssertionError, match="not close"):
        assert_equal(ours, theirs, (47, 65))


# --- windows ------------------------------------------------------------------------------------------------------


def test_windows_are_cut_row_by_row_and_put_together_again() -> None:
    tokens = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = to_windows(tokens, 2)
    assert windows.shape == (2, 6, 4, 1)
    assert windows[0, :2, :, 0].tolist() == [[0, 1, 6, 7], [2, 3, 8, 9]]
    assert windows[1, 5, :, 0].tolist() == [24 + number for number in (16, 17, 22, 23)]
    assert torch.equal(from_windows(windows, 4, 6), tokens)


@pytest.mark.parametrize(("window_size", "shift"), [(3, 0), (3, 1), (4, 2), (7, 3)])
@pytest.mark.parametrize("size", [(12, 12), (8, 11), (3, 10), (5, 2)])
def test_a_token_looks_at_its_window_and_not_across_the_border(
    window_size: int, shift: int, size: tuple[int, int]
) -> None:
    attention = randomise(WindowAttention(4, 2, window_size, shift))
    tokens = torch.rand(1, *size, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    out = attention(tokens)
    assert out.shape == tokens.shape

    def window(place: int, length: int) -> int:
        return (place - shift) // window_size if length > window_size else 0

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


# --- what the backbone promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (45, 37), (4, 7)])
def test_shapes_and_gradients(batch: int, size: tuple[int, int]) -> None:
    model = tiny()
    features = model(images(batch, *size, dtype=torch.float32))
    assert isinstance(features, list)
    height, width = size[0] // 4, size[1] // 4
    for feature, channels in zip(features, model.channels, strict=True):
        assert feature.shape == (batch, channels, height, width)
        height, width = -(-height // 2), -(-width // 2)
    sum(feature.square().mean() for feature in features).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_images_of_a_batch_do_not_meet_and_nothing_is_random() -> None:
    model, batch = tiny().train(), images(3, 45, 37, torch.float32)
    together = model(batch)
    for feature, again in zip(together, model.eval()(batch), strict=True):
        assert torch.equal(feature, again)
    for i in range(3):
        for feature, alone in zip(together, model(batch[i : i + 1]), strict=True):
            torch.testing.assert_close(alone[0], feature[i])


def test_normalisation_is_inside_and_not_in_the_file() -> None:
    plain, inside = tiny(), tiny(normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD))
    inside.load_state_dict(plain.state_dict(), strict=True)
    batch = images(1, 40, 33, torch.float32)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    for got, expected in zip(inside(batch), plain((batch - mean) / std), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.equal(batch, images(1, 40, 33, torch.float32))
    assert [f.dtype for f in inside.double()(batch.double())] == [torch.float64] * 4


def test_other_numbers_of_channels_and_stages() -> None:
    model = Swin(8, (1, 2), (2, 4), in_channels=1)
    assert model.channels == (8, 16) and model.strides == (4, 8)
    assert [f.shape[1] for f in model(torch.rand(2, 1, 32, 32))] == [8, 16]


def test_half_precision_and_a_pyramid_on_it() -> None:
    model = FPN(tiny(), out_channels=6, levels=(0, 1, 2, 3))
    batch = images(1, 70, 53, torch.float32)
    assert [tuple(f.shape[1:]) for f in model(batch)] == [(6, 17, 13), (6, 9, 7), (6, 5, 4), (6, 3, 2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(f.isfinite().all() for f in model(batch))


def test_features_are_normed_on_their_way_out_only() -> None:
    plain, normed = tiny(), tiny(normed=True)
    missing = normed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == [f"norms.{i}.{name}" for i in range(4) for name in ("weight", "bias")]
    randomise(normed)
    plain.double().load_state_dict({k: v for k, v in normed.state_dict().items() if not k.startswith("norms.")})
    batch = images(2, 20, 28)
    for norm, x, given in zip(normed.norms, plain(batch), normed(batch), strict=True):
        assert torch.equal(norm(x.movedim(1, -1)).movedim(-1, 1), given)


BAD_IMAGES = [
    (lambda batch: batch[0], ValueError, "shape"),
    (lambda batch: batch[:, :1], ValueError, "shape"),
    (lambda batch: batch[:0], ValueError, "shape"),
    (lambda batch: batch[..., :0], ValueError, "shape"),
    (lambda batch: batch[..., :3], ValueError, "shape .* at least 4$"),
    (lambda batch: (255 * batch).to(torch.uint8), TypeError, "dtype"),
    (lambda batch: batch.numpy(), TypeError, "type"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_IMAGES)
def test_bad_images(change: Callable[[Tensor], Tensor], error: type[Exception], words: str) -> None:
    bad = change(images(2, 20, 28, torch.float32))
    with pytest.raises(error, match="^images has .*, expected ") as caught:
        tiny()(bad)
    assert re.search(words, str(caught.value))


BAD = [
    (lambda: Swin(8, (), ()), r"depths is \(\)"),
    (lambda: Swin(8, (1, 0), (2, 2)), r"depths is \(1, 0\)"),
    (lambda: Swin(8, (1, 1), (2,)), r"num_heads is \(2,\)"),
    (lambda: Swin(8, (1,), (3,)), "embed_dim is 8"),
    (lambda: Swin(8, (1,), (0,)), "embed_dim is 8"),
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
