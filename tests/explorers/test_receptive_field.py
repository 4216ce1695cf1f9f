"""The explorer of the receptive field against the library, and against gradients through real convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal

from segedu.ops.convolution import receptive_field

pytestmark = pytest.mark.browser
NAMES = ("first", "second", "third", "fourth", "fifth")
LAYERS = {
    "3x3": (3, 1, 1, 1),
    "3x3, stride 2": (3, 2, 1, 1),
    "3x3, dilation 2": (3, 1, 2, 2),
    "3x3, dilation 4": (3, 1, 4, 4),
    "7x7, stride 2": (7, 2, 3, 1),
    "1x1": (1, 1, 0, 1),
    "pooling 2x2": (2, 2, 0, 1),
}


def gradient_at(layers: list[tuple[int, int, int, int]], size: int) -> list[float]:
    """Derivative of one output pixel with respect to the pixels of its field, through layers of ones.

    The row continues with pixels instead of padding, so that paths into the padding are counted too.
    """
    row = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    features = row
    for kernel_size, stride, _, dilation in layers:
        kernel = torch.ones(1, 1, kernel_size, dtype=torch.float64)
        features = F.conv1d(features, kernel, stride=stride, dilation=dilation)
    assert features.shape == (1, 1, 1)  # one output, and no pixel too many
    (gradient,) = torch.autograd.grad(features.sum(), row)
    return gradient.flatten().tolist()


def expected(state: dict) -> dict:
    layers = [LAYERS[state[name]] for name in NAMES if state[name] != "no layer"]
    named = [("layer", *layer) for layer in layers]
    size, jump, padding = receptive_field(named)
    output = min(int(state["output"]), 47 // jump)
    paths = gradient_at(layers, size)
    fields = [receptive_field(named[:count]) for count in range(len(named) + 1)]
    return {
        "fields": [dict(zip(("size", "jump", "padding"), field, strict=True)) for field in fields],
        "start": output * jump - padding,
        "paths": paths,
        "used": sum(count > 0 for count in paths),
        "output": output,
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("receptive_field", 80)
    targets = [expected(state) for state in states]
    assert {target["used"] < len(target["paths"]) for target in targets} == {True, False}
    assert {target["start"] < 0 for target in targets} == {True, False}
    assert {len(target["fields"]) for target in targets} >= {1, 4, 5, 6}
    for state, target, result in zip(states, targets, explorers.compute("receptive_field", states), strict=True):
        fields = target.pop("fields")
        assert_equal(result, target, f"{state}")
        for count, (field, given) in enumerate(zip(fields, result["fields"], strict=True)):
            assert_equal(given, field, f"{state}, {count} layers")
