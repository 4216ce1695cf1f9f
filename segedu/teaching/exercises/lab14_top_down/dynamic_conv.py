"""dynamic_conv: a small network per instance, whose weights another network predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case


def dynamic_conv(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Apply a network of three 1x1 convolutions for each instance, with the instance's own weights, as in CondInst.

    The input of each network has C + 2 channels. The first two are relative coordinates, which tell where the instance
    is: (x_n - x) / unit and (y_n - y) / unit for the instance at (x_n, y_n) and the cell with the centre (x, y). The
    centre of the cell in row i and column j is (x, y) = (j + 0.5, i + 0.5). The C features follow; they are the same
    for all instances.

    The three convolutions have `hidden`, `hidden` and 1 output channels. A ReLU follows the first and the second
    convolution, but not the third. The parameters of an instance are in this order: the weights of the first, the
    second and the third convolution, then the biases of the first, the second and the third. Each weight is a matrix
    (output channels, input channels), flattened row by row as in torch.

    Args:
        features: (C, H, W) floats.
        parameters: (N, n) floats, n = (C + 2) * hidden + hidden * hidden + hidden + hidden + hidden + 1.
        locations: (N, 2) floats, x_n and y_n of each instance, in cells. N may be 0.
        unit: the number of cells that correspond to a relative coordinate of 1.
        hidden: number of channels between the convolutions.

    Returns:
        (N, H, W) floats: the mask logits of each instance.

    Example: C = 1 and hidden = 1, so n = 8: weights (1, 0, 2), (1), (1), biases (0), (0), (3). The instance is at 0.5:

        >>> network = torch.tensor([[1.0, 0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 3.0]])
        >>> dynamic_conv(torch.tensor([[[1.0, 2.0]]]), network, torch.tensor([[0.5, 0.5]]), 1.0, 1)
        tensor([[[5., 6.]]])
    """
    weights, biases = _split(parameters, len(features) + 2, hidden)
    return _forward(_inputs(features, _relative(features, locations, unit)), weights, biases)


def _relative(features: Tensor, locations: Tensor, unit: float) -> Tensor:
    """(N, 2, H, W), x before y."""
    height, width = features.shape[1:]
    centres = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    return (locations[:, :, None, None] - torch.stack(centres)) / unit


def _inputs(features: Tensor, coordinates: Tensor) -> Tensor:
    """(N, 2 + C, H, W)."""
    return torch.cat([coordinates, features.expand(len(coordinates), -1, -1, -1)], dim=1)


def _split(parameters: Tensor, inputs: int, hidden: int) -> tuple[list[Tensor], list[Tensor]]:
    """Three weights (N, out, in) and three biases (N, out)."""
    shapes = [(hidden, inputs), (hidden, hidden), (1, hidden)]
    pieces = parameters.split([out * into for out, into in shapes] + [out for out, _ in shapes], dim=1)
    return [piece.unflatten(1, shape) for piece, shape in zip(pieces, shapes, strict=False)], list(pieces[3:])


