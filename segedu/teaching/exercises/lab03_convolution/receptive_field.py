"""receptive_field: which input pixels one output pixel of a stack of layers depends on."""

from __future__ import annotations

from collections.abc import Callable

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


def _fields(update: Callable, size: int = 1) -> Callable:
    """A recurrence with another update: (size, jump, padding, layer) -> the same three after the layer."""

    def compute(layers: list[Layer]) -> Field:
        state = size, 1, 0
        for _, k, s, p, d in layers:
            state = update(*state, k, s, p, d)
        return state

    return compute


def _from_first_layer(layers: list[Layer]) -> Field:
    if not layers:
        raise IndexError("list index out of range")
    return receptive_field(layers)


def _kernel_of_pools_ignored(layers: list[Layer]) -> Field:
    size, jump, padding = 1, 1, 0
    for name, k, s, p, d in layers:
        size += d * (k - 1) * jump if name != "pool" else 0
        padding += p * jump
        jump *= s
    return size, jump, padding


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
    Wrong(
        "size by its own stride",
        _fields(lambda size, jump, pad, k, s, p, d: (size + d * (k - 1) * jump * s, jump * s, pad + p * jump)),
        "You let the stride of a layer widen its own kernel. It spreads only the taps of the layers after it.",
        "A first layer with kernel 3 and stride 2 sees 3 pixels.",
    ),
    Wrong(
        "padding by its own stride",
        _fields(lambda size, jump, pad, k, s, p, d: (size + d * (k - 1) * jump, jump * s, pad + p * jump * s)),
        "You multiply the padding by the jump after the layer. Its padding is counted in pixels of its own input.",
        "A first layer with stride 2 and padding 1 reaches 1 pixel beyond the image.",
    ),
    Wrong(
        "D times K added",
        _fields(lambda size, jump, pad, k, s, p, d: (size + d * k * jump, jump * s, pad + p * jump)),
        "You widen the field by D * K taps per layer. A kernel of K taps has only K - 1 steps between them.",
        "One 3x3 convolution sees 3 pixels, two see 5.",
    ),
    Wrong(
        "stride of the last layer",
        _fields(lambda size, jump, pad, k, s, p, d: (size + d * (k - 1) * jump, s, pad + p * jump)),
        "Your jump is the stride of the layer before. It is the product of the strides of all layers before.",
        "After two poolings with stride 2, how many pixels of the image are two neighbours apart?",
    ),
    Wrong(
        "size starts at 0",
        right.then(lambda out, a: (out[0] - 1, *out[1:]) if a.layers else out),
        "Your size starts at 0. Without any layer, an output pixel sees one pixel: itself.",
        "One 3x3 convolution sees 3 pixels.",
    ),
    Wrong(
        "size starts at 0, also without layers",
        right.then(lambda out, a: (out[0] - 1, *out[1:])),
        "Your size starts at 0, so a network without layers sees nothing. It sees one pixel.",
        "One 3x3 convolution sees 3 pixels.",
    ),
    Wrong(
        "no layer raises",
        right.instead(lambda a: _from_first_layer(a.layers)),
        "Your function raises an error for an empty list. Without layers, the answer is (1, 1, 0).",
        "Start with these values, not with those of the first layer.",
    ),
    Wrong(
        "padding of both sides",
        right.then(lambda out, a: (*out[:2], 2 * out[2])),
        "You count the padding of both sides. The result is how far the field begins before the first pixel.",
        "Count the padded pixels on one side.",
    ),
    Wrong(
        "padding before jump",
        right.then(lambda out, a: (out[0], out[2], out[1])),
        "You return the padding before the jump. Return size, jump and padding, in this order.",
        "Read the last lines of the docstring again.",
    ),
    Wrong(
        "kernels taken for odd",
        _fields(lambda size, jump, pad, k, s, p, d: (size + 2 * d * (k // 2) * jump, jump * s, pad + p * jump)),
        "You add K // 2 taps on each side, as if every kernel were odd. A 2x2 kernel widens the field by one tap.",
        "From its first to its last tap, a kernel covers K - 1 steps.",
    ),
    Wrong(
        "jump times dilation",
        _fields(lambda size, jump, pad, k, s, p, d: (size + d * (k - 1) * jump, jump * s * d, pad + p * jump)),
        "You multiply the jump by the dilation, too. Dilation spreads the taps of one layer only.",
        "After a dilated convolution with stride 1, neighbours are as far apart as before.",
    ),
    Wrong(
        "padding subtracted",
        right.then(lambda out, a: (out[0] - out[2], *out[1:])),
        "You subtract the padding from the size. The field includes padded pixels.",
        "The size does not depend on the padding.",
    ),
    Wrong(
        "kernels of poolings ignored",
        _kernel_of_pools_ignored,
        "Your poolings change the jump, but not the size. A pooling has a window, like a convolution.",
        "The name of a layer does not matter for its receptive field.",
    ),
    Wrong(
        "padding and dilation exchanged",
        right.given(layers=lambda a: [(name, k, s, d, p) for name, k, s, p, d in a.layers]),
        "You exchange padding and dilation of a layer. A layer is (name, kernel_size, stride, padding, dilation).",
        "Look at the order in the docstring.",
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
