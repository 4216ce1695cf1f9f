"""Checks of images, of batches of images, and of the sizes of padded images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segedu.validation.exporting import is_exporting
from segedu.validation.numbers import check_length
from segedu.validation.tensors import check_floats

Size = tuple[int, int]

# How far values may lie outside [0, 1]. Noise and bicubic resizing overshoot. After normalisation with ImageNet's mean
# and standard deviation, values lie between -2.1 and 2.7; a network that does not normalise inside may expect them.
OVERSHOOT, NORMALISED = 1.0, 9.0


def check_images(images: Tensor, in_channels: int, min_size: int = 1, axes: int = 2) -> None:
    """Check a floating-point batch of images (B, C, H, W), or of volumes (B, C, D, H, W) with `axes=3`.

    Args:
        in_channels: the expected C.
        min_size: the smallest allowed H and W (and D).
    """
    letters = " ".join("DHW"[-axes:])
    check_floats("images", images, f"B {in_channels} {letters}")
    if min(images.shape[2:]) < min_size:
        sides = " and ".join(letters.split())
        raise ValueError(f"images has shape {tuple(images.shape)}, expected {sides} of at least {min_size}")


def check_image(image: Tensor, channels: tuple[int, ...] = (3,), batch: bool = False) -> None:
    """Check one floating-point image (C, H, W) with values in [0, 1].

    Args:
        channels: the allowed values of C.
        batch: whether leading axes, and empty axes, are allowed.

    >>> check_image(torch.full((3, 4, 4), 255.0))
    Traceback (most recent call last):
    ValueError: image has values outside [0, 1], expected values in [0, 1]: divide image by 255
    """
    check_floats("image", image)
    if image.ndim < 3 or image.shape[-3] not in channels or ((image.ndim > 3 or 0 in image.shape) and not batch):
        shapes = " or ".join(f"({'..., ' * batch}{count}, H, W)" for count in channels)
        raise ValueError(f"image has shape {tuple(image.shape)}, expected {shapes}{'' if batch else ', no axis empty'}")
    if not bool(((image >= 0) & (image <= 1)).all()):  # NaN fails this comparison too
        raise ValueError("image has values outside [0, 1], expected values in [0, 1]: divide image by 255")


def check_unit_range(images: Tensor, name: str = "images", tolerance: float = OVERSHOOT) -> None:
    """Check that the values of images are not clearly outside [0, 1], such as 0 to 255 or normalised values.

    The values are read once, which takes a few milliseconds for a large batch. They are not read while a program is
    recorded by `torch.export`, `torch.jit.trace` or `torch.compile`. NaN is not refused here.

    Args:
        tolerance: how far values may lie outside [0, 1]. Use `OVERSHOOT` for networks that normalise images inside,
            and `NORMALISED` for networks that may be given normalised images.

    >>> check_unit_range(torch.tensor([0.0, 0.4, 1.0]))
    >>> check_unit_range(torch.tensor([0.0, 100.0, 255.0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: images has values from 0 to 255, expected values in [0, 1]: divide images by 255, ...
    """
    check_floats(name, images)
    if is_exporting() or torch.compiler.is_compiling() or images.is_meta or not images.numel():
        return
    lowest, highest = (float(value) for value in images.detach().aminmax())
    if lowest < -tolerance:
        advice = f"pass {name} as they were before a mean was subtracted"
    elif highest > 1 + tolerance:
        advice = f"divide {name} by 255, or by the largest value of their dtype"
    else:
        return
    raise ValueError(f"{name} has values from {lowest:.4g} to {highest:.4g}, expected values in [0, 1]: {advice}")


def check_sizes(sizes: Sequence[Size] | None, images: Tensor) -> list[Size]:
    """Check a batch of padded images: the range of their values, and the size of each image before padding.

    An image lies in the upper left corner of its padded tensor.

    Args:
        sizes: B pairs (h, w); None means that no image is padded.
        images: (B, C, H, W) in [0, 1], or normalised if the backbone does not normalise inside.

    Returns:
        B pairs of ints.

    >>> check_sizes([(2, 3)], torch.zeros(1, 3, 4, 4)), check_sizes(None, torch.zeros(1, 3, 4, 4))
    ([(2, 3)], [(4, 4)])
    """
    check_unit_range(images, tolerance=NORMALISED)
    batch, height, width = len(images), *images.shape[-2:]
    if sizes is None:
        return [(height, width)] * batch
    check_padded_sizes("sizes", sizes, (height, width), batch)
    return [(int(h), int(w)) for h, w in sizes]


def check_padded_sizes(name: str, sizes: Sequence[Size], image_size: Size, batch: int) -> None:
    """Check the size (h, w) of each of B images that were padded to `image_size` (H, W).

    >>> check_padded_sizes("outputs['sizes']", [(2, 3)], (4, 4), batch=1)
    """
    check_length(name, sizes, batch, of="image")
    height, width = image_size
    for i, size in enumerate(sizes):
        if len(size) != 2 or not (1 <= size[0] <= height and 1 <= size[1] <= width):
            raise ValueError(f"{name}[{i}] is {tuple(size)}, expected (h, w) from 1 to {(height, width)}")
