"""What a network asks of the images that it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.ops.exporting import is_exporting

# How far values may lie outside of [0, 1]. Noise and bicubic resizing overshoot. After normalisation by ImageNet's mean
# and deviation, values lie between -2.1 and 2.7; a network that does not normalise inside may expect them.
OVERSHOOT, NORMALISED = 1.0, 9.0


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


def check_unit_range(images: Tensor, name: str = "images", beyond: float = OVERSHOOT) -> None:
    """Refuse images whose values are clearly not in [0, 1]: from 0 to 255, or normalised already.

    Values are read once, in a few milliseconds for a large batch. They are not read while a program is recorded, by
    `torch.export`, `torch.jit.trace` or `torch.compile`, because the program does not depend on them.

    Args:
        images: floating-point numbers of any shape. NaN is not refused here.
        name: of the argument, for errors.
        beyond: how far values may lie outside of [0, 1]. `OVERSHOOT` is for networks that normalise images inside,
            `NORMALISED` for networks that may be given normalised images.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: a value is below -beyond or above 1 + beyond.

    >>> check_unit_range(torch.tensor([0.0, 0.4, 1.0]))
    >>> check_unit_range(torch.tensor([0.0, 100.0, 255.0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: images has values from 0 to 255, expected values in [0, 1]: divide images by 255, ...
    """
    if not torch.is_floating_point(images):
        raise TypeError(f"{name} has dtype {images.dtype}, expected a floating-point type with values in [0, 1]")
    if is_exporting() or torch.compiler.is_compiling() or images.is_meta or not images.numel():
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if low < -beyond:
        advice = f"pass {name} as they were before a mean was subtracted"
    elif high > 1 + beyond:
        advice = f"divide {name} by 255, or by the largest value of their type"
    else:
        return
    raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}, expected values in [0, 1]: {advice}")
