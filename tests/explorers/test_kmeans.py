"""The explorer of k-means against the library, on the same scene and from the same centres."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from explorers.browser import assert_equal

from segedu.teaching.widgets.clustering import count_regions
from segedu.unsupervised.kmeans import colour_position_features, kmeans

pytestmark = pytest.mark.browser
HEIGHT, WIDTH = 24, 36


@cache
def scene() -> torch.Tensor:
    """(3, 24, 36) float64."""
    state, pixels = 5, []
    for row in range(HEIGHT):
        for column in range(WIDTH):
            colour = [0.5, 0.7, 0.92] if row < 13 else [0.3 + 0.2 * column / WIDTH, 0.5 + 0.25 * column / WIDTH, 0.2]
            if (row - 4) ** 2 + (column - 29) ** 2 < 9:
                colour = [0.94, 0.84, 0.4]
            if 9 <= row < 17 and (5 <= column < 12 or 23 <= column < 31):
                colour = [0.78, 0.24, 0.2]
            for value in colour:
                state = (1109 * state + 12345) % 65536
                pixels.append(value + (0.12 * state / 65536 - 0.06))
    return torch.tensor(pixels, dtype=torch.float64).reshape(HEIGHT, WIDTH, 3).permute(2, 0, 1)


def expected(state: dict) -> dict:
    points = colour_position_features(scene(), state["position_weight"])
    first = [int(state[f"y{c}"]) * WIDTH + int(state[f"x{c}"]) for c in range(int(state["k"]))]
    result = kmeans(points, points[first], int(state["step"]))
    return {
        "labels": result.labels.tolist(),
        "centres": result.centres.tolist(),
        "inertia": result.inertia,
        "regions": count_regions(result.labels.reshape(HEIGHT, WIDTH)),
        "sizes": torch.bincount(result.labels, minlength=int(state["k"])).tolist(),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("kmeans", 60)
    states.append(states[0] | {"x1": states[0]["x0"], "y1": states[0]["y0"], "step": 3})  # one cluster stays empty
    targets = [expected(state) for state in states]
    assert {0 in target["sizes"] for target in targets} == {True, False}
    results = explorers.compute("kmeans", states)
    assert {state["step"] < result["last"] for state, result in zip(states, results, strict=True)} == {True, False}
    for state, target, result in zip(states, targets, results, strict=True):
        assert_equal(result, target, f"{state}")
