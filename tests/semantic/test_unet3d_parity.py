"""The nets that nnU-Net plans against dynamic_network_architectures, and the paper's own against functional calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.semantic import unet3d as unet3d_file
from segedu.semantic.nnunet.nnunet import SLICE_PARTS, VOLUME_PARTS
from segedu.semantic.unet3d import UNet3D


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(net: UNet3D) -> UNet3D:
    """All parameters and running statistics random: at their first values they would hide a mistake."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in net.double().state_dict().items():
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            scale = "var" in name or (tensor.ndim < 2 and name.endswith("weight"))
            tensor.copy_(values + 0.5 if scale else values - 0.3)  # more above 0 than below: no layer of dead ReLUs
    return net.eval()


def plain_conv_unet(net: UNet3D, widths: list[int]) -> nn.Module:
    """dynamic_network_architectures' net with our weights; its state dict names most tensors two or three times."""
    architectures = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    two = net.axes == 2
    other = architectures.PlainConvUNet(
        input_channels=net.in_channels,
        n_stages=len(widths),
        features_per_stage=widths,
        conv_op=nn.Conv2d if two else nn.Conv3d,
        kernel_sizes=[list(k) for k in net.kernels],
        strides=[list(s) for s in net.strides],
        n_conv_per_stage=2,
        num_classes=net.num_classes,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if two else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    ).double()
    ours = [p for part in (net.down, net.ups, net.merge, net.heads) for p in part.parameters()]
    decoder = other.decoder
    stages = [decoder.transpconvs, decoder.stages, list(decoder.seg_layers)[::-1]]
    theirs = [p for module in [other.encoder.stages, *stages[:2], *stages[2]] for p in module.parameters()]
    assert len(theirs) == len({id(p) for p in theirs}) == len(list(other.parameters())) == len(ours)
    assert len(other.state_dict()) > len(theirs)
    with torch.no_grad():
        for mine, its in zip(ours, theirs, strict=True):
            its.copy_(mine)
    return other.eval()


VOLUME = ([3, 4, 5], ((1, 3, 3), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), VOLUME_PARTS)
DEEP = (
    [2, 3, 4, 5],
    ((1, 1, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
    ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2)),
    VOLUME_PARTS,
)
SLICES = ([3, 4, 5], ((3, 3), (3, 1), (3, 3)), ((1, 1), (2, 1), (2, 2)), SLICE_PARTS)
CASES = [
    (VOLUME, (6, 12, 20)),
    (VOLUME, (2, 8, 12)),
    (DEEP, (6, 12, 24)),
    (DEEP, (2, 4, 16)),
    (SLICES, (12, 10)),
    (SLICES, (8, 6)),
    (([2, 3], ((3, 3, 3),) * 2, ((1, 1, 1), (2, 1, 1)), VOLUME_PARTS), (4, 7, 9)),  # odd where the stride is 1
]


def planned(case: tuple) -> UNet3D:
    widths, kernels, strides, parts = case
    pairs = [(w, w) for w in widths]
    return shaken(UNet3D(2, 3, pairs, kernels, strides, padding=True, outputs=len(widths) - 1, parts=parts))


