"""tconv_out: how many pixels a transposed convolution makes along one axis."""

from __future__ import annotations

import numpy as np

from segedu.ops.convolution import transposed_conv_output_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def tconv_out(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """The library's `transposed_conv_output_size`, under the name of the exercise."""
    return transposed_conv_output_size(size, kernel_size, stride, padding, output_padding, dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """2 to 5, 4 to 7 and to 8, strides, paddings, dilation; one pixel only.

    Args:
        rng: of the sizes.

    Returns:
        The cases by group.
    """
    size = int(rng.integers(9, 30))
    stride = int(rng.integers(3, 6))
    return {
        "core": (
            2,
            [
                {"name": "2 pixels, kernel 3, stride 2", "args": [2, 3, 2, 0, 0, 1]},
                {"name": "the homework: 4 pixels", "args": [4, 3, 2, 1, 0, 1]},
                {"name": "the homework with output padding", "args": [4, 3, 2, 1, 1, 1]},
                {"name": "U-Net's 2x2 up-convolution", "args": [2 * size, 2, 2, 0, 0, 1]},
                {"name": "stride 1", "args": [size, 5, 1, 1, 0, 1]},
                {"name": "a larger stride", "args": [size, 4, stride, 1, stride - 1, 1]},
                {"name": "dilation 2", "args": [size, 3, 2, 2, 1, 2]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one pixel becomes one kernel", "args": [1, stride, 2, 0, 0, 3]},
                {"name": "a 1x1 kernel with stride", "args": [size, 1, stride, 0, 2, 1]},
                {"name": "all but one pixel cut off", "args": [1, 5, 2, 2, 0, 1]},
            ],
        ),
    }


def as_printed(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """(H - 1)S + (K - 1) - 2P + 1: no dilation and no output padding."""
    return (size - 1) * stride + (kernel_size - 1) - 2 * padding + 1


def no_output_padding(
    size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int
) -> int:
    """The smallest size that the convolution takes back to H."""
    return tconv_out(size, kernel_size, stride, padding, 0, dilation)


def output_padding_twice(
    size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int
) -> int:
    """Output padding on both sides."""
    return tconv_out(size, kernel_size, stride, padding, output_padding, dilation) + output_padding


def no_dilation(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """The kernel spans K pixels whatever the dilation."""
    return (size - 1) * stride - 2 * padding + kernel_size + output_padding


def dilation_times_kernel(
    size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int
) -> int:
    """The kernel spans D * K pixels."""
    return (size - 1) * stride - 2 * padding + dilation * kernel_size + output_padding


def size_times_stride(
    size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int
) -> int:
    """The stride multiplies, and that is all."""
    return size * stride


def forward_formula(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """The size of the convolution, plus the output padding."""
    span = dilation * (kernel_size - 1) + 1
    return (size + 2 * padding - span) // stride + 1 + output_padding


def padding_added(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """Padding makes the result larger."""
    return (size - 1) * stride + 2 * padding + dilation * (kernel_size - 1) + 1 + output_padding


def padding_once(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """Cuts one side only."""
    return (size - 1) * stride - padding + dilation * (kernel_size - 1) + 1 + output_padding


def gap_after_last(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """H gaps of S in place of H - 1."""
    return size * stride - 2 * padding + dilation * (kernel_size - 1) + 1 + output_padding


exercise = Exercise(
    name="tconv_out",
    points=3,
    cases=cases,
    reference=tconv_out,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "as often printed",
            as_printed,
            "Your formula knows neither dilation nor output padding: (H-1)S + (K-1) - 2P + 1 is a special case.",
            "It is right for D = 1 and OP = 0. Put the span of a dilated kernel in, and the pixels added at the end.",
        ),
        Wrong(
            "no output padding",
            no_output_padding,
            "You leave out the output padding: without it 4 pixels can never become 8.",
            "It adds OP pixels at the end of the result.",
        ),
        Wrong(
            "output padding twice",
            output_padding_twice,
            "You add the output padding on both sides: it is at the end only.",
            "7 and 8 pixels differ by one. Where do both begin?",
        ),
        Wrong(
            "no dilation",
            no_dilation,
            "You leave out the dilation: each patch spans more than K pixels.",
            "How far is the last tap of a dilated kernel from the first?",
        ),
        Wrong(
            "dilation times kernel",
            dilation_times_kernel,
            "You let the kernel span D times K pixels: there is no gap after its last tap.",
            "Three taps have two gaps between them.",
        ),
        Wrong(
            "size times stride",
            size_times_stride,
            "You multiply the size by the stride: kernel and padding decide what is added or cut at the ends.",
            "One input pixel makes one whole kernel, whatever the stride.",
        ),
        Wrong(
            "formula of the convolution",
            forward_formula,
            "You use the formula of the convolution: the transposed one runs the other way and gets larger.",
            "Which size H' would a convolution turn into H? Solve for it.",
        ),
        Wrong(
            "padding added",
            padding_added,
            "You add the padding: in a transposed convolution it is cut off.",
            "The convolution gained those pixels before it began. On the way back they go.",
        ),
        Wrong(
            "padding once",
            padding_once,
            "You cut the padding from one side: P pixels go on each of the two.",
            "Draw 2 pixels, kernel 3, stride 2 and P = 1: of 5 pixels 3 are left.",
        ),
        Wrong(
            "a gap too many",
            gap_after_last,
            "You count H steps between H pixels: there are H - 1.",
            "One input pixel makes one kernel, and no step.",
        ),
    ],
)
