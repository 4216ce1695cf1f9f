"""The widget of chapter 4: its numbers and its picture, without a slider."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.teaching.widgets import metrics


def test_equal_boxes():
    found = metrics.measures(12.0, 9.0, 8.0, 6.0)
    assert (found["iou"], found["dice"], found["giou"]) == (1.0, 1.0, 1.0)


def test_a_box_apart_has_only_a_gradient_of_giou():
    found = metrics.measures(25.0, 14.0, 8.0, 6.0)
    assert found["iou"] == found["dice"] == 0.0 and found["giou"] < 0
    assert found["iou_gradient"] == [0.0] * 4
    x1, y1, *_ = found["giou_gradient"]
    assert x1 < 0 and y1 < 0  # the near corner is drawn towards the fixed box, up and to the left


@pytest.mark.parametrize("box", [(14.0, 10.0, 8.0, 6.0), (25.0, 14.0, 8.0, 6.0), (10.5, 9.0, 3.0, 2.0)])
def test_gradients_agree_with_finite_differences(box):
    x, y, width, height = box
    found = metrics.measures(*box)
    step = 1e-4
    for name in ("iou", "giou"):
        gradient = found[f"{name}_gradient"]
        along_x = (
            metrics.measures(x + step, y, width, height)[name] - metrics.measures(x - step, y, width, height)[name]
        )
        assert gradient[0] + gradient[2] == pytest.approx(along_x / (2 * step), abs=1e-6)
        wider = metrics.measures(x, y, width + step, height)[name] - metrics.measures(x, y, width - step, height)[name]
        assert (gradient[2] - gradient[0]) / 2 == pytest.approx(wider / (2 * step), abs=1e-6)


def test_picture_has_alt_text_with_the_values(monkeypatch):
    shown = []
    monkeypatch.setattr(metrics, "show", lambda fig, alt: shown.append((fig, alt)))
    for frame in ({}, {"x": 12.0, "y": 9.0, "width": 16.0, "height": 12.0}):
        metrics.draw_boxes(**frame)
    assert all("IoU" in alt and np.isfinite(fig.get_size_inches()).all() for fig, alt in shown)
    assert "only GIoU has arrows" in shown[0][1] and "overlap" in shown[1][1]


def test_static_frames_are_drawn(monkeypatch):
    shown = []
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    monkeypatch.setattr(metrics, "show", lambda fig, alt: shown.append(alt))
    metrics.explorer()
    assert len(shown) == 3 and len(set(shown)) == 3
