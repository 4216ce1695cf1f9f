"""The grid-cell widget shows YOLO's own targets, and loses the objects that they lose."""

from __future__ import annotations

import itertools

import pytest
import torch

from segedu.detection.yolov1 import YOLOv1, YOLOv1Backbone, decode_cells, yolov1_targets
from segedu.teaching.widgets import grid_cells as widget

GRIDS = (2, 3, 7, 13)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize(("cells", "x", "y"), list(itertools.product(GRIDS, (17, 32, 47), (8, 27, 56))))
def test_objects_that_are_kept_are_those_of_the_targets(cells, x, y):
    boxes = widget.scene_boxes(x, y)
    where = widget.slots(boxes, cells, widget.ONCE)
    labels = torch.arange(1, 4)
    targets = yolov1_targets(torch.stack(list(boxes.values())), labels, cells, (64, 64), 4)
    kept = {slot[:2]: number for number, slot in enumerate(where.values()) if slot.kept}
    assert {tuple(place) for place in targets["objects"].nonzero().tolist()} == set(kept)
    for place, number in kept.items():
        assert targets["classes"][place].argmax() == number


@pytest.mark.parametrize(("x", "row", "column"), [(42.6, 1, 1), (42.7, 1, 2)])
def test_a_centre_that_crosses_a_border_changes_the_cell(x, row, column):
    slot = widget.slots(widget.scene_boxes(x, 38), 3, widget.ONCE)[widget.BUS]
    assert slot[:2] == (row, column)  # the border is at 2 * 64 / 3 = 42.67


def test_a_cell_with_two_objects_loses_one_unless_anchors_tell_them_apart():
    boxes = widget.scene_boxes(40, 38)
    once, each = (widget.slots(boxes, 3, classes) for classes in (widget.ONCE, widget.EACH))
    assert [slot.kept for slot in once.values()] == [True, True, False]
    assert all(slot.kept for slot in each.values())
    assert once[widget.TREE][:2] == once[widget.BUS][:2]
    assert each[widget.TREE].anchor != each[widget.BUS].anchor


def test_each_object_has_the_anchor_of_its_shape():
    found = [list(widget.ANCHORS)[widget.best_anchor(box)] for box in widget.scene_boxes(30, 30).values()]
    assert found == ["tall", "square", "wide"]


def test_two_objects_of_one_shape_are_still_too_many_for_a_cell():
    box = widget.scene_boxes(40, 38)[widget.BUS]
    where = widget.slots({"bus": box, "another": box + 1}, 2, widget.EACH)
    assert [slot.kept for slot in where.values()] == [True, False]


def test_the_numbers_of_the_cell_give_the_box_back():
    rows = widget.cell_rows(7, 40, 38, widget.ONCE)
    assert rows[-1] == ["0", "0", "1"] and len(rows) == 4
    values = torch.tensor([float(word) for word in rows[0][:4]])
    grid = torch.zeros(7, 7, 1, 4)
    slot = widget.slots(widget.scene_boxes(40, 38), 7, widget.ONCE)[widget.BUS]
    grid[slot.row, slot.column, 0] = values
    box = decode_cells(grid, (64, 64))[slot.row, slot.column, 0]
    assert torch.allclose(box, widget.scene_boxes(40, 38)[widget.BUS], atol=0.7)  # of two decimals


def test_numbers_of_anchors_by_hand():
    rows = widget.cell_rows(3, 40, 38, widget.EACH)
    # tree: centre 30 / 64 * 3 = 1.41; log(16 / 14) = 0.13 and log(36 / 36) = 0 by the tall anchor
    assert rows[0] == ["0.41", "0.27", "0.13", "0.00", "IoU", "1", "0", "0"]
    assert rows[1][:2] == ["0.88", "0.78"] and rows[1][5:] == ["0", "0", "1"]
    assert rows[2] == ["", "", "", "", "0", "", "", ""]


def test_depth_is_what_a_cell_gives():
    assert widget.depth(widget.ONCE) == 18 and widget.depth(widget.EACH) == 24
    net = YOLOv1(YOLOv1Backbone(((3, 4, 2),)), num_classes=4, cells=3, boxes=3, hidden=8)
    assert net.head[-1].out_features == 3 * 3 * widget.depth(widget.ONCE)
    for classes in (widget.ONCE, widget.EACH):
        rows = widget.cell_rows(3, 40, 38, classes)
        assert sum(map(len, rows)) == widget.depth(classes)


def test_the_picture_says_what_it_shows(shown):
    widget.draw_grid_cells(cells=3, x=40, y=38, classes=widget.ONCE)
    fig, alt = shown[0]
    assert "the bus is lost" in alt and "3 x 3 x 18 values" in alt and "bus: row 1, column 1" in alt
    image, vector = fig.axes
    words = [text.get_text() for text in image.texts]
    assert words == ["tree", "ball", "bus: lost"]
    assert any("target of the tree" in text.get_text() for text in vector.texts)


@pytest.mark.parametrize("classes", [widget.ONCE, widget.EACH])
@pytest.mark.parametrize("cells", [2, 13])
def test_every_corner_of_the_sliders_is_drawn(shown, cells, classes):
    for x, y in itertools.product((17, 47), (8, 56)):
        widget.draw_grid_cells(cells=cells, x=x, y=y, classes=classes)
    assert len(shown) == 4


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)
