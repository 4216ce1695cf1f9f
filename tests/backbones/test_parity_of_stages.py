"""Swin, ConvNeXt and TinyViT: ours and those of torchvision and timm, with the same random weights, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from randomise import randomise
from timm.models.tiny_vit import TinyVit as TimmTinyViT
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt
from torchvision.models.swin_transformer import SwinTransformer

from segedu.backbones import convnext, swin, tiny_vit
from segedu.backbones.vit import MLP
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.weights import WEIGHTS
from segedu.weights.pretrained import _our_keys

TOLERANCE = 1e-9
CONVNEXT_DEPTHS, CONVNEXT_WIDTHS = (1, 2, 3, 1), (4, 6, 10, 16)
SWIN_DEPTHS, SWIN_HEADS = (2, 2, 3, 2), (2, 1, 4, 8)
TINY_VIT = {
    "embed_dims": (8, 8, 12, 16),
    "depths": (2, 1, 2, 2),
    "num_heads": (1, 2, 3, 4),
    "window_sizes": (7, 3, 4, 2),
}
# timm has the step to a stage at its start, the authors at the end of the stage before; so do we.
TIMM = (
    (r"^patch_embed\.conv1\.", "patch_embed.0."),
    (r"^patch_embed\.conv2\.", "patch_embed.2."),
    *((rf"^stages\.{i}\.downsample\.", f"layers.{i - 1}.downsample.") for i in (1, 2, 3)),
    (r"^stages\.", "layers."),
    (r"\.mlp\.norm\.", ".norm."),
)
FULL_SIZE: dict[str, int] = {  # weights without the last normalisation and the classifier
    "swin_t": 27_517_818,
    "swin_s": 48_835_722,
    "swin_b": 86_741_176,
    "convnext_tiny": 27_818_592,
    "convnext_small": 49_453_152,
    "convnext_base": 87_564_416,
    "tiny_vit_5m": 5_071_124,
    "tiny_vit_11m": 10_547_076,
    "tiny_vit_21m": 20_620_416,
}


def our_keys(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Their weights under our keys: by the table of published files where it has one."""
    if name in WEIGHTS:
        return _our_keys(state, WEIGHTS[name])
    ours = {}
    for key, tensor in state.items():
        if not key.startswith("head."):
            for pattern, replacement in TIMM:
                key = re.sub(pattern, replacement, key)
            ours[key] = tensor
    return ours


def their_features(theirs: nn.Module, x: Tensor) -> list[Tensor]:
    """Behind every stage, channels first."""
    if isinstance(theirs, TimmTinyViT):
        layers, last = [theirs.patch_embed, *theirs.stages], 1
    else:
        layers, last = theirs.features, 2
    out = []
    for i, layer in enumerate(layers):
        x = layer(x)
        if i and (i % 2 or last == 1):
            out.append((x.movedim(-1, 1) if isinstance(theirs, SwinTransformer) else x).clone())
    return out


def small_swin(window_size: int) -> tuple[nn.Module, nn.Module]:
    M, options = window_size, {"stochastic_depth_prob": 0.0, "num_classes": 2}
    theirs = SwinTransformer([4, 4], 8, SWIN_DEPTHS, SWIN_HEADS, [M, M], **options)
    return swin.Swin(8, SWIN_DEPTHS, SWIN_HEADS, window_size=M), theirs


def small_convnext() -> tuple[nn.Module, nn.Module]:
    rows = zip(CONVNEXT_WIDTHS, (*CONVNEXT_WIDTHS[1:], None), CONVNEXT_DEPTHS, strict=True)
    theirs = TorchvisionConvNeXt([CNBlockConfig(*row) for row in rows], num_classes=2)
    return convnext.ConvNeXt(CONVNEXT_DEPTHS, CONVNEXT_WIDTHS), theirs


def small_tiny_vit(last_stride: int) -> tuple[nn.Module, nn.Module]:
    theirs = TimmTinyViT(num_classes=2, **TINY_VIT)
    theirs.stages[3].downsample.conv2.conv.stride = (last_stride, last_stride)  # MobileSAM's only other number
    return tiny_vit.TinyViT(**TINY_VIT, last_stride=last_stride), theirs


