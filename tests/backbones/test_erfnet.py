"""ERFNet against functional calls on the same weights, its keys, its sizes and what its drop-out drops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from randomise import randomise
from torch import Tensor

from segedu.backbones.erfnet import Downsampler, ERFNetDecoder, ERFNetEncoder, NonBottleneck1d

DILATIONS = [1, 1, 1, 1, 1, 2, 4, 8, 16, 2, 4, 8, 16]  # table I, layers 3 to 7 and 9 to 16


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Oracle:
    """The paper's table I, layer by layer, on a state dict."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = weights

    def norm(self, x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self.w[f"{name}.{n}"].reshape(-1, 1, 1) for n in names)
        return (x - mean) / (variance + 0.001).sqrt() * scale + shift

    def conv(self, x: Tensor, name: str, **options: object) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], **options)

    def down(self, x: Tensor, name: str) -> Tensor:
        pooled = F.max_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-1e9), 2)
        strided = self.conv(x, f"{name}.conv", stride=2, padding=1)
        return self.norm(torch.cat([strided, pooled], 1), f"{name}.bn").clamp(min=0)

    def block(self, x: Tensor, name: str, d: int) -> Tensor:
        y = self.conv(x, f"{name}.conv3x1_1", padding=(1, 0)).clamp(min=0)
        y = self.norm(self.conv(y, f"{name}.conv1x3_1", padding=(0, 1)), f"{name}.bn1").clamp(min=0)
        y = self.conv(y, f"{name}.conv3x1_2", padding=(d, 0), dilation=(d, 1)).clamp(min=0)
        y = self.norm(self.conv(y, f"{name}.conv1x3_2", padding=(0, d), dilation=(1, d)), f"{name}.bn2")
        return (x + y).clamp(min=0)

    def encoder(self, x: Tensor) -> list[Tensor]:
        x = self.down(x, "initial_block")
        features = [x]
        x = self.down(x, "layers.0")
        for i in range(5):
            x = self.block(x, f"layers.{i + 1}", DILATIONS[i])
        features.append(x)
        x = self.down(x, "layers.6")
        for i in range(8):
            x = self.block(x, f"layers.{i + 7}", DILATIONS[i + 5])
        return [*features, x]

    def decoder(self, x: Tensor) -> Tensor:
        for start in (0, 3):
            # a transposed convolution: zeros between the pixels, and the kernel turned round
            kernel = self.w[f"layers.{start}.conv.weight"].flip(2, 3).transpose(0, 1)
            spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] + 2, 2 * x.shape[3] + 2)
            spread[:, :, 1:-1:2, 1:-1:2] = x
            x = F.conv2d(spread, kernel, self.w[f"layers.{start}.conv.bias"])
            x = self.norm(x, f"layers.{start}.bn").clamp(min=0)
            for i in (1, 2):
                x = self.block(x, f"layers.{start + i}", 1)
        kernel = self.w["output_conv.weight"]  # (C, K, 2, 2), stride 2: every pixel becomes a square of 2 x 2
        squares = torch.einsum("bchw,ckij->bkhiwj", x, kernel)
        return squares.flatten(2, 3).flatten(3, 4) + self.w["output_conv.bias"].reshape(-1, 1, 1)


@pytest.mark.parametrize("size", [(32, 48), (37, 21), (1, 3)])
@torch.no_grad()
def test_encoder_is_table_1(size: tuple[int, int]) -> None:
    net, images = randomise(ERFNetEncoder(2)), random(2, 2, *size)
    features = net(images)
    for got, expected, stride, channels in zip(
        features, Oracle(net.state_dict()).encoder(images), net.strides, net.channels, strict=True
    ):
        assert got.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert expected.std() > 0.01
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_decoder_is_table_1() -> None:
    net, features = randomise(ERFNetDecoder(3)), random(2, 128, 3, 5)
    got = net(features)
    assert got.shape == (2, 3, 24, 40)
    torch.testing.assert_close(got, Oracle(net.state_dict()).decoder(features), rtol=0, atol=1e-10)


def test_backward_reaches_every_parameter_at_tiny_width() -> None:
    torch.manual_seed(0)
    widths = (4, 6, 8)
    encoder = ERFNetEncoder(3, widths, ((1,), (2, 4)))
    decoder = ERFNetDecoder(2, widths, blocks=1)
    features = encoder(random(2, 3, 32, 40).float())
    assert [f.shape[1] for f in features] == list(encoder.channels)
    decoder(features[-1]).square().sum().backward()
    for net in (encoder, decoder):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_drop_out_drops_whole_channels_in_training_only() -> None:
    torch.manual_seed(0)
    block = NonBottleneck1d(64, dropout=0.5)
    torch.nn.init.zeros_(block.bn2.weight)
    torch.nn.init.ones_(block.bn2.bias)  # the residual is 1 everywhere
    out = block.train()(torch.zeros(2, 64, 5, 5))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(out.amin((2, 3)), out.amax((2, 3)))
    assert torch.equal(block.eval()(torch.zeros(2, 64, 5, 5)), torch.ones(2, 64, 5, 5))
    drops = [layer.dropout.p for layer in ERFNetEncoder().layers if isinstance(layer, NonBottleneck1d)]
    assert drops == [0.03] * 5 + [0.3] * 8
    assert {layer.dropout.p for layer in ERFNetDecoder(1).layers if isinstance(layer, NonBottleneck1d)} == {0.0}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Downsampler(8, 8), "out_channels is 8"),
        (lambda: NonBottleneck1d(0), "channels is 0"),
        (lambda: NonBottleneck1d(4, dilation=0), "dilation is 0"),
        (lambda: ERFNetEncoder(3, (16, 64)), "widths has 2 entries"),
        (lambda: ERFNetEncoder(3, (16, 16, 32)), "out_channels is 16"),
        (lambda: ERFNetDecoder(0), "num_classes is 0"),
        (lambda: ERFNetEncoder(3)(torch.rand(1, 1, 8, 8)), "images has shape"),
    ],
)
def test_bad_arguments(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
