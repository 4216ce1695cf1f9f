"""separable: the number of weights of an atrous separable convolution."""

from __future__ import annotations

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def separable(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """Weights of one kernel per input channel, and of the 1x1 convolution that mixes the channels.

    Args:
        in_channels: C.
        out_channels: D.
        kernel_size: K, along both axes.
        rate: of the dilation.

    Returns:
        K^2 C + C D, which does not depend on the rate; there are no biases.
    """
    return kernel_size**2 * in_channels + in_channels * out_channels


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Numbers that all differ; one channel, a 1x1 kernel, the size in the paper."""
    channels, more = int(rng.integers(8, 60)), int(rng.integers(64, 200))
    core = [
        case("a 3x3 kernel, rate 1", channels, more, 3, 1),
        case("a 5x5 kernel, rate 2", more, channels, 5, 2),
    ]
    edge = [
        case("one channel in", 1, more, 3, 4),
        case("a 1x1 kernel", channels, channels + 3, 1, 6),
        case("2,048 channels to 256", 2048, 256, 3, 18),
    ]
    return {"core": (1, core), "edge": (1, edge)}


right = Variants(separable)

STEPS = "Draw the two steps. Which channels does one kernel of the first step read, and how many kernels are there?"

exercise = Exercise(
    name="separable",
    points=2,
    cases=cases,
    reference=separable,
    kind="numbers",
    hides=["segedu.semantic.deeplabv3plus"],
    wrong=[
        Wrong(
            "plain convolution",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels * a.out_channels),
            "You count the weights of a plain convolution. Count those of the depthwise and of the pointwise step.",
            STEPS,
        ),
        Wrong(
            "biases",
            right.then(lambda out, a: out + a.in_channels + a.out_channels),
            "You count biases. Neither step has one.",
            "A normalisation layer with its own shift follows.",
        ),
        Wrong(
            "one kernel",
            right.instead(lambda a: a.kernel_size**2 + a.in_channels * a.out_channels),
            "You count one depthwise kernel for all channels. Each input channel has its own kernel.",
            STEPS,
        ),
        Wrong(
            "channels added",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels + a.in_channels + a.out_channels),
            "You add the channels in the second step. A 1x1 convolution from C to D channels has C x D weights.",
            "How many values does one output channel of the 1x1 convolution read?",
        ),
        Wrong(
            "kernel not squared",
            right.instead(lambda a: a.kernel_size * a.in_channels + a.in_channels * a.out_channels),
            "You count K weights per kernel. A kernel has K rows and K columns.",
            "How many taps does a 3x3 kernel have?",
        ),
        Wrong(
            "groups wrong",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels**2 + a.in_channels * a.out_channels),
            "Your first step already mixes the channels. Each of its kernels has to read one channel only.",
            "groups=in_channels: how many input channels does one group have?",
        ),
        Wrong(
            "kernels of the output",
            right.instead(lambda a: a.kernel_size**2 * a.out_channels + a.in_channels * a.out_channels),
            "You count one depthwise kernel per output channel. There is one per input channel.",
            STEPS,
        ),
        Wrong(
            "holes counted",
            right.given(kernel_size=lambda a: a.rate * (a.kernel_size - 1) + 1),
            "You count the gaps of the dilated kernel. Count only its taps: dilation adds no weights.",
            "How many weights does a 3x3 kernel of rate 2 have? Nine.",
        ),
        Wrong(
            "C x C in the second step",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels + a.in_channels**2),
            "Your pointwise step leads from C to C channels. It leads to D channels, so it has C x D weights.",
            "How many values does one output channel of the 1x1 convolution read?",
        ),
        Wrong(
            "steps multiplied",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels * a.in_channels * a.out_channels),
            "You multiply the weights of the two steps. Add them.",
            "The two layers have their own weights.",
        ),
        Wrong(
            "depthwise step only",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels),
            "You count the depthwise step only. The 1x1 convolution after it has weights, too.",
            STEPS,
        ),
        Wrong(
            "taps times rate",
            right.instead(lambda a: a.rate * a.kernel_size**2 * a.in_channels + a.in_channels * a.out_channels),
            "You multiply the taps by the rate. Dilation adds no weights.",
            "How many weights does a 3x3 kernel of rate 2 have? Nine.",
        ),
        Wrong(
            "K x K in both steps",
            right.instead(
                lambda a: a.kernel_size**2 * a.in_channels + a.kernel_size**2 * a.in_channels * a.out_channels
            ),
            "Your pointwise step has K x K kernels. Its kernels are 1 x 1.",
            STEPS,
        ),
        Wrong(
            "D in the second step",
            right.instead(lambda a: a.kernel_size**2 * a.in_channels + a.out_channels),
            "You count one weight per output channel in the second step. Each output channel reads all C channels.",
            "How many values does one output channel of the 1x1 convolution read?",
        ),
        Wrong(
            "K x 1 and 1 x K",
            right.instead(lambda a: 2 * a.kernel_size * a.in_channels + a.in_channels * a.out_channels),
            "You count a K x 1 and a 1 x K kernel per channel, which is spatially separable. Here each channel has one "
            "K x K kernel.",
            STEPS,
        ),
        Wrong(
            "always 3 x 3",
            right.given(kernel_size=lambda a: 3, rate=lambda a: 1),
            "You always count 9 taps. The kernel has K x K taps.",
            "Use the argument kernel_size.",
        ),
    ],
)
