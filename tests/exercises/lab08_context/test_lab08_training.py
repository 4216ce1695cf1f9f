"""The training cells of lab 8 at CPU scale: what context and a finer map are worth."""

from __future__ import annotations

import pytest
from exercises.lab_cells import run_cells, seeds

from segedu.datasets.street import CLASSES, draw_street

LAB, STREET = "08_context", {"draw_street": draw_street, "CLASSES": CLASSES}
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@pytest.mark.prove
@SEEDS
def test_a_box_is_a_boat_or_a_car_by_context_only(seed, monkeypatch, capsys):
    names = run_cells(monkeypatch, LAB, ("toy_parts", "net", "toy"), seeds(seed), **STREET)
    scores = names["toy_scores"]
    with capsys.disabled():
        print(f"boxes, seed {seed}: mean IoU {scores[None]:.3f} without a head, {scores['ppm']:.3f} with ppm, ", end="")
        print(f"{scores['aspp']:.3f} with aspp")
    assert min(scores["ppm"], scores["aspp"]) - scores[None] >= 0.15


@pytest.mark.prove
@SEEDS
def test_a_finer_map_is_better_on_the_street(seed, monkeypatch, capsys):
    scores = run_cells(monkeypatch, LAB, ("toy_parts", "net", "train"), seeds(seed), **STREET)["scores"]
    values = [scores[f"output stride {stride}"]["mean_iou"] for stride in (32, 16, 8)]
    with capsys.disabled():
        print(f"street, seed {seed}: mean IoU " + ", ".join(f"{value:.3f}" for value in values) + " at 32, 16, 8")
    assert values[2] - values[0] >= 0.03
