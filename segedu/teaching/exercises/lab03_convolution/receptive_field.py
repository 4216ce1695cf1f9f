"""receptive_field: what one output pixel of a stack of layers sees."""

from __future__ import annotations

import numpy as np

from segedu.ops.convolution import receptive_field
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Layers = list[tuple[str, int, int, int, int]]
Field = tuple[int, int, int]


def layer(rng: np.random.Generator, stride: int, dilation: int = 1) -> tuple[str, int, int, int, int]:
    """One convolution with a drawn kernel and padding.

    Args:
        rng: of kernel size and padding.
        stride: given, because what matters must not be left to chance.
        dilation: given.

    Returns:
        (name, kernel_size, stride, padding, dilation).
    """
    return ("conv", int(rng.integers(3, 6)), stride, int(rng.integers(1, 3)), dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """VGG's first blocks, strides in different places, dilation; no layer, 1x1 kernels, no padding.

    Args:
        rng: of kernels and paddings.

    Returns:
        The cases by group.
    """
    conv, pool = ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
    rates = [("conv", 3, 1, 2**i, 2**i) for i in range(int(rng.integers(3, 5)))]
    return {
        "core": (
            2,
            [
                {"name": "two convolutions", "args": [[conv, layer(rng, 1)]]},
                {"name": "two blocks of VGG", "args": [[conv, conv, pool] * 2 + [layer(rng, 1)]]},
                {"name": "a stride first, then others", "args": [[layer(rng, 3), layer(rng, 2), layer(rng, 1)]]},
                {"name": "dilation that doubles", "args": [rates]},
                {"name": "dilation after a stride", "args": [[layer(rng, 2), layer(rng, 1, 3), pool]]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "no layer", "args": [[]]},
                {"name": "1x1 kernels", "args": [[("conv", 1, 1, 0, 1), ("conv", 1, 2, 0, 1), layer(rng, 1)]]},
                {"name": "no padding", "args": [[("conv", 3, 1, 0, 1), pool, ("conv", 3, 1, 0, 1), pool]]},
            ],
        ),
    }


def jump_ignored(layers: Layers) -> Field:
    """Sums the kernels."""
    _, jump, start = receptive_field(layers)
    return 1 + sum(d * (k - 1) for _, k, _, _, d in layers), jump, start


def no_dilation(layers: Layers) -> Field:
    """Takes every dilation for 1."""
    return receptive_field([(n, k, s, p, 1) for n, k, s, p, _ in layers])


def dilation_times_kernel(layers: Layers) -> Field:
    """A kernel spans D * K."""
    size, jump, start = 1, 1, 0
    for _, k, s, p, d in layers:
        size += (d * k - 1) * jump
        start += p * jump
        jump *= s
    return size, jump, start


def pools_ignored(layers: Layers) -> Field:
    """Only convolutions count."""
    return receptive_field([one for one in layers if one[0] == "conv"])


def reversed_order(layers: Layers) -> Field:
    """Counts from the output, with the rule for the other direction."""
    return receptive_field(layers[::-1])


def own_stride_first(layers: Layers) -> Field:
    """A layer's own stride spreads its own taps."""
    size, jump, start = 1, 1, 0
    for _, k, s, p, d in layers:
        jump *= s
        size += d * (k - 1) * jump
        start += p * jump
    return size, jump, start


def strides_added(layers: Layers) -> Field:
    """Strides add up."""
    size, jump, start = 1, 1, 0
    for _, k, s, p, d in layers:
        size += d * (k - 1) * jump
        start += p * jump
        jump += s - 1
    return size, jump, start


def padding_in_pixels(layers: Layers) -> Field:
    """Sums the paddings, as if all were pixels of the input."""
    size, jump, _ = receptive_field(layers)
    return size, jump, sum(p for _, _, _, p, _ in layers)


def kernels_whole(layers: Layers) -> Field:
    """Each layer adds K, not K - 1."""
    size, jump, start = 0, 1, 0
    for _, k, s, p, d in layers:
        size += (d * (k - 1) + 1) * jump
        start += p * jump
        jump *= s
    return max(size, 1), jump, start


exercise = Exercise(
    name="receptive_field",
    points=3,
    cases=cases,
    reference=receptive_field,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
    wrong=[
        Wrong(
            "jump ignored",
            jump_ignored,
            "You sum the kernels: after a stride each further tap is several input pixels away.",
            "After a stride of 2, two neighbours of the map are two pixels of the image apart.",
        ),
        Wrong(
            "no dilation",
            no_dilation,
            "You leave out the dilation: the taps of a dilated kernel are D apart.",
            "From its first to its last tap a kernel covers D * (K - 1) steps.",
        ),
        Wrong(
            "dilation times kernel",
            dilation_times_kernel,
            "You let a kernel span D times K: there is no gap after its last tap.",
            "Three taps have two gaps between them.",
        ),
        Wrong(
            "pools ignored",
            pools_ignored,
            "You leave out the poolings: a pooling looks at a window and moves by a stride, like a convolution.",
            "The name of a layer does not matter for what it sees.",
        ),
        Wrong(
            "order reversed",
            reversed_order,
            "You go from the output to the input with the rule for the other direction.",
            "The first layer's neighbours are one pixel apart: begin there with a jump of 1.",
        ),
        Wrong(
            "own stride first",
            own_stride_first,
            "You multiply by a layer's own stride too early: it spreads the taps of the layers after it.",
            "A first layer with kernel 3 and stride 2 sees 3 pixels.",
        ),
        Wrong(
            "strides added",
            strides_added,
            "You add up the strides: they multiply.",
            "Two poolings by 2: how many pixels of the image lie between two neighbours?",
        ),
        Wrong(
            "padding not scaled",
            padding_in_pixels,
            "You sum the paddings: one padded pixel of a later map is several pixels of the image.",
            "A layer's padding counts in steps of its own input.",
        ),
        Wrong(
            "K in place of K - 1",
            kernels_whole,
            "Each of your layers adds K: it adds K - 1 to what one pixel saw before.",
            "One 3x3 convolution sees 3 pixels, two see 5.",
        ),
    ],
)
