"""The explorer of box deltas against the library's encoding and decoding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from explorers.browser import assert_equal

from segedu.ops.anchors import decode_boxes, encode_boxes
from segedu.ops.boxes import box_iou, cxcywh_to_xyxy

pytestmark = pytest.mark.browser
ANCHORS = {"square, 16 x 16": (16, 16), "wide, 24 x 12": (24, 12), "tall, 12 x 24": (12, 24)}


def expected(state: dict) -> dict:
    scale, error = state["scale"], state["error"]
    sides = [state[name] for name in ("x", "y", "width", "height")]
    box, anchor = (
        scale * cxcywh_to_xyxy(torch.tensor([values], dtype=torch.float64))
        for values in (sides, (28, 22, *ANCHORS[state["anchor"]]))
    )
    deltas = encode_boxes(box, anchor)
    decoded = decode_boxes(deltas + error, anchor)
    return {
        "box": box[0],
        "anchor": anchor[0],
        "deltas": deltas[0],
        "decoded": decoded[0],
        "loss": float(F.smooth_l1_loss(deltas + error, deltas, reduction="sum")),
        "pixels": float((decoded - box).abs().sum()),
        "iou": float(box_iou(box, decoded)),
        "anchor_iou": float(box_iou(box, anchor)),
    }


def test_equals_python(explorers) -> None:
    states = explorers.states("box_deltas", 80)
    near = {"x": 28.0, "y": 23.0, "width": 15.0, "height": 18.0}  # few random objects overlap their anchor well
    states += [{**state, **near} for state in states[3:13]]
    overlaps = []
    for state, result in zip(states, explorers.compute("box_deltas", states), strict=True):
        target = expected(state)
        assert_equal(result, target, f"{state}")
        overlaps.append((target["anchor_iou"], target["iou"]))
    anchor_iou, iou = zip(*overlaps, strict=True)
    assert min(anchor_iou) == 0 and max(anchor_iou) > 0.5 and min(iou) < 0.2 and max(iou) > 0.9


def test_deltas_do_not_depend_on_the_scale(explorers) -> None:
    first = explorers.states("box_deltas", 3)[0]
    small, large = explorers.compute("box_deltas", [{**first, "scale": 0.5}, {**first, "scale": 4.0}])
    assert_equal(large, {"deltas": small["deltas"], "iou": small["iou"]}, "scale 4 against 0.5")
    assert large["pixels"] == pytest.approx(8 * small["pixels"])
