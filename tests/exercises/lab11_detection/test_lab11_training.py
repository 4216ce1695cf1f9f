"""The training cells of lab 11 at CPU scale: a small Faster R-CNN of the references, and the same with parts missing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segedu import authoring
from segedu.exercises import lab11_detection as lab

COURSE = Path(__file__).parents[3]
CELLS = ("parts", "trial", "net", "propose", "losses", "data", "train", "score")


def run_cells(monkeypatch, seed):
    """Run cells of the source, with the references and another seed of weights and scenes; return their names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cells = {
        cell.metadata["segedu"]["name"]: cell.source for cell in authoring.read_source(COURSE, "11_detection").cells
    }
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {"np": np, "torch": torch, "use": lambda function: function}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in CELLS:
            source = cells[name].replace("manual_seed(0)", f"manual_seed({seed})")
            source = source.replace("draw_data(length, 0)", f"draw_data(length, {2 * seed})")
            exec(source.replace("draw_data(64, 1)", f"draw_data(64, {2 * seed + 1})"), names)
    finally:
        torch.set_num_threads(threads)
    return names


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_detector_finds_shapes(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, seed)["rows"]
    spent = time.process_time() - start
    plain, whole, doubled, still, coarse = (row[0] for row in rows.values())
    with capsys.disabled():
        print(
            f"shapes, seed {seed}: AP50 {plain:.3f} plain, {whole:.3f} whole, {doubled:.3f} not suppressed, "
            f"{still:.3f} not moved, {coarse:.3f} one level; {spent:.0f} CPU-seconds"
        )
    assert whole >= 0.5 and whole > plain and doubled < whole - 0.1
    assert spent <= 60
