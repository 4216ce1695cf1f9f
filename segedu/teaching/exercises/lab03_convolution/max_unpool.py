"""max_unpool: each maximum back to where it was."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.pooling import max_pool_with_indices, max_unpool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def planes(rng: np.random.Generator, *shape: int) -> Tensor:
    """Different non-zero values, of both signs; the maximum of a 2x2 block is never always its first pixel.

    Args:
        rng: of the order.
        shape: (B, C, H, W).

    Returns:
        float64.
    """
    count = int(np.prod(shape))
    values = torch.from_numpy(rng.permutation(count).reshape(shape) - count / 3 + 0.25)
    values[..., 1, 1] = count + 1.0  # the first block's maximum is its last pixel, in every plane
    return values


def pooled(images: Tensor, kernel_size: int, stride: int) -> list:
    """The arguments of one case.

    Args:
        images: (B, C, H, W).
        kernel_size: of the pooling.
        stride: of the pooling.

    Returns:
        Values, indices and (H, W).
    """
    values, indices = max_pool_with_indices(images, kernel_size, stride)
    return [values, indices, tuple(images.shape[2:])]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One plane, several images and channels; odd sizes, shared maxima, only negative values.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    shared = planes(rng, 1, 2, 5, 7)
    shared[:, :, 2, 2] = 200.5  # maximum of all four windows around it
    odd = pooled(planes(rng, 2, 1, 5, 7), 2, 2)
    return {
        "core": (
            2,
            [
                {"name": "a plane of 4x6", "args": pooled(planes(rng, 1, 1, 4, 6), 2, 2)},
                {"name": "2 images of 3 channels", "args": pooled(planes(rng, 2, 3, 6, 4), 2, 2)},
                {"name": "blocks of 3x3", "args": pooled(planes(rng, 3, 2, 6, 9), 3, 3)},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "odd sizes: the last row and column were never pooled", "args": odd},
                {"name": "windows that overlap and share a maximum", "args": pooled(shared, 3, 2)},
                {"name": "negative values only", "args": pooled(-planes(rng, 1, 2, 4, 4).abs(), 2, 2)},
            ],
        ),
    }


def top_left(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Each value at the top left of its block."""
    H, W = size
    step = max(1, H // values.shape[2]), max(1, W // values.shape[3])
    out = values.new_zeros(*values.shape[:2], H, W)
    out[:, :, : step[0] * values.shape[2] : step[0], : step[1] * values.shape[3] : step[1]] = values
    return out


def repeated(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbour: fills the block."""
    return F.interpolate(values, size=size)


def column_major(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Takes the index for x * H + y."""
    H, W = size
    flat = values.new_zeros(*values.shape[:2], W * H)
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).unflatten(2, (W, H)).transpose(2, 3)


def one_plane(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Takes the index for a place in the whole batch: everything lands in the first plane."""
    out = values.new_zeros(*values.shape[:2], *size)
    out.view(-1)[indices.flatten()] = values.flatten()
    return out


def first_channel(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """The indices of channel 0 for all channels."""
    return max_unpool(values, indices[:, :1].expand_as(indices), size)


def first_image(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """The indices of image 0 for the whole batch."""
    return max_unpool(values, indices[:1].expand_as(indices), size)


def summed(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Adds a maximum once for each window that had it."""
    flat = values.new_zeros(*values.shape[:2], size[0] * size[1])
    return flat.scatter_add(2, indices.flatten(2), values.flatten(2)).unflatten(2, size)


def maximum_with_zero(values: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Keeps the larger of the value and the 0 that was there."""
    return max_unpool(values, indices, size).clamp(min=0)


exercise = Exercise(
    name="max_unpool",
    points=3,
    cases=cases,
    reference=max_unpool,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "top left",
            top_left,
            "You put each value at the top left of its block: the index says where the maximum was.",
            "The index counts the pixels of the plane in reading order: y * W + x.",
        ),
        Wrong(
            "nearest neighbour",
            repeated,
            "You fill the whole block: only the place of the maximum gets the value, all others stay 0.",
            "Filling the block is what average unpooling does.",
        ),
        Wrong(
            "rows and columns swapped",
            column_major,
            "You count down the columns: the index runs along the rows, y * W + x.",
            "Try a plane that is wider than high.",
        ),
        Wrong(
            "one plane for all",
            one_plane,
            "You take the index for a place in the whole batch: it counts within one plane of one image.",
            "With two channels, where do the values of the second land?",
        ),
        Wrong(
            "indices of channel 0",
            first_channel,
            "You use the indices of the first channel for all: each channel had its maxima elsewhere.",
            "indices has the shape of values.",
        ),
        Wrong(
            "indices of image 0",
            first_image,
            "You use the indices of the first image for the whole batch: each image has its own.",
            "indices has the shape of values.",
        ),
        Wrong(
            "shared maxima added",
            summed,
            "You add where windows share a maximum: the pixel had that value once.",
            "Write the value, do not sum it.",
        ),
        Wrong(
            "negative maxima lost",
            maximum_with_zero,
            "You lose negative maxima: a maximum may be below 0, and is put back as it is.",
            "Do not compare with the zeros that you filled in.",
        ),
    ],
)
