"""The training cell of lab 7 at CPU scale, with other seeds, learning rates and lengths: what the lab and the page print."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segedu.teaching.authoring import notebooks as authoring
from segedu.teaching.exercises.lab07_losses import exercises

COURSE = Path(__file__).parents[3]
CELLS = ("train_parts", "train")


def train(monkeypatch, seed, only=None, **changes):
    """Foreground IoU of each loss; `changes` are texts of the cell and what stands in their place."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = authoring.read_source(COURSE, "07_losses")
    cells = {cell.metadata["segedu"]["name"]: cell.source for cell in source.cells}
    text = "\n".join(cells[name] for name in CELLS)
    changes |= {"draw_data(length, 0, size)": f"draw_data(length, {seed}, size)"}
    changes |= {
        "draw_data(64, 1000, size)": f"draw_data(64, {1000 + seed}, size)",
        "manual_seed(0)": f"manual_seed({seed})",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    if only:
        text = text.replace(
            "five_losses(counts).items()", f"((n, f) for n, f in five_losses(counts).items() if n in {only})"
        )
    references = {exercise.name: exercise.reference for exercise in exercises}
    scene = next(line for name, cell in cells.items() for line in cell.splitlines() if line.startswith("SCENE = "))
    threads = torch.get_num_threads()
    names = {"torch": torch, "use": lambda function: function, **references}
    try:
        exec(f"{scene}\n{text}", names)
    finally:
        torch.set_num_threads(threads)
    return names["scores"]


def report(capsys, label, scores):
    with capsys.disabled():
        print(f"\nlab 7, {label}: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dice_starts_sooner_than_cross_entropy(seed, monkeypatch, capsys):
    scores = train(monkeypatch, seed)
    report(capsys, f"seed {seed}", scores)
    assert scores["Dice"] - scores["cross-entropy"] >= 0.05
    assert min(scores.values()) > 0.3


@pytest.mark.prove
def test_at_another_learning_rate_or_length_the_order_is_another(monkeypatch, capsys):
    fast = {"lr=5e-3": "lr=2e-2", "optimizer, 5e-3": "optimizer, 2e-2"}
    for seed in (0, 1, 2):
        report(capsys, f"rate 0.02, seed {seed}", train(monkeypatch, seed, ["cross-entropy"], **fast))
    middle = {"lr=5e-3": "lr=1e-2", "optimizer, 5e-3": "optimizer, 1e-2"}
    scores = train(monkeypatch, 1, ["Dice", "CE + Dice"], **middle)
    report(capsys, "rate 0.01, seed 1", scores)
    longer = train(monkeypatch, 0, ["cross-entropy", "Dice"], **{"2, 120, 8)": "2, 480, 8)"})
    report(capsys, "480 steps, seed 0", longer)
    assert longer["cross-entropy"] > 0.7 and abs(longer["cross-entropy"] - longer["Dice"]) < 0.1
