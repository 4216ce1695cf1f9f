"""The training cells of lab 14 at CPU scale: a small Mask R-CNN from nothing, with RoIAlign and beside it with RoIPool."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from exercises.lab_cells import run_cells, seeds, sources

from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.masks import paste_masks
from segedu.ops.roi_pool import roi_pool
from segedu.teaching.exercises import lab14_top_down as lab
from segedu.weights import load

LAB = "14_top_down"
CELLS = ("trainable", "head", "network", "learn", "data", "train", "measure")
IMPORTED = {  # by cells that draw
    "F": F,
    "CLASSES": CLASSES,
    "draw_shapes": draw_shapes,
    "paste_masks": paste_masks,
    "roi_pool": roi_pool,
    "load": load,
}
MASK_AP50 = 0.45  # of the syllabus


@pytest.mark.prove
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_small_mask_rcnn_learns_masks_and_rounding_costs(seed, monkeypatch, capsys):
    start = time.process_time()
    rows = run_cells(monkeypatch, LAB, CELLS, seeds(seed, "get_data(length, ", "get_data(new, "), **IMPORTED)["rows"]
    spent = time.process_time() - start
    align, pool, told, filled = (rows[name] for name in ("RoIAlign", "RoIPool", "RoIAlign, GT boxes", "filled"))
    with capsys.disabled():
        print(
            f"shapes, seed {seed}: mask AP50 {rows['Otsu, components'][0]:.3f} plain, {align[0]:.3f} RoIAlign, ", end=""
        )
        print(f"{pool[0]:.3f} RoIPool, {filled[0]:.3f} filled boxes; ", end="")
        print(f"AP75 {align[1]:.3f} RoIAlign, {pool[1]:.3f} RoIPool, {filled[1]:.3f} filled boxes; ", end="")
        print(f"true boxes AP50 {told[0]:.3f}, AP75 {told[1]:.3f}; {spent:.0f} CPU-seconds")
    assert align[0] >= MASK_AP50 and align[1] > pool[1] and align[0] > rows["Otsu, components"][0]
    assert told[0] > align[0] > filled[0] + 0.05 and align[1] > filled[1]  # a mask is more than its box
    assert spent <= 80


@pytest.fixture
def trainable():
    names = {exercise.name: exercise.reference for exercise in lab.exercises}
    names |= {"torch": torch, "use": lambda function: function}
    exec(sources(LAB)["trainable"], names)
    return names["trainable"]


def arguments():
    boxes = torch.tensor([[2.0, 4.0, 40.0, 30.0]])
    return torch.rand(3, 8, 8, requires_grad=True), boxes, (5, 5), 1 / 8, 2


def test_a_quick_answer_is_trained_with(trainable, capsys):
    calls = []

    def roi_align(*given):
        calls.append(given)
        return lab.roi_align.reference(*given)

    chosen = trainable(roi_align, arguments(), longest=60.0)
    before = len(calls)
    chosen(*arguments())
    assert len(calls) == before + 1 and capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["numpy", "slow"])
def test_a_right_answer_without_gradient_or_too_slow_is_replaced_and_the_lab_says_so(kind, trainable, capsys):
    def roi_align(features, *given):
        if kind == "slow":
            time.sleep(0.05)
            return lab.roi_align.reference(features, *given)
        return torch.from_numpy(lab.roi_align.reference(features.detach(), *given).numpy())

    chosen = trainable(roi_align, arguments())
    said = capsys.readouterr().out
    assert "this training uses the library's" in said
    assert ("seconds per call" if kind == "slow" else "gives no gradient") in said
    assert chosen(*arguments()).requires_grad


def test_masks_are_true_or_false_and_need_no_gradient(trainable, capsys):
    masks, boxes = torch.ones(1, 8, 8).bool(), torch.tensor([[1.0, 1.0, 6.0, 6.0]])
    chosen = trainable(lab.mask_target.reference, (masks, boxes, torch.tensor([0]), 4), longest=60.0)
    assert chosen(masks, boxes, torch.tensor([0]), 4).all() and capsys.readouterr().out == ""
