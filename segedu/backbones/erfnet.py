"""ERFNet: residual blocks of 3x1 and 1x3 convolutions, an encoder to 1/8 of the resolution and a small decoder.

Paper: Romera, Alvarez, Bergasa, Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
    Segmentation", IEEE Transactions on Intelligent Transportation Systems 19(1), 2018 (online 2017).
Idea: A 3x3 convolution is replaced by one of 3x1 and one of 1x3: two thirds of the weights, and one more ReLU. A
    residual block has two such pairs, the second of which is dilated for a large receptive field. Most blocks are at an
    eighth of the resolution, where they are inexpensive. The decoder is much smaller than the encoder, because it only
    adds details.
Simplified: the paper's 1x1 classifier after the encoder, with which the encoder is trained first, is omitted.
Shapes: images (B, C, H, W) -> a list of features (B, C_i, H / 2**i, W / 2**i), i = 1 to 3, rounded up; the decoder
    turns the last of them into (B, K, 8 h, 8 w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.images import check_images
from segedu.validation.numbers import check_integer, check_integers, check_length

BN_EPS = 1e-3  # eps of the authors' trained networks; torch's default is 1e-5
WIDTHS = (16, 64, 128)  # channels at strides 2, 4 and 8
DILATIONS = ((1, 1, 1, 1, 1), (2, 4, 8, 16, 2, 4, 8, 16))  # dilations of the blocks at strides 4 and 8
DROPOUTS = (0.03, 0.3)


class Downsampler(nn.Module):
    """Downsample by 2: a 3x3 convolution of stride 2 beside max pooling, then batch normalisation and a ReLU.

    Args:
        in_channels: C of the features, which the pooling keeps.
        out_channels: C of the result, more than `in_channels`; the convolution outputs the difference.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_integer("in_channels", in_channels)
        if in_channels >= out_channels:
            raise ValueError(f"out_channels is {out_channels}, expected more than in_channels, which is {in_channels}")
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, kernel_size=3, stride=2, padding=1)
        # Paper: even sizes. An odd one is rounded up, as the convolution does.
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(torch.cat([self.conv(features), self.pool(features)], dim=1)))


class NonBottleneck1d(nn.Module):
    """The paper's figure 2 (c): 3x1, 1x3, and both again with a dilation, with a residual connection.

    Args:
        channels: C of input and output.
        dropout: probability that a channel of the residual is set to 0 in training.
        dilation: dilation of the second pair of convolutions.
    """

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        check_integers(channels=channels, dilation=dilation)
        vertical = {"dilation": (dilation, 1), "padding": (dilation, 0)}
        horizontal = {"dilation": (1, dilation), "padding": (0, dilation)}
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=BN_EPS)
        self.conv3x1_2 = nn.Conv2d(channels, channels, (3, 1), **vertical)
        self.conv1x3_2 = nn.Conv2d(channels, channels, (1, 3), **horizontal)
        self.bn2 = nn.BatchNorm2d(channels, eps=BN_EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.conv3x1_1(features))
        residual = F.relu(self.bn1(self.conv1x3_1(residual)))
        residual = F.relu(self.conv3x1_2(residual))
        residual = self.bn2(self.conv1x3_2(residual))
        return F.relu(features + self.dropout(residual))


class Upsampler(nn.Module):
    """Upsample by 2: a transposed 3x3 convolution of stride 2, batch normalisation and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(features)))


class ERFNetEncoder(nn.Module):
    """Layers 1 to 16 of the paper's table I.

    Args:
        in_channels: channels of the images.
        widths: channels at strides 2, 4 and 8, each more than the previous one.
        dilations: dilations of the blocks at strides 4 and 8.
        dropouts: dropout probabilities of the blocks at strides 4 and 8.

    Attributes:
        channels: `widths`.
        strides: (2, 4, 8).
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        dilations: Sequence[Sequence[int]] = DILATIONS,
        dropouts: Sequence[float] = DROPOUTS,
    ) -> None:
        super().__init__()
        check_length("widths", widths, 3)
        check_length("dilations", dilations, 2)
        check_length("dropouts", dropouts, 2)
        self.in_channels, self.channels, self.strides = in_channels, tuple(widths), (2, 4, 8)
        self.initial_block = Downsampler(in_channels, widths[0])
        self.layers = nn.ModuleList()
        for i, (rates, dropout) in enumerate(zip(dilations, dropouts, strict=True)):
            self.layers.append(Downsampler(widths[i], widths[i + 1]))
            self.layers.extend(NonBottleneck1d(widths[i + 1], dropout, rate) for rate in rates)
        self._last_layers = {len(dilations[0]), len(self.layers) - 1}  # the last layers of strides 4 and 8

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        x = self.initial_block(images)
        features = [x]
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self._last_layers:
                features.append(x)
        return features


class ERFNetDecoder(nn.Module):
    """Layers 17 to 23 of the paper's table I: upsampling by 8 in three steps.

    Args:
        num_classes: K.
        widths: `widths` of the encoder.
        blocks: residual blocks after each of the first two steps.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS, blocks: int = 2) -> None:
        super().__init__()
        check_integer("num_classes", num_classes)
        check_integer("blocks", blocks, minimum=0)
        check_length("widths", widths, 3)
        fine, middle, coarse = widths
        self.layers = nn.ModuleList()
        for in_channels, out_channels in ((coarse, middle), (middle, fine)):
            self.layers.append(Upsampler(in_channels, out_channels))
            self.layers.extend(NonBottleneck1d(out_channels) for _ in range(blocks))
        self.output_conv = nn.ConvTranspose2d(fine, num_classes, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features)
        return self.output_conv(features)
