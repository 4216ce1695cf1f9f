"""The training cells of lab 12 at CPU scale: one small net with three losses of its classes, and a set of boxes."""

from __future__ import annotations

import time

import pytest
from exercises.lab_cells import run_cells, seeds

LAB, NET = "12_one_stage", ("picture", "net", "losses", "data", "train", "score")


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_net_finds_shapes_with_each_of_the_three_losses(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, LAB, NET, seeds(seed, "get_data(length, ", "get_data(64, "))["rows"]
    spent = time.process_time() - start
    plain, alike, hardest, focal, twice = (half for half, _ in rows.values())
    with capsys.disabled():
        print(
            f"shapes, seed {seed}: AP50 {plain:.3f} plain, {alike:.3f} all alike, {hardest:.3f} hardest three, ", end=""
        )
        print(f"{focal:.3f} focal, {twice:.3f} nothing suppressed; {spent:.0f} CPU-seconds")
    assert min(alike, hardest, focal) >= 0.5 and plain < 0.1 and twice < focal
    assert spent <= 55


@pytest.mark.prove
def test_a_matched_set_ends_with_one_box_for_each_object_and_an_unmatched_one_does_not(monkeypatch):
    names = run_cells(monkeypatch, LAB, ("picture", "hungarian_match_figure", "set_training"), {})
    found = {}
    for name, seen in names["sets"].items():
        boxes, scores = seen[200]
        iou = names["box_iou"](names["truth"], boxes[scores > 0.5])
        found[name] = (iou.shape[1], int((iou.amax(dim=1) > 0.9).sum()))
    assert found["one to one"] == (4, 4)  # of four objects
    assert found["cheapest object"] == (12, 2)
