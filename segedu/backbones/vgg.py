"""VGG: 3x3 convolutions and nothing else, in stages of one resolution each.

Paper: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
    arXiv 1409.1556.
Idea: Two 3x3 convolutions see as far as one of 5x5, with fewer weights and one ReLU more. So all kernels are
    3x3; a max-pooling halves the resolution and the next stage has twice the channels, up to 512.
Simplified: the part up to the last pooling, without the three fully connected layers: networks that label every
    pixel bring their own.
Shapes: images (B, C, H, W) -> a list of features (B, C_i, H / 2**i, W / 2**i), i = 1 to 5, one after each pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from segedu.validation.images import check_images

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each stage closed by a 2x2 max-pooling; keys as torchvision's.

    Args:
        stages: for each stage the channels of its convolutions; the default is the paper's configuration D.
        in_channels: channels of the images.
        batch_norm: normalise after every convolution. Paper: no, batch normalisation came later.
        ceil_mode: poolings round an odd size up instead of down, as Caffe does.
        first_padding: padding of the first convolution; FCN uses 100.
        normalize: what is applied to the images first, such as `layers.normalize.Normalize`.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = VGG16_STAGES,
        *,
        in_channels: int = 3,
        batch_norm: bool = False,
        ceil_mode: bool = False,
        first_padding: int = 1,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not stages or not all(len(widths) and min(widths) > 0 for widths in stages):
            raise ValueError(f"stages is {stages}, expected a sequence of stages with one or more widths each")
        if in_channels < 1 or first_padding < 0:
            raise ValueError(
                f"in_channels is {in_channels} and first_padding {first_padding}, expected at least 1 and at least 0"
            )
        self.in_channels = in_channels
        self.channels = tuple(widths[-1] for widths in stages)
        self.strides = tuple(2**i for i in range(1, len(stages) + 1))
        # what the poolings need, less what the padding of the first convolution adds
        self.smallest = max((1 if ceil_mode else self.strides[-1]) - 2 * (first_padding - 1), 1)
        self.normalize = nn.Identity() if normalize is None else normalize
        self.features = nn.Sequential()
        for widths in stages:
            for width in widths:
                padding = 1 if len(self.features) else first_padding
                self.features.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=padding))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU(inplace=True))
                in_channels = width
            self.features.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=ceil_mode))
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                # Paper: a Gaussian of deviation 0.01, deep nets started from shallow ones. He's rule needs no such.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def stage(self, index: int) -> nn.Sequential:
        """The layers of one stage without its pooling; the modules are those of `features`, not copies.

        Args:
            index: 0 is the finest stage.

        Returns:
            Convolutions, with batch normalisations if there are any, and ReLUs.

        Raises:
            ValueError: there is no such stage.
        """
        if not 0 <= index < len(self.channels):
            raise ValueError(f"index is {index}, expected 0 to {len(self.channels) - 1}")
        pools = [i for i, module in enumerate(self.features) if isinstance(module, nn.MaxPool2d)]
        start = pools[index - 1] + 1 if index else 0
        return self.features[start : pools[index]]

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.smallest)
        features, x = [], self.normalize(images)
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
        return features


def vgg16(**options: Any) -> VGG:
    """Configuration D of the paper's table 1, 13 convolutions.

    Args:
        **options: of `VGG`.

    Returns:
        The backbone with random weights.
    """
    return VGG(VGG16_STAGES, **options)


def vgg16_bn(**options: Any) -> VGG:
    """`vgg16` with batch normalisation.

    Args:
        **options: of `VGG`.

    Returns:
        The backbone with random weights.
    """
    return VGG(VGG16_STAGES, batch_norm=True, **options)
