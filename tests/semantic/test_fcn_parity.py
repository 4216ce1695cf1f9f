"""FCN's numbers against torchfcn (live, and by the record of it) and against torchvision, on the same weights."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable

import pytest
import torch
from semantic.torchfcn_record import NARROW, RECORD, SIZES, VARIANTS, fill, image, in_order, sample, torchfcn_net
from torch import Tensor, nn
from torchvision.models import segmentation

from segedu.backbones.vgg import VGG16_STAGES
from segedu.semantic import fcn as fcn_file
from segedu.semantic.fcn import FCN, FCNResNet, bilinear_kernel, fcn_resnet50, fcn_resnet101, fcn_vgg16

STAGES = [[NARROW[width] for width in stage] for stage in VGG16_STAGES]
OPTIONS = {
    "fcn32s": {"stride": 32},
    "fcn16s": {"stride": 16},
    "fcn8s": {"stride": 8},
    "fcn8s at once": {"stride": 8, "at_once": True},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
needs_torchfcn = pytest.mark.skipif(importlib.util.find_spec("torchfcn") is None, reason="torchfcn is not installed")


def narrow(variant: str) -> FCN:
    net = fcn_vgg16(3, stages=STAGES, hidden=NARROW[4096], **OPTIONS[variant]).double().eval()
    fill(our_order(net))
    return net


def our_order(net: FCN) -> list[nn.Parameter]:
    return [p for part in (net.backbone, net.head, net.skip_scores, net.upscores) for p in part.parameters()]


def recorded(variant: str, size: tuple[int, int]) -> Tensor:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return torch.tensor(record[variant]["{}x{}".format(*size)], dtype=torch.float64)


def sampled(net: FCN, size: tuple[int, int]) -> Tensor:
    with torch.no_grad():
        return torch.tensor(sample(net(image(*size))), dtype=torch.float64)


# --- torchfcn ---------------------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("size", SIZES)
def test_parity_with_the_record_of_torchfcn(variant: str, size: tuple[int, int]) -> None:
    torch.testing.assert_close(sampled(narrow(variant), size), recorded(variant, size), rtol=1e-9, atol=1e-10)


def shifted(logits: Tensor, skip: Tensor, first: int) -> Tensor:
    return ADD(logits, skip, first + 1)


def transposed_kernel(channels: int, kernel_size: int) -> Tensor:
    return bilinear_kernel(channels, kernel_size).roll(1, -1)


def unscaled(net: FCN) -> None:
    net.skip_scales = [1.0, 1.0]


def one_weight(net: FCN) -> None:
    with torch.no_grad():
        net.upscores[0].weight[0, 1, 2, 3] += 0.01


def no_border(net: FCN) -> None:
    net.border = 98


ADD = fcn_file._add_overlap


@pytest.mark.parametrize("mistake", [unscaled, one_weight, no_border])
def test_parity_notices_a_changed_net(mistake: Callable[[FCN], None]) -> None:
    net = narrow("fcn8s at once")
    mistake(net)
    assert (sampled(net, SIZES[0]) - recorded("fcn8s at once", SIZES[0])).abs().max() > 1e-5


@pytest.mark.parametrize(("name", "mistake"), [("_add_overlap", shifted), ("bilinear_kernel", transposed_kernel)])
def test_parity_notices_a_changed_function(monkeypatch: pytest.MonkeyPatch, name: str, mistake: Callable) -> None:
    monkeypatch.setattr(fcn_file, name, mistake)
    assert (sampled(narrow("fcn8s"), SIZES[0]) - recorded("fcn8s", SIZES[0])).abs().max() > 1e-5


@needs_torchfcn
@every_variant
@pytest.mark.parametrize("size", [(37, 45), (64, 96), (1, 3), (129, 70)])
def test_parity_with_torchfcn(variant: str, size: tuple[int, int]) -> None:
    theirs = torchfcn_net(variant).double()
    fill(in_order(theirs))
    with torch.no_grad():
        torch.testing.assert_close(narrow(variant)(image(*size)), theirs(image(*size)), rtol=0, atol=1e-10)


@needs_torchfcn
def test_gradients_agree_with_torchfcn() -> None:
    ours, theirs = narrow("fcn8s"), torchfcn_net("fcn8s").double()
    fill(in_order(theirs))
    for net in (ours, theirs):
        net(image(37, 45)).square().mean().backward()
    for mine, other in zip(our_order(ours), in_order(theirs), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-12)


@needs_torchfcn
@every_variant
def test_the_papers_widths_are_those_of_torchfcn(variant: str) -> None:
    with torch.device("meta"):
        ours, theirs = fcn_vgg16(**OPTIONS[variant]), torchfcn_net(variant, 21, narrow=False)
    assert [p.shape for p in our_order(ours)] == [p.shape for p in in_order(theirs)]


@needs_torchfcn
@pytest.mark.prove  # 134 million weights, twice
def test_parity_at_the_papers_width() -> None:
    torch.manual_seed(0)
    ours, theirs = fcn_vgg16(21, stride=8).eval(), torchfcn_net("fcn8s", 21, narrow=False)
    with torch.no_grad():
        for mine, other in zip(our_order(ours), in_order(theirs), strict=True):
            if not mine.any():  # the scores of the skips
                mine.normal_(std=0.1)
            other.copy_(mine)
        out, expected = ours(image(33, 40).float()), theirs(image(33, 40).float())
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


# --- torchvision ------------------------------------------------------------------------------------------------


def randomise(net: nn.Module) -> None:
    """Every tensor of the state dict, running statistics too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.uniform_(0.5, 2, generator=generator)  # else layer after layer fades out, and mistakes with them
            elif value.ndim > 1:
                value.normal_(std=(1 / value[0].numel()) ** 0.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(std=0.5, generator=generator)
            else:
                value.zero_()  # the count of batches


@functools.cache
def pair(layers: int) -> tuple[FCNResNet, nn.Module]:
    with torch.device("meta"):  # every tensor is filled below: no need to draw weights before
        ours = {50: fcn_resnet50, 101: fcn_resnet101}[layers](num_classes=5, aux=True).double().eval()
        build = {50: segmentation.fcn_resnet50, 101: segmentation.fcn_resnet101}[layers]
        theirs = build(weights=None, weights_backbone=None, num_classes=5, aux_loss=True).double().eval()
    ours, theirs = ours.to_empty(device="cpu"), theirs.to_empty(device="cpu")
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("layers", [50, 101])
@torch.no_grad()
def test_parity_with_torchvision(layers: int) -> None:
    ours, theirs = pair(layers)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for size in ((24, 16), (17, 31)):
        expected = theirs(image(*size))
        assert expected["out"].std() > 1e-3
        torch.testing.assert_close(ours.forward_with_aux(image(*size)), dict(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours(image(*size)), expected["out"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["classifier.4.weight", "classifier.1.running_var", "backbone.layer3.0.conv2.weight"])
@torch.no_grad()
def test_parity_with_torchvision_notices_one_tensor(name: str) -> None:
    ours, theirs = pair(50)
    tensor = ours.state_dict()[name]
    tensor += 0.01
    try:
        assert (ours(image(17, 31)) - theirs(image(17, 31))["out"]).abs().max() > 1e-6
    finally:
        tensor -= 0.01


def test_gradients_agree_with_torchvision() -> None:
    ours, theirs = pair(50)
    for logits in (ours.forward_with_aux(image(17, 23)), theirs(image(17, 23))):
        (logits["out"].square().mean() + logits["aux"].square().mean()).backward()
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, named[name].grad, rtol=1e-7, atol=1e-9)


def test_no_second_head_unless_asked() -> None:
    with torch.device("meta"):
        net = fcn_resnet50()
        theirs = segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    assert list(net.state_dict()) == list(theirs.state_dict())
    with pytest.raises(ValueError, match="aux_classifier is None"):
        net.forward_with_aux(torch.empty(1, 3, 8, 8, device="meta"))
