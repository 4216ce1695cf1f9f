"""DenseNet: every layer receives the features of all previous layers of its block.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, arXiv 1608.06993.
Idea: The input of a layer is the concatenation of all previous features, to which it adds a few channels (the growth
    rate k). Features are reused instead of learned again, so the layers are narrow and the network has few weights.
    Between two dense blocks a transition halves the channels and the resolution.
Simplified: no dropout; the global pooling and the classifier are omitted.
Shapes: images (B, C, H, W) -> a list of features, strides 2 (first convolution), 4, 8, 16 (inputs of the transitions,
    after normalisation and ReLU) and 32 (last block, after normalisation and ReLU).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segedu.validation.images import check_images
from segedu.validation.numbers import check_integers, check_stages


class DenseLayer(nn.Module):
    """1x1 convolution to `bottleneck * growth_rate` channels, 3x3 convolution to `growth_rate` new ones.

    Normalisation and ReLU come before each convolution, because every layer normalises the shared features differently.
    """

    def __init__(self, in_channels: int, growth_rate: int, bottleneck: int = 4) -> None:
        super().__init__()
        width = bottleneck * growth_rate
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, growth_rate, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(features)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    """Layers at one resolution, each applied to the input and the outputs of all previous layers.

    Args:
        num_layers: layers of the block.
        in_channels: C of the features.
        growth_rate: channels that each layer adds; the output has in_channels + num_layers * growth_rate channels.
        bottleneck: width of the 1x1 convolutions in growth rates.
    """

    def __init__(self, num_layers: int, in_channels: int, growth_rate: int, bottleneck: int = 4) -> None:
        check_integers(num_layers=num_layers, in_channels=in_channels)
        check_integers(growth_rate=growth_rate, bottleneck=bottleneck)
        super().__init__()
        for i in range(num_layers):
            self[f"denselayer{i + 1}"] = DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck)

    def forward(self, features: Tensor) -> Tensor:
        outputs = [features]
        for layer in self.values():
            outputs.append(layer(torch.cat(outputs, dim=1)))
        return torch.cat(outputs, dim=1)


class Transition(nn.Module):
    """Normalisation, ReLU, 1x1 convolution to fewer channels, 2x2 average pooling.

    `forward` returns the input of the convolution, at the full resolution, and the pooled result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        check_integers(in_channels=in_channels, out_channels=out_channels)
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        activated = self.relu(self.norm(features))
        return activated, self.pool(self.conv(activated))


class DenseNet(nn.Module):
    """A 7x7 convolution, max pooling, dense blocks, and transitions between them; state dict keys as in torchvision.

    Args:
        layers: layers of each dense block.
        growth_rate: channels that each layer adds.
        width: channels of the 7x7 convolution.
        bottleneck: width of the 1x1 convolutions in growth rates.
        in_channels: channels of the images.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        layers: Sequence[int] = (6, 12, 24, 16),
        growth_rate: int = 32,
        width: int = 64,
        bottleneck: int = 4,
        *,
        in_channels: int = 3,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_stages(layers=layers)
        check_integers(width=width, in_channels=in_channels)
        self.in_channels = in_channels
        self.normalize = nn.Identity() if normalize is None else normalize
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(width))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        channels = [width]
        for i, num_layers in enumerate(layers, start=1):
            self.features.add_module(f"denseblock{i}", DenseBlock(num_layers, width, growth_rate, bottleneck))
            channels.append(width + num_layers * growth_rate)
            if i < len(layers):
                width = channels[-1] // 2
                self.features.add_module(f"transition{i}", Transition(channels[-1], width))
        self.features.add_module("norm5", nn.BatchNorm2d(channels[-1]))
        self.channels = tuple(channels)
        self.strides = tuple(2**i for i in range(1, len(channels) + 1))
        # the convolution and the max pooling round up; each row after a transition needs two rows before it
        self.min_size = 4 * (2 ** (len(layers) - 1) - 1) + 1
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.min_size)
        features, x = [], self.normalize(images)
        for name, layer in self.features.named_children():
            if isinstance(layer, Transition):
                activated, x = layer(x)
                features.append(activated)
            else:
                x = layer(x)
                if name == "relu0":
                    features.append(x)
        return [*features, torch.relu_(x)]


def densenet121(**options: Any) -> DenseNet:
    """DenseNet-121 (table 1 of the paper) with random weights; `options` are those of `DenseNet`."""
    return DenseNet((6, 12, 24, 16), **options)
