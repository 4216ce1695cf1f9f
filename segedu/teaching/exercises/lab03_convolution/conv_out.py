"""conv_out: how many pixels a convolution leaves along one axis."""

from __future__ import annotations

import math

import numpy as np

from segedu.ops.convolution import conv_output_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def conv_out(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """The library's `conv_output_size`, under the name of the exercise."""
    return conv_output_size(size, kernel_size, stride, padding, dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, sizes that the stride divides and that it does not, dilation; windows that just fit.

    Args:
        rng: of the sizes.

    Returns:
        The cases by group.
    """
    half = int(rng.integers(6, 20))
    size = int(rng.integers(20, 60))
    wide = 4 * int(rng.integers(4, 9))
    return {
        "core": (
            2,
            [
                {"name": "a 3x3 kernel without padding", "args": [size, 3, 1, 0, 1]},
                {"name": "the homework: 7 pixels", "args": [7, 3, 2, 1, 1]},
                {"name": "the homework: 8 pixels", "args": [8, 3, 2, 1, 1]},
                {"name": "a stride of 4 with 3 pixels left over", "args": [wide, 5, 4, 2, 1]},
                {"name": "an even kernel, stride 2, odd size", "args": [2 * half + 1, 4, 2, 1, 1]},
                {"name": "dilation 2, padding 2", "args": [size, 3, 1, 2, 2]},
                {"name": "dilation 3, stride 2", "args": [2 * half, 3, 2, 1, 3]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "a kernel as large as the input", "args": [half, half, 3, 0, 1]},
                {"name": "a kernel that fits thanks to the padding", "args": [2, 5, 1, 2, 1]},
                {"name": "a dilated kernel that just fits", "args": [7, 3, 2, 0, 3]},
                {"name": "a 1x1 kernel with stride and dilation", "args": [3 * half - 1, 1, 3, 0, 2]},
            ],
        ),
    }


def as_printed(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> float:
    """(H - K + 2P) / S + 1: neither rounded down nor dilated."""
    return (size - kernel_size + 2 * padding) / stride + 1


def no_floor(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> float:
    """The right formula with a fraction."""
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1


def ceiling(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Rounds up."""
    return math.ceil((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1


def no_dilation(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """The kernel spans K pixels whatever the dilation."""
    return (size + 2 * padding - kernel_size) // stride + 1


def dilation_times_kernel(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """The kernel spans D * K pixels."""
    return (size + 2 * padding - dilation * kernel_size) // stride + 1


def padding_once(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """P pixels of padding in all."""
    return (size + padding - dilation * (kernel_size - 1) - 1) // stride + 1


def no_plus_one(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Counts steps, not places."""
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride


def dilated_input(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Zeros between the pixels of the input, as if dilation were transposition."""
    return ((size - 1) * dilation + 1 + 2 * padding - kernel_size) // stride + 1


def always_same(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """Convolutions keep the size, strides divide it."""
    return math.ceil(size / stride)


exercise = Exercise(
    name="conv_out",
    points=3,
    cases=cases,
    reference=conv_out,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "as often printed",
            as_printed,
            "Your formula is the one that is often printed, (H - K + 2P)/S + 1: no rounding, no dilation.",
            "A size is a whole number of places. And a dilated kernel spans more than K pixels.",
        ),
        Wrong(
            "no floor",
            no_floor,
            "You divide without rounding down: a size is a whole number of places.",
            "What happens to the pixels that are left over at the end, too few for another step?",
        ),
        Wrong(
            "rounded up",
            ceiling,
            "You round up: the last place would hang over the end.",
            "Only pooling has a switch for that (ceil_mode). Count the places for 8 pixels, kernel 3, stride 4.",
        ),
        Wrong(
            "no dilation",
            no_dilation,
            "You leave out the dilation: a dilated kernel spans more than K pixels.",
            "Draw 3 taps, every second pixel. From the first to the last: how many pixels?",
        ),
        Wrong(
            "dilation times kernel",
            dilation_times_kernel,
            "You let the kernel span D times K pixels: there is no gap after its last tap.",
            "Three taps have two gaps between them.",
        ),
        Wrong(
            "padding once",
            padding_once,
            "You add the padding once: there are P pixels on each of the two sides.",
            "Write down the padded row for 3 pixels and P = 1.",
        ),
        Wrong(
            "no + 1",
            no_plus_one,
            "You count the steps of the kernel: places are one more.",
            "A kernel as large as the input has one place and makes no step.",
        ),
        Wrong(
            "zeros in the input",
            dilated_input,
            "You spread the pixels of the input: dilation spreads the taps of the kernel. That is a transposed stride.",
            "Dilation 2 with padding 2 and a kernel of 3 keeps the size.",
        ),
        Wrong(
            "always the same size",
            always_same,
            "You take it that a convolution keeps the size: that depends on the padding.",
            "U-Net's 3x3 convolutions have no padding. What do they do to 572 pixels?",
        ),
    ],
)
