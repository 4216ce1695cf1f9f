"""Blocks of convolution, batch normalisation and ReLU."""

from __future__ import annotations

from torch import nn

from segedu.validation.numbers import check_integers


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution without bias, batch normalisation and a ReLU.

    The padding is dilation * (kernel_size // 2), so stride 1 and an odd kernel preserve the size.

    Returns:
        A module (B, C, H, W) -> (B, C', H', W'); key 0 is the convolution, key 1 the normalisation.
    """
    check_integers(in_channels=in_channels, out_channels=out_channels)
    check_integers(kernel_size=kernel_size, stride=stride, dilation=dilation)
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        # no bias: batch normalisation subtracts the mean, and any constant with it
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv_head(in_channels: int, width: int | None, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU, dropout, and a 1x1 convolution to the classes.

    Args:
        width: channels between the two convolutions; None: a quarter of `in_channels`, as in torchvision.
        num_classes: K.
        dropout: probability that a feature is set to 0 in training.

    Returns:
        A module (B, C, H, W) -> (B, K, H, W) with parameters at the keys 0, 1 and 4, as torchvision's FCNHead.
    """
    width = max(in_channels // 4, 1) if width is None else width
    check_integers(in_channels=in_channels, width=width, num_classes=num_classes)
    return nn.Sequential(
        *conv_bn_relu(in_channels, width), nn.Dropout(dropout), nn.Conv2d(width, num_classes, kernel_size=1)
    )
