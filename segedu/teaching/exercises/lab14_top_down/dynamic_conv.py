"""dynamic_conv: a small network for each instance, whose weights another network wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong


def dynamic_conv(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Run a network of three 1 x 1 convolutions for each instance, with the instance's own weights, as CondInst does.

    All instances see the same C features, and in front of them two channels of their own, which say where the instance
    is: (x_n - x) / unit and (y_n - y) / unit for the instance at (x_n, y_n) and the cell whose centre is (x, y). The
    centre of the cell in row i and column j is (x, y) = (j + 0.5, i + 0.5).

    The three convolutions lead from C + 2 channels to `hidden`, to `hidden`, to 1. ReLU follows the first and the
    second, nothing the third. The parameters of an instance lie one after the other: the weights of the first, of the
    second and of the third convolution, then the biases of the first, of the second and of the third. Each weight is a
    matrix (channels out, channels in), row by row, as torch flattens it.

    Args:
        features: (C, H, W) floats.
        parameters: (N, n) floats, n = (C + 2) * hidden + hidden * hidden + hidden + hidden + hidden + 1.
        locations: (N, 2) floats, x_n and y_n of each instance, in cells. Perhaps N = 0.
        unit: cells that count as 1.
        hidden: channels between the convolutions.

    Returns:
        (N, H, W) floats: one mask an instance, before a sigmoid.

    Example: C = 1 and hidden = 1, so n = 8: weights (1, 0, 2), (1), (1), biases (0), (0), (3). The instance is at 0.5:

        >>> network = torch.tensor([[1.0, 0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 3.0]])
        >>> dynamic_conv(torch.tensor([[[1.0, 2.0]]]), network, torch.tensor([[0.5, 0.5]]), 1.0, 1)
        tensor([[[5., 6.]]])
    """
    weights, biases = _split(parameters, len(features) + 2, hidden)
    return _run(_inputs(features, locations, unit), weights, biases)


def _inputs(features: Tensor, locations: Tensor, unit: float) -> Tensor:
    """(N, 2 + C, H, W)."""
    ways = (locations[:, :, None, None] - _centres(features)) / unit
    return torch.cat([ways, features.expand(len(locations), -1, -1, -1)], dim=1)


def _centres(features: Tensor) -> Tensor:
    """(2, H, W), x before y."""
    height, width = features.shape[1:]
    return torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"))


def _split(parameters: Tensor, inputs: int, hidden: int) -> tuple[list[Tensor], list[Tensor]]:
    """Three weights (N, out, in) and three biases (N, out)."""
    shapes = [(hidden, inputs), (hidden, hidden), (1, hidden)]
    pieces = parameters.split([out * into for out, into in shapes] + [out for out, _ in shapes], dim=1)
    return [piece.unflatten(1, shape) for piece, shape in zip(pieces, shapes, strict=False)], list(pieces[3:])


