"""The training cells of lab 8 at CPU scale: what context and a finer map are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segedu import authoring
from segedu.datasets.street import CLASSES, draw_street
from segedu.exercises import lab08_context as lab

COURSE = Path(__file__).parents[3]
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def run_cells(monkeypatch, seed, *wanted):
    """Run cells of the source, with the references and another seed of the weights; return their names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cells = {cell.metadata["segedu"]["name"]: cell.source for cell in authoring.read_source(COURSE, "08_context").cells}
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {
        "np": np,
        "torch": torch,
        "use": lambda function: function,
        "draw_street": draw_street,
        "CLASSES": CLASSES,
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in wanted:
            exec(cells[name].replace("torch.manual_seed(0)", f"torch.manual_seed({seed})"), names)
    finally:
        torch.set_num_threads(threads)
    return names


@pytest.mark.prove
@SEEDS
def test_a_box_is_a_boat_or_a_car_by_context_only(seed, monkeypatch, capsys):
    names = run_cells(monkeypatch, seed, "toy_parts", "net", "toy")
    scores = names["toy_scores"]
    with capsys.disabled():
        print(f"boxes, seed {seed}: mean IoU {scores[None]:.3f} without a head, {scores['ppm']:.3f} with ppm, ", end="")
        print(f"{scores['aspp']:.3f} with aspp")
    assert min(scores["ppm"], scores["aspp"]) - scores[None] >= 0.15


@pytest.mark.prove
@SEEDS
def test_a_finer_map_is_better_on_the_street(seed, monkeypatch, capsys):
    scores = run_cells(monkeypatch, seed, "toy_parts", "net", "train")["scores"]
    values = [scores[f"output stride {stride}"]["mean_iou"] for stride in (32, 16, 8)]
    with capsys.disabled():
        print(f"street, seed {seed}: mean IoU " + ", ".join(f"{value:.3f}" for value in values) + " at 32, 16, 8")
    assert values[2] - values[0] >= 0.03
