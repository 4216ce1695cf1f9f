"""DenseNet: every layer reads the features of all layers before it.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017,
    arXiv 1608.06993.
Idea: A layer adds a few channels (the growth rate k) to all that was found before and is given all of it. What is
    found once need not be found again, so the layers are narrow and the net has few weights. Between two dense
    blocks a transition halves the channels and the resolution.
Simplified: no drop-out, and the pooling over the whole image and the classifier are left out.
Shapes: images (B, C, H, W) -> a list of features, strides 2 (first convolution), 4, 8, 16 (what each transition
    sees, normalised and rectified, before it halves) and 32 (last block, normalised and rectified).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segedu.validation.images import check_images


class DenseLayer(nn.Module):
    """1x1 convolution to `bottleneck * growth_rate` channels, 3x3 convolution to `growth_rate` new ones.

    Normalisation and ReLU come before each convolution, as every layer normalises the common features anew.
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
    """Layers at one resolution, each fed with the input and with what all layers before it found.

    Args:
        num_layers: layers of the block.
        in_channels: C of the features.
        growth_rate: channels that each layer adds; C of the result is in_channels + num_layers * growth_rate.
        bottleneck: width of the 1x1 convolutions in growth rates.
    """

    def __init__(self, num_layers: int, in_channels: int, growth_rate: int, bottleneck: int = 4) -> None:
        numbers = dict(num_layers=num_layers, in_channels=in_channels, growth_rate=growth_rate, bottleneck=bottleneck)
        _check_counts(**numbers)
        super().__init__()
        for i in range(num_layers):
            self[f"denselayer{i + 1}"] = DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck)

    def forward(self, features: Tensor) -> Tensor:
        found = [features]
        for layer in self.values():
            found.append(layer(torch.cat(found, dim=1)))
        return torch.cat(found, dim=1)


class Transition(nn.Module):
    """Normalisation, ReLU, 1x1 convolution to fewer channels, 2x2 mean pooling.

    `forward` gives what the convolution saw, at the full resolution, and the pooled result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        activated = self.relu(self.norm(features))
        return activated, self.pool(self.conv(activated))


class DenseNet(nn.Module):
    """A 7x7 convolution, a max-pooling, dense blocks with transitions between them; keys as torchvision's.

    Args:
        layers: layers of each dense block.
        growth_rate: channels that each layer adds.
        width: channels of the 7x7 convolution.
        bottleneck: width of the 1x1 convolutions in growth rates.
        in_channels: channels of the images.
        normalize: what is applied to the images first, such as `layers.normalize.Normalize`.
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
        if not len(layers):
            raise ValueError("layers is empty, expected one number for each dense block")
        _check_counts(width=width, in_channels=in_channels)
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
        # the convolution and the max-pooling round up; the transitions need 2 rows for each that they give
        self.smallest = 4 * (2 ** (len(layers) - 1) - 1) + 1
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.smallest)
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
    """DenseNet-121 of the paper's table 1.

    Args:
        **options: of `DenseNet`.

    Returns:
        The backbone with random weights.
    """
    return DenseNet((6, 12, 24, 16), **options)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
