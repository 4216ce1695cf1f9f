"""convert_os: replace strides by dilation, so that a classification network keeps its resolution and its weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Layer = tuple[str, int, int, int]  # kind, kernel size, stride, padding
Converted = tuple[str, int, int, int, int]  # kind, kernel size, stride, dilation, padding


def convert_os(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Remove the last strides of a stack of layers, and dilate the layers after each of them.

    Args:
        layers: (kind, kernel size, stride, padding) in order; strides 1 or 2.
        output_stride: a power of two.

    Returns:
        (kind, kernel size, stride, dilation, padding) of each.
    """
    return _walk(layers, output_stride)


def _own(before: int, after: int) -> int:
    """The dilation of a layer is that of the map that it reads, so its own stride does not count yet."""
    return before


def _walk(
    layers: list[Layer],
    output_stride: int,
    own: Callable[[int, int], int] = _own,
    grow: Callable[[int, int], int] = lambda dilation, stride: dilation * stride,
    pad: Callable[[int, int], int] = lambda padding, dilation: padding * dilation,
) -> list[Converted]:
    """The right answer, whose parts the wrong answers replace."""
    total, dilation, converted = 1, 1, []
    for kind, kernel, stride, padding in layers:
        before = dilation
        if total * stride > output_stride:
            dilation, stride = grow(dilation, stride), 1
        total *= stride
        here = own(before, dilation)
        converted.append((kind, kernel, stride, here, pad(padding, here)))
    return converted


def _vgg(rng: np.random.Generator) -> list[Layer]:
    """Four stages of one to three convolutions and a pooling, then two more convolutions."""
    conv, layers = ("conv", 3, 1, 1), []
    for _ in range(4):
        layers += [conv] * int(rng.integers(1, 4)) + [("pool", 2, 2, 0)]
    return [*layers, ("conv", 5, 1, 2), ("conv", 1, 1, 0)]


