"""The training cells of lab 11 at CPU scale: a small Faster R-CNN of the references, and the same with parts missing."""

from __future__ import annotations

import time

import pytest
from exercises.lab_cells import run_cells, seeds

CELLS = ("parts", "trial", "net", "propose", "losses", "data", "train", "score")


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_detector_finds_shapes(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, "11_detection", CELLS, seeds(seed, "get_data(length, ", "get_data(64, "))["rows"]
    spent = time.process_time() - start
    plain, whole, doubled, still, coarse = (row[0] for row in rows.values())
    with capsys.disabled():
        print(
            f"shapes, seed {seed}: AP50 {plain:.3f} plain, {whole:.3f} whole, {doubled:.3f} not suppressed, "
            f"{still:.3f} not moved, {coarse:.3f} one level; {spent:.0f} CPU-seconds"
        )
    assert whole >= 0.5 and whole > plain and doubled < whole - 0.1
    assert spent <= 60
