"""The explorer of four losses against the library's losses and their automatic derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from explorers.browser import assert_equal

from segedu.teaching.widgets.losses import values_and_slopes

pytestmark = pytest.mark.browser


def expected(state: dict) -> dict:
    setting = {name: state[name] for name in ("target", "gamma", "pixels", "smooth")}
    curves = values_and_slopes(np.array([state["p"]]), **setting)
    return {name: {"loss": curve[0, 0], "derivative": curve[1, 0]} for name, curve in curves.items()}


def test_equals_python(explorers) -> None:
    states = explorers.states("losses", 100)
    states += [state | {"gamma": gamma} for state in states[:10] for gamma in (0, 0.5, 1)]
    assert {state["target"] for state in states} == {"object", "background"}
    assert {state["p"] > 0.5 for state in states} == {True, False}
    for state, result in zip(states, explorers.compute("losses", states), strict=True):
        assert_equal(result, expected(state), f"{state}")