def _forward(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = _convolved(x.relu() if layer else x, weight) + bias[:, :, None, None]
    return x[:, 0]


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("noi,nihw->nohw", weight, x)


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several instances on maps of odd sizes; one instance, one cell, instances beyond the map, no instance."""

    def instances(name: str, shape: tuple[int, int, int], corners: list, unit: float, hidden: int) -> Case:
        """`corners`: the upper left corner of the cell of each instance."""
        inputs, count = shape[0] + 2, len(corners)
        features = rng.uniform(-1, 1, shape)
        parameters = rng.uniform(0.2, 1, (count, (inputs + hidden + 1) * hidden + 2 * hidden + 1))
        parameters *= rng.choice([-1, 1], parameters.shape)
        locations = np.array(corners, dtype=float).reshape(-1, 2) + rng.integers(1, 4, (count, 2)) / 4
        arrays = [torch.from_numpy(a).float() for a in (features, parameters, locations)]
        return case(name, *arrays, unit, hidden)

    core = [
        instances("two instances", (3, 5, 7), [[1, 1], [5, 3]], 4.0, 4),
        instances("three instances, as many columns as hidden channels", (2, 6, 5), [[1, 4], [3, 0], [2, 2]], 8.0, 5),
        instances("a unit below 1", (4, 4, 6), [[4, 1], [0, 2]], 0.5, 3),
    ]
    edge = [
        instances("one instance", (3, 7, 4), [[2, 5]], 2.0, 8),
        instances("one cell", (2, 1, 1), [[3, -2], [0, 0]], 2.0, 2),
        instances("instances beyond the map", (1, 3, 5), [[-6, 1], [2, 9]], 4.0, 3),
        instances("no instance", (2, 3, 4), [], 2.0, 3),
    ]
    return {"core": (3, core), "edge": (1, edge)}


right = Variants(dynamic_conv)


def _right_layers(a: SimpleNamespace) -> tuple[list[Tensor], list[Tensor]]:
    return _split(a.parameters, len(a.features) + 2, a.hidden)


def _right_inputs(a: SimpleNamespace) -> Tensor:
    return _inputs(a.features, _relative(a.features, a.locations, a.unit))


def _with_coordinates(change: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Tensor]:
    """The right networks on other coordinates: `change(relative coordinates (N, 2, H, W), arguments)`."""

    def forward(a: SimpleNamespace) -> Tensor:
        coordinates = change(_relative(a.features, a.locations, a.unit), a)
        return _forward(_inputs(a.features, coordinates), *_right_layers(a))

    return right.instead(forward)


def _with_layer(layer: Callable[[Tensor, Tensor, Tensor], Tensor], relu: bool = True) -> Callable[..., Tensor]:
    """Another convolution: `layer(x, weight, bias)`."""

    def forward(a: SimpleNamespace) -> Tensor:
        x = _right_inputs(a)
        for number, (weight, bias) in enumerate(zip(*_right_layers(a), strict=True)):
            x = layer(x.relu() if relu and number else x, weight, bias)
        return x[:, 0]

    return right.instead(forward)


def _ungrouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The channels of all instances are concatenated; the convolution fails with more than one instance."""
    out = F.conv2d(x.flatten(0, 1), weight.flatten(0, 1)[..., None, None], bias.flatten())
    return out.unflatten(0, bias.shape)


def _layer_by_layer(a: SimpleNamespace) -> Tensor:
    sizes = [(len(a.features) + 2) * a.hidden, a.hidden, a.hidden * a.hidden, a.hidden, a.hidden, 1]
    pieces = a.parameters.split(sizes, dim=1)
    return torch.cat(pieces[::2] + pieces[1::2], dim=1)


def _transposed(a: SimpleNamespace) -> Tensor:
    weights, biases = _right_layers(a)
    transposed = [weight.flatten(1).reshape(-1, *weight.shape[:0:-1]).mT for weight in weights]
    return _forward(_right_inputs(a), transposed, biases)


SPLIT = "Three weights, then three biases. Sizes: (C + 2) * hidden, hidden * hidden, hidden, then hidden, hidden, 1."
GROUPS = "If the channels of all instances are concatenated, groups=N separates them. einsum with an index n does too."
COORDINATES = "Instance minus cell, divided by unit. Channel 0 is x, channel 1 is y, then the features follow."
BIAS = "To add a bias (N, out) to x (N, out, H, W), append two axes to the bias."

exercise = Exercise(
    name="dynamic_conv",
    points=4,
    cases=cases,
    reference=dynamic_conv,
    tolerance=1e-5,
    kind="shape",
    hides=["segedu.instance.condinst"],
    wrong=[
        Wrong(
            "groups=1",
            _with_layer(_ungrouped),
            "Your convolution has groups=1, so each kernel gets the channels of all instances. It should get "
            "only those of its own instance.",
            GROUPS,
        ),
        Wrong(
            "instances mixed",
            _with_layer(lambda x, weight, bias: torch.einsum("noi,mihw->nohw", weight, x) + bias[:, :, None, None]),
            "You mix the instances. Each kernel should get only the channels of its own instance.",
            GROUPS,
        ),
        Wrong(
            "first network for all",
            right.given(parameters=lambda a: a.parameters[:1].expand_as(a.parameters)),
            "You use the network of the first instance for all. Each instance has its own row of parameters.",
            GROUPS,
        ),
        Wrong(
            "first place for all",
            right.given(locations=lambda a: a.locations[:1].expand_as(a.locations)),
            "You use the coordinates of the first instance for all. Each instance has its own two channels.",
            COORDINATES,
        ),
        Wrong(
            "layer by layer",
            right.given(parameters=_layer_by_layer),
            "You split the parameters layer by layer: each weight, then its bias. All weights come first, then "
            "all biases.",
            SPLIT,
        ),
        Wrong(
            "biases first",
            right.given(parameters=lambda a: a.parameters.roll(-2 * a.hidden - 1, dims=1)),
            "You read the biases from the start of the parameters. The weights come first.",
            SPLIT,
        ),
        Wrong(
            "weights transposed",
            right.instead(_transposed),
            "You read the weights as (input channels, output channels). They are (output channels, input channels).",
            "The first C + 2 parameters are the weights of the first output channel.",
        ),
        Wrong(
            "bias along the width",
            _with_layer(lambda x, weight, bias: _convolved(x, weight) + bias[:, None, None, :]),
            "You add the biases along the width of the map. Add each bias to one output channel.",
            BIAS,
        ),
        Wrong(
            "one bias a layer",
            _with_layer(lambda x, weight, bias: _convolved(x, weight) + bias[:, :1, None, None]),
            "You add the same bias to all channels of a layer. Each channel has its own bias.",
            BIAS,
        ),
        Wrong(
            "no biases",
            _with_layer(lambda x, weight, bias: _convolved(x, weight)),
            "You do not add the biases. Each convolution has one bias per output channel.",
            SPLIT,
        ),
        Wrong(
            "no coordinates",
            _with_coordinates(lambda relative, a: 0 * relative),
            "Your two coordinate channels are 0. They should contain the offset from each cell to the instance.",
            COORDINATES,
        ),
        Wrong(
            "coordinates of the map",
            _with_coordinates(lambda relative, a: -_relative(a.features, 0 * a.locations, a.unit)),
            "Your coordinates are those of the cells, equal for all instances. Make them relative to the instance.",
            COORDINATES,
        ),
        Wrong(
            "cell minus instance",
            _with_coordinates(lambda relative, a: -relative),
            "You subtract the instance from the cell. Subtract the cell from the instance.",
            COORDINATES,
        ),
        Wrong(
            "y before x",
            _with_coordinates(lambda relative, a: relative.flip(1)),
            "Your channel for y comes before the channel for x. x comes first.",
            COORDINATES,
        ),
        Wrong(
            "corners for centres",
            right.given(locations=lambda a: a.locations + 0.5),
            "You measure from the upper left corner of each cell. Measure from its centre, half a cell further.",
            "The centre of the first cell is (0.5, 0.5).",
        ),
        Wrong(
            "unit forgotten",
            right.given(unit=lambda a: 1.0),
            "You do not divide the coordinates by unit. One unit should correspond to a coordinate of 1.",
            COORDINATES,
        ),
        Wrong(
            "times the unit",
            right.given(unit=lambda a: 1 / a.unit),
            "You multiply the coordinates by unit. Divide by it.",
            COORDINATES,
        ),
        Wrong(
            "features first",
            right.instead(lambda a: _forward(_right_inputs(a).roll(-2, dims=1), *_right_layers(a))),
            "Your coordinates come after the features. They should come first.",
            COORDINATES,
        ),
        Wrong(
            "ReLU at the end",
            right.then(lambda out, a: out.relu()),
            "You apply a ReLU after the third convolution. Mask logits may be negative.",
            "There are two ReLUs for three convolutions.",
        ),
        Wrong(
            "no ReLU",
            _with_layer(lambda x, weight, bias: _convolved(x, weight) + bias[:, :, None, None], relu=False),
            "You do not apply a ReLU. A ReLU follows the first and the second convolution.",
            "Without a ReLU, three convolutions are one linear map.",
        ),
        Wrong(
            "sigmoid",
            right.then(lambda out, a: out.sigmoid()),
            "You apply a sigmoid at the end. Return the logits.",
            "The loss applies the sigmoid.",
        ),
        Wrong(
            "a channel too many",
            right.then(lambda out, a: out[:, None]),
            "Your result has shape (N, 1, H, W). It should have shape (N, H, W).",
            "x[:, 0]",
        ),
    ],
)
