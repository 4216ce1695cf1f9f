"""The training cells of lab 9 at CPU scale: one small net, asked for distances, for stars, and for flows."""

from __future__ import annotations

import time

import pytest
from exercises.lab_cells import run_cells, seeds

HELPERS = ("corners", "paint", "decoders", "train_parts", "train", "train_table")


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_nets_find_cells_that_touch(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, "09_distances", HELPERS, seeds(seed, "get_data(length, ", "get_data(new, "))["rows"]
    spent = time.process_time() - start
    plain, *values = (row[0] for row in rows.values())
    with capsys.disabled():
        print(
            f"cells, seed {seed}: accuracy {plain:.3f} plain, {values[0]:.3f} distance, {values[1]:.3f} stars, ", end=""
        )
        print(f"{values[2]:.3f} flows; {spent:.0f} CPU-seconds")
    assert min(values[1:]) >= 0.70 and values[0] > plain
    assert spent <= 80
