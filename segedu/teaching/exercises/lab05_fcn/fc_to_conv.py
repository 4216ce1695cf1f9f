"""fc_to_conv: the weight of a fully connected layer, reshaped into the kernel of a convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.fcn import fc_to_conv
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Windows with different C, h and w, and square ones; then a window of one pixel, one channel, one column."""

    def layer(name: str, outputs: int, channels: int, window: tuple[int, int]) -> Case:
        # distinct integers: a weight at a wrong position changes the result by at least 1
        inputs = channels * window[0] * window[1]
        weight = rng.permutation(outputs * inputs).reshape(outputs, inputs) - outputs * inputs // 2
        bias = torch.from_numpy(rng.permutation(outputs) + 1.5)
        return case(name, torch.from_numpy(weight).double(), bias, window)

    core = [
        layer("a layer over 2 channels of 3x4", 5, 2, (3, 4)),
        layer("a layer over 3 channels of 2x2", 4, 3, (2, 2)),
        layer("one class over 4 channels of 3x2", 1, 4, (3, 2)),
    ]
    edge = [
        layer("a window of one pixel", 3, 5, (1, 1)),
        layer("one channel, as many outputs as inputs", 6, 1, (2, 3)),
        layer("a window one column wide", 2, 3, (4, 1)),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(fc_to_conv)
width_by_height = right.given(kernel_size=lambda a: a.kernel_size[::-1])


def _square(side: int) -> Callable:
    """An answer that takes one side of the window for both, and infers the channels."""
    return right.instead(
        lambda a: (a.weight.reshape(len(a.weight), -1, a.kernel_size[side], a.kernel_size[side]), a.bias)
    )


def _rows_first(a: SimpleNamespace) -> tuple[Tensor, Tensor]:
    height, width = a.kernel_size
    return a.weight.reshape(len(a.weight), height, -1, width).permute(0, 2, 1, 3), a.bias


SAME_RESULT = "On a map of exactly h x w pixels, the layer and the convolution must give the same result."

exercise = Exercise(
    name="fc_to_conv",
    points=4,
    cases=cases,
    reference=fc_to_conv,
    kind="matrix",
    hides=["segedu.semantic.fcn"],
    wrong=[
        Wrong(
            "channels last",
            right.instead(lambda a: (a.weight.unflatten(1, (*a.kernel_size, -1)).permute(0, 3, 1, 2), a.bias)),
            "You read each row of the weight as (h, w, C). The features were flattened in the order (C, h, w).",
            "In what order does flatten() write the values of a (C, h, w) tensor?",
        ),
        Wrong(
            "columns before rows",
            Variants(width_by_height).then(lambda out, a: (out[0].transpose(2, 3), a.bias)),
            "Within a channel you read the weights column by column. The features were flattened row by row.",
            "Try a window that is wider than it is high.",
        ),
        Wrong(
            "a kernel of w x h",
            width_by_height,
            "Your kernel has height w and width h. kernel_size is (h, w), height first.",
            "Shapes are (rows, columns) everywhere in PyTorch.",
        ),
        Wrong(
            "1x1 for the first layer",
            right.instead(lambda a: (a.weight[:, :, None, None], a.bias)),
            "You return a 1x1 kernel for C * h * w channels. The features have C channels, so the kernel has to be h "
            "x w.",
            "How large is the window that the layer reads? The kernel has the same size.",
        ),
        Wrong(
            "window averaged away",
            right.then(lambda out, a: (out[0].mean((2, 3), keepdim=True), a.bias)),
            "You average the weights of the window into a 1x1 kernel. Each position in the window has its own weight.",
            "The convolution has exactly as many weights as the fully connected layer.",
        ),
        Wrong(
            "bias lost",
            right.then(lambda out, a: (out[0], None)),
            "You return None in place of the bias. A convolution has one bias per output, too.",
            "The bias does not need a new shape.",
        ),
        Wrong(
            "bias not returned",
            right.then(lambda out, a: out[0]),
            "You return only the weight. This exercise expects a pair, the weight and the bias.",
            "`return a, b` returns a pair.",
        ),
        Wrong(
            "bias of zeros",
            right.then(lambda out, a: (out[0], torch.zeros_like(a.bias))),
            "Your bias is all zeros. The convolution needs the bias of the fully connected layer.",
            "A newly created nn.Conv2d has a bias of its own. Which bias belongs here?",
        ),
        Wrong(
            "bias divided",
            right.then(lambda out, a: (out[0], a.bias / math.prod(a.kernel_size))),
            "You divide the bias by the number of pixels in the window. It is added once per window, not per pixel.",
            SAME_RESULT,
        ),
        Wrong(
            "layout of a transposed convolution",
            right.then(lambda out, a: (out[0].transpose(0, 1), a.bias)),
            "Your weight is (C, O, h, w), as for a transposed convolution. A convolution has the outputs first.",
            "Print torch.nn.Conv2d(2, 5, 3).weight.shape.",
        ),
        Wrong(
            "matrix transposed",
            right.given(weight=lambda a: a.weight.T.reshape(a.weight.shape)),
            "You transpose the weight matrix before you reshape it. Its rows already belong to the outputs.",
            "torch.nn.Linear stores (outputs, inputs), which is already the order that you need.",
        ),
        Wrong(
            "flipped window",
            right.then(lambda out, a: (out[0].flip(2, 3), a.bias)),
            "You rotate the kernel by 180 degrees. Convolution in deep learning does not flip the kernel.",
            SAME_RESULT,
        ),
        Wrong(
            "height for both sides",
            _square(0),
            "You use the height of the window for both sides. Its width may be another.",
            "kernel_size is (h, w).",
        ),
        Wrong(
            "weights divided",
            right.then(lambda out, a: (out[0] / math.prod(a.kernel_size), a.bias)),
            "You divide the weights by the number of pixels in the window. A convolution sums, as the layer does.",
            SAME_RESULT,
        ),
        Wrong(
            "bias (O, 1, 1)",
            right.then(lambda out, a: (out[0], a.bias[:, None, None])),
            "Your bias has the shape (O, 1, 1). A convolution has a bias of shape (O,).",
            "Print torch.nn.Conv2d(2, 5, 3).bias.shape.",
        ),
        Wrong(
            "bias (1, O, 1, 1)",
            right.then(lambda out, a: (out[0], a.bias[None, :, None, None])),
            "Your bias has the shape (1, O, 1, 1). A convolution has a bias of shape (O,).",
            "Print torch.nn.Conv2d(2, 5, 3).bias.shape.",
        ),
        Wrong(
            "rows before channels",
            right.instead(_rows_first),
            "You read each row of the weight as (h, C, w). The features were flattened in the order (C, h, w).",
            "In what order does flatten() write the values of a (C, h, w) tensor?",
        ),
    ],
)
