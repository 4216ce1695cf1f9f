"""ConvNeXt: a ResNet with the design choices of transformers, except for attention.

Paper: Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545.
Idea: Step by step the authors turn a ResNet into a network like Swin: patches of 4 x 4 pixels at the start, a depthwise
    7 x 7 convolution in place of attention, an MLP at each location, and few normalisations, over the channels of one
    location. With the same training it is as good as Swin: much of the success of attention came from the design around
    it.
Simplified: no stochastic depth. The last normalisation belongs to the classifier, and is omitted with it.
Shapes: images (B, C, H, W), H and W at least 32 -> a list of four features (B, C_i, H / s_i, W / s_i), sizes rounded
    down, strides 4, 8, 16, 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segedu.backbones.vit import MLP
from segedu.layers.layer_norm import EPS, LayerNorm2d
from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_stages


class ConvNeXtBlock(nn.Module):
    """A depthwise 7x7 convolution and an MLP at each location, with a residual connection: figure 4.

    Args:
        channels: C of the features.
        layer_scale: initial value of the learned factor of each channel of the residual branch.
    """

    def __init__(self, channels: int, layer_scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.mlp = MLP(channels, 4 * channels)
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), float(layer_scale)))

    def forward(self, features: Tensor) -> Tensor:
        x = self.depthwise(features).movedim(1, -1)  # (B, H, W, C)
        x = self.mlp(self.norm(x)).movedim(-1, 1)  # (B, C, H, W)
        return features + self.layer_scale * x


class ConvNeXt(nn.Module):
    """Patches of 4 x 4 pixels, then stages of blocks, with a downsampling by 2 before each but the first.

    State dict keys are those of torchvision, but inside a block the layers have names in place of numbers.

    Args:
        depths: number of blocks of each stage.
        widths: C of each stage.
        in_channels: channels of the images.
        layer_scale: initial value of the factors of the residual branches: small, so that blocks start near the
            identity.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        in_channels: int = 3,
        layer_scale: float = 1e-6,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_stages(depths=depths, widths=widths)
        check_integer("in_channels", in_channels)
        self.in_channels = in_channels
        self.channels = tuple(widths)
        self.strides = tuple(4 * 2**i for i in range(len(widths)))
        self.normalize = nn.Identity() if normalize is None else normalize
        layers: list[nn.Module] = []
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i == 0:
                downsample = nn.Sequential(nn.Conv2d(in_channels, width, kernel_size=4, stride=4), LayerNorm2d(width))
            else:  # normalised first, because the authors saw training diverge otherwise
                previous = widths[i - 1]
                downsample = nn.Sequential(LayerNorm2d(previous), nn.Conv2d(previous, width, kernel_size=2, stride=2))
            layers += [downsample, nn.Sequential(*(ConvNeXtBlock(width, layer_scale) for _ in range(depth)))]
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, min_size=self.strides[-1])
        x, features = self.normalize(images), []
        for downsample, stage in zip(self.features[::2], self.features[1::2], strict=True):
            x = stage(downsample(x))  # (B, C, H / s, W / s)
            features.append(x)
        return features


def convnext_tiny(**options: Any) -> ConvNeXt:
    """ConvNeXt-T with 27.8 million parameters and random weights, about the cost of a ResNet-50 or Swin-T.

    `options` are those of `ConvNeXt`.
    """
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), **options)


def convnext_small(**options: Any) -> ConvNeXt:
    """ConvNeXt-S with random weights: the third stage three times as deep; `options` are those of `ConvNeXt`."""
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), **options)


def convnext_base(**options: Any) -> ConvNeXt:
    """ConvNeXt-B with random weights: as deep as ConvNeXt-S, and a third wider; `options` are those of `ConvNeXt`."""
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), **options)
