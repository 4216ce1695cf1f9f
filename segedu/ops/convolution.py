"""Convolution arithmetic: output sizes, receptive fields, and convolution written so that every step can be read.

The sizes are for one axis; the others follow the same rule. The loops are slow on purpose: they say what
`torch.nn.functional.conv2d` and `conv_transpose2d` compute. Dumoulin and Visin 2016 (arXiv 1603.07285) derive the
relations, Araujo, Norris and Sim 2019 (Distill) the receptive field.

Course: course/03-convolution. Lab: labs/03_convolution.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor


def conv_output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Size of the output of a convolution: ``floor((H + 2P - D(K - 1) - 1) / S) + 1``.

    The kernel spans ``D(K - 1) + 1`` pixels. It takes its first place at the left end and moves by S as long as it
    fits: the floor drops the pixels that remain.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1.
        padding: P on each of the two sides, at least 0.
        dilation: D, the distance between neighbouring taps of the kernel, at least 1.

    Returns:
        The number of places of the kernel, at least 1.

    Raises:
        TypeError: an argument is not a whole number.
        ValueError: an argument is too small, or the kernel does not fit into the padded input.

    Example:
        7 and 8 pixels give the same size, because the kernel does not reach the last one of 8.

        >>> conv_output_size(7, 3, stride=2, padding=1), conv_output_size(8, 3, stride=2, padding=1)
        (4, 4)
        >>> conv_output_size(7, 3, padding=2, dilation=2)
        7
    """
    _check_window(size, kernel_size, stride, padding, dilation)
    span = dilation * (kernel_size - 1) + 1
    padded = size + 2 * padding
    if span > padded:
        raise ValueError(
            f"kernel_size is {kernel_size}, with dilation {dilation} a span of {span}, "
            f"expected at most the padded size {padded}"
        )
    return (padded - span) // stride + 1


