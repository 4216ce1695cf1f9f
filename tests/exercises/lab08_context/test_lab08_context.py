"""What is special about lab 8: its references agree with the library's modules, and its statements hold."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segedu.backbones.resnet import BasicBlock, ResNet
from segedu.semantic.deeplabv3 import ASPP, aspp_rates
from segedu.semantic.deeplabv3plus import Decoder, SeparableConv
from segedu.semantic.pspnet import PyramidPooling
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab08_context as lab

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def bare(module):
    """In float64, evaluating, with normalisations that change nothing."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(1 - layer.eps)
    return module.double().eval()


@pytest.mark.parametrize("size", [(12, 18), (7, 11)])
def test_ppm_is_the_librarys_pyramid_without_normalisation(size):
    module = bare(PyramidPooling(8, (1, 2, 3, 6)))
    features = torch.randn(2, 8, *size, dtype=torch.float64)
    weights = [level[1].weight[:, :, 0, 0] for level in module.levels]
    torch.testing.assert_close(reference("ppm")(features, weights, [1, 2, 3, 6]), module(features))


@pytest.mark.parametrize(("size", "output_stride"), [((13, 17), 16), ((24, 30), 8)])
def test_aspp_is_the_librarys_before_its_projection(size, output_stride):
    module = bare(ASPP(4, aspp_rates(output_stride), width=3))
    features = torch.randn(2, 4, *size, dtype=torch.float64)
    one, *atrous, image = module.convs
    weights = {
        "one": one[0].weight[:, :, 0, 0],
        "atrous": [branch[0].weight for branch in atrous],
        "image": image[1].weight[:, :, 0, 0],
    }
    joined = torch.cat([branch(features) for branch in module.convs], dim=1)
    torch.testing.assert_close(reference("aspp")(features, weights, [6, 12, 18], output_stride), joined)


def test_v3plus_decode_is_what_the_librarys_decoder_refines():
    module = bare(Decoder(6, 5, low_level_width=3, width=4, align_corners=False))
    seen = []
    module.refine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    low, deep = torch.randn(2, 6, 9, 14, dtype=torch.float64), torch.randn(2, 5, 3, 4, dtype=torch.float64)
    module(low, deep)
    got = reference("v3plus_decode")(deep, low, module.reduce[0].weight[:, :, 0, 0])
    torch.testing.assert_close(got, seen[0])


def test_separable_counts_the_librarys_layer():
    for channels, out, kernel, rate in ((2, 5, 3, 1), (7, 3, 5, 4), (1, 1, 1, 1)):
        layer = SeparableConv(channels, out, kernel, dilation=rate)
        assert reference("separable")(channels, out, kernel, rate) == sum(p.numel() for p in layer.parameters())


def layers_of(net):
    """Main path of a ResNet, in the order in which it runs: (kind, kernel, stride, dilation, padding)."""
    found, hooks = [], []

    def note(layer, *_):
        kind = "pool" if isinstance(layer, nn.MaxPool2d) else "conv"
        numbers = (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
        found.append((kind, *(n if isinstance(n, int) else n[0] for n in numbers)))

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            hooks.append(layer.register_forward_hook(note))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 64, 64))
    return found


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_convert_os_is_what_the_librarys_resnet_does(output_stride):
    def build(stride):
        return ResNet(BasicBlock, (1, 2, 2, 2), widths=(4, 4, 4, 4), output_stride=stride)

    plain = [(kind, kernel, stride, padding) for kind, kernel, stride, _, padding in layers_of(build(32))]
    assert reference("convert_os")(plain, output_stride) == layers_of(build(output_stride))


def run(features, kernels, layers):
    for kernel, (kind, size, stride, dilation, padding) in zip(kernels, layers, strict=True):
        if kind == "pool":
            # torch refuses more padding than half a plain kernel, so it is put on by hand
            features = F.max_pool2d(F.pad(features, [padding] * 4, value=-torch.inf), size, stride, 0, dilation)
        else:
            features = F.conv2d(features, kernel, None, stride, padding, dilation)
    return features


@pytest.mark.parametrize("output_stride", [1, 4, 8])
def test_a_converted_stack_gives_the_coarse_answers_among_others(output_stride):
    layers = draw(BY_NAME["convert_os"], 0)[0][2]["args"][0]
    kernels = [torch.randn(2, 2, size, size, dtype=torch.float64) / size for _, size, _, _ in layers]
    features = torch.randn(1, 2, 65, 97, dtype=torch.float64)
    coarse, fine = (run(features, kernels, reference("convert_os")(layers, stride)) for stride in (32, output_stride))
    step = 32 // output_stride
    torch.testing.assert_close(fine[..., ::step, ::step], coarse)


def test_atrous_convolution_of_a_spot_is_the_kernel_spread_and_turned():
    spot = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    spot[..., 4, 4] = 1
    kernel = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3)
    out = reference("dilate_conv")(spot, kernel, 2)[0, 0]
    assert torch.equal(out[2:7:2, 2:7:2], kernel[0, 0].flip(0, 1)) and out.count_nonzero() == 9


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Three of its items cannot be run as they stand: see the comments."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"as transposed", "padding 1", "zeros in the map", "stride"} <= names
    # c/4 comes with the weights: the mistake is to leave the reduction out
    assert {"channels not reduced", "maximum", "map not concatenated", "nearest", "corners not aligned"} <= names
    assert {"image pooling missing", "padding is not the rate", "summed", "rates not scaled"} <= names
    # a list of layers holds no weights to be copied: in their place poolings and padding
    assert {"the strided layer dilated", "poolings kept", "doubled once", "padding kept"} <= names
    assert {"biases", "channels added", "kernel not squared", "groups wrong"} <= names
    # "x 4 wrong" and "sizes off by 1" are both wrong factors, of which the statement has none
    assert {"low level not reduced", "always four times", "added", "by a factor"} <= names
