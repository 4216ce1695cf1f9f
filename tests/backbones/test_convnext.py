"""ConvNeXt: our backbone and torchvision's with the same random weights, and what it promises."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from randomise import randomise
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

from segedu.backbones import convnext
from segedu.backbones.convnext import ConvNeXt, LayerNorm2d
from segedu.backbones.fpn import FPN
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

TOLERANCE = 1e-9
DEPTHS, WIDTHS = (1, 2, 3, 1), (4, 6, 10, 16)
RENAME = {
    r"\.block\.0\.": ".depthwise.",
    r"\.block\.2\.": ".norm.",
    r"\.block\.3\.": ".mlp.fc1.",
    r"\.block\.5\.": ".mlp.fc2.",
}


def images(batch: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def tiny(**options: object) -> ConvNeXt:
    torch.manual_seed(0)
    return ConvNeXt(DEPTHS, WIDTHS, **options)


# --- parity with torchvision --------------------------------------------------------------------------------------


def our_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's weights under our keys, without the classifier."""
    ours = {}
    for key, tensor in state.items():
        if not key.startswith("classifier."):
            for pattern, replacement in RENAME.items():
                key = re.sub(pattern, replacement, key)
            ours[key] = tensor
    return ours


def their_features(theirs: nn.Module, x: Tensor) -> list[Tensor]:
    """Behind every stage."""
    out = []
    for i, layer in enumerate(theirs.features):
        x = layer(x)
        if i % 2:
            out.append(x.clone())
    return out


def small_pair() -> tuple[ConvNeXt, nn.Module]:
    settings = [CNBlockConfig(*row) for row in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS, strict=True)]
    theirs = randomise(TorchvisionConvNeXt(settings, num_classes=2))
    ours = tiny().double().eval()
    ours.load_state_dict(our_keys(theirs.state_dict()), strict=True)
    return ours, theirs


def assert_equal(ours: ConvNeXt, theirs: nn.Module, size: tuple[int, int], batch: int = 2) -> None:
    with torch.no_grad():
        got, expected = ours(images(batch, *size)), their_features(theirs, images(batch, *size))
    assert len(got) == len(expected) == len(ours.channels) == len(ours.strides) == 4
    for g, e in zip(got, expected, strict=True):
        assert e.std() > 0.1  # the weights are such that an error would show
        torch.testing.assert_close(g, e, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(64, 96), (47, 65), (131, 32), (35, 113)])
def test_features_of_every_stage(size: tuple[int, int]) -> None:
    assert_equal(*small_pair(), size)


@pytest.mark.parametrize("size", [(96, 64), (93, 121)])
def test_features_of_convnext_tiny(size: tuple[int, int]) -> None:
    with torch.device("meta"):  # the random start would be thrown away
        theirs, ours = torchvision.models.convnext_tiny(), convnext.convnext_tiny()
    theirs = randomise(theirs.to_empty(device="cpu"))
    ours = ours.to_empty(device="cpu").double().eval()
    ours.load_state_dict(our_keys(theirs.state_dict()), strict=True)
    assert_equal(ours, theirs, size, batch=1)


