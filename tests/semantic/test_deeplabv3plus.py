"""DeepLabv3+ against segmentation_models_pytorch on the same weights, and its parts against what the paper says."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet, resnet18
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.deeplabv3 import ASPP
from segedu.semantic.deeplabv3plus import Decoder, DeepLabV3Plus, SeparableConv, postprocess, separable_bn_relu

RATES = (1, 2, 3)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_net(num_classes: int = 4, **options: object) -> DeepLabV3Plus:
    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=16)
    return DeepLabV3Plus(backbone, num_classes, RATES, width=8, low_level_width=4, **options)


# --- parity -----------------------------------------------------------------------------------------------------


def reference() -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    options = {"decoder_channels": 12, "decoder_atrous_rates": RATES, "classes": 3}
    return randomise(smp.DeepLabV3Plus("resnet18", encoder_weights=None, **options))


def copy_in_order(ours: Iterable[nn.Module], theirs: Iterable[nn.Module]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        values = list(b.state_dict().values())
        a.load_state_dict(dict(zip(a.state_dict(), values, strict=True)))


def converted(other: nn.Module) -> DeepLabV3Plus:
    """Our net with the weights of segmentation_models_pytorch's, whose decoder has one convolution."""
    net = DeepLabV3Plus(resnet18(output_stride=16), 3, RATES, width=12, refinements=1).double().eval()
    copy_in_order(
        [net.backbone, net.aspp, net.decoder.reduce, net.decoder.refine, net.classifier],
        [other.encoder, other.decoder.aspp[0], other.decoder.block1, other.decoder.block2, other.segmentation_head[0]],
    )
    # Their encoder dilates the first convolution of the last stage too. The weights fit both.
    net.backbone.layer4[0].conv1.dilation = net.backbone.layer4[0].conv1.padding = (2, 2)
    # A convolution between pyramid and upsampling is not in the paper: it becomes the identity.
    separable, norm, _ = other.decoder.aspp[1:]
    separable[0].weight.data.zero_()[:, :, 1, 1] = 1
    separable[1].weight.data.copy_(torch.eye(12)[:, :, None, None])
    norm.reset_parameters()
    norm.eps = 0
    return net


@pytest.mark.parametrize("size", [(64, 96), (80, 48)])
@torch.no_grad()
def test_parity_with_smp(size: tuple[int, int]) -> None:
    other = reference()
    net, images = converted(other), random(2, 3, *size)
    expected = other(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_parity_notices_the_alignment_and_one_weight() -> None:
    other = reference()
    net, images = converted(other), random(2, 3, 64, 96)
    expected = other(images)
    net.align_corners = net.decoder.align_corners = False
    assert (net(images) - expected).abs().max() > 1e-2
    net.align_corners = net.decoder.align_corners = True
    net.decoder.reduce[0].weight[0] += 0.1
    assert (net(images) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 1)])
@torch.no_grad()
def test_pyramid_and_decoder_agree_with_smp(size: tuple[int, int]) -> None:
    other = reference()
    net, (h, w) = converted(other), size
    features, low = random(2, 512, h, w), random(2, 64, 4 * h, 4 * w)
    aspp = other.decoder.aspp[0](features)
    torch.testing.assert_close(net.aspp(features), aspp, rtol=0, atol=1e-12)
    decoded = other.decoder([None, None, low, features])
    torch.testing.assert_close(net.decoder(low, aspp), decoded, rtol=0, atol=1e-12)


def oracle(net: DeepLabV3Plus, images: Tensor) -> Tensor:
    """Everything behind the backbone by functional calls: for odd sizes, which the reference refuses."""
    w = net.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (w[f"{name}.{n}"].reshape(-1, 1, 1) for n in names)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def separable(x: Tensor, name: str, rate: int) -> Tensor:
        x = F.conv2d(x, w[f"{name}.0.0.weight"], padding=rate, dilation=rate, groups=x.shape[1])
        return norm_relu(F.conv2d(x, w[f"{name}.0.1.weight"]), f"{name}.1")

    def point(x: Tensor, name: str) -> Tensor:
        return norm_relu(F.conv2d(x, w[f"{name}.0.weight"]), f"{name}.1")

    def resize(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)

    _, low, *_, x = net.backbone(images)
    branches = [point(x, "aspp.convs.0")]
    branches += [separable(x, f"aspp.convs.{i + 1}", rate) for i, rate in enumerate(RATES)]
    mean = F.conv2d(x.mean(dim=(2, 3), keepdim=True), w["aspp.convs.4.1.weight"])
    branches.append(norm_relu(mean, "aspp.convs.4.2").repeat(1, 1, *x.shape[-2:]))
    x = point(torch.cat(branches, 1), "aspp.project")
    x = torch.cat([resize(x, low), point(low, "decoder.reduce")], 1)
    for i in range(2):
        x = separable(x, f"decoder.refine.{i}", 1)
    return resize(F.conv2d(x, w["classifier.weight"], w["classifier.bias"]), images)


