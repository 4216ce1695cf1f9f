"""Pooling and unpooling: output sizes, max pooling with indices, and unpooling of maxima and of averages.

Course: course/03-convolution/pooling.md. Lab: labs/03_convolution.ipynb.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segedu.validation.numbers import check_integer, check_size, check_window
from segedu.validation.tensors import check_dtype, check_floats


def pool_output_size(
    size: int,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Size of the output of a pooling: as for a convolution, but optionally rounded up instead of down.

    With ``ceil_mode``, the last window may extend beyond the end of the padded input. It counts only if it begins
    inside the input or the padding before it; a window that begins in the padding after the input would be empty.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1; None: K, so that windows tile the input.
        padding: P on each side, from 0 to half of the kernel size.
        dilation: D, at least 1.
        ceil_mode: whether to round up.

    Returns:
        The number of windows, at least 1.

    >>> pool_output_size(7, 2), pool_output_size(7, 2, ceil_mode=True)
    (3, 4)
    """
    stride = kernel_size if stride is None else stride
    check_window(size, kernel_size, stride, padding, dilation)
    if padding > kernel_size // 2:
        raise ValueError(f"padding is {padding}, expected at most half of the kernel size, here {kernel_size // 2}")
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"ceil_mode has type {type(ceil_mode).__name__}, expected True or False")
    room = size + 2 * padding - (dilation * (kernel_size - 1) + 1)
    out = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    if out < 1:
        raise ValueError(f"kernel_size is {kernel_size}, expected a window that fits into {size} pixels")
    return out


def max_pool_with_indices(
    images: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Max pooling that also returns the position of each maximum.

    Args:
        images: (B, C, H, W) floats.
        kernel_size: K along both axes.
        stride: S; None: K.
        padding: P on each side; padded pixels are never a maximum.
        dilation: D.
        ceil_mode: see `pool_output_size`.

    Returns:
        The maxima (B, C, Hout, Wout), and their positions (B, C, Hout, Wout) int64, ``y * W + x`` in their own plane.
        Of equal maxima, the first in row-major order is taken. A NaN counts as the maximum.

    >>> plane = torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 2.0, 1.0]])
    >>> values, indices = max_pool_with_indices(plane[None, None], 2)
    >>> values.flatten().tolist(), indices.flatten().tolist()
    ([5.0, 2.0], [1, 2])
    """
    check_floats("images", images, "B C H W")
    stride = kernel_size if stride is None else stride
    H, W = images.shape[2:]
    rows = _taps(H, kernel_size, stride, padding, dilation, ceil_mode).to(images.device)  # (Hout, K)
    columns = _taps(W, kernel_size, stride, padding, dilation, ceil_mode).to(images.device)  # (Wout, K)
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    outside = (y < 0) | (y >= H) | (x < 0) | (x >= W)  # (Hout, Wout, K, K)
    position = (y.clamp(0, H - 1) * W + x.clamp(0, W - 1)).flatten(2)  # (Hout, Wout, K * K)
    windows = images.flatten(2)[..., position].masked_fill(outside.flatten(2), -torch.inf)
    # If all pixels of a window are -inf, the index must be that of a pixel, not of the padding.
    first = torch.where(windows == windows.amax(-1, keepdim=True), ~outside.flatten(2), False)
    best = torch.where(windows.isnan(), 2, first.int()).argmax(-1, keepdim=True)  # (B, C, Hout, Wout, 1)
    indices = position.expand(*windows.shape).gather(-1, best)[..., 0]
    return windows.gather(-1, best)[..., 0], indices


def max_unpool(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Write each maximum to its former position; all other pixels are 0.

    Args:
        values: (B, C, h, w) floats.
        indices: (B, C, h, w) int64, ``y * W + x`` in the plane of the same image and channel. If two windows share
            their maximum, the index occurs twice, with the same value, which is written once.
        output_size: (H, W) before the pooling. It must be given, because several sizes pool to the same h and w.

    Returns:
        (B, C, H, W).

    >>> values, indices = torch.tensor([[[[5.0, 2.0]]]]), torch.tensor([[[[1, 6]]]])
    >>> max_unpool(values, indices, (2, 4))
    tensor([[[[0., 5., 0., 0.],
              [0., 0., 2., 0.]]]])
    """
    check_floats("values", values, "B C h w")
    H, W = _check_indices(indices, values, output_size)
    flat = values.new_zeros(*values.shape[:2], H * W)
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).unflatten(2, (H, W))


def average_unpool(values: Tensor, kernel_size: int) -> Tensor:
    """Fill each block with its average, so that average pooling of the result returns the input.

    Args:
        values: (B, C, h, w) floats.
        kernel_size: side K of a block; the windows of the pooling did not overlap.

    Returns:
        (B, C, K * h, K * w), each value K * K times. (The gradient of average pooling is this, divided by K * K.)

    >>> average_unpool(torch.tensor([[[[1.0, 3.0]]]]), 2)
    tensor([[[[1., 1., 3., 3.],
              [1., 1., 3., 3.]]]])
    """
    check_floats("values", values, "B C h w")
    check_integer("kernel_size", kernel_size)
    return values.repeat_interleave(kernel_size, dim=2).repeat_interleave(kernel_size, dim=3)


def _taps(size: int, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Tensor:
    """Input coordinate of each tap of each window, (windows, K); coordinates outside 0 to size - 1 are padding."""
    count = pool_output_size(size, kernel_size, stride, padding, dilation, ceil_mode)
    return stride * torch.arange(count)[:, None] + dilation * torch.arange(kernel_size) - padding


def _check_indices(indices: Tensor, values: Tensor, output_size: tuple[int, int]) -> tuple[int, int]:
    check_dtype("indices", indices, torch.int64)
    if indices.shape != values.shape:
        raise ValueError(f"indices has shape {tuple(indices.shape)}, expected {tuple(values.shape)}, as values")
    H, W = check_size("output_size", output_size)
    if indices.min() < 0 or indices.max() >= H * W:
        outside = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(f"indices has the value {int(outside)}, expected 0 to {H * W - 1} for {H} x {W} pixels")
    return H, W
