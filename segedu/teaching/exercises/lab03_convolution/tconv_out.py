"""tconv_out: the output size of a transposed convolution along one axis."""

from __future__ import annotations

import numpy as np

from segedu.ops.convolution import transposed_conv_output_size
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def tconv_out(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """The library's `transposed_conv_output_size`, under the name of the exercise."""
    return transposed_conv_output_size(size, kernel_size, stride, padding, output_padding, dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """From 2 to 5, from 4 to 7 and to 8, strides, paddings, dilation; a single pixel."""
    size = int(rng.integers(9, 30))
    stride = int(rng.integers(3, 6))
    core = [
        case("2 pixels, kernel 3, stride 2", 2, 3, 2, 0, 0, 1),
        case("the homework: 4 pixels", 4, 3, 2, 1, 0, 1),
        case("the homework with output padding", 4, 3, 2, 1, 1, 1),
        case("U-Net's 2x2 up-convolution", 2 * size, 2, 2, 0, 0, 1),
        case("stride 1", size, 5, 1, 1, 0, 1),
        case("a larger stride", size, 4, stride, 1, stride - 1, 1),
        case("dilation 2", size, 3, 2, 2, 1, 2),
    ]
    edge = [
        case("one pixel becomes one kernel", 1, stride, 2, 0, 0, 3),
        case("a 1x1 kernel with stride", size, 1, stride, 0, 2, 1),
        case("all but one pixel cropped", 1, 5, 2, 2, 0, 1),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def forward_formula(size: int, kernel_size: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    """The output size of the convolution, plus the output padding."""
    span = dilation * (kernel_size - 1) + 1
    return (size + 2 * padding - span) // stride + 1 + output_padding


right = Variants(tconv_out)

wrong = [
    Wrong(
        "as often printed",
        right.given(output_padding=lambda a: 0, dilation=lambda a: 1),
        "You use the formula that is often printed, (H - 1)S + (K - 1) - 2P + 1. It lacks dilation and output padding.",
        "It is right for D = 1 and OP = 0. Use the span of a dilated kernel, and add the pixels at the end.",
    ),
    Wrong(
        "no output padding",
        right.given(output_padding=lambda a: 0),
        "You leave out the output padding. It adds OP pixels at the end of the result.",
        "Without it, the 4 pixels of the homework can never become 8.",
    ),
    Wrong(
        "output padding twice",
        right.then(lambda out, a: out + a.output_padding),
        "You add the output padding on both sides. It is added at the end only.",
        "Outputs of 7 and of 8 pixels differ by one pixel. Where does each of them begin?",
    ),
    Wrong(
        "no dilation",
        right.given(dilation=lambda a: 1),
        "You leave out the dilation. A dilated kernel spans more than K pixels.",
        "How far is the last tap of a dilated kernel from the first?",
    ),
    Wrong(
        "dilation times kernel",
        right.given(kernel_size=lambda a: a.dilation * a.kernel_size, dilation=lambda a: 1),
        "Your kernel spans D times K pixels, as if a gap followed the last tap. Gaps lie only between taps.",
        "Three taps have two gaps between them.",
    ),
    Wrong(
        "size times stride",
        right.instead(lambda a: a.size * a.stride),
        "You multiply the size by the stride. Kernel, padding and output padding change the size as well.",
        "One input pixel gives one whole kernel, whatever the stride.",
    ),
    Wrong(
        "formula of the convolution",
        forward_formula,
        "You use the formula of the convolution. A transposed convolution goes the other way and enlarges.",
        "Which size H' does a convolution reduce to H? Solve its formula for H'.",
    ),
    Wrong(
        "padding added",
        right.then(lambda out, a: out + 2 * 2 * a.padding),
        "You add the padding. A transposed convolution crops P pixels from each of the two sides.",
        "The convolution adds these pixels to its input. On the way back they are removed.",
    ),
    Wrong(
        "padding once",
        right.then(lambda out, a: out + a.padding),
        "You crop the padding on one side only. P pixels are cropped from each of the two sides.",
        "Draw 2 pixels, kernel 3, stride 2 and P = 1: 3 of 5 pixels are left.",
    ),
    Wrong(
        "a gap too many",
        right.then(lambda out, a: out + a.stride),
        "You count H steps between H pixels. There are only H - 1.",
        "One input pixel gives one kernel and no step.",
    ),
    Wrong(
        "span one too small",
        right.then(lambda out, a: out - 1),
        "Your kernel spans D * (K - 1) pixels. It spans one more: from its first to its last tap, both included.",
        "A kernel of one tap spans one pixel.",
    ),
    Wrong(
        "output padding subtracted",
        right.then(lambda out, a: out - 2 * a.output_padding),
        "You subtract the output padding. It adds OP pixels at the end of the result.",
        "It makes the result larger; P makes it smaller.",
    ),
    Wrong(
        "output padding times stride",
        right.then(lambda out, a: out + (a.stride - 1) * a.output_padding),
        "You multiply the output padding by the stride. It adds OP pixels to the result itself.",
        "Add it after everything else.",
    ),
    Wrong(
        "padding times stride",
        right.then(lambda out, a: out - 2 * a.padding * (a.stride - 1)),
        "You multiply the padding by the stride, as if it belonged to the input. It is cropped from the result.",
        "P pixels are cropped from each of the two sides.",
    ),
    Wrong(
        "S zeros between pixels",
        right.then(lambda out, a: out + a.size - 1),
        "You put S zeros between two input pixels. There are S - 1, so that two pixels are S apart.",
        "With stride 1, no zero is inserted.",
    ),
    Wrong(
        "steps dilated",
        right.instead(
            lambda a: (a.size - 1) * a.stride * a.dilation - 2 * a.padding + a.kernel_size + a.output_padding
        ),
        "You apply the dilation to the steps between the pixels. It belongs to the kernel.",
        "A dilated kernel spans D * (K - 1) + 1 pixels.",
    ),
    Wrong(
        "size times stride plus output padding",
        right.instead(lambda a: a.size * a.stride + a.output_padding),
        "You multiply the size by the stride and add the output padding. Kernel and padding change the size as well.",
        "One input pixel gives one whole kernel, whatever the stride.",
    ),
    Wrong(
        "largest of the sizes",
        right.then(lambda out, a: out + a.stride - 1),
        "Several sizes H' are reduced to H by the convolution, and you return the largest. Without output padding, it "
        "is the smallest.",
        "The output padding chooses among them.",
    ),
]

exercise = Exercise(
    name="tconv_out",
    points=3,
    cases=cases,
    reference=tconv_out,
    wrong=wrong,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