@pytest.mark.parametrize("size", [(64, 48), (37, 45), (17, 5)])
@torch.no_grad()
def test_parity_with_functional_calls(size: tuple[int, int]) -> None:
    net, images = randomise(small_net()), random(2, 3, *size)
    expected = oracle(net, images)
    torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-12)
    net.decoder.refine[1][0][0].weight[0] += 0.1
    assert (net(images) - expected).abs().max() > 1e-5


# --- parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 3), (2, 1)])
@torch.no_grad()
def test_separable_convolution_is_a_full_one_of_rank_one_a_channel(stride: int, dilation: int) -> None:
    net = randomise(SeparableConv(3, 5, stride=stride, dilation=dilation))
    depth, point = net[0].weight, net[1].weight
    full = torch.einsum("ckl,oc->ockl", depth[:, 0], point[:, :, 0, 0])
    features = random(2, 3, 9, 11)
    expected = F.conv2d(features, full, stride=stride, padding=dilation, dilation=dilation)
    torch.testing.assert_close(net(features), expected, rtol=0, atol=1e-12)


def test_separable_convolution_has_few_weights() -> None:
    net = SeparableConv(256, 256)
    assert sum(p.numel() for p in net.parameters()) == 9 * 256 + 256 * 256
    full = 9 * 256 * 256
    assert full / (9 * 256 + 256 * 256) > 8.5


def test_decoder_looks_at_low_features_sharply() -> None:
    # one place of stride 4 is seen by the 5x5 around it: two 3x3 convolutions, and no upsampling in between
    decoder = randomise(Decoder(4, 6, low_level_width=3, width=8))
    for norm in (m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.constant_(norm.bias, 9)  # so that the ReLUs let everything pass
    low = random(1, 4, 11, 11).requires_grad_()
    decoder(low, random(1, 6, 3, 3))[0, :, 5, 5].sum().backward()
    seen = low.grad.abs().sum(dim=(0, 1)) > 0
    assert seen[3:8, 3:8].all() and seen.sum() == 25


def test_number_of_refinements_and_widths() -> None:
    net = small_net(refinements=3)
    assert len(net.decoder.refine) == 3 and net.decoder.refine[0][0][0].in_channels == 8 + 4
    assert net.decoder.refine[2][0][0].in_channels == 8


def test_backbone_of_output_stride_8() -> None:
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 8, 8), output_stride=8)
    net = DeepLabV3Plus(backbone, 3, RATES, width=8, low_level_width=4).eval()
    assert net(random(1, 3, 33, 40, dtype=torch.float32)).shape == (1, 3, 33, 40)


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = small_net(num_classes=2)
    target = torch.zeros(2, 32, 48, dtype=torch.int64)
    target[0, 4:20, 6:22], target[1, 12:28, 16:36] = 1, 1
    images = 0.7 * target[:, None] + 0.3 * random(2, 3, 32, 48, dtype=torch.float32)
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=100, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.2 and (postprocess(net(images)) == target).float().mean() > 0.93


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_net(num_classes=0), "num_classes is 0, expected"),
        (lambda: Decoder(8, 8, low_level_width=0), "low_level_width is 0, expected"),
        (lambda: small_net(refinements=0), "refinements is 0, expected"),
        (lambda: SeparableConv(0, 4), "in_channels is 0, expected"),
        (lambda: SeparableConv(4, 4, dilation=0), "dilation is 0, expected"),
        (lambda: ASPP(4, (0,), convolution=separable_bn_relu), r"rates\[0\] is 0, expected"),
        (lambda: small_net()(torch.zeros(3, 8, 8)), "images has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_backbone_without_stride_4_is_refused() -> None:
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (4, 4, 4, 4))
    backbone.strides = (2, 8, 16)
    with pytest.raises(ValueError, match=r"backbone has strides \(2, 8, 16\), expected"):
        DeepLabV3Plus(backbone, 3)
