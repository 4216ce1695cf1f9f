"""A browser page in which an explorer's module is loaded from its text, as on the site."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from segedu.teaching.explorers.notebook import FOLDER, HOST

LOAD = """async ([name, text]) => {
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    window.modules = { ...window.modules, [name]: await import(address) };
}"""
COMPUTE = "([name, states]) => states.map((values) => modules[name].compute(values))"
TOLERANCE = 1e-4


class Browser:
    """Explorers in one page of a browser."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.loaded: set[str] = set()
        self.load(HOST)

    def load(self, name: str) -> None:
        if name not in self.loaded:
            self.page.evaluate(LOAD, [name, (FOLDER / f"{name}.js").read_text(encoding="utf-8")])
            self.loaded.add(name)

    def controls(self, name: str) -> list[dict]:
        self.load(name)
        return self.page.evaluate("(name) => modules[name].controls", name)

    def compute(self, name: str, states: list[dict]) -> list[Any]:
        """The results of the explorer's `compute` for several states of its controls."""
        self.load(name)
        return self.page.evaluate(COMPUTE, [name, states])

    def states(self, name: str, count: int = 60, seed: int = 0) -> list[dict]:
        """The first state, all controls at their ends, and random positions of all controls."""
        controls, draw = self.controls(name), random.Random(seed)
        first = {control["name"]: control["value"] for control in controls}
        ends = [{c["name"]: choices(c)[end] for c in controls} for end in (0, -1)]
        return [first, *ends] + [{c["name"]: draw.choice(choices(c)) for c in controls} for _ in range(count - 3)]


def choices(control: Mapping[str, Any]) -> list:
    """Every value that a control can take."""
    if "options" in control:
        return control["options"]
    if isinstance(control["value"], bool):
        return [False, True]
    if "step" not in control:
        return [control["value"]]  # a hidden list, for which a test makes its own states
    count = round((control["max"] - control["min"]) / control["step"])
    return [float(f"{control['min'] + k * control['step']:.10g}") for k in range(count + 1)]


def assert_equal(result: Any, expected: Any, where: str) -> None:
    """Compare numbers in nested lists and dictionaries with the limit of all explorers."""
    if isinstance(expected, Mapping):
        for key, value in expected.items():
            assert key in result, f"{where}: the explorer's result has no {key!r}, only {sorted(result)}"
            assert_equal(result[key], value, f"{where}, {key}")
    elif isinstance(expected, str | bool) or expected is None:
        assert result == expected, f"{where}: {result!r}, expected {expected!r}"
    else:
        given, target = np.asarray(result, dtype=float), np.asarray(expected, dtype=float)
        assert given.shape == target.shape, f"{where}: shape {given.shape}, expected {target.shape}"
        np.testing.assert_allclose(given, target, rtol=TOLERANCE, atol=TOLERANCE, err_msg=where)
