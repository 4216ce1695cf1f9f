"""Batches of images of different sizes: each image is resized and padded at the right and the bottom.

Detectors keep the aspect ratio of images, because a square would distort the objects. The padding has the mean colour,
which becomes 0 in a network that subtracts the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.validation.numbers import check_integer, check_length, check_size
from segedu.validation.tensors import check_dtype, check_floats, check_tensor


def resize_and_pad(
    images: Sequence[Tensor],
    shortest: int = 800,
    longest: int = 1333,
    multiple: int = 32,
    *,
    fill: Sequence[float] | Tensor,
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Resize each image to a fixed length of its shorter side, and pad them to one batch.

    Args:
        images: B floating-point images (C, H_i, W_i) of one dtype, B at least 1.
        shortest: length of the shorter side after resizing.
        longest: largest length of the longer side; if it would be exceeded, the shorter side becomes shorter.
        multiple: height and width of the batch are multiples of it, for example the largest stride of a network.
        fill: C values, the colour of the padding, for example `layers.normalize.IMAGENET_MEAN`.

    Returns:
        The batch (B, C, H, W), and for each image its size (h, w) without padding.

    Example:
        An image of 2x4 pixels, and one of 3x3.

        >>> batch, sizes = resize_and_pad([torch.zeros(1, 2, 4), torch.zeros(1, 3, 3)], 6, 9, 4, fill=[0.5])
        >>> batch.shape, sizes
        (torch.Size([2, 1, 8, 12]), [(4, 9), (6, 6)])
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f"shortest and longest are {shortest} and {longest}, expected 1 <= shortest <= longest")
    _check_images(images, fill)
    resized = []
    for image in images:
        size = _resized(image.shape[-2:], shortest, longest)
        resized.append(F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0])
    return pad_to_batch(resized, multiple, fill=fill)


def pad_to_batch(
    images: Sequence[Tensor], multiple: int = 32, *, fill: Sequence[float] | Tensor
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Pad images of different sizes to one batch.

    Args:
        images: B floating-point images (C, H_i, W_i) of one dtype, B at least 1.
        multiple: height and width of the batch are multiples of it.
        fill: C values, the colour of the padding.

    Returns:
        The batch (B, C, H, W), and for each image its size (h, w) without padding.

    Example:
        >>> pad_to_batch([torch.ones(1, 1, 2), torch.ones(1, 2, 1)], multiple=1, fill=[0.5])[0][:, 0].tolist()
        [[[1.0, 1.0], [0.5, 0.5]], [[1.0, 0.5], [1.0, 0.5]]]
    """
    check_integer("multiple", multiple)
    _check_images(images, fill)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    H, W = (math.ceil(max(lengths) / multiple) * multiple for lengths in zip(*sizes, strict=True))
    colour = torch.as_tensor(fill, dtype=images[0].dtype, device=images[0].device)
    batch = colour.reshape(1, -1, 1, 1).repeat(len(images), 1, H, W)
    for i, (h, w) in enumerate(sizes):
        batch[i, :, :h, :w] = images[i]
    return batch, sizes


def resize_boxes(boxes: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Scale boxes (N, 4), xyxy, to the new size of their image.

    Args:
        size: (H, W) of the image that the boxes belong to.
        new_size: (H, W) of the resized image.

    Example:
        >>> resize_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (4, 4), (8, 12))
        tensor([[3., 4., 9., 8.]])
    """
    check_tensor("boxes", boxes, "N? 4")
    check_size("size", size)
    check_size("new_size", new_size)
    scale_y, scale_x = new_size[0] / size[0], new_size[1] / size[1]
    return boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])


def _resized(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    scale = min(shortest / min(size), longest / max(size))
    # rounded down as in torchvision: 431 * (800 / 431) may be slightly below 800, and gives 799
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def _check_images(images: Sequence[Tensor], fill: Sequence[float] | Tensor) -> None:
    if not len(images):
        raise ValueError("images is empty, expected at least one image (C, H, W)")
    channels = check_floats("images[0]", images[0], "C H W")["C"]
    for i, image in enumerate(images):
        check_dtype(f"images[{i}]", image, images[0].dtype, "C H W", {"C": channels})
    check_length("fill", fill, channels, of="channel")
