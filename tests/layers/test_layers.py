"""The blocks of layers against torch's functional calls and hand-worked numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segedu.layers.conv import conv_bn_relu
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from segedu.validation.images import check_images


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 4), (1, 1, 1), (5, 1, 2)])
def test_conv_bn_relu(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    block = conv_bn_relu(2, 3, kernel, stride, dilation).double().eval()
    conv, norm = block[0], block[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data = torch.rand(3, dtype=torch.float64) + 0.1
    x = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    y = F.conv2d(x, conv.weight, None, stride, dilation * (kernel // 2), dilation)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    expected = (y * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]).clamp(min=0)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)
    assert sorted(key.split(".")[0] for key in block.state_dict()) == ["0", *["1"] * 5]
    if stride == 1:
        assert block(x).shape[2:] == x.shape[2:]


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "kernel_size", "stride", "dilation"])
def test_conv_bn_relu_refuses_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is 0, expected an integer of at least 1"):
        conv_bn_relu(**{"in_channels": 1, "out_channels": 1, name: 0})


def test_normalize() -> None:
    # a black, a grey and a white pixel by hand: (v - mean) / std
    images = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).repeat(3, 1)[:, None]
    out = Normalize(IMAGENET_MEAN, IMAGENET_STD).double()(images)
    expected = [[(v - m) / s for v in (0.0, 0.5, 1.0)] for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    torch.testing.assert_close(out[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    assert not Normalize(IMAGENET_MEAN, IMAGENET_STD).state_dict()


def test_normalize_refuses() -> None:
    for arguments in (((1.0,), (1.0, 2.0)), ((), ()), ((0.5,), (0.0,))):
        with pytest.raises(ValueError, match="expected"):
            Normalize(*arguments)
    with pytest.raises(ValueError, match=r"^images has shape \(1, 1, 4, 4\), expected \(\.\.\., 3, H, W\)"):
        Normalize(IMAGENET_MEAN, IMAGENET_STD)(torch.zeros(1, 1, 4, 4))


def test_check_images() -> None:
    check_images(torch.zeros(1, 3, 1, 1), 3)
    check_images(torch.zeros(2, 1, 8, 9), 1, min_size=8)
    with pytest.raises(ValueError, match=r"^images has shape \(2, 1, 7, 9\), expected H and W of at least 8"):
        check_images(torch.zeros(2, 1, 7, 9), 1, min_size=8)


def test_check_images_of_volumes() -> None:
    check_images(torch.zeros(1, 2, 1, 4, 5), 2, axes=3)
    with pytest.raises(ValueError, match=r"^images has shape \(1, 2, 4, 5\), expected \(B, 2, D, H, W\)"):
        check_images(torch.zeros(1, 2, 4, 5), 2, axes=3)
    with pytest.raises(ValueError, match="expected D and H and W of at least 2"):
        check_images(torch.zeros(1, 2, 1, 4, 5), 2, min_size=2, axes=3)
    with pytest.raises(TypeError, match="images has type ndarray"):
        check_images(torch.zeros(1, 2, 1, 4, 5).numpy(), 2, axes=3)
