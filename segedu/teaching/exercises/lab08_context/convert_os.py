"""convert_os: stride becomes dilation, so that a classification network keeps its resolution and its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Layer = tuple[str, int, int, int]  # kind, kernel size, stride, padding
Converted = tuple[str, int, int, int, int]  # kind, kernel size, stride, dilation, padding


def convert_os(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Take strides away from the end of a stack, and dilate what comes after each of them.

    Args:
        layers: (kind, kernel size, stride, padding) in order; strides 1 or 2.
        output_stride: a power of two.

    Returns:
        (kind, kernel size, stride, dilation, padding) of each.
    """
    return _walk(layers, output_stride)


def _own(before: int, after: int) -> int:
    """A layer reads the map before it, so its own stride does not count yet."""
    return before


def _walk(
    layers: list[Layer],
    output_stride: int,
    own: Callable[[int, int], int] = _own,
    grow: Callable[[int, int], int] = lambda dilation, stride: dilation * stride,
    pad: Callable[[int, int], int] = lambda padding, dilation: padding * dilation,
) -> list[Converted]:
    """The right answer whose parts the wrong ones replace."""
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
    """Four stages of convolutions, each ended by a pooling; one to three convolutions a stage, then two more."""
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
    """Both kinds of network at output stride 8 and 16; output stride 1 and 2, one that is kept, no layers.

    Args:
        rng: of the number of layers.

    Returns:
        The cases by group.
    """
    return {
        "core": (
            2,
            [
                {"name": "strided convolutions, output stride 16", "args": [_resnet(rng), 16]},
                {"name": "strided convolutions, output stride 8", "args": [_resnet(rng), 8]},
                {"name": "poolings, output stride 4", "args": [_vgg(rng), 4]},
            ],
        ),
        "edge": (
            1,
            [
                {"name": "output stride 1", "args": [_vgg(rng), 1]},
                {"name": "output stride 2", "args": [_vgg(rng), 2]},
                {"name": "an output stride that the stack has already", "args": [_resnet(rng), 32]},
                {"name": "an output stride that the stack never reaches", "args": [_vgg(rng), 32]},
                {"name": "a strided layer at the end", "args": [_vgg(rng) + [("conv", 3, 2, 1)], 8]},
                {"name": "no layers", "args": [[], 8]},
            ],
        ),
    }


def first_dilated(layers: list[Layer], output_stride: int) -> list[Converted]:
    """The layer that loses its stride is dilated as if it came after itself."""
    return _walk(layers, output_stride, own=lambda before, after: after)


def doubled_once(layers: list[Layer], output_stride: int) -> list[Converted]:
    """2 after the first lost stride, and 2 after the second."""
    return _walk(layers, output_stride, grow=lambda dilation, stride: stride)


def grows_by_two(layers: list[Layer], output_stride: int) -> list[Converted]:
    """1, then 3, then 5: a term for each lost stride, not a factor."""
    return _walk(layers, output_stride, grow=lambda dilation, stride: dilation + stride)


def padding_kept(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Dilated kernels with the padding of the plain ones."""
    return _walk(layers, output_stride, pad=lambda padding, dilation: padding)


def not_dilated(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Takes the strides away and does nothing else."""
    return _walk(layers, output_stride, grow=lambda dilation, stride: 1)


def one_stride_too_many(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Stops one stride too early."""
    return _walk(layers, max(output_stride // 2, 1))


def pools_kept(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Takes strides from convolutions only."""
    total, dilation, converted = 1, 1, []
    for kind, kernel, stride, padding in layers:
        before = dilation
        if kind == "conv" and total * stride > output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        converted.append((kind, kernel, stride, before, padding * before))
    return converted


def pools_not_dilated(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Dilates convolutions only."""
    right = convert_os(layers, output_stride)
    pairs = zip(layers, right, strict=True)
    return [(*new[:3], 1, old[3]) if old[0] == "pool" else new for old, new in pairs]


def from_the_front(layers: list[Layer], output_stride: int) -> list[Converted]:
    """Removes the first strides and keeps the last ones."""
    total = int(np.prod([stride for _, _, stride, _ in layers]))
    dilation, converted = 1, []
    for kind, kernel, stride, padding in layers:
        before = dilation
        if stride > 1 and total > output_stride:
            dilation, total, stride = dilation * stride, total // stride, 1
        converted.append((kind, kernel, stride, before, padding * before))
    return converted


GRID = "Which map does this layer read: one that is as dense as before, or one that has become denser?"

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
            first_dilated,
            "You dilate the layer that loses its stride: it reads a map that is no denser than before.",
            GRID,
        ),
        Wrong(
            "poolings kept",
            pools_kept,
            "You leave the strides of poolings: they count as well as those of convolutions.",
            "Multiply the strides that are left. Is the product the output stride?",
        ),
        Wrong(
            "poolings not dilated",
            pools_not_dilated,
            "You dilate convolutions only: a pooling that comes after a lost stride needs holes too.",
            GRID,
        ),
        Wrong(
            "doubled once",
            doubled_once,
            "Your dilation stays at 2 after the second lost stride: each one doubles it.",
            "How many times denser is the map after two lost strides?",
        ),
        Wrong(
            "added, not multiplied",
            grows_by_two,
            "You add the lost stride to the dilation: it is multiplied by it.",
            "How many times denser is the map after one lost stride?",
        ),
        Wrong(
            "padding kept",
            padding_kept,
            "You keep the padding: a kernel that reaches further needs more of it.",
            "The map must not shrink. How far from its middle does a dilated kernel reach?",
        ),
        Wrong(
            "not dilated",
            not_dilated,
            "You take the strides away but dilate nothing: the weights now meet pixels that lie too close together.",
            GRID,
        ),
        Wrong(
            "one stride too many",
            one_stride_too_many,
            "You take one stride too many: the product of the strides may be equal to the output stride.",
            "Multiply the strides that are left. Is the product the output stride?",
        ),
        Wrong(
            "from the front",
            from_the_front,
            "You take the first strides and keep the last: then all maps are large, and the net is slow.",
            "The stack begins as it was. Where does the product of its strides exceed the output stride?",
        ),
    ],
)
