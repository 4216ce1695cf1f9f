"""The widgets of chapter 11 place, label and suppress boxes as lab 11's references do, and their scene shows each mistake."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.boxes import box_iou
from segedu.teaching.exercises.lab11_detection.assign_targets import assign_targets
from segedu.teaching.exercises.lab11_detection.make_anchors import make_anchors
from segedu.teaching.exercises.lab11_detection.nms import nms
from segedu.teaching.widgets import anchors as widget

THRESHOLDS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize(
    ("stride", "sizes", "ratios"), list(itertools.product((4, 8, 16), widget.SIZES, widget.RATIOS))
)
def test_anchors_are_those_of_the_exercise(stride, sizes, ratios):
    locations = widget.SIDE // stride
    expected = make_anchors((locations, locations), stride, widget.SIZES[sizes], widget.RATIOS[ratios])
    assert torch.allclose(widget.anchors(stride, sizes, ratios).double(), expected, atol=1e-4)


@pytest.mark.parametrize("positive_iou", [0.3, 0.5, 0.7])
def test_the_picture_counts_what_the_exercise_assigns(shown, positive_iou):
    widget.draw_anchors(positive_iou=positive_iou)
    iou = box_iou(widget.scene()[1], widget.anchors(8, "12, 17, 24", "0.5, 1, 2"))
    targets = assign_targets(iou, 0.3, positive_iou)
    counts = [int((targets == row).sum()) for row in range(5)]
    each = ", ".join(f"{name} {n}" for name, n in zip(widget.OBJECTS, counts, strict=True))
    assert f"object {sum(counts)}," in shown[0][1] and each in shown[0][1]
    assert f"background {(targets == -1).sum()}." in shown[0][1]


def test_objects_have_the_names_of_their_classes():
    labels = draw_shapes(widget.SEED, (widget.SIDE, widget.SIDE))["labels"]
    assert all(CLASSES[label] in name for label, name in zip(labels, widget.OBJECTS, strict=True))
    (left, top, right, bottom), (x1, y1, x2, y2) = widget.scene()[1][[1, 3]].tolist()
    assert left < x1 and top < y1 and x2 < right and y2 < bottom  # the small triangle lies within the large one


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_all_steps_together_are_the_suppression_of_the_exercise(threshold):
    boxes, scores = widget.detections()
    state = widget.suppress(threshold, len(boxes))
    assert not state.waiting
    assert state.kept == nms(boxes, scores, torch.ones(len(boxes), dtype=torch.int64), threshold).tolist()


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_step_keeps_one_and_loses_none(threshold):
    before = widget.suppress(threshold, 0)
    for step in range(1, 21):
        state = widget.suppress(threshold, step)
        assert sorted(sum(state, [])) == list(range(20))
        if before.waiting:
            assert state.kept == [*before.kept, before.waiting[0]]
            assert state.removed_before == before.removed_before + before.removed
        before = state


def test_low_thresholds_lose_the_object_in_front_and_high_ones_leave_doubles():
    kept = {t: widget.suppress(t, 20).kept for t in THRESHOLDS}
    found = {t: widget.count_detected(rows) for t, rows in kept.items()}
    assert found[0.3] == 4 and found[0.5] == found[0.8] == 5
    assert len(kept[0.5]) == 6 and len(kept[0.8]) > 15


def test_two_objects_overlap_and_a_forced_anchor_answers_for_the_other():
    objects = widget.scene()[1]
    assert 0.45 < box_iou(objects, objects).triu(1).max() < 0.5
    iou = box_iou(objects, widget.anchors(8, "12, 17, 24", "0.5, 1, 2"))
    best = iou[3].argmax()
    assert iou[:, best].argmax() == 1  # the large triangle takes it
    assert 3 not in assign_targets(iou, 0.3, 0.7)


def test_nothing_kept_finds_nothing():
    assert widget.count_detected([]) == 0


def test_colours_are_repeated_by_styles():
    styles = widget._styles()
    assert len({(style["ls"], style["lw"]) for style in styles.values()}) == len(styles)


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    widget.nms_explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES) + len(widget.NMS_FRAMES)
    bars = shown[-1][0].axes[1].patches
    assert np.isclose(max(bar.get_width() for bar in bars), float(widget.detections().scores[0]))
