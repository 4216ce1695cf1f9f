"""What a network asks of the images that it is given."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(images: Tensor, in_channels: int, smallest: int = 1) -> None:
    """Refuse what is not a batch of images (B, C, H, W) of floating-point numbers.

    Args:
        images: what was given.
        in_channels: the C that is expected.
        smallest: the least H and W.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: a wrong number of axes or channels, an empty axis, or an image that is too small.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images has type {type(images).__name__}, expected a Tensor")
    if not torch.is_floating_point(images):
        raise TypeError(f"images has dtype {images.dtype}, expected a floating-point type with values in [0, 1]")
    if images.ndim != 4 or images.shape[1] != in_channels or 0 in images.shape:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected (B, {in_channels}, H, W), no axis empty")
    if min(images.shape[-2:]) < smallest:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected H and W of at least {smallest}")
