"""conv2d_loops: convolution, one window after the other."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.convolution import conv2d_loops as library
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def conv2d_loops(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The library's `conv2d_loops`, without dilation."""
    return library(images, weight, bias, stride, padding)


def numbers(rng: np.random.Generator, *shape: int) -> Tensor:
    """Quarters from -2 to 2 without 0, exactly representable and never symmetric by chance alone.

    Args:
        rng: of the values.
        shape: of the tensor.

    Returns:
        float64.
    """
    values = rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape)
    return torch.from_numpy(values)


def lopsided(rng: np.random.Generator, *shape: int) -> Tensor:
    """A kernel that differs from its mirror image in every draw: its first tap is 3, its last -3.

    Args:
        rng: of the other values.
        shape: (a, b, Kh, Kw).

    Returns:
        float64.
    """
    weight = numbers(rng, *shape)
    weight[..., 0, 0], weight[..., -1, -1] = 3.0, -3.0
    return weight


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """An edge filter, several images and channels, strides that leave pixels over; a 1x1 kernel, one place only.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    step = torch.tensor([[0.0, 0, 1, 1, 1], [0, 0, 2, 1, 1], [1, 1, 3, 3, 2], [1, 0, 3, 2, 2]], dtype=torch.float64)
    step = step * float(rng.integers(1, 4))
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    one = numbers(rng, 1)
    return {
        "core": (
            3,
            [
                {"name": "an edge filter", "args": [step[None, None], sobel[None, None], one, 1, 0]},
                {
                    "name": "2 images, 3 channels to 4, no padding",
                    "args": [numbers(rng, 2, 3, 5, 6), lopsided(rng, 4, 3, 3, 2), numbers(rng, 4), 1, 0],
                },
                {
                    "name": "stride 2 and padding 1, a column left over",
                    "args": [numbers(rng, 2, 3, 7, 8), lopsided(rng, 2, 3, 3, 3), numbers(rng, 2), 2, 1],
                },
            ],
        ),
        "edge": (
            1,
            [
                {
                    "name": "a 1x1 kernel with stride 3",
                    "args": [numbers(rng, 2, 4, 5, 7), numbers(rng, 3, 4, 1, 1), numbers(rng, 3), 3, 0],
                },
                {
                    "name": "a kernel as large as the image: a fully connected layer",
                    "args": [numbers(rng, 3, 2, 4, 3), lopsided(rng, 5, 2, 4, 3), numbers(rng, 5), 1, 0],
                },
                {
                    "name": "full padding",
                    "args": [numbers(rng, 1, 2, 3, 4), lopsided(rng, 3, 2, 3, 3), numbers(rng, 3), 1, 2],
                },
            ],
        ),
    }


def flipped(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Convolution as in signal processing."""
    return F.conv2d(images, weight.flip(2, 3), bias, stride, padding)


def summed_batch(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Sums over the images too, and gives the sum to each of them."""
    out = F.conv2d(images, weight, None, stride, padding)
    return out.sum(0, keepdim=True).expand_as(out) + bias[:, None, None]


def first_channel(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Uses one input channel."""
    return F.conv2d(images[:, :1], weight[:, :1], bias, stride, padding)


def summed_kernels(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The same channel of the kernel for all input channels."""
    return F.conv2d(images, weight[:, :1].expand_as(weight), bias, stride, padding)


def contiguous_windows(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Right size, but window y begins in row y."""
    right = F.conv2d(images, weight, bias, stride, padding)
    dense = F.conv2d(images, weight, bias, 1, padding)
    return dense[..., : right.shape[2], : right.shape[3]]


def no_bias(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Forgets the bias."""
    return F.conv2d(images, weight, None, stride, padding)


def bias_per_tap(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Adds the bias once for each input channel."""
    return F.conv2d(images, weight, bias * images.shape[1], stride, padding)


def no_padding(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Ignores the padding."""
    return F.conv2d(images, weight, bias, stride)


def padded_in_front(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """2P rows and columns above and on the left."""
    return F.conv2d(F.pad(images, [2 * padding, 0, 2 * padding, 0]), weight, bias, stride)


def replicated(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Pads with the pixels of the border."""
    return F.conv2d(F.pad(images, [padding] * 4, mode="replicate"), weight, bias, stride)


exercise = Exercise(
    name="conv2d_loops",
    points=4,
    cases=cases,
    reference=conv2d_loops,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "flipped kernel",
            flipped,
            "You flip the kernel: deep learning multiplies window and kernel as they lie.",
            "Signal processing flips; there this operation is called cross-correlation.",
        ),
        Wrong(
            "batch summed",
            summed_batch,
            "You sum over the images of the batch: each image has its own result.",
            "Which axes does one output value sum over? Input channel, kernel row, kernel column.",
        ),
        Wrong(
            "one input channel",
            first_channel,
            "You use the first input channel only: a window reaches through all channels.",
            "A window has the shape (Cin, Kh, Kw).",
        ),
        Wrong(
            "one kernel plane for all channels",
            summed_kernels,
            "You use one plane of the kernel for all input channels: each channel has its own.",
            "weight[o] has the shape (Cin, Kh, Kw), as the window has.",
        ),
        Wrong(
            "stride only in the size",
            contiguous_windows,
            "Your windows begin in every row: with stride S output row y begins in input row y * S.",
            "The size of your result is right. Look at where the second window lies.",
        ),
        Wrong(
            "no bias",
            no_bias,
            "You do not add the bias.",
            "One number an output channel, added to each of its pixels.",
        ),
        Wrong(
            "bias for every channel",
            bias_per_tap,
            "You add the bias once for each input channel: it belongs to the output channel.",
            "Add it after the sum over the input channels.",
        ),
        Wrong(
            "no padding",
            no_padding,
            "You ignore the padding.",
            "Put the image into a larger map of zeros first.",
        ),
        Wrong(
            "padding in front",
            padded_in_front,
            "You pad above and on the left only: there are P rows and columns on every side.",
            "Where does the first pixel of the image lie in the padded one?",
        ),
        Wrong(
            "padding is not zero",
            replicated,
            "You continue the image at its border: here the padding is zeros.",
            "Other paddings exist, but this one is asked for.",
        ),
    ],
)
