"""conv2d_loops: convolution, one window at a time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.ops.convolution import conv2d_loops as library
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def conv2d_loops(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The library's `conv2d_loops`, without dilation."""
    return library(images, weight, bias, stride, padding)


def numbers(rng: np.random.Generator, *shape: int) -> Tensor:
    """Random quarters from -2 to 2 without 0, float64: sums of their products are exact."""
    values = rng.integers(1, 9, shape) / 4 * rng.choice([-1, 1], shape)
    return torch.from_numpy(values)


def lopsided(rng: np.random.Generator, *shape: int) -> Tensor:
    """Random kernels (a, b, Kh, Kw) that differ from their mirror images: the first tap is 3, the last is -3."""
    weight = numbers(rng, *shape)
    weight[..., 0, 0], weight[..., -1, -1] = 3.0, -3.0
    return weight


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """An edge filter, batches and channels, strides with pixels left over; a 1x1 kernel, one position only."""
    step = torch.tensor([[0.0, 0, 1, 1, 1], [0, 0, 2, 1, 1], [1, 1, 3, 3, 2], [1, 0, 3, 2, 2]], dtype=torch.float64)
    step = step * float(rng.integers(1, 4))
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    one = numbers(rng, 1)

    def drawn(name: str, images: tuple, weight: tuple, stride: int, padding: int, kernels=lopsided) -> Case:
        return case(name, numbers(rng, *images), kernels(rng, *weight), numbers(rng, weight[0]), stride, padding)

    core = [
        case("an edge filter", step[None, None], sobel[None, None], one, 1, 0),
        drawn("2 images, 3 channels to 4, no padding", (2, 3, 5, 6), (4, 3, 3, 2), 1, 0),
        drawn("stride 2 and padding 1, a column left over", (2, 3, 7, 8), (2, 3, 3, 3), 2, 1),
    ]
    edge = [
        drawn("a 1x1 kernel with stride 3", (2, 4, 5, 7), (3, 4, 1, 1), 3, 0, kernels=numbers),
        drawn("a kernel as large as the image: a fully connected layer", (3, 2, 4, 3), (5, 2, 4, 3), 1, 0),
        drawn("full padding", (1, 2, 3, 4), (3, 2, 3, 3), 1, 2),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def dense_windows(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The right size, but window y starts at row y."""
    strided, dense = (conv2d_loops(images, weight, bias, s, padding) for s in (stride, 1))
    return dense[..., : strided.shape[2], : strided.shape[3]]


right = Variants(conv2d_loops)
unpadded = Variants(right.given(padding=lambda a: 0))


def rows_only(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The right size, but the windows move along the columns by one pixel."""
    strided, dense = (conv2d_loops(images, weight, bias, s, padding) for s in (stride, 1))
    return dense[:, :, ::stride, : strided.shape[3]]


def without_last_positions(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Loops whose ranges end before a start that just fits; its results are the bias alone."""
    out = conv2d_loops(images, weight, bias, stride, padding)
    height, width = (n + 2 * padding - k for n, k in zip(images.shape[2:], weight.shape[2:], strict=True))
    rows, columns = len(range(0, height, stride)), len(range(0, width, stride))
    result = bias[None, :, None, None].expand_as(out).clone()
    result[:, :, :rows, :columns] = out[:, :, :rows, :columns]
    return result


def bias_changed(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Add each window to an element of the bias in place."""
    out = conv2d_loops(images, weight, torch.zeros_like(bias), stride, padding)
    result = torch.zeros_like(out)
    for b in range(len(out)):
        for o in range(out.shape[1]):
            running = bias[o] + out[b, o].flatten().cumsum(0)
            bias[o] = running[-1]
            result[b, o] = running.reshape(out.shape[2:])
    return result


def sparse_output(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """The size for stride 1; what no window fills stays 0."""
    strided, dense = (conv2d_loops(images, weight, bias, s, padding) for s in (stride, 1))
    out = torch.zeros_like(dense)
    out[:, :, : strided.shape[2], : strided.shape[3]] = strided
    return out


wrong = [
    Wrong(
        "flipped kernel",
        right.given(weight=lambda a: a.weight.flip(2, 3)),
        "You flip the kernel. Deep learning multiplies the window by the kernel without flipping it.",
        "Signal processing flips it, and calls the operation without the flip cross-correlation.",
    ),
    Wrong(
        "batch summed",
        right.given(images=lambda a: a.images.sum(0, keepdim=True).expand_as(a.images)),
        "You sum over the images of the batch. Each image has its own result.",
        "Each output value sums over three axes: input channel, kernel row and kernel column.",
    ),
    Wrong(
        "one input channel",
        right.given(images=lambda a: a.images[:, :1], weight=lambda a: a.weight[:, :1]),
        "You use only the first input channel. Sum over all input channels.",
        "A window has the shape (Cin, Kh, Kw).",
    ),
    Wrong(
        "one kernel plane for all channels",
        right.given(weight=lambda a: a.weight[:, :1].expand_as(a.weight)),
        "You use the same plane of the kernel for all input channels. Each input channel has its own.",
        "weight[o] has the shape (Cin, Kh, Kw), like a window.",
    ),
    Wrong(
        "stride only in the size",
        dense_windows,
        "Your windows start at every row. With stride S, the window of output row y starts at input row y * S.",
        "The size of your result is right. Look at where the second window starts.",
    ),
    Wrong(
        "no bias",
        right.given(bias=lambda a: torch.zeros_like(a.bias)),
        "You do not add the bias. Each output channel has one value that is added to all its pixels.",
        "The bias has the shape (Cout,).",
    ),
    Wrong(
        "bias for every channel",
        right.given(bias=lambda a: a.bias * a.images.shape[1]),
        "You add the bias once per input channel. Add it only once per output channel.",
        "Add it after the sum over the input channels.",
    ),
    Wrong(
        "no padding",
        right.given(padding=lambda a: 0),
        "You ignore the padding. Add P rows and columns of zeros on every side.",
        "First copy the image into a larger tensor of zeros.",
    ),
    Wrong(
        "padding in front",
        unpadded.given(images=lambda a: F.pad(a.images, [2 * a.padding, 0, 2 * a.padding, 0])),
        "You pad only above and on the left. There are P rows and columns on every side.",
        "Where is the first pixel of the image in the padded one?",
    ),
    Wrong(
        "padding is not zero",
        unpadded.given(images=lambda a: F.pad(a.images, [a.padding] * 4, mode="replicate")),
        "You pad with copies of the border pixels. Pad with zeros.",
        "Other kinds of padding exist, but this exercise asks for zeros.",
    ),
    Wrong(
        "stride of rows only, in the size too",
        right.instead(lambda a: conv2d_loops(a.images, a.weight, a.bias, 1, a.padding)[:, :, :: a.stride]),
        "You apply the stride to the rows only. Rows and columns have the same stride.",
        "Your result has too many columns.",
    ),
    Wrong(
        "stride of rows only",
        rows_only,
        "Your windows move by S along the rows, but by one pixel along the columns. Both move by S.",
        "The window of output column x starts at input column x * S.",
    ),
    Wrong(
        "first image only",
        right.then(lambda out, a: torch.cat([out[:1], torch.zeros_like(out[1:])])),
        "You convolve the first image only. Every image of the batch has a result.",
        "The first axis of images is the batch.",
    ),
    Wrong(
        "last image for all",
        right.then(lambda out, a: out[-1:].expand_as(out)),
        "All images of your batch have the result of the last one. This looks like one tensor that you fill again and "
        "again.",
        "A list keeps the tensor, not a copy. Make a new tensor for each image.",
    ),
    Wrong(
        "one row and column too few",
        right.then(lambda out, a: out[:, :, :-1, :-1]),
        "Your result is one row and one column too small. There is one more position than there are steps.",
        "A kernel as large as the image has one position.",
    ),
    Wrong(
        "last positions missing",
        without_last_positions,
        "Your loops end before the last window that fits. The last start is H + 2P - Kh, and it counts.",
        "range(n) ends at n - 1.",
    ),
    Wrong(
        "mean of the products",
        right.instead(
            lambda a: (
                conv2d_loops(a.images, a.weight, 0 * a.bias, a.stride, a.padding) / a.weight[0].numel()
                + a.bias[:, None, None]
            )
        ),
        "You take the mean of the products. A convolution takes their sum.",
        "Use sum, not mean.",
    ),
    Wrong(
        "bias per product",
        right.given(bias=lambda a: a.bias * a.weight[0].numel()),
        "You add the bias inside the sum, once per product. Add it once per window.",
        "Add it after the sum.",
    ),
    Wrong(
        "bias changed",
        bias_changed,
        "You add to an element of the bias in place, so it grows from window to window. Write the sum into a new "
        "variable.",
        "`value = bias[o]` is a view of the bias, and `value += ...` changes it.",
    ),
    Wrong(
        "only columns padded",
        unpadded.given(images=lambda a: F.pad(a.images, [a.padding, a.padding])),
        "You pad the columns only. There are P rows and P columns on every side.",
        "torch.nn.functional.pad takes two numbers per axis, the last axis first.",
    ),
    Wrong(
        "padding behind",
        unpadded.given(images=lambda a: F.pad(a.images, [0, 2 * a.padding, 0, 2 * a.padding])),
        "You pad only below and on the right. There are P rows and columns on every side.",
        "The first pixel of the image is at row P and column P of the padded one.",
    ),
    Wrong(
        "output transposed",
        right.then(lambda out, a: out.transpose(2, 3)),
        "Your result is transposed, (W, H). Its rows come before its columns.",
        "Output row y comes from windows that start at input row y * S.",
    ),
    Wrong(
        "size for stride 1",
        sparse_output,
        "Your result has the size for stride 1, with zeros at the end. It has one value per window.",
        "There are (H + 2P - Kh) // S + 1 rows.",
    ),
]

exercise = Exercise(
    name="conv2d_loops",
    points=4,
    cases=cases,
    reference=conv2d_loops,
    wrong=wrong,
    kind="matrix",
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
