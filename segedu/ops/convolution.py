"""Convolution arithmetic: output sizes, receptive fields, and convolutions in loops, in which every step can be read.

Sizes are those of one axis; the others follow the same rule. The loops are slow on purpose: they show what
`torch.nn.functional.conv2d` and `conv_transpose2d` compute. Dumoulin and Visin 2016 (arXiv 1603.07285) derive the
relations, Araujo, Norris and Sim 2019 (Distill) the receptive field.

Course: course/03-convolution. Lab: labs/03_convolution.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from segedu.validation.numbers import check_integer, check_size, check_window
from segedu.validation.tensors import check_floats


def conv_output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Size of the output of a convolution: ``floor((H + 2P - D(K - 1) - 1) / S) + 1``.

    The kernel spans ``D(K - 1) + 1`` pixels. It starts at the left end and moves by S as long as it fits: the floor
    drops the remaining pixels.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1.
        padding: P on each of the two sides, at least 0.
        dilation: D, the distance between neighbouring taps of the kernel, at least 1.

    Returns:
        The number of positions of the kernel, at least 1.

    7 and 8 pixels give the same size, because the kernel does not reach the last one of 8.

    >>> conv_output_size(7, 3, stride=2, padding=1), conv_output_size(8, 3, stride=2, padding=1)
    (4, 4)
    >>> conv_output_size(7, 3, padding=2, dilation=2)
    7
    """
    check_window(size, kernel_size, stride, padding, dilation)
    span = dilation * (kernel_size - 1) + 1
    padded = size + 2 * padding
    if span > padded:
        raise ValueError(
            f"kernel_size is {kernel_size} with dilation {dilation}, which spans {span} pixels,"
            f" expected at most the padded size {padded}"
        )
    return (padded - span) // stride + 1


def transposed_conv_output_size(
    size: int, kernel_size: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Size of the output of a transposed convolution: ``(H - 1)S - 2P + D(K - 1) + 1 + OP``.

    Without OP, this is the smallest size that the convolution with the same parameters maps to H. S sizes are mapped to
    H; the output padding selects one of them.

    Args:
        size: H, at least 1.
        kernel_size: K, at least 1.
        stride: S, at least 1: distance between the patches of neighbouring input pixels.
        padding: P, at least 0: pixels removed from each of the two sides.
        output_padding: OP, at least 0 and below the larger of S and D: pixels added at the end only.
        dilation: D, at least 1.

    Returns:
        The size, at least 1.

    >>> transposed_conv_output_size(4, 3, stride=2, padding=1)
    7
    >>> transposed_conv_output_size(4, 3, stride=2, padding=1, output_padding=1)
    8
    """
    check_window(size, kernel_size, stride, padding, dilation)
    check_integer("output_padding", output_padding, 0, max(stride, dilation) - 1)
    out = (size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + 1 + output_padding
    if out < 1:
        raise ValueError(f"padding is {padding}, which leaves an output of {out} pixels, expected a smaller padding")
    return out


def receptive_field(layers: Sequence[tuple[str, int, int, int, int]]) -> tuple[int, int, int]:
    """Receptive field of one output pixel of a stack of layers.

    A stack of convolutions and poolings covers its input as one convolution with a larger kernel, stride and padding
    does. Output pixel u depends on ``size`` input pixels, from ``u * stride - padding`` on. (Indices below 0 or from H
    on are padding.)

    Args:
        layers: from input to output, each ``(name, kernel_size, stride, padding, dilation)``. The name is for the
            reader: a pooling counts like a convolution.

    Returns:
        ``(size, stride, padding)`` of that one convolution. Without layers: (1, 1, 0).

    Two 3x3 convolutions cover 5 pixels; after a pooling, neighbouring taps are two pixels apart.

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

    >>> row = torch.tensor([[[[1.0, 2.0, 4.0, 8.0]]]])
    >>> conv2d_loops(row, torch.tensor([[[[1.0, -1.0]]]]))
    tensor([[[[-1., -2., -4.]]]])
    """
    _check_layer(images, weight, bias, "Cout Cin Kh Kw")
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

    Its transpose is the transposed convolution with the same parameters: ``W.T @ output.flatten()`` has the size of the
    image. It is not the inverse.

    Args:
        kernel: (Kh, Kw) floats.
        size: (H, W) of the image.
        stride: S along both axes.
        padding: P along both axes.
        dilation: D along both axes.

    Returns:
        (Hout * Wout, H * W), pixels in the order of `flatten`, row by row.

    >>> conv_matrix(torch.tensor([[1.0, 2.0, 3.0]]), size=(1, 5), stride=2)
    tensor([[1., 2., 3., 0., 0.],
            [0., 0., 1., 2., 3.]])
    """
    check_floats("kernel", kernel, "Kh Kw")
    H, W = check_size("size", size)
    Kh, Kw = kernel.shape
    Hout = conv_output_size(H, Kh, stride, padding, dilation)
    Wout = conv_output_size(W, Kw, stride, padding, dilation)
    matrix = kernel.new_zeros(Hout, Wout, H, W)
    for y, x, i, j in product(range(Hout), range(Wout), range(Kh), range(Kw)):
        row, column = y * stride + i * dilation - padding, x * stride + j * dilation - padding
        if 0 <= row < H and 0 <= column < W:  # taps on the padding are multiplied by zero
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
        padding: rows and columns removed from each side of the result.
        output_padding: rows and columns added at the end of the result.
        dilation: distance between neighbouring taps.

    Returns:
        (B, Cout, Hout, Wout), sizes by `transposed_conv_output_size`.

    Two patches, two pixels apart, overlap in one pixel: 3 * 1 + 1 * 2.

    >>> row, kernel = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> transposed_conv2d_scatter(row, kernel, stride=2)
    tensor([[[[1., 2., 5., 4., 6.]]]])
    """
    _check_layer(images, weight, bias, "Cin Cout Kh Kw")
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


def _checked_layer(layer: tuple[str, int, int, int, int], i: int) -> tuple[int, int, int, int]:
    """Kernel size, stride, padding and dilation of the layer."""
    if not isinstance(layer, tuple | list) or len(layer) != 5:
        raise TypeError(f"layers[{i}] is {layer!r}, expected (name, kernel_size, stride, padding, dilation)")
    check_window(1, *layer[1:], prefix=f"layers[{i}]: ")
    return layer[1:]


def _check_layer(images: Tensor, weight: Tensor, bias: Tensor | None, axes: str) -> None:
    sizes = check_floats("weight", weight, axes, check_floats("images", images, "B Cin H W"))
    if bias is not None:
        check_floats("bias", bias, "Cout", sizes)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != images.dtype:
            raise TypeError(f"{name} has dtype {tensor.dtype}, expected {images.dtype}, as images")
