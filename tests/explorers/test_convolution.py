"""The explorer of convolution against the sizes and the loops of the library."""

from __future__ import annotations

import pytest
import torch
from explorers.browser import assert_equal

from segedu.ops.convolution import conv2d_loops, conv_output_size
from segedu.teaching.widgets.convolution import taps

pytestmark = pytest.mark.browser
HYPERPARAMETERS = ("kernel_size", "stride", "padding", "dilation")


def image_and_kernel(state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    size, kernel_size = int(state["size"]), int(state["kernel_size"])
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image = (3 * i + 7 * j) % 10 if state["image"] == "digits" else torch.where(2 * j < size, 1, 9)
    row = torch.arange(kernel_size) - (kernel_size - 1) / 2
    kernel = torch.ones(kernel_size, kernel_size) if state["kernel"] == "all ones" else row.expand(kernel_size, -1)
    return image[None, None].double(), kernel[None, None].double()


def expected(state: dict) -> dict:
    kernel_size, stride, padding, dilation = (int(state[name]) for name in HYPERPARAMETERS)
    try:
        out = conv_output_size(int(state["size"]), kernel_size, stride, padding, dilation)
    except ValueError:
        return {"out": 0}
    image, kernel = image_and_kernel(state)
    reached = {tap for index in range(out) for tap in taps(index, kernel_size, stride, dilation)}
    return {
        "out": out,
        "rows": taps(min(int(state["row"]), out - 1), kernel_size, stride, dilation),
        "columns": taps(min(int(state["column"]), out - 1), kernel_size, stride, dilation),
        "unused": int(state["size"]) + 2 * padding - len(reached),
        "output": conv2d_loops(image, kernel, None, stride, padding, dilation)[0, 0].tolist(),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("convolution", 80)
    targets = [expected(state) for state in states]
    assert {target["out"] > 0 for target in targets} == {True, False}
    assert {target.get("unused", 0) > 0 for target in targets} == {True, False}
    for state, target, result in zip(states, targets, explorers.compute("convolution", states), strict=True):
        assert_equal(result, target, f"{state}")
