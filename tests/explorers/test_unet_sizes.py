"""The explorer of the U-Net's sizes against the library's network and the chapter's widget."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from explorers.browser import assert_equal

from segedu.semantic.unet import UNet, unet_out_size
from segedu.teaching.widgets.unet import count_activations, legal_size, level_sizes

pytestmark = pytest.mark.browser


@cache
def parameters(base_channels: int, depth: int) -> list[int]:
    """Parameters of each level, the head at level 0."""
    with torch.device("meta"):
        net = UNet(1, 2, base_channels, depth)
    levels = [0] * (depth + 1)
    for name, parameter in net.named_parameters():
        part, index = (name.split(".") + ["0"])[:2]
        step = {"contracting": int, "expanding": lambda i: depth - 1 - int(i), "head": lambda _: 0}[part](index)
        levels[step] += parameter.numel()
    return levels


def expected(state: dict) -> dict:
    size, depth, padding = int(state["size"]), int(state["depth"]), int(state["padding"])
    legal = legal_size(size, depth, padding)
    encoder, decoder = level_sizes(legal, state["base_channels"], depth, padding)
    counts = parameters(state["base_channels"], depth)
    return {
        "legal": legal,
        "encoder": [[level.channels, level.before, level.middle, level.after] for level in encoder],
        "decoder": [[level.channels, level.before, level.middle, level.after] for level in decoder],
        "parameters": counts,
        "total_parameters": sum(counts),
        "total_activations": count_activations(encoder, decoder),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("unet_sizes", 80)
    states += [states[0] | {"size": size} for size in (188, 189, 190, 570, 571, 572, 573)]
    targets = [expected(state) for state in states]
    assert {target["legal"] == state["size"] for state, target in zip(states, targets, strict=True)} == {True, False}
    for state, target, result in zip(states, targets, explorers.compute("unet_sizes", states), strict=True):
        for path in ("encoder", "decoder"):
            result[path] = [
                [level[name] for name in ("channels", "before", "middle", "after")] for level in result[path]
            ]
        assert_equal(result, target, f"{state}")
        if not state["padding"]:
            assert result["decoder"][-1][3] == unet_out_size(result["legal"], int(state["depth"]))


def test_names_the_pooling_that_gets_an_odd_size(explorers) -> None:
    first = explorers.states("unet_sizes", 3)[0]
    states = [first | {"size": size} for size in (572, 573, 570, 576, 172)]
    assert [result["problem"] for result in explorers.compute("unet_sizes", states)] == [0, 1, 2, 3, -1]
