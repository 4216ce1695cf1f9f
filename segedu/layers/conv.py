"""Convolution, batch normalisation, ReLU: what most networks since 2015 are made of."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution without bias, batch normalisation and a ReLU.

    The padding is dilation * (kernel_size // 2): with stride 1 and an odd kernel the size stays.

    Args:
        in_channels: C of the features.
        out_channels: C of the result.
        kernel_size: height and width of the kernel.
        stride: step of the kernel in pixels.
        dilation: distance of two taps of the kernel in pixels.

    Returns:
        A module (B, C, H, W) -> (B, C', H', W'); key 0 is the convolution, key 1 the normalisation.

    Raises:
        ValueError: a number is below 1.
    """
    given = dict(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
    for name, value in {**given, "stride": stride, "dilation": dilation}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        # no bias: batch normalisation takes the mean away, and any constant with it
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv_head(in_channels: int, width: int | None, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU, drop-out, 1x1 convolution to the classes.

    Args:
        in_channels: C of the features.
        width: channels between the two convolutions; None: a quarter of `in_channels`, as torchvision has it.
        num_classes: K.
        dropout: probability that a feature is put to 0 in training.

    Returns:
        A module (B, C, H, W) -> (B, K, H, W) with parameters at the keys 0, 1 and 4, as torchvision's FCNHead.

    Raises:
        ValueError: a number is below 1, or `dropout` is not in [0, 1].
    """
    width = max(in_channels // 4, 1) if width is None else width
    for name, value in {"in_channels": in_channels, "width": width, "num_classes": num_classes}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    return nn.Sequential(
        *conv_bn_relu(in_channels, width), nn.Dropout(dropout), nn.Conv2d(width, num_classes, kernel_size=1)
    )
