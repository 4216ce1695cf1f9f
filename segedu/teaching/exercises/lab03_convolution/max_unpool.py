"""max_unpool: put each maximum back where it was before the pooling."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

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


right = Variants(max_unpool)


def _at(rows_and_columns: Callable[[SimpleNamespace], tuple[Tensor, Tensor]]) -> Callable:
    """An answer that computes row and column of a maximum in another way."""

    def compute(a: SimpleNamespace) -> Tensor:
        out = a.values.new_zeros(*a.values.shape[:2], *a.output_size)
        rows, columns = rows_and_columns(a)
        for b, c in np.ndindex(*a.values.shape[:2]):
            for value, y, x in zip(
                a.values[b, c].flatten(), rows[b, c].flatten(), columns[b, c].flatten(), strict=True
            ):
                out[b, c, y, x] = value
        return out

    return right.instead(compute)


def doubled(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Always unpool to twice the size."""
    flat = values.new_zeros(*values.shape[:2], 4 * values[0, 0].numel())
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).unflatten(2, [2 * n for n in values.shape[2:]])


def doubled_and_limited(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Always unpool to twice the size, with the largest index that exists there."""
    flat = values.new_zeros(*values.shape[:2], 4 * values[0, 0].numel())
    indices = indices.flatten(2).clamp(max=flat.shape[2] - 1)
    return flat.scatter(2, indices, values.flatten(2)).unflatten(2, [2 * n for n in values.shape[2:]])


def _in_one_row(start: Callable[[Tensor, int], Tensor]) -> Callable:
    """An answer that writes all planes into one row of values; `start` gives where each begins, (B, C, 1, 1)."""

    def compute(a: SimpleNamespace) -> Tensor:
        size = a.output_size[0] * a.output_size[1]
        out = a.values.new_zeros(a.values.shape[0] * a.values.shape[1] * size)
        out[(a.indices + start(a.values, size)).flatten()] = a.values.flatten()
        return out.reshape(*a.values.shape[:2], *a.output_size)

    return right.instead(compute)


def _planes_of(values: Tensor) -> Tensor:
    B, C = values.shape[:2]
    return torch.arange(B * C).view(B, C, 1, 1)


SHAPE_HINT = "`indices` has the shape of `values`."
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
    Wrong(
        "row and column by the height",
        _at(
            lambda a: (
                a.indices // a.output_size[0] % a.output_size[0],
                a.indices % a.output_size[0] % a.output_size[1],
            )
        ),
        "You divide an index by the height to get its row. Divide by the width.",
        "The index counts along the rows: y * W + x.",
    ),
    Wrong(
        "width of the pooled plane",
        _at(
            lambda a: (
                (a.indices // a.values.shape[3]).clamp(max=a.output_size[0] - 1),
                a.indices % a.values.shape[3],
            )
        ),
        "You compute row and column with the width of the pooled plane. The index counts in the large plane.",
        "The width is output_size[1].",
    ),
    Wrong(
        "planes of W x H",
        right.then(lambda out, a: out.reshape(*out.shape[:2], *a.output_size[::-1])),
        "You reshape each plane to (W, H). It is (H, W), rows first.",
        "Try a plane that is wider than it is high.",
    ),
    Wrong(
        "planes transposed",
        right.then(lambda out, a: out.transpose(2, 3)),
        "Your planes are transposed: you write to [x, y]. The row comes first, [y, x].",
        "index // W is the row.",
    ),
    Wrong(
        "size always doubled",
        doubled,
        "You always unpool to twice the size. Use the size that is given.",
        "Windows may be 3x3, and 2 rows may come from 4 rows or from 5.",
    ),
    Wrong(
        "size always doubled, indices limited",
        doubled_and_limited,
        "Your result always has twice the size of the values, and you limit the indices to it. Use the size that is "
        "given.",
        "Windows may be 3x3, and 2 rows may come from 4 rows or from 5.",
    ),
    Wrong(
        "indices from 1",
        right.given(indices=lambda a: (a.indices - 1) % (a.output_size[0] * a.output_size[1])),
        "You subtract 1 from the indices. They count from 0.",
        "The first pixel of a plane has the index 0.",
    ),
    Wrong(
        "planes begin too early",
        _in_one_row(lambda values, size: _planes_of(values) * values[0, 0].numel()),
        "Your planes begin at multiples of the pooled size. In the result, each plane has H * W values.",
        "With two channels, where do the values of the second channel land?",
    ),
    Wrong(
        "channels before images",
        _in_one_row(
            lambda values, size: (
                (torch.arange(values.shape[1])[None] * len(values) + torch.arange(len(values))[:, None])[
                    ..., None, None
                ]
                * size
            )
        ),
        "You order the planes as if channels came before images. The tensor is (B, C, H, W).",
        "Plane (b, c) is number b * C + c.",
    ),
    Wrong(
        "indices of the first plane",
        right.given(indices=lambda a: a.indices[:1, :1].expand_as(a.indices)),
        "You use the indices of the first image and channel for all planes. Each plane has its own.",
        SHAPE_HINT,
    ),
    Wrong(
        "integers",
        right.then(lambda out, a: out.long()),
        "Your planes have the dtype of the indices, so the values lose their fractions. Use the dtype of the values.",
        "values.new_zeros(...) has the dtype of the values.",
    ),
    Wrong(
        "truncated",
        right.then(lambda out, a: out.long().float()),
        "You convert the values to integers on the way, so they lose their fractions. Keep their dtype.",
        "values.new_zeros(...) has the dtype of the values.",
    ),
    Wrong(
        "mean with 0",
        right.instead(
            lambda a: (
                a.values.new_zeros(*a.values.shape[:2], a.output_size[0] * a.output_size[1])
                .scatter_reduce(2, a.indices.flatten(2), a.values.flatten(2), reduce="mean", include_self=True)
                .unflatten(2, a.output_size)
            )
        ),
        "You write the mean of a value and the 0 that was there. Write the value itself.",
        "Only one maximum belongs to a pixel, so nothing needs a reduction.",
    ),
    Wrong(
        "flat planes",
        right.then(lambda out, a: out.flatten(2)),
        "You return flat planes, (B, C, H * W). Return (B, C, H, W).",
        "Reshape at the end.",
    ),
    Wrong(
        "minus infinity elsewhere",
        right.instead(
            lambda a: (
                torch.full((*a.values.shape[:2], a.output_size[0] * a.output_size[1]), -torch.inf, dtype=a.values.dtype)
                .scatter(2, a.indices.flatten(2), a.values.flatten(2))
                .unflatten(2, a.output_size)
            )
        ),
        "Pixels without a maximum are minus infinity in your planes. They have to be 0.",
        "Start with a tensor of zeros.",
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