def full_size(name: str, theirs_on: str = "meta") -> tuple[nn.Module, nn.Module]:
    """Ours without numbers, theirs if need be with a start and the tables of places that are in no file."""
    home = {"s": swin, "c": convnext, "t": tiny_vit}[name[0]]
    with torch.device(theirs_on):
        theirs = timm.create_model(f"{name}_224") if home is tiny_vit else getattr(torchvision.models, name)()
    with torch.device("meta"):  # the random start would be thrown away
        return getattr(home, name)(), theirs


@dataclass(frozen=True)
class Pair:
    """Two small networks of one kind; `name`: whose keys they have; `sizes` of images besides those of all."""

    build: Callable[[], tuple[nn.Module, nn.Module]]
    name: str
    sizes: tuple[tuple[int, int], ...] = ()
    perturbed: tuple[Callable[[nn.Module], object], ...] = field(default=())

    def loaded(self) -> tuple[nn.Module, nn.Module]:
        """Ours and theirs with the same random weights."""
        ours, theirs = self.build()
        ours.double().eval().load_state_dict(our_keys(randomise(theirs).state_dict(), self.name), strict=True)
        return ours, theirs


def images(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)


# --- how the forward pass may be wrong ----------------------------------------------------------------------------


def every(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def set_all(kind: type[nn.Module], name: str, value: object) -> Callable[[nn.Module], object]:
    return lambda model: [setattr(module, name, value) for module in every(model, kind)]


def tanh_gelu(model: nn.Module) -> None:
    for mlp in every(model, MLP):
        mlp.forward = lambda tokens, mlp=mlp: mlp.fc2(F.gelu(mlp.fc1(tokens), approximate="tanh"))


def other_order_of_four(model: nn.Module) -> None:
    for merging in every(model, swin.PatchMerging):
        first, second, third, fourth = merging.reduction.weight.data.chunk(4, dim=1)
        merging.reduction.weight.data = torch.cat([first, third, second, fourth], dim=1)


def turned_table(model: nn.Module) -> None:
    for attention in every(model, swin.WindowAttention):
        table = attention.relative_position_bias_table
        table.data = table.data.unflatten(0, (5, 5)).transpose(0, 1).flatten(0, 1)


def turned_biases(model: nn.Module) -> None:
    for attention in every(model, tiny_vit.WindowAttention):
        M, biases = attention.window_size, attention.attention_biases
        biases.data = biases.data.unflatten(1, (M, M)).mT.flatten(1)


def keys_for_queries(model: nn.Module) -> None:
    for attention in every(model, swin.WindowAttention):
        q, k, v = attention.qkv.weight.data.chunk(3)
        attention.qkv.weight.data = torch.cat([k, q, v])


def heads_inside(model: nn.Module) -> None:
    """As if queries, keys and values of all heads stood together."""
    for attention in every(model, tiny_vit.WindowAttention):
        weight = attention.qkv.weight.data.unflatten(0, (3, attention.num_heads, -1))
        attention.qkv.weight.data = weight.transpose(0, 1).flatten(0, 2)


def turned_kernels(model: nn.Module) -> None:
    for conv in every(model, nn.Conv2d):
        if conv.groups > 1:
            conv.weight.data = conv.weight.data.mT


def double_shift(model: nn.Module) -> None:
    for attention in every(model, swin.WindowAttention):
        attention.shift *= 2


def normalised_twice(model: nn.Module) -> None:
    model.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD).double()


ANY = (tanh_gelu, normalised_twice)
OF_SWIN = (
    other_order_of_four,
    turned_table,
    keys_for_queries,
    double_shift,
    set_all(nn.LayerNorm, "eps", 1e-6),
    set_all(swin.WindowAttention, "shift", 0),
    lambda model: setattr(model.features[0].proj.weight, "data", model.features[0].proj.weight.data.mT),
)
OF_CONVNEXT = (
    turned_kernels,
    set_all(nn.LayerNorm, "eps", 1e-5),
    set_all(convnext.LayerNorm2d, "eps", 1e-5),
    lambda model: [module.layer_scale.data.mul_(1.01) for module in every(model, convnext.ConvNeXtBlock)],
    lambda model: setattr(model.features[2], "0", nn.Identity()),
)
OF_TINY_VIT = (
    turned_kernels,
    turned_biases,
    heads_inside,
    set_all(nn.LayerNorm, "eps", 1e-6),
    set_all(nn.BatchNorm2d, "eps", 1e-3),
    set_all(tiny_vit.InvertedBottleneck, "adds", False),
    lambda model: setattr(model.layers[2], "downsample", tiny_vit.InvertedBottleneck(12, 16).double().eval()),
)
PAIRS = {
    **{f"swin, windows of {M}": Pair(lambda M=M: small_swin(M), "swin_t", ((99, 14), (4, 5))) for M in (1, 2, 4, 7)},
    "swin": Pair(lambda: small_swin(3), "swin_t", ((99, 14), (4, 5)), (*ANY, *OF_SWIN)),
    "convnext": Pair(small_convnext, "convnext_tiny", ((99, 32),), (*ANY, *OF_CONVNEXT)),
    "tiny_vit": Pair(lambda: small_tiny_vit(2), "", ((99, 14), (4, 5), (1, 1)), (*ANY, *OF_TINY_VIT)),
    "tiny_vit of MobileSAM": Pair(lambda: small_tiny_vit(1), "", ((99, 14), (64, 64))),
}
PERTURBED = [(name, i) for name, pair in PAIRS.items() for i in range(len(pair.perturbed))]


