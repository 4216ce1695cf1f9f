"""The explorer of dilated layers against the path counts of the widget, the receptive field, and averaging layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal

from segedu.ops.convolution import receptive_field
from segedu.teaching.widgets.dilation import paths

pytestmark = pytest.mark.browser
SPOTS, SIDE = ((16, 16), (24, 46), (45, 29)), 61


def rates_of(state: dict) -> list[int]:
    return [int(state[name]) for name in ("first", "second", "third", "fourth") if state[name] > 0]


def averaged(rates: list[int]) -> list[list[float]]:
    """Three bright pixels after layers of ones, on a canvas so large that no padding matters."""
    margin = sum(rates)
    image = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    for row, column in SPOTS:
        image[0, 0, row, column] = 1
    image = F.pad(image, [margin] * 4)
    for rate in rates:
        image = F.conv2d(image, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=rate, dilation=rate)
    return image[0, 0, margin : margin + SIDE, margin : margin + SIDE].tolist()


def expected(state: dict) -> dict:
    rates = rates_of(state)
    counts = paths(rates)
    used = set((counts > 0).nonzero()[0].tolist())
    return {
        "rates": rates,
        "counts": counts,
        "field": receptive_field([("atrous", 3, 1, rate, rate) for rate in rates])[0],
        "used": len(used),
        "shared": len(used & {position + 1 for position in used}),
        "spots": averaged(rates),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("dilation", 60)
    states += [states[0] | {"first": a, "second": b, "third": c} for a, b, c in ((1, 2, 4), (1, 3, 9), (1, 2, 5))]
    targets = [expected(state) for state in states]
    assert {target["used"] == target["field"] for target in targets} == {True, False}
    assert {target["shared"] == 0 for target in targets} == {True, False}
    assert {len(target["rates"]) for target in targets} == {1, 2, 3, 4}
    for state, target, result in zip(states, targets, explorers.compute("dilation", states), strict=True):
        assert_equal(result, target, f"{state}")
