"""PSPNet against segmentation_models_pytorch on the same weights, and its parts against what the paper says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learning import fit
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones.resnet import BasicBlock, ResNet, resnet18
from segedu.losses.cross_entropy import cross_entropy
from segedu.semantic.pspnet import PSPNet, PyramidPooling, postprocess, pspnet_loss


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_net(num_classes: int = 4, **options: object) -> PSPNet:
    torch.manual_seed(0)
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), (8, 8, 16, 16), output_stride=8)
    return PSPNet(backbone, num_classes, width=8, **options)


# --- parity -----------------------------------------------------------------------------------------------------


class FirstStages(nn.Module):
    """A backbone that ends at stride 8, as the encoder of the reference does by default."""

    def __init__(self, backbone: ResNet) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, backbone.channels[:3]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images)[:3]


def reference() -> nn.Module:
    """The reference with random weights, but kernels that look at one place only in its head.

    It has a 1x1 convolution and then a 3x3 one behind the pyramid, the paper's code the other way round. What
    both can express is 1x1 and 1x1.
    """
    smp = pytest.importorskip("segmentation_models_pytorch")
    other = randomise(smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=10, classes=3))
    centre = torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(1.0))
    other.segmentation_head[0].weight.data.mul_(centre)
    return other


def in_our_order(weight: Tensor, channels: int) -> Tensor:
    """The reference concatenates the levels and then the features; the paper's code the features first."""
    return weight.roll(channels, dims=1)


@torch.no_grad()
def copy_pyramid(ours: PyramidPooling, theirs: nn.Module) -> None:
    for level, block in zip(ours.levels, theirs.blocks, strict=True):
        conv, norm, _ = block.pool[1]
        level[1].weight.copy_(conv.weight)
        if isinstance(norm, nn.BatchNorm2d):
            level[2].load_state_dict(norm.state_dict())
        else:  # their level of one bin has a bias and no normalisation
            level[2].reset_parameters()
            level[2].eps = 0
            level[2].bias.copy_(conv.bias)


@torch.no_grad()
def converted(other: nn.Module) -> PSPNet:
    backbone = resnet18()
    net = PSPNet(FirstStages(backbone), 3, width=10).double().eval()
    theirs = other.encoder.state_dict()
    ours = backbone.state_dict()
    backbone.load_state_dict({key: theirs.get(key, value) for key, value in ours.items()})
    channels = backbone.channels[2]
    copy_pyramid(net.pyramid, other.decoder.psp)
    first, norm, _ = other.decoder.conv
    net.classifier[0].weight.zero_()[:, :, 1:2, 1:2] = in_our_order(first.weight, channels)
    net.classifier[1].load_state_dict(norm.state_dict())
    last = other.segmentation_head[0]
    net.classifier[4].weight.copy_(last.weight[:, :, 1:2, 1:2])
    net.classifier[4].bias.copy_(last.bias)
    return net


