"""Right answers of other kinds than the library's; every check and grading must accept them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import correlate


def conv_out_floor(size, kernel_size, stride, padding, dilation):
    """The formula with math.floor."""
    return math.floor((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1)


def conv_out_count(size, kernel_size, stride, padding, dilation):
    """Counts the places one after the other."""
    span, places, start = dilation * (kernel_size - 1) + 1, 0, -padding
    while start + span <= size + padding:
        places, start = places + 1, start + stride
    return places


def conv_out_tensor(size, kernel_size, stride, padding, dilation):
    """Asks torch, and gives a tensor of int64."""
    row = F.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size), None, stride, padding, dilation)
    return torch.tensor(row.shape[-1])


def tconv_out_span(size, kernel_size, stride, padding, output_padding, dilation):
    """First pixel to last, plus one; a numpy integer."""
    last = (size - 1) * stride + dilation * (kernel_size - 1)
    return np.int64(last + 1 - 2 * padding + output_padding)


def tconv_out_search(size, kernel_size, stride, padding, output_padding, dilation):
    """The smallest size that the convolution takes back, plus the output padding."""
    span, out = dilation * (kernel_size - 1) + 1, 1
    while out + 2 * padding < span or (out + 2 * padding - span) // stride + 1 < size:
        out += 1
    return out + output_padding


def tconv_out_torch(size, kernel_size, stride, padding, output_padding, dilation):
    """Asks torch."""
    row, kernel = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
    return F.conv_transpose1d(row, kernel, None, stride, padding, output_padding, 1, dilation).shape[-1]


def conv2d_lists(images, weight, bias, stride, padding):
    """Seven loops over Python numbers."""
    (B, C, H, W), (Cout, _, Kh, Kw) = images.shape, weight.shape
    x, w = images.tolist(), weight.tolist()
    out = []
    for b in range(B):
        for o in range(Cout):
            for top in range(-padding, H + padding - Kh + 1, stride):
                for left in range(-padding, W + padding - Kw + 1, stride):
                    total = float(bias[o])
                    for c in range(C):
                        for i in range(Kh):
                            for j in range(Kw):
                                if 0 <= top + i < H and 0 <= left + j < W:
                                    total += x[b][c][top + i][left + j] * w[o][c][i][j]
                    out.append(total)
    columns = (W + 2 * padding - Kw) // stride + 1
    return torch.tensor(out, dtype=torch.float64).reshape(B, Cout, -1, columns)


def conv2d_im2col(images, weight, bias, stride, padding):
    """One matrix product."""
    columns = F.unfold(images, weight.shape[2:], padding=padding, stride=stride)
    out = weight.flatten(1) @ columns + bias[:, None]
    return out.unflatten(2, (-1, (images.shape[3] + 2 * padding - weight.shape[3]) // stride + 1))


def conv2d_taps(images, weight, bias, stride, padding):
    """Loops over the taps of the kernel, not over pixels; numpy, float32."""
    x = np.pad(images.numpy(), [(0, 0), (0, 0), (padding, padding), (padding, padding)]).astype(np.float32)
    w = weight.numpy()
    rows, columns = ((x.shape[a] - w.shape[a]) // stride + 1 for a in (2, 3))
    out = np.zeros((len(x), len(w), rows, columns), np.float32) + bias.numpy()[:, None, None]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            part = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            part = part[:, :, :rows, :columns]
            out += np.einsum("bchw,oc->bohw", part, w[:, :, i, j])
    return out


def conv2d_scipy(images, weight, bias, stride, padding):
    """Dense correlation by scipy, then every S-th row and column."""
    x = F.pad(images, [padding] * 4).numpy()
    out = [[correlate(image, w.numpy(), mode="valid", method="direct")[0] for w in weight] for image in x]
    return np.array(out)[:, :, ::stride, ::stride] + bias.numpy()[:, None, None]


def tconv2d_taps(images, weight, stride, padding):
    """Loops over the taps: each adds a shifted image."""
    (B, _, H, W), (_, Cout, Kh, Kw) = images.shape, weight.shape
    canvas = torch.zeros(B, Cout, (H - 1) * stride + Kh, (W - 1) * stride + Kw, dtype=images.dtype)
    for i in range(Kh):
        for j in range(Kw):
            part = torch.tensordot(images, weight[:, :, i, j], dims=([1], [0])).movedim(-1, 1)
            canvas[:, :, i : i + stride * H : stride, j : j + stride * W : stride][:, :, :H, :W].add_(part)
    end_y, end_x = canvas.shape[2] - padding, canvas.shape[3] - padding
    return canvas[:, :, padding:end_y, padding:end_x]


def _convolved(images, weight, stride, padding):
    """Convolution as a product of matrices, whose gradient torch knows."""
    windows = F.unfold(images, tuple(weight.shape[2:]), padding=padding, stride=stride)
    rows, columns = (
        (n + 2 * padding - k) // stride + 1 for n, k in zip(images.shape[2:], weight.shape[2:], strict=True)
    )
    return (weight.flatten(1) @ windows).unflatten(2, (rows, columns))


def tconv2d_zeros_between(images, weight, stride, padding):
    """Zeros between the pixels, full padding, and a convolution with the flipped kernel."""
    (B, C, H, W), (_, _, Kh, Kw) = images.shape, weight.shape
    spread = images.new_zeros(B, C, (H - 1) * stride + 1, (W - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = images
    spread = F.pad(spread, [Kw - 1, Kw - 1, Kh - 1, Kh - 1])
    full = _convolved(spread, weight.transpose(0, 1).flip(2, 3), 1, 0)
    return full[:, :, padding : full.shape[2] - padding, padding : full.shape[3] - padding]


def tconv2d_gradient(images, weight, stride, padding):
    """The gradient of the convolution: that is what "transposed" means."""
    with torch.enable_grad():
        sizes = zip(images.shape[2:], weight.shape[2:], strict=True)
        rows, columns = ((n - 1) * stride + k - 2 * padding for n, k in sizes)
        start = torch.zeros(images.shape[0], weight.shape[1], rows, columns, dtype=images.dtype, requires_grad=True)
        out = _convolved(start, weight, stride, padding)
        return torch.autograd.grad(out, start, images)[0]


def tconv2d_numpy(images, weight, stride, padding):
    """Pixel by pixel in numpy, float32."""
    x, w = images.numpy().astype(np.float32), weight.numpy().astype(np.float32)
    (B, C, H, W), (_, O, Kh, Kw) = x.shape, w.shape
    out = np.zeros((B, O, (H - 1) * stride + Kh, (W - 1) * stride + Kw), np.float32)
    for b, c, o in np.ndindex(B, C, O):
        for y, z in np.ndindex(H, W):
            out[b, o, y * stride : y * stride + Kh, z * stride : z * stride + Kw] += x[b, c, y, z] * w[c, o]
    return out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]


def unpool_loop(values, indices, size):
    """Divides each index by the width."""
    out = torch.zeros(*values.shape[:2], *size, dtype=values.dtype)
    for b, c, y, x in np.ndindex(*values.shape):
        row, column = divmod(int(indices[b, c, y, x]), size[1])
        out[b, c, row, column] = values[b, c, y, x]
    return out


def unpool_numpy(values, indices, size):
    """np.put_along_axis."""
    flat = np.zeros((*values.shape[:2], size[0] * size[1]))
    np.put_along_axis(flat, indices.flatten(2).numpy(), values.flatten(2).numpy(), axis=2)
    return flat.reshape(*values.shape[:2], *size)


def unpool_one_hot(values, indices, size):
    """A maximum over one-hot rows; -inf where nothing was written."""
    hot = F.one_hot(indices.flatten(2), size[0] * size[1]).bool()
    spread = torch.where(hot, values.flatten(2)[..., None], -torch.inf).amax(2)
    return torch.where(hot.any(2), spread, 0.0).reshape(*values.shape[:2], *size)


def field_backwards(layers):
    """From the output to the input, with the rule of that direction."""
    first, last, stride = 0, 0, 1
    for _, k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s - p + d * (k - 1)
        stride *= s
    return last - first + 1, stride, -first


def field_by_marks(layers):
    """Follows the index sets of two neighbouring output pixels back to the input."""

    def seen(output):
        pixels = {output}
        for _, k, s, p, d in reversed(layers):
            pixels = {u * s - p + d * i for u in pixels for i in {0, k - 1}}
        return min(pixels), max(pixels)

    (first, last), (second, _) = seen(0), seen(1)
    return [last - first + 1, second - first, -first]


def field_numpy(layers):
    """Cumulative products."""
    table = np.array([one[1:] for one in layers], dtype=int).reshape(-1, 4)
    k, s, p, d = table.T
    jumps = np.concatenate([[1], np.cumprod(s)])
    return 1 + (d * (k - 1) * jumps[:-1]).sum(), jumps[-1], (p * jumps[:-1]).sum()


ALTERNATIVES: dict[str, list[Callable]] = {
    "conv_out": [conv_out_floor, conv_out_count, conv_out_tensor],
    "tconv_out": [tconv_out_span, tconv_out_search, tconv_out_torch],
    "conv2d_loops": [conv2d_lists, conv2d_im2col, conv2d_taps, conv2d_scipy],
    "tconv2d": [tconv2d_taps, tconv2d_zeros_between, tconv2d_gradient, tconv2d_numpy],
    "max_unpool": [unpool_loop, unpool_numpy, unpool_one_hot],
    "receptive_field": [field_backwards, field_by_marks, field_numpy],
}
