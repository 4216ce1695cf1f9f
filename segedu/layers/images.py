"""What a network asks of the images that it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.exporting import is_exporting as is_exporting


def check_images(images: Tensor, in_channels: int, smallest: int = 1, axes: int = 2) -> None:
    """Refuse what is not a batch of images (B, C, H, W), or of volumes (B, C, D, H, W), of floating-point numbers.

    Args:
        images: what was given.
        in_channels: the C that is expected.
        smallest: the least H and W.
        axes: 2 for images, 3 for volumes.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: a wrong number of axes or channels, an empty axis, or an image that is too small.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images has type {type(images).__name__}, expected a Tensor")
    if not torch.is_floating_point(images):
        raise TypeError(f"images has dtype {images.dtype}, expected a floating-point type with values in [0, 1]")
    shape, size = tuple(images.shape), ", ".join("DHW"[-axes:])
    if images.ndim != 2 + axes or shape[1] != in_channels or 0 in shape:
        raise ValueError(f"images has shape {shape}, expected (B, {in_channels}, {size}), no axis empty")
    if min(shape[2:]) < smallest:
        raise ValueError(f"images has shape {shape}, expected {size.replace(', ', ' and ')} of at least {smallest}")
