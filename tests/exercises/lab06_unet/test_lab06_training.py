"""The training cell of lab 6 at CPU scale: the target of the lab, and what its skips are worth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segedu import authoring
from segedu.exercises.lab06_unet import build_unet

COURSE = Path(__file__).parents[3]
CELLS = ("train_parts", "train", "train_table")


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_unet_reaches_its_target_and_the_skips_matter(seed, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = authoring.read_source(COURSE, "06_unet")
    cells = {cell.metadata["segedu"]["name"]: cell.source for cell in source.cells}
    names = {"torch": torch, "use": lambda function: build_unet.reference, "build_unet": None}
    try:
        for name in CELLS:
            exec(cells[name].replace("torch.manual_seed(0)", f"torch.manual_seed({seed})"), names)
    finally:
        torch.set_num_threads(threads)
    scores = names["scores"]
    with capsys.disabled():
        print(
            f"lab 6, seed {seed}: mean IoU {scores['with skips']:.3f} with skips, {scores['without skips']:.3f} without"
        )
    assert scores["with skips"] >= 0.80  # measured 0.885, 0.862, 0.874
    assert scores["with skips"] - scores["without skips"] >= 0.02  # measured 0.13, 0.04, 0.06
