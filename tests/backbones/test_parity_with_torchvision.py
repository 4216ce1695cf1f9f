"""Our backbones and torchvision's, with the same random weights: every stage, in float64."""

from __future__ import annotations

import pytest
import torch
import torchvision
from randomise import randomise
from torch import Tensor, nn

from segedu.backbones import densenet, resnet, vgg
from segedu.backbones.resnet import BasicBlock, Bottleneck, ResNet

WIDTHS = (4, 6, 8, 10)
SIZES = [(64, 32), (47, 65), (33, 61)]


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def torchvision_net(name: str, **options: object) -> nn.Module:
    """Without the classifier: our backbones end before it."""
    with torch.device("meta"):  # the random start would be thrown away
        model = getattr(torchvision.models, name)(**options)
    setattr(model, "fc" if name.startswith("resnet") else "classifier", nn.Identity())
    return randomise(model.to_empty(device="cpu"))


def loaded(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    ours.double().eval().load_state_dict(theirs.state_dict(), strict=True)
    return ours


def vgg_stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    out = []
    for layer in model.features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            out.append(x.clone())
    return out


def resnet_stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.relu(model.bn1(model.conv1(x)))
    out = [x.clone()]
    x = model.maxpool(x)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        out.append(x.clone())
    return out


def densenet_stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    out = []
    for name, layer in model.features.named_children():
        if name.startswith("transition"):
            out.append(layer.relu(layer.norm(x)).clone())
        x = layer(x)
        if name == "relu0":
            out.append(x.clone())
    return [*out, torch.relu(x)]


STAGES = {"vgg": vgg_stages, "resnet": resnet_stages, "densenet": densenet_stages}
BUILDERS = {builder.__name__: builder for builder in (vgg.vgg16, vgg.vgg16_bn, densenet.densenet121)}
BUILDERS |= {name: getattr(resnet, name) for name in ("resnet18", "resnet34", "resnet50", "resnet101")}


def assert_equal(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> None:
    kind = type(theirs).__name__.lower()
    with torch.no_grad():
        got, expected = ours(images(*size)), STAGES[kind](theirs, images(*size))
    assert [f.shape[1] for f in got] == list(ours.channels)
    assert len(got) == len(expected) == 5 == len(ours.strides)
    for g, e in zip(got, expected, strict=True):
        assert e.std() > 0.01  # the weights are such that an error would show
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BUILDERS)
def test_features_of_every_stage(name: str) -> None:
    theirs = torchvision_net(name)
    ours = loaded(BUILDERS[name](), theirs)
    for size in SIZES:
        assert_equal(ours, theirs, size)


@pytest.mark.parametrize(("output_stride", "replaced"), [(16, (False, False, True)), (8, (False, True, True))])
def test_dilation_in_place_of_stride(output_stride: int, replaced: tuple[bool, ...]) -> None:
    theirs = torchvision_net("resnet50", replace_stride_with_dilation=list(replaced))
    ours = loaded(resnet.resnet50(output_stride=output_stride), theirs)
    for size in SIZES:
        assert_equal(ours, theirs, size)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_a_dilated_net_is_the_strided_net_at_more_places(block: type, output_stride: int) -> None:
    strided = randomise(ResNet(block, (2, 2, 2, 2), WIDTHS))
    dilated = ResNet(block, (2, 2, 2, 2), WIDTHS, output_stride=output_stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    with torch.no_grad():
        coarse, fine = strided(images(70, 90)), dilated(images(70, 90))
    for few, many, s, d in zip(coarse, fine, strided.strides, dilated.strides, strict=True):
        torch.testing.assert_close(many[..., :: s // d, :: s // d], few, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_one_weight_or_statistic_changed_is_noticed(name: str) -> None:
    theirs = torchvision_net(name)
    ours = loaded(BUILDERS[name](), theirs)
    last = [module for module in ours.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    for tensor in (last.weight, last.running_var):
        before = tensor.data.clone()
        tensor.data *= 1.01
        with pytest.raises(AssertionError, match="not close"):
            assert_equal(ours, theirs, SIZES[0])
        tensor.data = before
    assert_equal(ours, theirs, SIZES[0])


def test_gradients_agree() -> None:
    theirs = torchvision_net("resnet18")
    ours = loaded(resnet.resnet18(), theirs)
    ours.train(), theirs.train()  # statistics of the batch, and in-place steps that autograd must allow
    ours(images(64, 48))[-1].square().mean().backward()
    resnet_stages(theirs, images(64, 48))[-1].square().mean().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-10, atol=1e-10)
