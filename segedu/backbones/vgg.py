"""VGG: stages of 3x3 convolutions, separated by max pooling.

Paper: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv
    1409.1556.
Idea: Two 3x3 convolutions have the receptive field of one 5x5 convolution, with fewer weights and one more ReLU. So all
    kernels are 3x3. Max pooling halves the resolution, and the next stage has twice the channels, up to 512.
Simplified: the three fully connected layers after the last pooling are omitted, because networks for dense prediction
    have heads of their own.
Shapes: images (B, C, H, W) -> a list of features (B, C_i, H / 2**i, W / 2**i), i = 1 to 5, one after each pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each followed by 2x2 max pooling; state dict keys as in torchvision.

    Args:
        stages: for each stage the output channels of its convolutions; the default is the paper's configuration D.
        in_channels: channels of the images.
        batch_norm: apply batch normalisation after every convolution. The paper predates it.
        ceil_mode: max pooling rounds an odd size up instead of down, as in Caffe.
        first_padding: padding of the first convolution; FCN uses 100.
        normalize: applied to the images first, such as `layers.normalize.Normalize`.
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
        check_integer("in_channels", in_channels)
        check_integer("first_padding", first_padding, minimum=0)
        self.in_channels = in_channels
        self.channels = tuple(widths[-1] for widths in stages)
        self.strides = tuple(2**i for i in range(1, len(stages) + 1))
        # smallest image that leaves one location after the last pooling; a first padding above 1 enlarges the features
        self.min_size = max((1 if ceil_mode else self.strides[-1]) - 2 * (first_padding - 1), 1)
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
                # Paper: Gaussian with standard deviation 0.01, and deep networks start from the weights of trained
                # shallow networks. With He initialisation, this is not necessary.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def stage(self, index: int) -> nn.Sequential:
        """The layers of one stage without its pooling, as a view of `features`, not a copy.

        Args:
            index: index of the stage; 0 has the highest resolution.
        """
        check_integer("index", index, 0, len(self.channels) - 1)
        pools = [i for i, module in enumerate(self.features) if isinstance(module, nn.MaxPool2d)]
        start = pools[index - 1] + 1 if index else 0
        return self.features[start : pools[index]]

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels, self.min_size)
        features, x = [], self.normalize(images)
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
        return features


def vgg16(**options: Any) -> VGG:
    """VGG-16, configuration D of the paper's table 1, with random weights; `options` are those of `VGG`."""
    return VGG(VGG16_STAGES, **options)


def vgg16_bn(**options: Any) -> VGG:
    """`vgg16` with batch normalisation."""
    return VGG(VGG16_STAGES, batch_norm=True, **options)