def transposed_conv_output_size(
    size: int, kernel_size: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Size of the output of a transposed convolution: ``(H - 1)S - 2P + D(K - 1) + 1 + OP``.

    Without OP this is the smallest size that the convolution with the same numbers turns into H. There are S such
    sizes, and the output padding says which of them is meant.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1: distance between the patches of neighbouring input pixels.
        padding: P, at least 0: what is cut from each of the two sides.
        output_padding: OP, from 0 to below the larger of S and D: pixels added at the end only.
        dilation: D, at least 1.

    Returns:
        The size, at least 1.

    Raises:
        TypeError: an argument is not a whole number.
        ValueError: an argument is out of range, or nothing is left after the cut.

    Example:
        >>> transposed_conv_output_size(4, 3, stride=2, padding=1)
        7
        >>> transposed_conv_output_size(4, 3, stride=2, padding=1, output_padding=1)
        8
    """
    _check_window(size, kernel_size, stride, padding, dilation)
    _check_output_padding(output_padding, stride, dilation)
    out = (size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + 1 + output_padding
    if out < 1:
        raise ValueError(f"padding is {padding}, expected less: it leaves {out} pixels of the output")
    return out


def receptive_field(layers: Sequence[tuple[str, int, int, int, int]]) -> tuple[int, int, int]:
    """Which input pixels one output pixel of a stack of layers can see.

    A stack of convolutions and poolings looks at its input as one convolution does, with a larger kernel, stride and
    padding. Output pixel u sees the input pixels from ``u * stride - padding`` on, ``size`` of them. (Those with an
    index below 0 or from H on are padding.)

    Args:
        layers: from input to output, each ``(name, kernel_size, stride, padding, dilation)``. The name is for the
            reader: a pooling counts like a convolution.

    Returns:
        ``(size, stride, padding)`` of that one convolution. No layer: (1, 1, 0).

    Raises:
        TypeError: a layer is not such a tuple, or a number in it is not whole.
        ValueError: a number is too small.

    Example:
        Two 3x3 convolutions see 5 pixels; after a pooling each further tap is two pixels away.

        >>> conv, pool = ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
        >>> receptive_field([conv, conv])
        (5, 1, 2)
        >>> receptive_field([conv, conv, pool, conv])
        (10, 2, 4)
    """
    size, jump, start = 1, 1, 0
    for i, layer in enumerate(layers):
        kernel_size, stride, padding, dilation = _checked_layer(layer, i)
        size += dilation * (kernel_size - 1) * jump
        start += padding * jump
        jump *= stride
    return size, jump, start


def conv2d_loops(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """Convolution in loops, one output value after the other.

    As everywhere in deep learning the kernel is not flipped, so this is what signal processing calls
    cross-correlation.

    Args:
        images: (B, Cin, H, W) floats.
        weight: (Cout, Cin, Kh, Kw) of the same dtype.
        bias: (Cout,), or None for zeros.
        stride: S along both axes.
        padding: rows and columns of zeros on each side.
        dilation: D along both axes.

    Returns:
        (B, Cout, Hout, Wout), sizes by `conv_output_size`.

    Raises:
        TypeError: an argument is not a tensor of floats, or dtypes differ.
        ValueError: shapes do not fit.

    Example:
        >>> row = torch.tensor([[[[1.0, 2.0, 4.0, 8.0]]]])
        >>> conv2d_loops(row, torch.tensor([[[[1.0, -1.0]]]]))
        tensor([[[[-1., -2., -4.]]]])
    """
    _check_images_and_weight(images, weight, channel_axis=1)
    _check_bias(bias, weight.shape[0], weight.dtype)
    B, _, H, W = images.shape
    Cout, _, Kh, Kw = weight.shape
    Hout = conv_output_size(H, Kh, stride, padding, dilation)
    Wout = conv_output_size(W, Kw, stride, padding, dilation)
    padded = torch.nn.functional.pad(images, [padding] * 4)
    out = images.new_zeros(B, Cout, Hout, Wout)
    for b, o, y, x in product(range(B), range(Cout), range(Hout), range(Wout)):
        rows = slice(y * stride, y * stride + dilation * (Kh - 1) + 1, dilation)
        columns = slice(x * stride, x * stride + dilation * (Kw - 1) + 1, dilation)
        window = padded[b, :, rows, columns]  # (Cin, Kh, Kw)
        out[b, o, y, x] = (window * weight[o]).sum()
    return out if bias is None else out + bias[:, None, None]


def conv_matrix(kernel: Tensor, size: tuple[int, int], stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """The matrix W of a convolution with one channel: ``output.flatten() == W @ image.flatten()``.

    Its transpose is the transposed convolution with the same numbers: ``W.T @ output.flatten()`` has the size of the
    image. It is not the inverse.

    Args:
        kernel: (Kh, Kw) floats.
        size: (H, W) of the image.
        stride: S along both axes.
        padding: P along both axes.
        dilation: D along both axes.

    Returns:
        (Hout * Wout, H * W), pixels in rows as `flatten` orders them.

    Raises:
        TypeError: the kernel is not a tensor of floats, or the size not two whole numbers.
        ValueError: the kernel is not (Kh, Kw), or does not fit.

    Example:
        >>> conv_matrix(torch.tensor([[1.0, 2.0, 3.0]]), size=(1, 5), stride=2)
        tensor([[1., 2., 3., 0., 0.],
                [0., 0., 1., 2., 3.]])
    """
    _check_floats(kernel, "kernel", "(Kh, Kw)")
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(f"kernel has shape {tuple(kernel.shape)}, expected (Kh, Kw), not empty")
    H, W = _check_size(size, "size")
    Kh, Kw = kernel.shape
    Hout = conv_output_size(H, Kh, stride, padding, dilation)
    Wout = conv_output_size(W, Kw, stride, padding, dilation)
    matrix = kernel.new_zeros(Hout, Wout, H, W)
    for y, x, i, j in product(range(Hout), range(Wout), range(Kh), range(Kw)):
        row, column = y * stride + i * dilation - padding, x * stride + j * dilation - padding
        if 0 <= row < H and 0 <= column < W:  # a tap on the padding meets a zero
            matrix[y, x, row, column] = kernel[i, j]
    return matrix.reshape(Hout * Wout, H * W)


def transposed_conv2d_scatter(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Transposed convolution: each input pixel adds its multiple of the kernel to the output.

    Args:
        images: (B, Cin, H, W) floats.
        weight: (Cin, Cout, Kh, Kw) of the same dtype: the input channel comes first, as in the convolution whose
            transpose this is.
        bias: (Cout,), or None for zeros.
        stride: distance between the patches of neighbouring input pixels.
        padding: rows and columns cut from each side of the result.
        output_padding: rows and columns that the result has more at its end.
        dilation: distance between neighbouring taps.

    Returns:
        (B, Cout, Hout, Wout), sizes by `transposed_conv_output_size`.

    Raises:
        TypeError: an argument is not a tensor of floats, or dtypes differ.
        ValueError: shapes do not fit.

    Example:
        Two patches, two pixels apart, overlap in one pixel: 3 * 1 + 1 * 2.

        >>> row, kernel = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> transposed_conv2d_scatter(row, kernel, stride=2)
        tensor([[[[1., 2., 5., 4., 6.]]]])
    """
    _check_images_and_weight(images, weight, channel_axis=0)
    _check_bias(bias, weight.shape[1], weight.dtype)
    B, _, H, W = images.shape
    _, Cout, Kh, Kw = weight.shape
    Hout = transposed_conv_output_size(H, Kh, stride, padding, output_padding, dilation)
    Wout = transposed_conv_output_size(W, Kw, stride, padding, output_padding, dilation)
    canvas = images.new_zeros(B, Cout, Hout + 2 * padding, Wout + 2 * padding)
    for y, x in product(range(H), range(W)):
        rows = slice(y * stride, y * stride + dilation * (Kh - 1) + 1, dilation)
        columns = slice(x * stride, x * stride + dilation * (Kw - 1) + 1, dilation)
        canvas[:, :, rows, columns] += torch.einsum("bc,cohw->bohw", images[:, :, y, x], weight)
    out = canvas[:, :, padding : padding + Hout, padding : padding + Wout]
    return out if bias is None else out + bias[:, None, None]


def _check_whole(value: int, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a whole number")
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}")


def _check_window(size: int, kernel_size: int, stride: int, padding: int, dilation: int, where: str = "") -> None:
    named = (("size", size, 1), ("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0))
    for name, value, least in (*named, ("dilation", dilation, 1)):
        _check_whole(value, where + name, least)


def _checked_layer(layer: tuple[str, int, int, int, int], i: int) -> tuple[int, int, int, int]:
    """The numbers of the layer, without its name."""
    if not isinstance(layer, tuple | list) or len(layer) != 5:
        raise TypeError(f"layers[{i}] is {layer!r}, expected (name, kernel_size, stride, padding, dilation)")
    _check_window(1, *layer[1:], where=f"layers[{i}]: ")
    return layer[1:]


def _check_output_padding(output_padding: int, stride: int, dilation: int) -> None:
    _check_whole(output_padding, "output_padding", 0)
    if output_padding >= max(stride, dilation):
        raise ValueError(
            f"output_padding is {output_padding}, expected less than stride or dilation, here {max(stride, dilation)}"
        )


def _check_size(size: tuple[int, int], name: str) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"{name} is {size!r}, expected (H, W)")
    for axis, value in zip("HW", size, strict=True):
        _check_whole(value, f"{name}: {axis}", 1)
    return size[0], size[1]


def _check_floats(tensor: Tensor, name: str, shape: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} has type {type(tensor).__name__}, expected a torch.Tensor of shape {shape}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected floats")


def _check_images_and_weight(images: Tensor, weight: Tensor, channel_axis: int) -> None:
    order = ("(Cin, Cout, Kh, Kw)", "(Cout, Cin, Kh, Kw)")[channel_axis]
    for tensor, name, shape in ((images, "images", "(B, Cin, H, W)"), (weight, "weight", order)):
        _check_floats(tensor, name, shape)
        if tensor.ndim != 4 or 0 in tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}, not empty")
    if weight.dtype != images.dtype:
        raise TypeError(f"weight has dtype {weight.dtype}, expected {images.dtype}, as images")
    if weight.shape[channel_axis] != images.shape[1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected {order} with Cin = {images.shape[1]}, as images"
        )


def _check_bias(bias: Tensor | None, channels: int, dtype: torch.dtype) -> None:
    if bias is None:
        return
    _check_floats(bias, "bias", "(Cout,)")
    if bias.shape != (channels,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({channels},)")
    if bias.dtype != dtype:
        raise TypeError(f"bias has dtype {bias.dtype}, expected {dtype}, as images")
