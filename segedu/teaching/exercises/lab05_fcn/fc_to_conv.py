"""fc_to_conv: the weights of a fully connected layer, laid out as those of a convolution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.semantic.fcn import fc_to_conv
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Window = tuple[int, int]


def _layer(rng: np.random.Generator, name: str, outputs: int, channels: int, window: Window) -> Case:
    # whole numbers, all different: every place that goes astray shows, and by 1 at least
    inputs = channels * window[0] * window[1]
    values = rng.permutation(outputs * inputs).reshape(outputs, inputs) - outputs * inputs // 2
    bias = torch.from_numpy(rng.permutation(outputs) + 1.5)
    return {"name": name, "args": [torch.from_numpy(values).double(), bias, window]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Windows with different C, h and w, square ones; then a window of one pixel, one channel, a column.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            3,
            [
                _layer(rng, "a layer over 2 channels of 3x4", 5, 2, (3, 4)),
                _layer(rng, "a layer over 3 channels of 2x2", 4, 3, (2, 2)),
                _layer(rng, "one class over 4 channels of 3x2", 1, 4, (3, 2)),
            ],
        ),
        "edge": (
            1,
            [
                _layer(rng, "the layer after it: a window of one pixel", 3, 5, (1, 1)),
                _layer(rng, "one channel, as many outputs as inputs", 6, 1, (2, 3)),
                _layer(rng, "a window one column wide", 2, 3, (4, 1)),
            ],
        ),
    }


def _kernel(weight: Tensor, window: Window) -> Tensor:
    return weight.reshape(len(weight), -1, *window)


def channels_last(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """Reads the columns of the weight as (h, w, C)."""
    return weight.reshape(len(weight), *kernel_size, -1).permute(0, 3, 1, 2), bias


def width_first(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """Reads the columns of the weight as (C, w, h)."""
    return _kernel(weight, kernel_size[::-1]).transpose(2, 3), bias


def axes_swapped(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """A kernel of (w, h)."""
    return _kernel(weight, kernel_size[::-1]), bias


def one_by_one(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution over C * h * w channels."""
    return weight[:, :, None, None], bias


def one_by_one_mean(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution over C channels, the window averaged away."""
    return _kernel(weight, kernel_size).mean((2, 3), keepdim=True), bias


def bias_lost(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, None]:
    """No bias."""
    return _kernel(weight, kernel_size), None


def weight_only(weight: Tensor, bias: Tensor, kernel_size: Window) -> Tensor:
    """The weight alone."""
    return _kernel(weight, kernel_size)


def bias_zero(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """A bias of zeros."""
    return _kernel(weight, kernel_size), torch.zeros_like(bias)


def bias_shared_out(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """The bias divided by the pixels of the window."""
    return _kernel(weight, kernel_size), bias / (kernel_size[0] * kernel_size[1])


def transposed(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """(C, O, h, w), the layout of a transposed convolution."""
    return _kernel(weight, kernel_size).transpose(0, 1), bias


def matrix_transposed(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """The right shape, filled from the transposed matrix."""
    return weight.T.reshape(len(weight), -1, *kernel_size), bias


def flipped(weight: Tensor, bias: Tensor, kernel_size: Window) -> tuple[Tensor, Tensor]:
    """Turned by 180 degrees, as a mathematician's convolution would ask."""
    return _kernel(weight, kernel_size).flip(2, 3), bias


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
            channels_last,
            "You read the weight as if the map had been flattened with the channels last: here they come first.",
            "In what order does flatten() write the values of a (C, h, w) map?",
        ),
        Wrong(
            "columns before rows",
            width_first,
            "You swap height and width: within a channel the map was flattened row by row.",
            "Try a window that is wider than high.",
        ),
        Wrong(
            "a kernel of w x h",
            axes_swapped,
            "Your kernel is w high and h wide: kernel_size is (h, w), height first.",
            "Shapes are (rows, columns), as everywhere in torch.",
        ),
        Wrong(
            "1x1 for the first layer",
            one_by_one,
            "You make a 1x1 convolution over C * h * w channels: the map has C, and the layer sees h x w pixels of it.",
            "How large is the window that the layer looks at? That is the size of the kernel.",
        ),
        Wrong(
            "window averaged away",
            one_by_one_mean,
            "You average the weights of a window into a 1x1 kernel: every place in the window has a weight of its own.",
            "Count: the convolution has exactly as many weights as the layer.",
        ),
        Wrong(
            "bias lost",
            bias_lost,
            "You lose the bias: a convolution has one number for each output too.",
            "The bias needs no new shape.",
        ),
        Wrong(
            "bias not returned",
            weight_only,
            "You return the weight alone: two things are asked for, weight and bias.",
            "A function returns a pair by `return a, b`.",
        ),
        Wrong(
            "bias of zeros",
            bias_zero,
            "You return a bias of zeros: the layer's own has to come along.",
            "A convolution that was just made has a bias of its own. Which one belongs here?",
        ),
        Wrong(
            "bias divided",
            bias_shared_out,
            "You divide the bias by the pixels of the window: it is added once for each window, not for each pixel.",
            "Over a map of exactly h x w pixels both layers must give the same number.",
        ),
        Wrong(
            "layout of a transposed convolution",
            transposed,
            "Your weight is (C, O, h, w), as a transposed convolution has it: a convolution has the outputs first.",
            "Print torch.nn.Conv2d(2, 5, 3).weight.shape.",
        ),
        Wrong(
            "matrix transposed",
            matrix_transposed,
            "You transpose the matrix before you reshape it: the values land in the wrong outputs.",
            "torch.nn.Linear stores (outputs, inputs), which is already the order you need.",
        ),
        Wrong(
            "flipped window",
            flipped,
            "You turn the window by 180 degrees: convolution in deep learning does not flip.",
            "Over a map of exactly h x w pixels both layers must give the same number.",
        ),
    ],
)
