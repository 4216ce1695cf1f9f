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
    ],
)