def _resnet(rng: np.random.Generator) -> list[Layer]:
    """A large first convolution, a pooling with padding, stages that begin with a strided convolution."""
    layers = [("conv", 7, 2, 3), ("pool", 3, 2, 1), ("conv", 3, 1, 1)]
    for kernel in (3, 1, 3):
        layers += [("conv", kernel, 2, kernel // 2)] + [("conv", 3, 1, 1)] * int(rng.integers(1, 4))
    return layers


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Both kinds of network at several output strides; output stride 1 and 2, no change, no layers."""
    core = [
        case("strided convolutions, output stride 16", _resnet(rng), 16),
        case("strided convolutions, output stride 8", _resnet(rng), 8),
        case("poolings, output stride 4", _vgg(rng), 4),
    ]
    edge = [
        case("output stride 1", _vgg(rng), 1),
        case("output stride 2", _vgg(rng), 2),
        case("an output stride that the stack already has", _resnet(rng), 32),
        case("an output stride that the stack never reaches", _vgg(rng), 32),
        case("a strided layer at the end", _vgg(rng) + [("conv", 3, 2, 1)], 8),
        case("no layers", [], 8),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(convert_os)


def _with(**parts: Callable) -> Callable:
    """A wrong answer with other parts of `_walk`."""
    return right.instead(lambda a: _walk(**vars(a), **parts))


def _keep_pools(a: SimpleNamespace) -> list[Converted]:
    total, dilation, converted = 1, 1, []
    for kind, kernel, stride, padding in a.layers:
        before = dilation
        if kind == "conv" and total * stride > a.output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        converted.append((kind, kernel, stride, before, padding * before))
    return converted


def _dilate_convolutions_only(out: list[Converted], a: SimpleNamespace) -> list[Converted]:
    pairs = zip(a.layers, out, strict=True)
    return [(*new[:3], 1, old[3]) if old[0] == "pool" else new for old, new in pairs]


def _remove_first_strides(a: SimpleNamespace) -> list[Converted]:
    total = int(np.prod([stride for _, _, stride, _ in a.layers]))
    dilation, converted = 1, []
    for kind, kernel, stride, padding in a.layers:
        before = dilation
        if stride > 1 and total > a.output_stride:
            dilation, total, stride = dilation * stride, total // stride, 1
        converted.append((kind, kernel, stride, before, padding * before))
    return converted


def _changed(change: Callable[[Layer, Converted], Converted]) -> Callable:
    """A wrong answer that changes each layer of the result."""
    return right.then(lambda out, a: [change(old, new) for old, new in zip(a.layers, out, strict=True)])


def _padding_of_next(a: SimpleNamespace) -> list[Converted]:
    after = [new[3] for new in convert_os([*a.layers, ("conv", 1, 1, 0)], a.output_stride)][1:]
    pairs = zip(a.layers, convert_os(a.layers, a.output_stride), after, strict=True)
    return [(*new[:4], old[3] * dilation) for old, new, dilation in pairs]


def _doubled_by_every_layer(a: SimpleNamespace) -> list[Converted]:
    converted, dilation, removed = [], 1, False
    for old, new in zip(a.layers, convert_os(a.layers, a.output_stride), strict=True):
        converted.append((*new[:3], dilation, old[3] * dilation))
        removed |= new[2] != old[2]
        dilation *= 2 if removed else 1
    return converted


def _each_stride_alone(a: SimpleNamespace) -> list[Converted]:
    dilation, converted = 1, []
    for kind, kernel, stride, padding in a.layers:
        removed = stride > a.output_stride
        converted.append((kind, kernel, 1 if removed else stride, dilation, padding * dilation))
        dilation *= stride if removed else 1
    return converted


def _product_before(a: SimpleNamespace) -> list[Converted]:
    total, dilation, converted = 1, 1, []
    for kind, kernel, stride, padding in a.layers:
        kept = stride if total <= a.output_stride else 1
        converted.append((kind, kernel, kept, dilation, padding * dilation))
        dilation, total = dilation * stride // kept, total * kept
    return converted


def _only_removed_dilated(old: Layer, new: Converted) -> Converted:
    return new if new[2] != old[2] else (*new[:3], 1, old[3])


def _unchanged_if_possible(out: list[Converted], a: SimpleNamespace) -> list:
    strides = int(np.prod([stride for _, _, stride, _ in a.layers])) if a.layers else 1
    return a.layers if strides <= a.output_stride else out


DENSITY = "Is the map that this layer reads as dense as before, or denser?"
PRODUCT = "Multiply the remaining strides. Is the product the output stride?"

exercise = Exercise(
    name="convert_os",
    points=3,
    cases=cases,
    reference=convert_os,
    kind="numbers",
    hides=["segedu.backbones.resnet"],
    wrong=[
        Wrong(
            "the strided layer dilated",
            _with(own=lambda before, after: after),
            "You dilate the layer whose stride you remove. Only the layers after it read a denser map.",
            DENSITY,
        ),
        Wrong(
            "poolings kept",
            right.instead(_keep_pools),
            "You keep the strides of poolings. They have to be removed like those of convolutions.",
            PRODUCT,
        ),
        Wrong(
            "poolings not dilated",
            right.then(_dilate_convolutions_only),
            "You dilate convolutions only. A pooling after a removed stride has to be dilated, too.",
            DENSITY,
        ),
        Wrong(
            "doubled once",
            _with(grow=lambda dilation, stride: stride),
            "Your dilation stays at 2 after the second removed stride. Each removed stride doubles it.",
            "By which factor is the map denser after two removed strides?",
        ),
        Wrong(
            "added, not multiplied",
            _with(grow=lambda dilation, stride: dilation + stride),
            "You add the removed stride to the dilation. The dilation has to be multiplied by it.",
            "By which factor is the map denser after one removed stride?",
        ),
        Wrong(
            "padding kept",
            _with(pad=lambda padding, dilation: padding),
            "You keep the padding. A dilated kernel needs more padding.",
            "The map must not become smaller. How far from its centre does a dilated kernel reach?",
        ),
        Wrong(
            "not dilated",
            _with(grow=lambda dilation, stride: 1),
            "You remove strides but do not dilate any layer. The layers after a removed stride have to be dilated.",
            DENSITY,
        ),
        Wrong(
            "one stride too many",
            right.given(output_stride=lambda a: max(a.output_stride // 2, 1)),
            "You remove one stride too many. Keep strides until their product equals the output stride.",
            PRODUCT,
        ),
        Wrong(
            "from the front",
            right.instead(_remove_first_strides),
            "You remove the first strides and keep the last ones. Keep the first strides and remove the last ones.",
            "Otherwise all feature maps are large and expensive. Where does the product exceed the output stride?",
        ),
        Wrong(
            "dilation added",
            _with(grow=lambda dilation, stride: dilation + stride - 1),
            "You add to the dilation: 1, 2, 3. Each removed stride multiplies it: 1, 2, 4.",
            "By which factor is the map denser after two removed strides?",
        ),
        Wrong(
            "padding of the next layer",
            right.instead(_padding_of_next),
            "You multiply the padding by the dilation of the next layer. It has the dilation of its own layer.",
            "A layer pads the map that it reads.",
        ),
        Wrong(
            "padding before dilation",
            _changed(lambda old, new: (*new[:3], new[4], new[3])),
            "You return the padding before the dilation. The order is kind, kernel size, stride, dilation, padding.",
            "Read the last lines of the docstring again.",
        ),
        Wrong(
            "doubled by every layer",
            right.instead(_doubled_by_every_layer),
            "Once the output stride is reached, you double the dilation after every layer. Only a removed stride does "
            "that.",
            DENSITY,
        ),
        Wrong(
            "padding from the kernel",
            _changed(lambda old, new: (*new[:4], new[3] * (old[1] // 2))),
            "You compute the padding from the kernel size. Multiply the given padding by the dilation.",
            "A 2x2 pooling has no padding.",
        ),
        Wrong(
            "padding from the span",
            _changed(lambda old, new: (*new[:4], new[3] * (old[1] - 1) // 2)),
            "You compute the padding from the span of the kernel. Multiply the given padding by the dilation.",
            "A 2x2 pooling has no padding.",
        ),
        Wrong(
            "1x1 kernels not dilated",
            _changed(lambda old, new: new if old[1] > 1 else (*new[:3], 1, old[3])),
            "Your 1x1 layers have dilation 1. This exercise expects the dilation of the map for every layer.",
            "It does not change what a 1x1 layer computes, but the result lists it.",
        ),
        Wrong(
            "span as kernel size",
            _changed(lambda old, new: (new[0], new[3] * (old[1] - 1) + 1, *new[2:])),
            "You return the span of the dilated kernel as its size. The kernel size does not change.",
            "The weights stay the same, and so does their number.",
        ),
        Wrong(
            "each stride alone",
            right.instead(_each_stride_alone),
            "You compare each stride alone with the output stride. Compare the product of the strides so far.",
            PRODUCT,
        ),
        Wrong(
            "product before the layer",
            right.instead(_product_before),
            "You compare the product before the layer with the output stride, so you keep one stride too many.",
            PRODUCT,
        ),
        Wrong(
            "only removed layers dilated",
            _changed(_only_removed_dilated),
            "You dilate only layers whose own stride you remove. All layers after a removed stride read a denser map.",
            DENSITY,
        ),
        Wrong(
            "layers without dilation",
            right.then(_unchanged_if_possible),
            "If no stride changes, you return the layers as they are. Each layer of the result has a dilation, too.",
            "The result has five entries per layer.",
        ),
    ],
)
