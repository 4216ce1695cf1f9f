"""fc_to_conv: the weights of a fully connected layer, laid out as those of a convolution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.checks.exercise import Case, Exercise, Wrong


def fc_to_conv(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
    """A fully connected layer over a whole map of (C, h, w) is a convolution whose kernel is as large as the map.

    Args:
        weight: (O, C * h * w), for inputs flattened from (C, h, w).
        bias: (O,), or None.
        size: C, h and w.

    Returns:
        Weight (O, C, h, w) and the bias.
    """
    return weight.reshape(len(weight), *size), bias


def _layer(rng: np.random.Generator, name: str, outputs: int, size: tuple[int, int, int], bias: bool = True) -> Case:
    # whole numbers, all different: every place that goes astray shows, and by 1 at least
    inputs = int(np.prod(size))
    values = rng.permutation(outputs * inputs).reshape(outputs, inputs) - outputs * inputs // 2
    offset = torch.from_numpy(rng.permutation(outputs) + 1.5) if bias else None
    return {"name": name, "args": [torch.from_numpy(values).double(), offset, size]}


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Maps with different C, h and w, square ones; then a map of one pixel, and a layer without bias.

    Args:
        rng: of all values.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            3,
            [
                _layer(rng, "a layer over 2 channels of 3x4", 5, (2, 3, 4)),
                _layer(rng, "a layer over 3 channels of 2x2", 4, (3, 2, 2)),
                _layer(rng, "one class over 4 channels of 3x2", 1, (4, 3, 2)),
            ],
        ),
        "edge": (
            1,
            [
                _layer(rng, "the layer after it: a map of one pixel", 3, (5, 1, 1)),
                _layer(rng, "no bias", 3, (2, 2, 3), bias=False),
                _layer(rng, "one channel, as many outputs as inputs", 6, (1, 2, 3)),
            ],
        ),
    }


def channels_last(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """Reads the columns of the weight as (h, w, C)."""
    C, h, w = size
    return weight.reshape(-1, h, w, C).permute(0, 3, 1, 2), bias


def width_first(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """Reads the columns of the weight as (C, w, h)."""
    C, h, w = size
    return weight.reshape(-1, C, w, h).transpose(2, 3), bias


def one_by_one(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """A 1x1 convolution over C * h * w channels."""
    return weight[:, :, None, None], bias


def one_by_one_mean(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """A 1x1 convolution over C channels, the window averaged away."""
    return weight.reshape(len(weight), *size).mean((2, 3), keepdim=True), bias


def bias_lost(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """No bias."""
    return weight.reshape(len(weight), *size), None


def bias_zero(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """The bias of a layer just made."""
    return weight.reshape(len(weight), *size), weight.new_zeros(len(weight))


def transposed(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """(C, O, h, w), the layout of a transposed convolution."""
    return weight.reshape(len(weight), *size).transpose(0, 1), bias


def matrix_transposed(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """The right shape, filled from the transposed matrix."""
    return weight.T.reshape(len(weight), *size), bias


def flipped(weight: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> tuple:
    """Turned by 180 degrees, as a mathematician's convolution would ask."""
    return weight.reshape(len(weight), *size).flip(2, 3), bias


exercise = Exercise(
    name="fc_to_conv",
    points=4,
    cases=cases,
    reference=fc_to_conv,
    kind="matrix",
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
            "bias of zeros",
            bias_zero,
            "You return a bias of zeros: the layer's own has to come along, and none where there was none.",
            "A convolution that was just made has a bias of its own. Which one belongs here?",
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