def _run(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.einsum("noi,nihw->nohw", weight, x.relu() if layer else x) + bias[:, :, None, None]
    return x[:, 0]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Several instances on maps of odd sizes; one instance, one cell, an instance beyond the map, none.

    Args:
        rng: of features, parameters and places.

    Returns:
        The cases by group.
    """

    def case(name: str, shape: tuple[int, int, int], places: list, unit: float, hidden: int) -> Case:
        inputs, count = shape[0] + 2, len(places)
        features = rng.uniform(-1, 1, shape)
        parameters = rng.uniform(0.2, 1, (count, (inputs + hidden + 1) * hidden + 2 * hidden + 1))
        parameters *= rng.choice([-1, 1], parameters.shape)
        locations = np.array(places, dtype=float).reshape(-1, 2) + rng.integers(1, 4, (count, 2)) / 4
        arrays = [torch.from_numpy(a).float() for a in (features, parameters, locations)]
        return {"name": name, "args": [*arrays, unit, hidden]}

    return {
        "core": (
            3,
            [
                case("two instances", (3, 5, 7), [[1, 1], [5, 3]], 4.0, 4),
                case("three instances, a map as wide as the network", (2, 6, 5), [[1, 4], [3, 0], [2, 2]], 8.0, 5),
                case("a unit below 1", (4, 4, 6), [[4, 1], [0, 2]], 0.5, 3),
            ],
        ),
        "edge": (
            1,
            [
                case("one instance", (3, 7, 4), [[2, 5]], 2.0, 8),
                case("one cell", (2, 1, 1), [[3, -2], [0, 0]], 2.0, 2),
                case("instances beyond the map", (1, 3, 5), [[-6, 1], [2, 9]], 4.0, 3),
                case("no instance", (2, 3, 4), [], 2.0, 3),
            ],
        ),
    }


def _with_inputs(features: Tensor, parameters: Tensor, ways: Tensor, hidden: int) -> Tensor:
    """The right networks on two other channels (N, 2, H, W) in front."""
    x = torch.cat([ways, features.expand(len(ways), -1, -1, -1)], dim=1)
    return _run(x, *_split(parameters, len(features) + 2, hidden))


def _ways(features: Tensor, locations: Tensor, unit: float) -> Tensor:
    return _inputs(features, locations, unit)[:, :2]


def ungrouped(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """F.conv2d on all instances side by side in the channels, without groups."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    x = _inputs(features, locations, unit).flatten(0, 1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.conv2d(x.relu() if layer else x, weight.flatten(0, 1)[..., None, None], bias.flatten())
    return x


def instances_mixed(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Each instance sees the sum of what all instances have in a channel."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    x = _inputs(features, locations, unit)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.einsum("noi,mihw->nohw", weight, x.relu() if layer else x) + bias[:, :, None, None]
    return x[:, 0]


def first_network_for_all(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Every instance runs the network of the first."""
    return dynamic_conv(features, parameters[:1].expand_as(parameters), locations, unit, hidden)


def first_place_for_all(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Every instance has the two channels of the first."""
    return dynamic_conv(features, parameters, locations[:1].expand_as(locations), unit, hidden)


def layer_by_layer(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Weight, bias, weight, bias, weight, bias."""
    inputs = len(features) + 2
    sizes = [inputs * hidden, hidden, hidden * hidden, hidden, hidden, 1]
    pieces = parameters.split(sizes, dim=1)
    return dynamic_conv(features, torch.cat(pieces[::2] + pieces[1::2], dim=1), locations, unit, hidden)


def biases_first(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The biases before the weights."""
    return dynamic_conv(features, parameters.roll(-2 * hidden - 1, dims=1), locations, unit, hidden)


def weights_transposed(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Matrices (channels in, channels out)."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    turned = [weight.flatten(1).reshape(-1, *weight.shape[:0:-1]).mT for weight in weights]
    return _run(_inputs(features, locations, unit), turned, biases)


def biases_along_the_width(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """A bias (N, out) added as (N, 1, 1, out): it fails, or each column gets its own."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    x = _inputs(features, locations, unit)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.einsum("noi,nihw->nohw", weight, x.relu() if layer else x) + bias[:, None, None, :]
    return x[:, 0]


def one_bias_a_layer(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The first bias for all channels of a layer."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    return _run(_inputs(features, locations, unit), weights, [bias[:, :1].expand_as(bias) for bias in biases])


def no_biases(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Weights only."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    return _run(_inputs(features, locations, unit), weights, [0 * bias for bias in biases])


def no_places(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Zeros in the two channels."""
    return _with_inputs(features, parameters, 0 * _ways(features, locations, unit), hidden)


def absolute_places(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Where the cells are, for all instances alike."""
    centres = (_centres(features) / unit).expand(len(locations), -1, -1, -1)
    return _with_inputs(features, parameters, centres, hidden)


def from_the_instance(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Cell minus instance."""
    return _with_inputs(features, parameters, -_ways(features, locations, unit), hidden)


def y_first(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The two channels in the other order."""
    return _with_inputs(features, parameters, _ways(features, locations, unit).flip(1), hidden)


def corners(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The corner of a cell for its centre."""
    return dynamic_conv(features, parameters, locations + 0.5, unit, hidden)


def in_cells(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The unit is forgotten."""
    return dynamic_conv(features, parameters, locations, 1.0, hidden)


def times_the_unit(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Multiplied where it should be divided."""
    return dynamic_conv(features, parameters, locations, 1 / unit, hidden)


def features_first(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """The two channels behind the features."""
    x = _inputs(features, locations, unit).roll(-2, dims=1)
    return _run(x, *_split(parameters, len(features) + 2, hidden))


def relu_at_the_end(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """After the third layer too."""
    return dynamic_conv(features, parameters, locations, unit, hidden).relu()


def no_relu(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """Three linear layers are one."""
    weights, biases = _split(parameters, len(features) + 2, hidden)
    x = _inputs(features, locations, unit)
    for weight, bias in zip(weights, biases, strict=True):
        x = torch.einsum("noi,nihw->nohw", weight, x) + bias[:, :, None, None]
    return x[:, 0]


def probabilities(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """A sigmoid at the end."""
    return dynamic_conv(features, parameters, locations, unit, hidden).sigmoid()


def channel_left(features: Tensor, parameters: Tensor, locations: Tensor, unit: float, hidden: int) -> Tensor:
    """(N, 1, H, W)."""
    return dynamic_conv(features, parameters, locations, unit, hidden)[:, None]


SPLIT = "Three weights, then three biases: (C + 2) * hidden, hidden * hidden, hidden, then hidden, hidden, 1."
GROUPS = "With the instances side by side in the channels, groups=N keeps them apart; so does einsum with an n."
PLACES = "Instance minus cell, divided by unit; channel 0 is x, channel 1 is y, then come the features."
BIAS = "A bias (N, out) for x (N, out, H, W) needs two axes more, at its end."

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
            ungrouped,
            "Your convolution has groups=1: a kernel would see the channels of all instances.",
            GROUPS,
        ),
        Wrong(
            "instances mixed",
            instances_mixed,
            "You mix the instances: each kernel sees the channels of its own instance and no others.",
            GROUPS,
        ),
        Wrong(
            "first network for all",
            first_network_for_all,
            "All your instances run the network of the first: each has its own row of parameters.",
            GROUPS,
        ),
        Wrong(
            "first place for all",
            first_place_for_all,
            "All your instances see the coordinates of the first: each has two channels of its own.",
            PLACES,
        ),
        Wrong(
            "layer by layer",
            layer_by_layer,
            "You take weight, bias, weight, bias, weight, bias: all weights come first, then all biases.",
            SPLIT,
        ),
        Wrong("biases first", biases_first, "You take the biases first: the weights come first.", SPLIT),
        Wrong(
            "weights transposed",
            weights_transposed,
            "You read the weights as (channels in, channels out): they are (channels out, channels in).",
            "The first C + 2 numbers are what the first output channel takes from each input.",
        ),
        Wrong(
            "bias along the width",
            biases_along_the_width,
            "You add the biases along the width of the map: each belongs to an output channel.",
            BIAS,
        ),
        Wrong(
            "one bias a layer",
            one_bias_a_layer,
            "You add one bias to all channels of a layer: each channel has its own.",
            BIAS,
        ),
        Wrong("no biases", no_biases, "You leave the biases out.", SPLIT),
        Wrong(
            "no coordinates",
            no_places,
            "Your two channels are zeros: they say where the instance is, seen from each cell.",
            PLACES,
        ),
        Wrong(
            "coordinates of the map",
            absolute_places,
            "Your coordinates are those of the cells, the same for all instances: take them relative to the instance.",
            PLACES,
        ),
        Wrong(
            "cell minus instance",
            from_the_instance,
            "You take cell minus instance: it is instance minus cell.",
            PLACES,
        ),
        Wrong("y before x", y_first, "Your channel for y comes before that for x.", PLACES),
        Wrong(
            "corners for centres",
            corners,
            "You measure from the corner of a cell: measure from its centre, half a cell further.",
            "The centre of the first cell is (0.5, 0.5).",
        ),
        Wrong("unit forgotten", in_cells, "You do not divide the coordinates by unit.", PLACES),
        Wrong("times the unit", times_the_unit, "You multiply the coordinates by unit: divide by it.", PLACES),
        Wrong(
            "features first",
            features_first,
            "Your coordinates come behind the features: they come in front.",
            PLACES,
        ),
        Wrong(
            "ReLU at the end",
            relu_at_the_end,
            "You put a ReLU after the third convolution: a mask before its sigmoid may be negative.",
            "Two ReLUs for three convolutions.",
        ),
        Wrong("no ReLU", no_relu, "You leave the ReLUs out: they follow the first two convolutions.", "relu(x)."),
        Wrong(
            "sigmoid",
            probabilities,
            "You put a sigmoid at the end: what is asked for is the mask before it.",
            "The loss takes the sigmoid.",
        ),
        Wrong("a channel too many", channel_left, "Your shape is (N, 1, H, W): it is (N, H, W).", "x[:, 0]."),
    ],
)