@pytest.mark.parametrize("size", [(64, 96), (40, 56)])  # 5 x 7 features: bins that overlap
@torch.no_grad()
def test_parity_with_smp(size: tuple[int, int]) -> None:
    other = reference()
    net, images = converted(other), random(2, 3, *size)
    expected = other(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_parity_notices_a_mistake() -> None:
    other = reference()
    net, images = converted(other), random(1, 3, 40, 56)
    expected = other(images)

    def difference() -> float:
        return float((net(images) - expected).abs().max())

    net.pyramid.align_corners = False
    assert difference() > 1e-3
    net.pyramid.align_corners = True
    assert difference() < 1e-10
    pool = net.pyramid.levels[3][0]
    net.pyramid.levels[3][0] = nn.AdaptiveMaxPool2d(6)
    assert difference() > 1e-3
    net.pyramid.levels[3][0] = pool
    net.pyramid.levels[1][1].weight[0] += 0.1
    assert difference() > 1e-5


@pytest.mark.parametrize("size", [(12, 20), (7, 13), (2, 3), (1, 1)])
def test_pyramid_and_its_gradients_agree_with_smp(size: tuple[int, int]) -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.pspnet.decoder")
    theirs = randomise(decoder.PSPModule(8))
    ours = randomise(PyramidPooling(8))
    copy_pyramid(ours, theirs)
    features = [random(2, 8, *size).requires_grad_() for _ in range(2)]
    ours, theirs = ours(features[0]), theirs(features[1]).roll(8, dims=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(features[0].grad, features[1].grad, rtol=0, atol=1e-12)


def oracle(net: PSPNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Everything behind the backbone by functional calls and loops over bins."""
    w = net.state_dict()

    def norm_relu(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (w[f"{name}.{n}"].reshape(-1, 1, 1) for n in names)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def means(x: Tensor, bins: int) -> Tensor:
        h, w = x.shape[-2:]
        rows = [x[:, :, i * h // bins : -(-(i + 1) * h // bins)] for i in range(bins)]
        cells = [[r[..., i * w // bins : -(-(i + 1) * w // bins)].mean((2, 3)) for i in range(bins)] for r in rows]
        return torch.stack([torch.stack(row, -1) for row in cells], -2)

    def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def head(x: Tensor, name: str) -> Tensor:
        x = norm_relu(F.conv2d(x, w[f"{name}.0.weight"], padding=1), f"{name}.1")
        return resize(F.conv2d(x, w[f"{name}.4.weight"], w[f"{name}.4.bias"]), images.shape[-2:])

    *_, middle, x = net.backbone(images)
    joined = [x]
    for i, bins in enumerate((1, 2, 3, 6)):
        level = norm_relu(F.conv2d(means(x, bins), w[f"pyramid.levels.{i}.1.weight"]), f"pyramid.levels.{i}.2")
        joined.append(resize(level, x.shape[-2:]))
    return head(torch.cat(joined, 1), "classifier"), head(middle, "aux_classifier")


@pytest.mark.parametrize("size", [(64, 48), (37, 45), (65, 97)])
@torch.no_grad()
def test_parity_with_functional_calls(size: tuple[int, int]) -> None:
    net, images = randomise(small_net(aux=True)), random(2, 3, *size)
    out, aux = oracle(net, images)
    got = net.forward_with_aux(images)
    torch.testing.assert_close(got["out"], out, rtol=0, atol=1e-12)
    torch.testing.assert_close(got["aux"], aux, rtol=0, atol=1e-12)
    assert torch.equal(net(images), got["out"])


# --- parts ------------------------------------------------------------------------------------------------------


def test_half_of_the_channels_behind_the_pyramid_are_the_features() -> None:
    pyramid = PyramidPooling(2048)
    assert [level[1].out_channels for level in pyramid.levels] == [512] * 4 and pyramid.out_channels == 4096
    features = random(1, 2048, 6, 6, dtype=torch.float32)
    assert torch.equal(pyramid(features)[:, :2048], features)


def test_each_level_sees_its_part_of_the_image() -> None:
    pyramid = randomise(PyramidPooling(4, width=1, align_corners=False))
    for level in pyramid.levels:
        nn.init.constant_(level[2].bias, 9)  # so that the ReLU lets everything pass
    for i, bins in enumerate((1, 2, 3, 6)):
        features = random(1, 4, 12, 12).requires_grad_()
        pyramid.levels[i](features)[0, 0, 0, 0].backward()
        seen = features.grad.abs().sum(dim=(0, 1)) > 0
        part = 12 // bins
        assert seen[:part, :part].all() and seen.sum() == part**2


def test_widths_and_bins_are_arguments() -> None:
    pyramid = PyramidPooling(8, (1, 4), width=3)
    assert pyramid.out_channels == 14 and pyramid(random(2, 8, 5, 5, dtype=torch.float32)).shape == (2, 14, 5, 5)
    assert small_net(level_width=2).classifier[0].in_channels == 16 + 4 * 2


def test_loss_is_that_of_both_heads() -> None:
    net = small_net(aux=True)
    outputs = net.forward_with_aux(random(2, 3, 32, 40, dtype=torch.float32))
    target = torch.randint(0, 4, (2, 32, 40), generator=torch.Generator().manual_seed(3))
    target[0, :5] = 255
    parts = [cross_entropy(outputs[name], target, ignore_index=255) for name in ("out", "aux")]
    torch.testing.assert_close(pspnet_loss(outputs, target), parts[0] + 0.4 * parts[1])
    torch.testing.assert_close(pspnet_loss(outputs, target, aux_weight=0), parts[0])
    pspnet_loss(outputs, target).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_one_image_trains() -> None:
    net = small_net().train()
    net(random(1, 3, 32, 40, dtype=torch.float32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.learns
def test_fits_one_batch() -> None:
    torch.manual_seed(0)
    net = small_net(num_classes=2)
    target = torch.zeros(2, 32, 40, dtype=torch.int64)
    target[0, 4:20, 6:22], target[1, 12:28, 16:36] = 1, 1
    images = 0.7 * target[:, None] + 0.3 * random(2, 3, 32, 40, dtype=torch.float32)
    _, loss = fit(net, lambda: cross_entropy(net(images), target), steps=100, lr=1e-2)
    net.train()  # with the batch's statistics
    assert loss < 0.2 and (postprocess(net(images)) == target).float().mean() > 0.9


OUTPUTS = {"out": torch.zeros(1, 2, 4, 4), "aux": torch.zeros(1, 2, 4, 4)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_net(num_classes=0), "num_classes is 0, expected"),
        (lambda: PyramidPooling(8, ()), "bins is empty, expected"),
        (lambda: PyramidPooling(8, (1, 0)), r"bins\[1\] is 0, expected"),
        (lambda: PyramidPooling(3), "width is 0, expected"),
        (lambda: small_net().forward_with_aux(torch.zeros(1, 3, 32, 32)), "aux_classifier is None"),
        (lambda: small_net()(torch.zeros(1, 1, 32, 32)), "images has shape"),
        (lambda: pspnet_loss({"out": OUTPUTS["out"]}, torch.zeros(1, 4, 4).long()), r"keys \['out'\], expected"),
        (lambda: pspnet_loss(OUTPUTS, torch.zeros(1, 4, 4).long(), -1), "aux_weight is -1, expected"),
        (lambda: pspnet_loss(OUTPUTS, torch.zeros(1, 4, 4).long(), float("nan")), "aux_weight is nan, expected"),
        (lambda: PSPNet(small_net().backbone, 4, width=0), "^width is 0, expected"),
        (lambda: pspnet_loss(OUTPUTS, torch.zeros(1, 5, 5).long()), "target has shape"),
        (lambda: postprocess(torch.zeros(3, 4)), "logits has shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_loss_wants_both_heads() -> None:
    with pytest.raises(TypeError, match="outputs has type Tensor, expected a dict with the keys out, aux"):
        pspnet_loss(OUTPUTS["out"], torch.zeros(1, 4, 4).long())
