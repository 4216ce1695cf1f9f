"""separable: how many weights an atrous separable convolution has."""

from __future__ import annotations

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def separable(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """Weights of one kernel for each input channel, and of the 1x1 convolution that mixes them.

    Args:
        in_channels: C.
        out_channels: D.
        kernel_size: K, along both axes.
        rate: of the dilation.

    Returns:
        K^2 C + C D; no biases, and holes have no weights.
    """
    return kernel_size**2 * in_channels + in_channels * out_channels


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Numbers that all differ; one channel, a 1x1 kernel, the size of the paper.

    Args:
        rng: of the numbers of channels.

    Returns:
        The cases by group.
    """
    channels, more = int(rng.integers(8, 60)), int(rng.integers(64, 200))
    return {
        "core": (
            1,
            [
                {"name": "a 3x3 kernel, rate 1", "args": [channels, more, 3, 1]},
                {"name": "a 5x5 kernel, rate 2", "args": [more, channels, 5, 2]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "one channel in", "args": [1, more, 3, 4]},
                {"name": "a 1x1 kernel", "args": [channels, channels + 3, 1, 6]},
                {"name": "2,048 channels to 256", "args": [2048, 256, 3, 18]},
            ],
        ),
    }


def plain(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """A convolution that is not separable."""
    return kernel_size**2 * in_channels * out_channels


def with_bias(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """One bias for each channel of each step."""
    return separable(in_channels, out_channels, kernel_size, rate) + in_channels + out_channels


def one_kernel(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """One kernel for all channels."""
    return kernel_size**2 + in_channels * out_channels


def channels_added(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """In and out added where they multiply."""
    return kernel_size**2 * in_channels + in_channels + out_channels


def not_squared(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """A kernel that is a line."""
    return kernel_size * in_channels + in_channels * out_channels


def no_groups(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """A first step that mixes channels already."""
    return kernel_size**2 * in_channels**2 + in_channels * out_channels


def kernels_of_the_output(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """One kernel for each output channel."""
    return kernel_size**2 * out_channels + in_channels * out_channels


def with_holes(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> int:
    """Weights for the holes too."""
    return separable(in_channels, out_channels, rate * (kernel_size - 1) + 1, rate)


STEPS = "Draw the two steps: which channels does one kernel of the first step read, and how many kernels are there?"

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
            plain,
            "That is the plain convolution, K x K x C x D; a separable one has two steps.",
            STEPS,
        ),
        Wrong(
            "biases",
            with_bias,
            "You count biases: neither step has one.",
            "A normalisation with its own shift follows.",
        ),
        Wrong("one kernel", one_kernel, "You count one kernel for all channels: each channel has its own.", STEPS),
        Wrong(
            "channels added",
            channels_added,
            "You add the channels of the second step: a 1x1 convolution from C to D channels has C x D weights.",
            "How many numbers does one output channel of the 1x1 convolution read?",
        ),
        Wrong(
            "kernel not squared",
            not_squared,
            "Your kernel has K weights: it has K rows and K columns.",
            "How many taps has a 3x3 kernel?",
        ),
        Wrong(
            "groups wrong",
            no_groups,
            "Your first step mixes the channels already: in it each kernel reads one channel.",
            "groups=in_channels: how many input channels are in a group?",
        ),
        Wrong(
            "kernels of the output",
            kernels_of_the_output,
            "You count one spatial kernel for each output channel: the first step keeps the C input channels.",
            STEPS,
        ),
        Wrong(
            "holes counted",
            with_holes,
            "You count the holes: dilation moves the taps apart and adds no weight.",
            "How many numbers has a 3x3 kernel of rate 2? Nine.",
        ),
    ],
)
