"""The explorer of non-maximum suppression against the library's `nms` and the chapter's stepwise `suppress`."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal
from torch import Tensor

from segedu.datasets.shapes import draw_shapes
from segedu.ops.boxes import box_iou
from segedu.ops.nms import nms
from segedu.teaching.explorers.notebook import FOLDER
from segedu.teaching.widgets import anchors as widget

pytestmark = pytest.mark.browser
WIDTH, HEIGHT = 28.3, 27.5
ORIGINAL = widget.detections()


def with_your_box(x: float, y: float, score: float) -> widget.Detections:
    """The library's detections, the last of them replaced by the box of the explorer."""
    box = torch.tensor([[x - WIDTH / 2, y - HEIGHT / 2, x + WIDTH / 2, y + HEIGHT / 2]])
    boxes, scores = torch.cat([ORIGINAL.boxes[:-1], box]), torch.cat([ORIGINAL.scores[:-1], torch.tensor([score])])
    order = scores.argsort(descending=True)
    return widget.Detections(boxes[order], scores[order])


def expected(state: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    detections = with_your_box(state["x"], state["y"], state["score"])
    monkeypatch.setattr(widget, "detections", lambda: detections)
    steps = widget.suppress(state["iou_threshold"], int(state["step"]))
    last = detections.boxes[steps.kept[-1:]]
    complete = nms(detections.boxes, detections.scores, state["iou_threshold"]).tolist()
    assert steps.kept == complete[: len(steps.kept)]
    iou = box_iou(last, detections.boxes).flatten().tolist()
    return {**steps._asdict(), "detected": widget.count_detected(steps.kept), "iou_with_last": iou}


def test_equals_python(explorers, monkeypatch) -> None:
    states = explorers.states("nms", 120)
    seen = {"detected": set(), "waiting": set(), "yours first": set()}
    for state, result in zip(states, explorers.compute("nms", states), strict=True):
        target = expected(state, monkeypatch)
        assert_equal(result, target, f"{state}")
        seen["detected"].add(target["detected"])
        seen["waiting"].add(len(target["waiting"]) > 0)
        seen["yours first"].add(state["score"] > float(ORIGINAL.scores[0]))
    assert seen["detected"] >= {0, 1, 2, 3, 4, 5} and seen["waiting"] == seen["yours first"] == {True, False}


def test_starts_with_the_detections_of_the_chapter(explorers) -> None:
    """At its first position your box leaves the same boxes as the twentieth detection of the Python widget."""
    start = explorers.states("nms", 3)[0]
    states = [{**start, "iou_threshold": threshold, "step": 20} for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    for state, result in zip(states, explorers.compute("nms", states), strict=True):
        assert result["kept"] == widget.suppress(state["iou_threshold"], 20).kept


def test_picture_is_the_library_scene() -> None:
    source = (FOLDER / "nms.js").read_text(encoding="utf-8")
    text = "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', source.split("const GREY =")[1].split(";")[0]))
    brightness = draw_shapes(widget.SEED)["image"].as_subclass(Tensor).mean(dim=0)[None]
    target = (255 * F.avg_pool2d(brightness, 2)).round().numpy().flatten()
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), np.uint8), target)
