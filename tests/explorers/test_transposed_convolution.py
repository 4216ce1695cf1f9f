"""The explorer of transposed convolution against the library, and the number of patches against a kernel of ones."""

from __future__ import annotations

import math

import pytest
import torch
from explorers.browser import assert_equal

from segedu.ops.convolution import transposed_conv2d_scatter, transposed_conv_output_size
from segedu.teaching.widgets.convolution import taps

pytestmark = pytest.mark.browser
HYPERPARAMETERS = ("stride", "padding", "output_padding", "dilation")


def image_and_kernel(state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    size, kernel_size = int(state["size"]), int(state["kernel_size"])
    image = torch.ones(size, size) if state["image"] == "all ones" else torch.arange(1, size**2 + 1).reshape(size, size)
    row = torch.ones(kernel_size, dtype=torch.float64)
    if state["kernel"] == "bilinear":
        distance = (torch.arange(kernel_size).double() - (kernel_size - 1) / 2).abs()
        row = 1 - distance / math.ceil(kernel_size / 2)
    return image[None, None].double(), torch.outer(row, row)[None, None]


def expected(state: dict) -> dict:
    size, kernel_size = int(state["size"]), int(state["kernel_size"])
    stride, padding, output_padding, dilation = (int(state[name]) for name in HYPERPARAMETERS)
    try:
        out = transposed_conv_output_size(size, kernel_size, stride, padding, output_padding, dilation)
    except ValueError:
        return {"out": 0}
    image, kernel = image_and_kernel(state)
    arguments = (None, stride, padding, output_padding, dilation)
    counts = transposed_conv2d_scatter(torch.ones_like(image), torch.ones_like(kernel), *arguments)[0, 0]
    return {
        "out": out,
        "rows": taps(min(int(state["row"]), size - 1), kernel_size, stride, dilation),
        "columns": taps(min(int(state["column"]), size - 1), kernel_size, stride, dilation),
        "output": transposed_conv2d_scatter(image, kernel, *arguments)[0, 0].tolist(),
        "counts": counts.tolist(),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("transposed_convolution", 100)
    targets = [expected(state) for state in states]
    uneven = {len(set(sum(target["counts"], []))) > 1 for target in targets if target["out"]}
    assert {target["out"] > 0 for target in targets} == uneven == {True, False}
    for state, target, result in zip(states, targets, explorers.compute("transposed_convolution", states), strict=True):
        assert_equal(result, target, f"{state}")


def test_bilinear_kernel_of_four_is_that_of_the_page(explorers) -> None:
    state = explorers.states("transposed_convolution", 3)[0] | {"size": 1, "kernel_size": 4, "kernel": "bilinear"}
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    (result,) = explorers.compute("transposed_convolution", [state])
    assert_equal(result["output"], torch.outer(row, row).tolist(), "one pixel")
