"""Images of several sizes in one batch: resized, laid in the upper left corner, filled up at the right and the bottom.

Detectors look at images in their own shape: squeezing them into a square would change what a pedestrian looks like.
Filled up is with the mean colour: a network that subtracts it inside then sees 0 there, as if nothing were there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_and_pad(
    images: Sequence[Tensor],
    shortest: int = 800,
    longest: int = 1333,
    multiple: int = 32,
    *,
    fill: Sequence[float] | Tensor,
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Resize each image to one length of its shorter side, and make a batch of them.

    Args:
        images: B images (C, H_i, W_i) of floating-point numbers.
        shortest: length of the shorter side afterwards.
        longest: where the longer side would pass this, it gets this length, and the shorter one less.
        multiple: height and width of the batch are multiples of it, such as the largest stride of a network.
        fill: C numbers, the colour of the rest; such as `layers.normalize.IMAGENET_MEAN`.

    Returns:
        The batch (B, C, H, W), and for each image (h, w): its part of the batch that is image.

    Raises:
        TypeError: an image is not a tensor of floating-point numbers.
        ValueError: there is no image, an image is empty, the images differ in C or dtype, `fill` is not one number a
            channel, or a length is below 1.

    Example:
        An image of 2x4 pixels, one of 3x3.

        >>> batch, sizes = resize_and_pad([torch.zeros(1, 2, 4), torch.zeros(1, 3, 3)], 6, 9, 4, fill=[0.5])
        >>> batch.shape, sizes
        (torch.Size([2, 1, 8, 12]), [(4, 9), (6, 6)])
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f"shortest and longest are {shortest} and {longest}, expected 1 <= shortest <= longest")
    _check(images, fill)
    resized = []
    for image in images:
        size = _resized(image.shape[-2:], shortest, longest)
        resized.append(F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0])
    return pad_to_batch(resized, multiple, fill=fill)


def pad_to_batch(
    images: Sequence[Tensor], multiple: int = 32, *, fill: Sequence[float] | Tensor
) -> tuple[Tensor, list[tuple[int, int]]]:
    """A batch of images in their own sizes.

    Args:
        images: B images (C, H_i, W_i) of floating-point numbers.
        multiple: height and width of the batch are multiples of it.
        fill: C numbers, the colour of the rest.

    Returns:
        The batch (B, C, H, W), and for each image (h, w): its part of the batch that is image.

    Raises:
        TypeError: an image is not a tensor of floating-point numbers.
        ValueError: there is no image, an image is empty, the images differ in C or dtype, `fill` is not one number a
            channel, or `multiple` is below 1.

    Example:
        >>> pad_to_batch([torch.ones(1, 1, 2), torch.ones(1, 2, 1)], multiple=1, fill=[0.5])[0][:, 0].tolist()
        [[[1.0, 1.0], [0.5, 0.5]], [[1.0, 0.5], [1.0, 0.5]]]
    """
    if multiple < 1:
        raise ValueError(f"multiple is {multiple}, expected at least 1")
    _check(images, fill)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    H, W = (math.ceil(max(lengths) / multiple) * multiple for lengths in zip(*sizes, strict=True))
    colour = torch.as_tensor(fill, dtype=images[0].dtype, device=images[0].device)
    batch = colour.reshape(1, -1, 1, 1).repeat(len(images), 1, H, W)
    for i, (h, w) in enumerate(sizes):
        batch[i, :, :h, :w] = images[i]
    return batch, sizes


def resize_boxes(boxes: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Boxes after their image was resized; or before, with the sizes exchanged.

    Args:
        boxes: (N, 4), xyxy.
        size: (H, W) of the image that the boxes belong to.
        new_size: (H, W) of the image resized.

    Returns:
        (N, 4), xyxy.

    Raises:
        ValueError: the shape is not (N, 4), or a side is below 1.

    Example:
        >>> resize_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (4, 4), (8, 12))
        tensor([[3., 4., 9., 8.]])
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes has shape {tuple(boxes.shape)}, expected (N, 4)")
    for name, sides in (("size", size), ("new_size", new_size)):
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"{name} is {tuple(sides)}, expected (H, W) of at least 1")
    down, right = new_size[0] / size[0], new_size[1] / size[1]
    return boxes * boxes.new_tensor([right, down, right, down])


def _resized(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    scale = min(shortest / min(size), longest / max(size))
    # rounded down as torchvision does: now and then 431 * (800 / 431) is a bit less than 800, and gives 799
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def _check(images: Sequence[Tensor], fill: Sequence[float] | Tensor) -> None:
    if not len(images):
        raise ValueError("images is empty, expected at least one image (C, H, W)")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            kind = f"dtype {image.dtype}" if isinstance(image, Tensor) else f"type {type(image).__name__}"
            raise TypeError(f"images[{i}] has {kind}, expected a tensor of floating-point numbers (C, H, W)")
        if image.ndim != 3 or 0 in image.shape:
            raise ValueError(f"images[{i}] has shape {tuple(image.shape)}, expected (C, H, W), no axis empty")
        if len(image) != len(images[0]) or image.dtype != images[0].dtype:
            given, first = (f"{len(x)} channels of {x.dtype}" for x in (image, images[0]))
            raise ValueError(f"images[{i}] has {given}, expected {first} as images[0] has")
    if len(fill) != len(images[0]):
        raise ValueError(f"fill has {len(fill)} numbers, expected one for each of {len(images[0])} channels")