# Of torchvision's models, without the last normalisation and the classifier.
@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("convnext_tiny", 27_818_592, (96, 192, 384, 768)),
        ("convnext_small", 49_453_152, (96, 192, 384, 768)),
        ("convnext_base", 87_564_416, (128, 256, 512, 1024)),
    ],
)
def test_keys_shapes_and_number_of_weights(name: str, parameters: int, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        ours, theirs = getattr(convnext, name)(), getattr(torchvision.models, name)()
    shapes = {key: tensor.shape for key, tensor in our_keys(theirs.state_dict()).items()}
    assert shapes == {key: tensor.shape for key, tensor in ours.state_dict().items()}
    head = sum(p.numel() for p in theirs.classifier.parameters())
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert sum(p.numel() for p in theirs.parameters()) == parameters + head
    assert ours.channels == channels and ours.strides == (4, 8, 16, 32)


def test_gradients_agree() -> None:
    ours, theirs = small_pair()
    for features in (ours(images(1, 61, 50)), their_features(theirs, images(1, 61, 50))):
        sum(f.square().mean() for f in features).backward()
    expected = our_keys({key: p.grad for key, p in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert parameter.grad.abs().sum() > 0, key
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-8, atol=1e-9)


def every(model: ConvNeXt, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def tanh_gelu(model: ConvNeXt) -> None:
    for mlp in every(model, convnext.MLP):
        mlp.forward = lambda tokens, mlp=mlp: mlp.fc2(F.gelu(mlp.fc1(tokens), approximate="tanh"))


def turned_kernels(model: ConvNeXt) -> None:
    for block in every(model, convnext.ConvNeXtBlock):
        block.depthwise.weight.data = block.depthwise.weight.data.mT


PERTURBED: list[Callable[[ConvNeXt], object]] = [
    tanh_gelu,
    turned_kernels,
    lambda model: [setattr(module, "eps", 1e-5) for module in every(model, nn.LayerNorm)],
    lambda model: [setattr(module, "eps", 1e-5) for module in every(model, LayerNorm2d)],
    lambda model: [module.layer_scale.data.mul_(1.01) for module in every(model, convnext.ConvNeXtBlock)],
    lambda model: setattr(model.features[2], "0", nn.Identity()),
    lambda model: setattr(model, "normalize", Normalize(IMAGENET_MEAN, IMAGENET_STD).double()),
]


@pytest.mark.parametrize("change", PERTURBED, ids=range(len(PERTURBED)))
@torch.no_grad()
def test_parity_fails_when_the_forward_pass_is_changed(change: Callable[[ConvNeXt], object]) -> None:
    ours, theirs = small_pair()
    assert_equal(ours, theirs, (47, 65))
    change(ours)
    expected = their_features(theirs, images(2, 47, 65))
    worst = max((g - e).abs().max() for g, e in zip(ours(images(2, 47, 65)), expected, strict=True))
    assert worst > 100 * TOLERANCE


# --- what the backbone promises -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (45, 37), (32, 63)])
def test_shapes_and_gradients(batch: int, size: tuple[int, int]) -> None:
    model = tiny()
    features = model(images(batch, *size, dtype=torch.float32))
    assert isinstance(features, list)
    for feature, channels, stride in zip(features, model.channels, model.strides, strict=True):
        assert feature.shape == (batch, channels, size[0] // stride, size[1] // stride)
    sum(feature.square().mean() for feature in features).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_images_of_a_batch_do_not_meet_and_nothing_is_random() -> None:
    model, batch = tiny(layer_scale=1.0).train(), images(3, 45, 37, torch.float32)
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
    model = ConvNeXt((1, 2), (8, 12), in_channels=1)
    assert model.channels == (8, 12) and model.strides == (4, 8)
    assert [tuple(f.shape) for f in model(torch.rand(2, 1, 8, 9))] == [(2, 8, 2, 2), (2, 12, 1, 1)]


def test_half_precision_and_a_pyramid_on_it() -> None:
    model = FPN(tiny(), out_channels=6, levels=(0, 1, 2, 3))
    batch = images(1, 70, 53, torch.float32)
    assert [tuple(f.shape[1:]) for f in model(batch)] == [(6, 17, 13), (6, 8, 6), (6, 4, 3), (6, 2, 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(f.isfinite().all() for f in model(batch))


BAD_IMAGES = [
    (lambda batch: batch[0], ValueError, "shape"),
    (lambda batch: batch[:, :1], ValueError, "shape"),
    (lambda batch: batch[:0], ValueError, "shape"),
    (lambda batch: batch[..., :0], ValueError, "shape"),
    (lambda batch: batch[..., :31], ValueError, "shape .* at least 32$"),
    (lambda batch: (255 * batch).to(torch.uint8), TypeError, "dtype"),
    (lambda batch: batch.numpy(), TypeError, "type"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD_IMAGES)
def test_bad_images(change: Callable[[Tensor], Tensor], error: type[Exception], words: str) -> None:
    bad = change(images(2, 40, 48, torch.float32))
    with pytest.raises(error, match="^images has .*, expected ") as caught:
        tiny()(bad)
    assert re.search(words, str(caught.value))


BAD = [
    (lambda: ConvNeXt((), ()), r"depths is \(\)"),
    (lambda: ConvNeXt((1, 0), (4, 4)), r"depths is \(1, 0\)"),
    (lambda: ConvNeXt((1, 1), (4, 0)), r"widths is \(4, 0\)"),
    (lambda: ConvNeXt((1, 1), (4,)), r"widths is \(4,\)"),
    (lambda: ConvNeXt((1,), (4,), in_channels=0), "in_channels is 0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_arguments(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}.*, expected "):
        make()
