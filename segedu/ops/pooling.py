"""Pooling and its way back: output sizes, max pooling with indices, unpooling by maximum and by average.

Course: course/03-convolution/pooling.md. Lab: labs/03_convolution.ipynb.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool_output_size(
    size: int,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Size of the output of a pooling: that of a convolution, or rounded up.

    With ``ceil_mode`` a last window may hang over the end. It counts only if it begins inside the input or the
    padding before it; a window that begins in the padding after the input would see nothing.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1; None: K, so that windows tile the input.
        padding: P on each side, from 0 to half of the kernel size.
        dilation: D, at least 1.
        ceil_mode: whether to round up.

    Returns:
        The number of windows, at least 1.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or the window does not fit.

    Example:
        >>> pool_output_size(7, 2), pool_output_size(7, 2, ceil_mode=True)
        (3, 4)
    """
    stride = kernel_size if stride is None else stride
    _check_window(size, kernel_size, stride, padding, dilation)
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"ceil_mode has type {type(ceil_mode).__name__}, expected True or False")
    room = size + 2 * padding - (dilation * (kernel_size - 1) + 1)
    out = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out -= 1
    if out < 1:
        raise ValueError(f"kernel_size is {kernel_size}, expected less: its window does not fit into {size} pixels")
    return out


def max_pool_with_indices(
    images: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Max pooling that remembers where each maximum was.

    Args:
        images: (B, C, H, W) floats.
        kernel_size: K along both axes.
        stride: S; None: K.
        padding: P on each side; padded pixels never win.
        dilation: D.
        ceil_mode: see `pool_output_size`.

    Returns:
        The maxima (B, C, Hout, Wout), and their places (B, C, Hout, Wout) int64: ``y * W + x`` in their own plane.
        Of equal maxima the first in reading order is taken. A NaN counts as the maximum.

    Raises:
        TypeError: images are not a tensor of floats, or a number is not whole.
        ValueError: images are not (B, C, H, W) or empty, or the window does not fit.

    Example:
        >>> plane = torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 2.0, 1.0]])
        >>> values, indices = max_pool_with_indices(plane[None, None], 2)
        >>> values.flatten().tolist(), indices.flatten().tolist()
        ([5.0, 2.0], [1, 2])
    """
    _check_planes(images, "images")
    stride = kernel_size if stride is None else stride
    H, W = images.shape[2:]
    rows = _taps(H, kernel_size, stride, padding, dilation, ceil_mode).to(images.device)  # (Hout, K)
    columns = _taps(W, kernel_size, stride, padding, dilation, ceil_mode).to(images.device)  # (Wout, K)
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    outside = (y < 0) | (y >= H) | (x < 0) | (x >= W)  # (Hout, Wout, K, K)
    place = (y.clamp(0, H - 1) * W + x.clamp(0, W - 1)).flatten(2)  # (Hout, Wout, K * K)
    windows = images.flatten(2)[..., place].masked_fill(outside.flatten(2), -torch.inf)
    # a window all of -inf (an image may hold that) must not point to the padding: those taps come last
    first = torch.where(windows == windows.amax(-1, keepdim=True), ~outside.flatten(2), False)
    best = torch.where(windows.isnan(), 2, first.int()).argmax(-1, keepdim=True)  # (B, C, Hout, Wout, 1)
    indices = place.expand(*windows.shape).gather(-1, best)[..., 0]
    return windows.gather(-1, best)[..., 0], indices


def max_unpool(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Put each maximum back where it was; all other pixels are 0.

    Args:
        values: (B, C, h, w) floats.
        indices: (B, C, h, w) int64, ``y * W + x`` in the plane of the same image and channel. Where two windows share
            their maximum the index occurs twice, with the same value, which is written once.
        output_size: (H, W) before the pooling: several sizes pool to the same h and w, so it must be said.

    Returns:
        (B, C, H, W).

    Raises:
        TypeError: values are not floats, or indices not int64.
        ValueError: shapes differ, or an index lies outside (H, W).

    Example:
        >>> values, indices = torch.tensor([[[[5.0, 2.0]]]]), torch.tensor([[[[1, 6]]]])
        >>> max_unpool(values, indices, (2, 4))
        tensor([[[[0., 5., 0., 0.],
                  [0., 0., 2., 0.]]]])
    """
    _check_planes(values, "values")
    H, W = _check_places(values, indices, output_size)
    flat = values.new_zeros(*values.shape[:2], H * W)
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).unflatten(2, (H, W))


def average_unpool(values: Tensor, kernel_size: int) -> Tensor:
    """Fill each block with its average: the average pooling of the result gives the values back.

    Args:
        values: (B, C, h, w) floats.
        kernel_size: side K of a block; windows did not overlap.

    Returns:
        (B, C, K * h, K * w), each value K * K times. (The gradient of average pooling is this, divided by K * K.)

    Raises:
        TypeError: values are not a tensor of floats, or the kernel size is not whole.
        ValueError: values are not (B, C, h, w) or empty, or the kernel size is below 1.

    Example:
        >>> average_unpool(torch.tensor([[[[1.0, 3.0]]]]), 2)
        tensor([[[[1., 1., 3., 3.],
                  [1., 1., 3., 3.]]]])
    """
    _check_planes(values, "values")
    _check_whole(kernel_size, "kernel_size", 1)
    return values.repeat_interleave(kernel_size, dim=2).repeat_interleave(kernel_size, dim=3)


def _taps(size: int, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Tensor:
    """Input coordinate of each tap of each window, (windows, K); outside of 0 to size - 1 lies the padding."""
    count = pool_output_size(size, kernel_size, stride, padding, dilation, ceil_mode)
    return stride * torch.arange(count)[:, None] + dilation * torch.arange(kernel_size) - padding


def _check_whole(value: int, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a whole number")
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}")


def _check_window(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> None:
    named = (("size", size, 1), ("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0))
    for name, value, least in (*named, ("dilation", dilation, 1)):
        _check_whole(value, name, least)
    if padding > kernel_size // 2:
        raise ValueError(f"padding is {padding}, expected at most half of the kernel size, here {kernel_size // 2}")


def _check_planes(tensor: Tensor, name: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} has type {type(tensor).__name__}, expected a torch.Tensor of shape (B, C, H, W)")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected floats")
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected (B, C, H, W), not empty")


def _check_places(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        given = f"has dtype {indices.dtype}" if isinstance(indices, Tensor) else f"has type {type(indices).__name__}"
        raise TypeError(f"indices {given}, expected a tensor of int64")
    if indices.shape != values.shape:
        raise ValueError(f"indices has shape {tuple(indices.shape)}, expected {tuple(values.shape)}, as values")
    if not isinstance(output_size, tuple | list) or len(output_size) != 2:
        raise TypeError(f"output_size is {output_size!r}, expected (H, W)")
    for axis, length in zip("HW", output_size, strict=True):
        _check_whole(length, f"output_size: {axis}", 1)
    H, W = output_size
    if indices.min() < 0 or indices.max() >= H * W:
        bad = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(f"indices has the value {int(bad)}, expected 0 to {H * W - 1} for {H} x {W} pixels")
    return H, W