@pytest.mark.parametrize(("case", "size"), CASES)
def test_parity_with_plain_conv_unet(case: tuple, size: tuple[int, ...]) -> None:
    net, images = planned(case), random(2, 2, *size)
    theirs = plain_conv_unet(net, case[0])(images)
    ours = net.forward_with_aux(images)
    for one, other in zip([ours["out"], *ours["aux"]], theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    torch.testing.assert_close(net(images), theirs[0], rtol=0, atol=1e-10)


def test_gradients_agree_with_plain_conv_unet() -> None:
    net, images = planned(VOLUME), random(1, 2, 4, 8, 12)
    other, leaf = plain_conv_unet(net, VOLUME[0]), images.clone().requires_grad_()
    mine = images.clone().requires_grad_()
    net(mine).square().mean().backward()
    other(leaf)[0].square().mean().backward()
    torch.testing.assert_close(mine.grad, leaf.grad, rtol=1e-8, atol=1e-12)


def oracle(net: UNet3D, x: Tensor) -> Tensor:
    """The paper's net by functional calls on copied weights, written for this test: plain slices, no shared code."""
    w = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def block(x: Tensor, name: str) -> Tensor:
        for i in (0, 3):
            x = F.conv3d(x, w[f"{name}.{i}.weight"], w[f"{name}.{i}.bias"])
            n = f"{name}.{i + 1}"
            mean, var, scale, shift = (
                w[f"{n}.{k}"].reshape(1, -1, 1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
            )
            x = torch.relu((x - mean) / (var + 1e-5).sqrt() * scale + shift)
        return x

    kept = []
    for level in range(3):
        x = block(F.max_pool3d(x, 2) if level else x, f"down.{level}")
        kept.append(x)
    for step, skip in enumerate([kept[1], kept[0]]):
        x = F.conv_transpose3d(x, w[f"ups.{step}.weight"], stride=2)
        a, b, c = [(have - want) // 2 for have, want in zip(skip.shape[2:], x.shape[2:], strict=True)]
        d, h, v = x.shape[2:]
        x = block(torch.cat((x, skip[:, :, a : a + d, b : b + h, c : c + v]), 1), f"merge.{step}")
    return F.conv3d(x, w["heads.0.weight"], w["heads.0.bias"])


def paper_net() -> UNet3D:
    return shaken(UNet3D(2, 3, ((2, 3), (3, 4), (4, 5))))


@pytest.mark.parametrize("size", [(44, 44, 44), (44, 52, 48)])
def test_parity_of_the_papers_net_with_functional_calls(size: tuple[int, ...]) -> None:
    net, images = paper_net(), random(2, 2, *size)
    ours = net(images)
    assert ours.std(dim=(0, 2, 3, 4)).min() > 0.01  # a dead net would be equal to anything
    torch.testing.assert_close(ours, oracle(net, images), rtol=1e-10, atol=1e-10)


def cut_corner(features: Tensor, size: tuple[int, ...]) -> Tensor:
    return features[..., : size[0], : size[1], : size[2]]


def swapped(tensors: list[Tensor], dim: int) -> Tensor:
    return torch.concatenate(tensors[::-1], dim)


@pytest.mark.parametrize(
    ("where", "name", "mistake"),
    [(unet3d_file, "center_crop", cut_corner), (torch, "cat", swapped)],
    ids=["crop at the corner", "skip first"],
)
def test_parity_notices_a_mistake(monkeypatch: pytest.MonkeyPatch, where: object, name: str, mistake) -> None:
    net, images = shaken(UNet3D(2, 3, ((2, 2), (2, 2), (2, 2)))), random(1, 2, 44, 44, 44)
    right = oracle(net, images)
    monkeypatch.setattr(where, name, mistake)
    assert (net(images) - right).abs().max() > 1e-3


def test_parity_notices_one_weight() -> None:
    net, images = planned(VOLUME), random(1, 2, 4, 8, 12)
    other = plain_conv_unet(net, VOLUME[0])
    with torch.no_grad():
        net.ups[0].weight[0, 0, 0, 0, 0] += 0.01
    assert (net(images) - other(images)[0]).abs().max() > 1e-6


@pytest.mark.parametrize("size", [(8, 16, 12), (16, 8, 8)])
def test_parity_with_monai(size: tuple[int, ...]) -> None:
    """MONAI's DynUNet has no biases before its norms and none in its up-convolutions: ours are set to 0."""
    nets = pytest.importorskip("monai.networks.nets")
    net = shaken(UNet3D(2, 3, ((3, 3), (4, 4), (5, 5)), padding=True, parts=VOLUME_PARTS))
    kernels, strides = [list(k) for k in net.kernels], [list(s) for s in net.strides]
    other = nets.DynUNet(3, 2, 3, kernels, strides, strides[1:], filters=[3, 4, 5]).double()
    with torch.no_grad():
        for part in (net.down, net.merge):
            for convolution in (m for m in part.modules() if isinstance(m, nn.Conv3d)):
                convolution.bias.zero_()
        for up in net.ups:
            up.bias.zero_()
    copy_into_monai(net, other)
    images = random(2, 2, *size)
    torch.testing.assert_close(net.eval()(images), other.eval()(images), rtol=0, atol=1e-10)


@torch.no_grad()
def copy_into_monai(net: UNet3D, other: nn.Module) -> None:
    theirs = [other.input_block, *other.downsamples, other.bottleneck]
    pairs = list(zip(net.down, theirs, strict=True))
    pairs += [(mine, block.conv_block) for mine, block in zip(net.merge, other.upsamples, strict=True)]
    for mine, block in pairs:
        for conv, norm, its_conv, its_norm in (
            (mine[0], mine[1], block.conv1, block.norm1),
            (mine[3], mine[4], block.conv2, block.norm2),
        ):
            its_conv.conv.weight.copy_(conv.weight)
            its_norm.weight.copy_(norm.weight)
            its_norm.bias.copy_(norm.bias)
    for up, block in zip(net.ups, other.upsamples, strict=True):
        block.transp_conv.conv.weight.copy_(up.weight)
    other.output_block.conv.conv.weight.copy_(net.heads[0].weight)
    other.output_block.conv.conv.bias.copy_(net.heads[0].bias)
