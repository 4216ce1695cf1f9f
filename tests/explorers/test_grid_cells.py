"""The explorer of YOLO's grid against the library's targets and the chapter's slots."""

from __future__ import annotations

import pytest
import torch
from explorers.browser import assert_equal

from segedu.detection.yolov1 import yolov1_targets
from segedu.teaching.widgets.grid_cells import BUS, EACH, ONCE, SIZE, cell_rows, depth, scene_boxes, slots

pytestmark = pytest.mark.browser
CLASSES = {"per cell (v1)": ONCE, "per anchor (v2)": EACH}


def assert_rows(rows: list[list], text_rows: list[list[str]], where: str) -> None:
    """Compare the explorer's table with the Python widget's, which has two decimals."""
    for row, words in zip(rows, text_rows, strict=True):
        for value, word in zip(row, words, strict=True):
            if isinstance(value, float | int):
                assert value == pytest.approx(float(word), abs=0.0051), where
            else:
                assert (value or "") == word, where


def test_equals_python(explorers) -> None:
    states = explorers.states("grid_cells", 120)
    seen = set()
    for state, result in zip(states, explorers.compute("grid_cells", states), strict=True):
        boxes, cells, classes = scene_boxes(state["x"], state["y"]), int(state["cells"]), CLASSES[state["classes"]]
        placed = slots(boxes, cells, classes)
        coordinates = []
        for name, box in boxes.items():
            target = yolov1_targets(box[None], torch.tensor([1]), cells, (SIZE, SIZE), 2)
            coordinates.append(target["coordinates"][placed[name].row, placed[name].column])
        target = {"depth": depth(classes), "coordinates": torch.stack(coordinates)}
        assert_equal(result, target, f"{state}")
        for slot, expected in zip(result["slots"], placed.values(), strict=True):
            assert_equal(slot, expected._asdict(), f"{state}")
        assert_rows(result["rows"], cell_rows(cells, state["x"], state["y"], classes), f"{state}")
        shared = sum(slot[:2] == placed[BUS][:2] for slot in placed.values())
        seen.add((classes, shared > 1, placed[BUS].kept))
    assert seen == {(ONCE, True, False), (ONCE, False, True), (EACH, True, True), (EACH, False, True)}
