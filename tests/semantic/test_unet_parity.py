"""U-Net's numbers against two independent ones on the same weights: functional calls, and MONAI's blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.semantic import unet as unet_file
from segedu.semantic.unet import UNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_net(padding: int = 0, depth: int = 2, dtype: torch.dtype = torch.float64) -> UNet:
    torch.manual_seed(0)
    net = UNet(2, 3, base_channels=3, depth=depth, padding=padding).to(dtype)
    for parameter in net.parameters():  # biases too: at zero they would hide a mistake
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


def oracle(net: UNet, images: Tensor) -> Tensor:
    """U-Net by functional calls on copied weights, written for this test: plain slices, no shared code."""
    w = {name: value.detach().clone() for name, value in net.state_dict().items()}
    height, width = images.shape[-2:]

    def block(x: Tensor, name: str) -> Tensor:
        for i in (0, 2):
            x = torch.relu(F.conv2d(x, w[f"{name}.{i}.weight"], w[f"{name}.{i}.bias"], padding=net.padding))
        return x

    if net.padding:
        step = 2**net.depth
        rows = torch.arange(math.ceil(height / step) * step).clamp(max=height - 1)
        columns = torch.arange(math.ceil(width / step) * step).clamp(max=width - 1)
        images = images[:, :, rows][:, :, :, columns]
    kept, x = [], block(images, "contracting.0")
    for level in range(1, net.depth + 1):
        kept.append(x)
        x = block(F.max_pool2d(x, 2, 2), f"contracting.{level}")
    for step, skip in enumerate(reversed(kept)):
        x = F.conv_transpose2d(x, w[f"expanding.{step}.up_conv.weight"], w[f"expanding.{step}.up_conv.bias"], 2)
        top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        x = torch.cat((skip[:, :, top : top + x.shape[2], left : left + x.shape[3]], x), 1)
        x = block(x, f"expanding.{step}.double_conv")
    return F.conv2d(x, w["head.weight"], w["head.bias"])[:, :, :height, :width]


@pytest.mark.parametrize(("padding", "size"), [(0, (44, 52)), (0, (60, 44)), (1, (16, 24)), (1, (17, 23)), (1, (1, 5))])
def test_parity_with_functional_calls(padding: int, size: tuple[int, int]) -> None:
    net, images = small_net(padding), random(2, 2, *size)
    torch.testing.assert_close(net(images), oracle(net, images), rtol=0, atol=1e-10)


def swapped(tensors: list[Tensor], dim: int) -> Tensor:
    return torch.concatenate(tensors[::-1], dim)


def cut_corner(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features[..., : size[0], : size[1]]


def mean_pool(features: Tensor, kernel_size: int) -> Tensor:
    return F.avg_pool2d(features, kernel_size)


@pytest.mark.parametrize(
    ("where", "name", "mistake"),
    [(torch, "cat", swapped), (unet_file, "center_crop", cut_corner), (F, "max_pool2d", mean_pool)],
    ids=["up before skip", "crop at the corner", "mean pooling"],
)
def test_parity_notices_a_mistake(monkeypatch: pytest.MonkeyPatch, where: object, name: str, mistake) -> None:
    net, images = small_net(), random(1, 2, 44, 44)
    right = oracle(net, images)
    monkeypatch.setattr(where, name, mistake)
    assert (net(images) - right).abs().max() > 1e-3


def test_parity_notices_one_weight() -> None:
    net, images = small_net(), random(1, 2, 44, 44)
    right = oracle(net, images)
    with torch.no_grad():
        net.expanding[0].up_conv.weight[0, 0, 0, 0] += 0.01
    assert (net(images) - right).abs().max() > 1e-6


class MonaiUNet(nn.Module):
    """The padded U from MONAI's blocks. Its BasicUNet does not halve in the last step; these blocks can."""

    def __init__(self, net: UNet, base: int) -> None:
        from monai.networks.nets.basic_unet import Down, TwoConv, UpCat

        super().__init__()
        plain = {"act": "RELU", "norm": None, "bias": True, "dropout": 0.0}
        widths = [base * 2**level for level in range(net.depth + 1)]
        self.first = TwoConv(2, net.in_channels, base, **plain)
        self.downs = nn.ModuleList(Down(2, a, b, **plain) for a, b in zip(widths, widths[1:], strict=False))
        self.ups = nn.ModuleList(UpCat(2, 2 * w, w, w, **plain, upsample="deconv") for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(base, net.num_classes, 1)
        self.to(torch.float64)
        theirs, ours = self.state_dict(), net.state_dict()
        assert [v.shape for v in theirs.values()] == [v.shape for v in ours.values()]
        self.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.first(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.last(x)


@pytest.mark.parametrize("size", [(16, 24), (32, 8)])
def test_parity_with_monai(size: tuple[int, int]) -> None:
    net, images = small_net(padding=1), random(2, 2, *size)
    torch.testing.assert_close(net(images), MonaiUNet(net, 3)(images), rtol=0, atol=1e-10)


def test_gradients_agree_with_monai() -> None:
    net, images = small_net(padding=1), random(2, 2, 16, 24)
    other = MonaiUNet(net, 3)
    net(images).square().mean().backward()
    other(images).square().mean().backward()
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10)
