"""The explorer of Cellpose's flows against the library's label maps, flows and paths."""

from __future__ import annotations

import pytest
import torch
from explorers.browser import assert_equal
from torch import Tensor

from segedu.ops.flows import drift
from segedu.teaching.widgets.flows import LAST_STEP, SCENES, count_positions, draw_scene, flow_of, particles

pytestmark = pytest.mark.browser


def path_of(scene: str, x: int, y: int, steps: int) -> list[list[float]]:
    """Positions (y, x) of a pixel after 0 to `steps` steps; a pixel of the background stays."""
    labels, start = draw_scene(scene), torch.tensor([[y], [x]])
    if labels[y, x] == 0:
        return [[y, x]]
    flow = flow_of(scene) * (labels > 0)
    return [drift(flow, start, step)[:, 0].tolist() for step in range(steps + 1)]


@pytest.mark.parametrize("scene", SCENES)
def test_labels_and_flow_equal_python(explorers, scene: str) -> None:
    result = explorers.compute("flows", [{"step": 0, "scene": scene, "x": 0, "y": 0}])[0]
    flow: Tensor = flow_of(scene)
    counts = [count_positions(particles(scene, step)) for step in range(LAST_STEP + 1)]
    expected = {"labels": draw_scene(scene), "flow": {"dy": flow[0], "dx": flow[1]}, "counts": counts}
    assert_equal(result, expected, scene)


def test_paths_equal_python(explorers) -> None:
    states = explorers.states("flows", 100)
    moved = {True: 0, False: 0}
    for state, result in zip(states, explorers.compute("flows", states), strict=True):
        step, scene = int(state["step"]), state["scene"]
        path = path_of(scene, int(state["x"]), int(state["y"]), step)
        assert_equal(result, {"ends": particles(scene, step).T, "path": path}, f"{state}")
        moved[len(path) > 10] += 1
    assert min(moved.values()) >= 20, moved
