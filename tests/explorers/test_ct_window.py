"""The explorer of the intensity window against the chapter's `apply_window` on the same slice."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from explorers.browser import assert_equal

from segedu.datasets.volume import CLASSES, draw_volume
from segedu.teaching.explorers.notebook import FOLDER
from segedu.teaching.widgets.volume import apply_window

pytestmark = pytest.mark.browser
SHAPE = (48, 60)


def constant(name: str) -> str:
    source = (FOLDER / "ct_window.js").read_text(encoding="utf-8").split(f"const {name} =")[1].split(";")[0]
    return "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', source))


def hounsfield_units() -> np.ndarray:
    """The explorer's slice in HU, in steps of 8."""
    return 8 * np.frombuffer(base64.b64decode(constant("HU")), np.uint8).reshape(SHAPE).astype(float) - 1024


def labels() -> np.ndarray:
    return np.array(list(constant("LABELS")), dtype=int).reshape(SHAPE)


def test_slice_is_that_of_the_library() -> None:
    volume = draw_volume(2, (24, *SHAPE))
    np.testing.assert_allclose(hounsfield_units(), np.asarray(volume["hu"])[14], rtol=0, atol=4.001)
    np.testing.assert_array_equal(labels(), np.asarray(volume["semantic"])[14])


def test_equals_python(explorers) -> None:
    hu, label_map = hounsfield_units(), labels()
    states, contrasts = explorers.states("ct_window", 80), []
    for state, result in zip(states, explorers.compute("ct_window", states), strict=True):
        grey = apply_window(hu, state["level"], state["width"])
        x, y = int(state["x"]), int(state["y"])
        organs = {}
        for label in np.unique(label_map[label_map > 0]):
            own = grey[label_map == label]
            clipped = float(((own == 0) | (own == 1)).mean())
            organs[CLASSES[label]] = {"hu": hu[label_map == label].mean(), "grey": own.mean(), "clipped": clipped}
        voxel = {"hu": hu[y, x], "grey": grey[y, x], "class": CLASSES[label_map[y, x]]}
        assert_equal(result, {"grey": grey.flatten(), "voxel": voxel, "organs": organs}, f"{state}")
        contrasts.append(result["contrast"])
    assert max(contrasts) > 0.15 and contrasts.count(0) >= 3  # windows that show the tumour, and windows that do not
