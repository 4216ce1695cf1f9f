"""A head of two convolutions: features in, one score a class and place out."""

from __future__ import annotations

from torch import nn

from segedu.layers.conv import conv_bn_relu


def conv_head(in_channels: int, width: int, num_classes: int, dropout: float = 0.1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU, drop-out, 1x1 convolution to the classes.

    Args:
        in_channels: C of the features.
        width: channels between the two convolutions.
        num_classes: K.
        dropout: probability that a feature is put to 0 in training.

    Returns:
        A module (B, C, H, W) -> (B, K, H, W) with parameters at the keys 0, 1 and 4, as torchvision's FCNHead.

    Raises:
        ValueError: a number is below 1, or `dropout` is not in [0, 1].
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    return nn.Sequential(
        *conv_bn_relu(in_channels, width), nn.Dropout(dropout), nn.Conv2d(width, num_classes, kernel_size=1)
    )
