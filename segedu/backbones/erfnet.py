"""ERFNet: residual blocks of 3x1 and 1x3 convolutions, an encoder for 1/8 of the size and a small decoder back.

Paper: Romera, Alvarez, Bergasa, Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
    Segmentation", IEEE Transactions on Intelligent Transportation Systems 19(1), 2018 (online 2017).
Idea: A 3x3 convolution is replaced by one of 3x1 and one of 1x3: two thirds of the weights, and one ReLU more. Two
    such pairs make a residual block, whose second pair is dilated to see far. Most blocks work at an eighth of the
    size, where they are cheap, and the decoder is much smaller than the encoder: it only has to fill in details.
Simplified: the paper's 1x1 classifier behind the encoder, used to train it alone first, is left out.
Shapes: images (B, C, H, W) -> a list of features (B, C_i, H / 2**i, W / 2**i), i = 1 to 3, rounded up; the decoder
    takes the last of them to (B, K, 8 h, 8 w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.validation.images import check_images

BN_EPS = 1e-3  # of the authors' trained networks; torch's default is 1e-5
WIDTHS = (16, 64, 128)  # channels at a half, a quarter and an eighth of the size
DILATIONS = ((1, 1, 1, 1, 1), (2, 4, 8, 16, 2, 4, 8, 16))  # of the blocks at a quarter and an eighth
DROPOUTS = (0.03, 0.3)


class Downsampler(nn.Module):
    """Half the size: a 3x3 convolution of stride 2 beside a max-pooling, then batch normalisation and a ReLU.

    Args:
        in_channels: C of the features, which the pooling keeps.
        out_channels: C of the result, more than `in_channels`; the convolution makes what is missing.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if not 0 < in_channels < out_channels:
            raise ValueError(
                f"out_channels is {out_channels}, expected more than in_channels, which is {in_channels}: the"
                " convolution adds to the channels of the pooling"
            )
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, kernel_size=3, stride=2, padding=1)
        # Paper: even sizes. An odd one is rounded up, as the convolution does.
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(torch.cat([self.conv(features), self.pool(features)], dim=1)))


class NonBottleneck1d(nn.Module):
    """The paper's figure 2 (c): 3x1, 1x3, and both again with a dilation, around a shortcut.

    Args:
        channels: C, before and after.
        dropout: probability that a channel of the residual is put to 0 in training.
        dilation: distance of two taps of the second pair in pixels.
    """

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        if channels < 1 or dilation < 1:
            raise ValueError(f"channels is {channels} and dilation {dilation}, expected at least 1")
        far = {"dilation": (dilation, 1), "padding": (dilation, 0)}
        wide = {"dilation": (1, dilation), "padding": (0, dilation)}
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=BN_EPS)
        self.conv3x1_2 = nn.Conv2d(channels, channels, (3, 1), **far)
        self.conv1x3_2 = nn.Conv2d(channels, channels, (1, 3), **wide)
        self.bn2 = nn.BatchNorm2d(channels, eps=BN_EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.conv3x1_1(features))
        residual = F.relu(self.bn1(self.conv1x3_1(residual)))
        residual = F.relu(self.conv3x1_2(residual))
        residual = self.bn2(self.conv1x3_2(residual))
        return F.relu(features + self.dropout(residual))


class Upsampler(nn.Module):
    """Twice the size: a transposed 3x3 convolution of stride 2, batch normalisation and a ReLU.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
    """

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
        widths: channels at a half, a quarter and an eighth of the size, each more than the one before.
        dilations: of the blocks at a quarter and at an eighth of the size.
        dropouts: of the blocks at a quarter and at an eighth of the size.

    Attributes:
        channels: `widths`.
        strides: pixels of the image from one feature to the next.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        dilations: Sequence[Sequence[int]] = DILATIONS,
        dropouts: Sequence[float] = DROPOUTS,
    ) -> None:
        super().__init__()
        if (len(widths), len(dilations), len(dropouts)) != (3, 2, 2):
            raise ValueError(
                f"widths is {widths}, dilations {dilations} and dropouts {dropouts}, expected 3, 2 and 2 entries"
            )
        self.in_channels, self.channels, self.strides = in_channels, tuple(widths), (2, 4, 8)
        self.initial_block = Downsampler(in_channels, widths[0])
        self.layers = nn.ModuleList()
        for i, (rates, dropout) in enumerate(zip(dilations, dropouts, strict=True)):
            self.layers.append(Downsampler(widths[i], widths[i + 1]))
            self.layers.extend(NonBottleneck1d(widths[i + 1], dropout, rate) for rate in rates)
        self._ends = {len(dilations[0]), len(self.layers) - 1}  # last layers of the two sizes

    def forward(self, images: Tensor) -> list[Tensor]:
        check_images(images, self.in_channels)
        x = self.initial_block(images)
        features = [x]
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self._ends:
                features.append(x)
        return features


class ERFNetDecoder(nn.Module):
    """Layers 17 to 23 of the paper's table I: eight times the size in three steps.

    Args:
        num_classes: channels of the result.
        widths: those of the encoder.
        blocks: residual blocks behind each of the first two steps.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS, blocks: int = 2) -> None:
        super().__init__()
        if num_classes < 1 or len(widths) != 3 or blocks < 0:
            raise ValueError(
                f"num_classes is {num_classes}, widths {widths} and blocks {blocks},"
                " expected at least 1, 3 widths and at least 0"
            )
        fine, middle, coarse = widths
        self.layers = nn.ModuleList()
        for before, after in ((coarse, middle), (middle, fine)):
            self.layers.append(Upsampler(before, after))
            self.layers.extend(NonBottleneck1d(after) for _ in range(blocks))
        self.output_conv = nn.ConvTranspose2d(fine, num_classes, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features)
        return self.output_conv(features)
