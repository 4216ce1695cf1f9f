"""conv_out: the output size of a convolution along one axis."""

from __future__ import annotations

import math

import numpy as np

from segedu.ops.convolution import conv_output_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def conv_out(size: int, kernel_size: int, stride: int, padding: int, dilation: int) -> int:
    """The library's `conv_output_size`, under the name of the exercise."""
    return conv_output_size(size, kernel_size, stride, padding, dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The homework, sizes with and without pixels left over, dilation; kernels that just fit."""
    half = int(rng.integers(6, 20))
    size = int(rng.integers(20, 60))
    wide = 4 * int(rng.integers(4, 9))
    core = [
        case("a 3x3 kernel without padding", size, 3, 1, 0, 1),
        case("the homework: 7 pixels", 7, 3, 2, 1, 1),
        case("the homework: 8 pixels", 8, 3, 2, 1, 1),
        case("a stride of 4 with 3 pixels left over", wide, 5, 4, 2, 1),
        case("an even kernel, stride 2, odd size", 2 * half + 1, 4, 2, 1, 1),
        case("dilation 2, padding 2", size, 3, 1, 2, 2),
        case("dilation 3, stride 2", 2 * half, 3, 2, 1, 3),
    ]
    edge = [
        case("a kernel as large as the input", half, half, 3, 0, 1),
        case("a kernel that fits only with padding", 2, 5, 1, 2, 1),
        case("a dilated kernel that just fits", 7, 3, 2, 0, 3),
        case("a 1x1 kernel with stride and dilation", 3 * half - 1, 1, 3, 0, 2),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def _steps(a) -> float:
    """How far the dilated kernel can move on the padded row, in strides, with a fraction."""
    return (a.size + 2 * a.padding - a.dilation * (a.kernel_size - 1) - 1) / a.stride


right = Variants(conv_out)


def _each_term_rounded(a) -> int:
    span = a.dilation * (a.kernel_size - 1) + 1
    return (a.size + 2 * a.padding) // a.stride - span // a.stride + 1


def _while_it_ends_inside(a) -> int:
    """Count the starts whose kernel ends before the end, not at it."""
    free = a.size + 2 * a.padding - a.dilation * (a.kernel_size - 1) - 1
    return len(range(0, free, a.stride))


wrong = [
    Wrong(
        "as often printed",
        right.instead(lambda a: (a.size - a.kernel_size + 2 * a.padding) / a.stride + 1),
        "You use the formula that is often printed, (H - K + 2P)/S + 1. It lacks rounding down and dilation.",
        "A size counts positions of the kernel, so it is an integer. A dilated kernel spans more than K pixels.",
    ),
    Wrong(
        "no floor",
        right.instead(lambda a: _steps(a) + 1),
        "You divide without rounding down. A size counts positions of the kernel, so it is an integer.",
        "What happens to the pixels left over at the end, which are too few for another step?",
    ),
    Wrong(
        "rounded up",
        right.instead(lambda a: math.ceil(_steps(a)) + 1),
        "You round up, so the last position of the kernel reaches beyond the end of the row. Round down.",
        "Only pooling has an option for that (ceil_mode). Count the positions for 8 pixels, kernel 3, stride 4.",
    ),
    Wrong(
        "rounded to the nearest",
        right.instead(lambda a: round(_steps(a)) + 1),
        "You round to the nearest integer, so some sizes are rounded up. Round down.",
        "How many steps of 4 fit into 7 pixels?",
    ),
    Wrong(
        "no dilation",
        right.given(dilation=lambda a: 1),
        "You leave out the dilation. A dilated kernel spans more than K pixels.",
        "Draw 3 taps on every second pixel. How many pixels are there from the first to the last tap?",
    ),
    Wrong(
        "dilation times kernel",
        right.instead(lambda a: (a.size + 2 * a.padding - a.dilation * a.kernel_size) // a.stride + 1),
        "Your kernel spans D times K pixels, as if a gap followed the last tap. Gaps lie only between taps.",
        "Three taps have two gaps between them.",
    ),
    Wrong(
        "padding once",
        right.instead(lambda a: (a.size + a.padding - a.dilation * (a.kernel_size - 1) - 1) // a.stride + 1),
        "You add the padding once. There are P pixels on each of the two sides.",
        "Write down the padded row for 3 pixels and P = 1.",
    ),
    Wrong(
        "no + 1",
        right.then(lambda out, a: out - 1),
        "You count the steps of the kernel. Count its positions: there is one more position than there are steps.",
        "A kernel as large as the input has one position and makes no step.",
    ),
    Wrong(
        "zeros in the input",
        right.given(size=lambda a: (a.size - 1) * a.dilation + 1, dilation=lambda a: 1),
        "You insert gaps between the input pixels, as a transposed convolution does. Dilation inserts them in the "
        "kernel.",
        "Dilation 2 with padding 2 and a kernel of 3 keeps the size.",
    ),
    Wrong(
        "always the same size",
        right.instead(lambda a: math.ceil(a.size / a.stride)),
        "You assume that a convolution with stride 1 keeps the size. The size also depends on kernel and padding.",
        "The 3x3 convolutions of U-Net have no padding. What do they do to 572 pixels?",
    ),
    Wrong(
        "span one too small",
        right.instead(lambda a: (a.size + 2 * a.padding - a.dilation * (a.kernel_size - 1)) // a.stride + 1),
        "Your kernel spans D * (K - 1) pixels. It spans one more: from its first to its last tap, both included.",
        "A kernel of one tap spans one pixel.",
    ),
    Wrong(
        "1 added before the division",
        right.instead(lambda a: (a.size + 2 * a.padding - a.dilation * (a.kernel_size - 1)) // a.stride),
        "You add 1 before you divide by the stride. Divide the steps first, then add 1.",
        "With stride 2, two steps are two positions apart, and the first position is one more.",
    ),
    Wrong(
        "D zeros between taps",
        right.instead(
            lambda a: (a.size + 2 * a.padding - a.kernel_size - (a.kernel_size - 1) * a.dilation) // a.stride + 1
        ),
        "You put D zeros between two taps. There are D - 1, so that D = 1 is the ordinary kernel.",
        "With dilation 2, the taps are on every second pixel.",
    ),
    Wrong(
        "dilation counted once",
        right.instead(lambda a: (a.size + 2 * a.padding - a.kernel_size - a.dilation + 1) // a.stride + 1),
        "Your dilation widens the kernel by D - 1 pixels in all. It does so between every two taps.",
        "Three taps have two gaps between them.",
    ),
    Wrong(
        "padding after the division",
        right.instead(lambda a: (a.size - a.dilation * (a.kernel_size - 1) - 1) // a.stride + 2 * a.padding + 1),
        "You add the padding after the division by the stride. Padding makes the row longer, so add it before.",
        "The kernel moves on the padded row.",
    ),
    Wrong(
        "padding times dilation",
        right.given(padding=lambda a: a.padding * a.dilation),
        "You multiply the padding by the dilation. P pixels are added on each side, whatever the dilation.",
        "Dilation belongs to the kernel.",
    ),
    Wrong(
        "terms rounded one by one",
        right.instead(_each_term_rounded),
        "You divide row and kernel by the stride separately and round both down. Subtract first, then divide.",
        "7 // 2 - 3 // 2 is not (7 - 3) // 2 for all numbers.",
    ),
    Wrong(
        "last position not counted",
        right.instead(_while_it_ends_inside),
        "You do not count a position at which the kernel ends exactly at the end of the row. It fits.",
        "Compare with <=, not with <.",
    ),
]

exercise = Exercise(
    name="conv_out",
    points=3,
    cases=cases,
    reference=conv_out,
    wrong=wrong,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
