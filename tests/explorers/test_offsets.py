"""The explorer of offsets and sigma against the chapter's embeddings, Gaussian masks and IoUs."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from explorers.browser import assert_equal

from segedu.teaching.explorers.notebook import FOLDER
from segedu.teaching.widgets import embedding as widget

pytestmark = pytest.mark.browser
ORIGINAL = widget.scene()
INSIDE = ORIGINAL.label_map > 0
SIGMAS = np.arange(0.5, 11.8, 0.25)


def constant(name: str) -> str:
    source = (FOLDER / "offsets.js").read_text(encoding="utf-8").split(f"const {name} =")[1].split(";")[0]
    return "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', source))


def noise() -> np.ndarray:
    """The explorer's errors of the offsets, (2, 64, 64); they are rounded to 1/32 of a pixel."""
    errors = np.zeros(ORIGINAL.noise.shape)
    errors[:, INSIDE] = np.frombuffer(base64.b64decode(constant("NOISE")), np.int8).reshape(2, -1) / 32
    return errors


def test_scene_is_that_of_the_python_widget() -> None:
    label_map = np.zeros_like(ORIGINAL.label_map)
    label_map[3:52, 9:46] = np.array(list(constant("LABELS")), dtype=int).reshape(49, 37)
    np.testing.assert_array_equal(label_map, ORIGINAL.label_map)
    np.testing.assert_allclose(noise()[:, INSIDE], ORIGINAL.noise[:, INSIDE], rtol=0, atol=1 / 64 + 1e-9)


def expected(cell: str, sigma: float, fraction: float) -> dict:
    mask, target = widget.gaussian_mask(cell, sigma, fraction), ORIGINAL.label_map == widget.CELLS[cell]
    curves = {name: [widget.iou(name, float(s), fraction) for s in SIGMAS] for name in widget.CELLS}
    return {
        "embeddings": widget.embeddings(fraction)[:, INSIDE].T,
        "centre": widget._centre(cell, fraction),
        "included": mask[INSIDE].astype(float),
        "correct": int((mask & target).sum()),
        "missed": int((target & ~mask).sum()),
        "wrong": int((mask & ~target).sum()),
        "iou": widget.iou(cell, sigma, fraction),
        "curves": curves,
        "best_common": np.minimum(*(np.array(curve) for curve in curves.values())).max(),
        "best_separate": min(max(curve) for curve in curves.values()),
    }


def test_equals_python(explorers, monkeypatch) -> None:
    states, ious = explorers.states("offsets", 60), []
    for state, result in zip(states, explorers.compute("offsets", states), strict=True):
        sample = ORIGINAL._replace(noise=state["noise"] * noise())
        monkeypatch.setattr(widget, "scene", lambda sample=sample: sample)
        widget._squares.cache_clear()
        target = expected(state["cell"], state["sigma"], state["fraction"])
        assert_equal(result, target, f"{state}")
        ious.append(target["iou"])
    widget._squares.cache_clear()
    assert min(ious) < 0.3 and max(ious) > 0.9
