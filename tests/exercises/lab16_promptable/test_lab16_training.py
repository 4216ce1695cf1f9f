"""The training cells of lab 16 at CPU scale: drawn CT of three scanners, one spacing, a planned 3D U-Net."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercises.lab_cells import run_cells, seeds, sources

from segedu.datasets import volume
from segedu.teaching.exercises import lab16_promptable as lab

LAB = "16_promptable"
CELLS = ("data", "prepare", "organ_loss", "train", "measure")
IMPORTED = {"F": F, "ct": volume}  # by cells that draw
DICE = 0.75  # of the syllabus


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planned_3d_unet_learns_organs(seed, monkeypatch, capsys):
    start = time.process_time()
    table = run_cells(monkeypatch, LAB, CELLS, seeds(seed), **IMPORTED)["table"]
    spent = time.process_time() - start
    atlas, net = (float(np.mean(table[name])) for name in ("atlas", "3D U-Net"))
    with capsys.disabled():
        print(f"volumes, seed {seed}: mean Dice {atlas:.3f} atlas, {net:.3f} 3D U-Net; {spent:.0f} CPU-seconds")
    assert net >= DICE and net > atlas + 0.1
    assert spent <= 60


@pytest.fixture
def affordable(capsys):
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {"torch": torch, "np": np, "use": lambda function: function, **IMPORTED}
    exec(sources(LAB)["data"], names)
    return names["affordable"]


@pytest.mark.parametrize("slow", [False, True])
def test_a_right_answer_that_is_too_slow_is_replaced_and_the_lab_says_so(slow, affordable, capsys):
    def resample_spacing(*given):
        end = time.process_time() + 0.05 * slow
        while time.process_time() < end:
            pass
        return lab.exercises[4].reference(*given)

    given = np.zeros((2, 3, 4)), [1, 1, 1], [2, 1, 1], False
    chosen = affordable(resample_spacing, *given, longest=0.02 if slow else 60.0)
    assert (chosen is resample_spacing) != slow and chosen(*given).shape == (1, 3, 4)
    assert ("seconds per call" in capsys.readouterr().out) == slow
