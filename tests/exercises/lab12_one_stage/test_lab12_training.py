"""The training cells of lab 12 at CPU scale: one small net with three losses of its classes, and a set of boxes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segedu import authoring
from segedu.exercises import lab12_one_stage as lab

COURSE = Path(__file__).parents[3]
NET = ("net", "losses", "data", "train", "score")


def run_cells(monkeypatch, cells, seed=0):
    """Run cells of the source, with the references and another seed of weights and scenes; return their names."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("segedu.viz.show", lambda fig, alt: plt.close(fig))
    sources = {
        cell.metadata["segedu"]["name"]: cell.source for cell in authoring.read_source(COURSE, "12_one_stage").cells
    }
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {"np": np, "plt": plt, "torch": torch, "use": lambda function: function}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("picture", *cells):
            source = sources[name].replace("torch.manual_seed(0)", f"torch.manual_seed({seed})")
            source = source.replace("draw_data(length, 0)", f"draw_data(length, {2 * seed})")
            source = source.replace("draw_data(64, 1)", f"draw_data(64, {2 * seed + 1})")
            exec(source, names)
    finally:
        torch.set_num_threads(threads)
    return names


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_net_finds_shapes_with_each_of_the_three_losses(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, NET, seed)["rows"]
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
    names = run_cells(monkeypatch, ["hungarian_match_figure", "set_training"])
    found = {}
    for name, seen in names["sets"].items():
        boxes, scores = seen[200]
        iou = names["box_iou"](names["truth"], boxes[scores > 0.5])
        found[name] = (iou.shape[1], int((iou.amax(dim=1) > 0.9).sum()))
    assert found["one to one"] == (4, 4)  # of four objects
    assert found["each its cheapest"] == (12, 2)
