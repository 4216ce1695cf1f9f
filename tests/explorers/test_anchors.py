"""The explorer of anchors against the library's anchors, IoU and labels."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal
from torch import Tensor

from segedu.datasets.shapes import draw_shapes
from segedu.ops.anchors import match_anchors
from segedu.ops.boxes import box_iou
from segedu.teaching.explorers.notebook import FOLDER
from segedu.teaching.widgets import anchors as widget

pytestmark = pytest.mark.browser


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Symmetric anchors tie for the best IoU; JavaScript computes in float64, so Python has to as well."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def expected(stride: int, sizes: str, ratios: str, positive_iou: float, force_best: bool) -> dict:
    objects, boxes = widget.scene()[1].double(), widget.anchors(int(stride), sizes, ratios)
    assert boxes.dtype == torch.float64
    iou = box_iou(objects, boxes)
    matches = match_anchors(iou, min(0.3, positive_iou), positive_iou, force_best=force_best)
    counts = [int((matches == row).sum()) for row in range(len(objects))]
    return {
        "anchors": boxes.tolist(),
        "best_iou": iou.amax(dim=0).tolist(),
        "matches": matches.tolist(),
        "counts": counts,
    }


def test_equals_python(explorers, double_precision) -> None:
    states = explorers.states("anchors", 80)
    results = explorers.compute("anchors", states)
    labels, without_anchor = set(), set()
    for state, result in zip(states, results, strict=True):
        target = expected(**{name: value for name, value in state.items() if name not in ("x", "y")})
        assert_equal(result, target, f"{state}")
        labels |= set(target["matches"])
        if state["force_best"]:
            without_anchor.add(0 in target["counts"])
    assert labels == {-2, -1, 0, 1, 2, 3, 4} and without_anchor == {True, False}


def test_picture_is_the_library_scene() -> None:
    source = (FOLDER / "anchors.js").read_text(encoding="utf-8")
    text = "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', source.split("const GREY =")[1].split(";")[0]))
    brightness = draw_shapes(widget.SEED)["image"].as_subclass(Tensor).mean(dim=0)[None]
    target = (255 * F.avg_pool2d(brightness, 2)).round().numpy().flatten()
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), np.uint8), target)
