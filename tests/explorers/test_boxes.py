"""The explorer of two boxes against the library's IoU and GIoU and their automatic derivatives."""

from __future__ import annotations

import pytest
from explorers.browser import assert_equal

from segedu.teaching.widgets.metrics import measures

pytestmark = pytest.mark.browser


def test_equals_python(explorers) -> None:
    states = explorers.states("boxes", 80)
    assert {measures(**state)["iou"] > 0 for state in states} == {True, False}
    for state, result in zip(states, explorers.compute("boxes", states), strict=True):
        assert_equal(result, measures(**state), f"{state}")
