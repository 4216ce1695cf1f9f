"""receptive_field: which input pixels one output pixel of a stack of layers depends on."""

from __future__ import annotations

import numpy as np

from segedu.ops.convolution import receptive_field
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Layer = tuple[str, int, int, int, int]
Field = tuple[int, int, int]


def _layer(rng: np.random.Generator, stride: int, dilation: int = 1) -> Layer:
    """One convolution (name, kernel_size, stride, padding, dilation) with random kernel size and padding."""
    return ("conv", int(rng.integers(3, 6)), stride, int(rng.integers(1, 3)), dilation)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """The first blocks of VGG, strides in different layers, dilation; no layer, 1x1 kernels, no padding."""
    conv, pool = ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
    rates = [("conv", 3, 1, 2**i, 2**i) for i in range(int(rng.integers(3, 5)))]
    core = [
        case("two convolutions", [conv, _layer(rng, 1)]),
        case("two blocks of VGG", [conv, conv, pool] * 2 + [_layer(rng, 1)]),
        case("a stride first, then others", [_layer(rng, 3), _layer(rng, 2), _layer(rng, 1)]),
        case("dilation that doubles", rates),
        case("dilation after a stride", [_layer(rng, 2), _layer(rng, 1, 3), pool]),
    ]
    edge = [
        case("no layer", []),
        case("1x1 kernels", [("conv", 1, 1, 0, 1), ("conv", 1, 2, 0, 1), _layer(rng, 1)]),
        case("no padding", [("conv", 3, 1, 0, 1), pool, ("conv", 3, 1, 0, 1), pool]),
    ]
    return {"core": (2, core), "edge": (1, edge)}


def own_stride_first(layers: list[Layer]) -> Field:
    """Let the stride of a layer spread its own taps."""
    size, jump, padding = 1, 1, 0
    for _, k, s, p, d in layers:
        jump *= s
        size += d * (k - 1) * jump
        padding += p * jump
    return size, jump, padding


def strides_added(layers: list[Layer]) -> Field:
    """Add up the strides."""
    size, jump, padding = 1, 1, 0
    for _, k, s, p, d in layers:
        size += d * (k - 1) * jump
        padding += p * jump
        jump += s - 1
    return size, jump, padding


def whole_kernels(layers: list[Layer]) -> Field:
    """Let each layer add K, not K - 1."""
    size, jump = 0, 1
    for _, k, s, _, d in layers:
        size += (d * (k - 1) + 1) * jump
        jump *= s
    return max(size, 1), *receptive_field(layers)[1:]


right = Variants(receptive_field)

wrong = [
    Wrong(
        "jump ignored",
        right.then(lambda out, a: (1 + sum(d * (k - 1) for _, k, _, _, d in a.layers), *out[1:])),
        "You sum the kernel sizes without the strides. After a stride, neighbouring taps are several input pixels "
        "apart.",
        "After a stride of 2, two neighbours of the map are two pixels of the image apart.",
    ),
    Wrong(
        "no dilation",
        right.given(layers=lambda a: [(name, k, s, p, 1) for name, k, s, p, _ in a.layers]),
        "You leave out the dilation. The taps of a dilated kernel are D positions apart.",
        "From its first to its last tap, a kernel covers D * (K - 1) steps.",
    ),
    Wrong(
        "dilation times kernel",
        right.given(layers=lambda a: [(name, d * k, s, p, 1) for name, k, s, p, d in a.layers]),
        "Your kernel spans D times K positions, as if a gap followed the last tap. Gaps lie only between taps.",
        "Three taps have two gaps between them.",
    ),
    Wrong(
        "pools ignored",
        right.given(layers=lambda a: [layer for layer in a.layers if layer[0] == "conv"]),
        "You leave out the poolings. A pooling has a window and a stride, like a convolution.",
        "The name of a layer does not matter for its receptive field.",
    ),
    Wrong(
        "order reversed",
        right.given(layers=lambda a: a.layers[::-1]),
        "You go from the output to the input, but your formula needs the layers in order, from the input on.",
        "The pixels of the image are one pixel apart. Start with the first layer and a jump of 1.",
    ),
    Wrong(
        "own stride first",
        own_stride_first,
        "You multiply by a layer's own stride too early. It spreads only the taps of the layers after it.",
        "A first layer with kernel 3 and stride 2 sees 3 pixels.",
    ),
    Wrong(
        "strides added",
        strides_added,
        "You add up the strides. Multiply them.",
        "After two poolings with stride 2, how many pixels of the image are two neighbours apart?",
    ),
    Wrong(
        "padding not scaled",
        right.then(lambda out, a: (*out[:2], sum(p for _, _, _, p, _ in a.layers))),
        "You sum the paddings. One padded pixel of a later map is several pixels of the image.",
        "The padding of a layer counts in pixels of its own input.",
    ),
    Wrong(
        "K in place of K - 1",
        whole_kernels,
        "Each of your layers widens the field by K taps. A kernel of K taps has only K - 1 steps between them.",
        "One 3x3 convolution sees 3 pixels, two see 5.",
    ),
]

exercise = Exercise(
    name="receptive_field",
    points=3,
    cases=cases,
    reference=receptive_field,
    wrong=wrong,
    hides=["segedu.ops.convolution", "segedu.ops.pooling"],
)
