"""max_unpool: put each maximum back where it was before the pooling."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.pooling import max_pool_with_indices, max_unpool
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def _planes(rng: np.random.Generator, *shape: int) -> Tensor:
    """Different values of both signs, (B, C, H, W); the maximum of the first 2x2 window is its last pixel."""
    count = int(np.prod(shape))
    values = torch.from_numpy(rng.permutation(count).reshape(shape) - count / 3 + 0.25)
    values[..., 1, 1] = count + 1.0
    return values


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """One plane, several images and channels; odd sizes, shared maxima, only negative values."""

    def pooled(name: str, images: Tensor, kernel_size: int, stride: int) -> Case:
        return case(name, *max_pool_with_indices(images, kernel_size, stride), tuple(images.shape[2:]))

    shared = _planes(rng, 1, 2, 5, 7)
    shared[:, :, 2, 2] = 200.5  # maximum of all four windows around it
    odd = _planes(rng, 2, 1, 5, 7)
    core = [
        pooled("a plane of 4x6", _planes(rng, 1, 1, 4, 6), 2, 2),
        pooled("2 images of 3 channels", _planes(rng, 2, 3, 6, 4), 2, 2),
        pooled("windows of 3x3", _planes(rng, 3, 2, 6, 9), 3, 3),
    ]
    edge = [
        pooled("odd sizes: the last row and column were never pooled", odd, 2, 2),
        pooled("windows that overlap and share a maximum", shared, 3, 2),
        pooled("negative values only", -_planes(rng, 1, 2, 4, 4).abs(), 2, 2),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def top_left(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Put each value at the top left of its window."""
    H, W = output_size
    step = max(1, H // values.shape[2]), max(1, W // values.shape[3])
    out = values.new_zeros(*values.shape[:2], H, W)
    out[:, :, : step[0] * values.shape[2] : step[0], : step[1] * values.shape[3] : step[1]] = values
    return out


def one_plane(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Use the index as a position in the whole batch: everything lands in the first plane."""
    out = values.new_zeros(*values.shape[:2], *output_size)
    out.view(-1)[indices.flatten()] = values.flatten()
    return out


def summed(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Add a maximum once for each window that had it."""
    flat = values.new_zeros(*values.shape[:2], output_size[0] * output_size[1])
    return flat.scatter_add(2, indices.flatten(2), values.flatten(2)).unflatten(2, output_size)


def _column_major(a) -> Tensor:
    """The indices of the positions that follow from reading an index as x * H + y."""
    H, W = a.output_size
    return a.indices % H * W + a.indices // H


SHAPE_HINT = "`indices` has the shape of `values`."
right = Variants(max_unpool)

wrong = [
    Wrong(
        "top left",
        top_left,
        "You put each value at the top left of its window. The index says where the maximum was.",
        "The index counts the pixels of a plane in reading order: y * W + x.",
    ),
    Wrong(
        "nearest neighbour",
        right.instead(lambda a: F.interpolate(a.values, size=a.output_size)),
        "You fill the whole window. Only the position of the maximum gets the value; all others stay 0.",
        "Filling the window is what average unpooling does.",
    ),
    Wrong(
        "rows and columns swapped",
        right.given(indices=_column_major),
        "You count the index down the columns. It counts along the rows, y * W + x.",
        "Try a plane that is wider than it is high.",
    ),
    Wrong(
        "one plane for all",
        one_plane,
        "You use the index as a position in the whole batch. It is a position in one plane of one image.",
        "With two channels, where do the values of the second channel land?",
    ),
    Wrong(
        "indices of channel 0",
        right.given(indices=lambda a: a.indices[:, :1].expand_as(a.indices)),
        "You use the indices of the first channel for all channels. Each channel has its own.",
        SHAPE_HINT,
    ),
    Wrong(
        "indices of image 0",
        right.given(indices=lambda a: a.indices[:1].expand_as(a.indices)),
        "You use the indices of the first image for the whole batch. Each image has its own.",
        SHAPE_HINT,
    ),
    Wrong(
        "shared maxima added",
        summed,
        "You add the values of windows that share a maximum. The pixel gets the value only once.",
        "Write the value instead of adding it.",
    ),
    Wrong(
        "negative maxima lost",
        right.then(lambda out, a: out.clamp(min=0)),
        "You lose maxima below 0. Put every maximum back unchanged.",
        "Do not compare it with the zeros that fill the plane.",
    ),
]

exercise = Exercise(
    name="max_unpool",
    points=3,
    cases=cases,
    reference=max_unpool,
    wrong=wrong,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
