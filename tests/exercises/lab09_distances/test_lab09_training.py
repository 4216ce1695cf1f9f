"""The training cells of lab 9 at CPU scale: one small net, asked for distances, for stars, and for flows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segedu import authoring
from segedu.exercises import lab09_distances as lab

COURSE = Path(__file__).parents[3]
HELPERS = ("corners", "paint", "decoders", "train_parts", "train", "train_table")


def run_cells(monkeypatch, seed):
    """Run cells of the source, with the references and another seed of weights and scenes; return their names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cells = {
        cell.metadata["segedu"]["name"]: cell.source for cell in authoring.read_source(COURSE, "09_distances").cells
    }
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {"np": np, "torch": torch, "use": lambda function: function}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in HELPERS:
            source = cells[name].replace("torch.manual_seed(0)", f"torch.manual_seed({seed})")
            source = source.replace("draw_data(length, 0,", f"draw_data(length, {2 * seed},")
            exec(source.replace("draw_data(new, 1,", f"draw_data(new, {2 * seed + 1},"), names)
    finally:
        torch.set_num_threads(threads)
    return names


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_nets_find_cells_that_touch(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, seed)["rows"]
    spent = time.process_time() - start
    plain, *values = (row[0] for row in rows.values())
    with capsys.disabled():
        print(
            f"cells, seed {seed}: accuracy {plain:.3f} plain, {values[0]:.3f} distance, {values[1]:.3f} stars, ", end=""
        )
        print(f"{values[2]:.3f} flows; {spent:.0f} CPU-seconds")
    assert min(values[1:]) >= 0.70 and values[0] > plain
    assert spent <= 80