# --- the same numbers ---------------------------------------------------------------------------------------------


def assert_equal(ours: nn.Module, theirs: nn.Module, size: tuple[int, int], batch: int = 2) -> None:
    with torch.no_grad():
        got, expected = ours(images(batch, *size)), their_features(theirs, images(batch, *size))
    assert len(got) == len(expected) == len(ours.channels) == len(ours.strides) == 4
    for g, e in zip(got, expected, strict=True):
        assert e.std() > 0.05  # the weights are such that an error would show
        torch.testing.assert_close(g, e, rtol=TOLERANCE, atol=TOLERANCE)


# One window, several, sizes that need padding, an axis with one window beside one with many, one token.
@pytest.mark.parametrize("name", PAIRS)
def test_features_of_every_stage(name: str) -> None:
    ours, theirs = PAIRS[name].loaded()
    for size in ((64, 32), (47, 65), (35, 81), *PAIRS[name].sizes):
        assert_equal(ours, theirs, size)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "tiny_vit_5m"])
def test_features_of_the_smallest_of_the_paper(name: str) -> None:
    ours, theirs = full_size(name, theirs_on="cpu")
    ours = ours.to_empty(device="cpu").double().eval()
    ours.load_state_dict(our_keys(randomise(theirs).state_dict(), name), strict=True)
    assert_equal(ours, theirs, (45, 69), batch=1)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_keys_shapes_and_number_of_weights(name: str) -> None:
    ours, theirs = full_size(name)
    shapes = {key: tensor.shape for key, tensor in our_keys(theirs.state_dict(), name).items()}
    assert shapes == {key: tensor.shape for key, tensor in ours.state_dict().items()}
    kept = {key: p.numel() for key, p in our_keys(dict(theirs.named_parameters()), name).items()}
    assert sum(p.numel() for p in ours.parameters()) == sum(kept.values()) == FULL_SIZE[name]
    assert len(ours.channels) == 4 and ours.strides == (4, 8, 16, 32)


@pytest.mark.parametrize("name", ["swin", "convnext", "tiny_vit", "tiny_vit of MobileSAM"])
def test_gradients_agree(name: str) -> None:
    ours, theirs = PAIRS[name].loaded()
    for features in (ours(images(1, 61, 50)), their_features(theirs, images(1, 61, 50))):
        sum(f.square().mean() for f in features).backward()
    expected = our_keys({key: p.grad for key, p in theirs.named_parameters()}, PAIRS[name].name)
    for key, parameter in ours.named_parameters():
        assert parameter.grad.abs().sum() > 0, key
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("name", "change"), PERTURBED)
@torch.no_grad()
def test_parity_fails_when_the_forward_pass_is_changed(name: str, change: int) -> None:
    ours, theirs = PAIRS[name].loaded()
    assert_equal(ours, theirs, (47, 65))
    PAIRS[name].perturbed[change](ours)
    expected = their_features(theirs, images(2, 47, 65))
    got = ours(images(2, 47, 65))
    worst = max(float((g - e).abs().max()) if g.shape == e.shape else 1.0 for g, e in zip(got, expected, strict=True))
    assert worst > 100 * TOLERANCE


def test_parity_fails_without_the_mask_of_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = PAIRS["swin"].loaded()
    monkeypatch.setattr(swin, "MASKED", 0.0)
    with pytest.raises(AssertionError, match="not close"):
        assert_equal(ours, theirs, (47, 65))
