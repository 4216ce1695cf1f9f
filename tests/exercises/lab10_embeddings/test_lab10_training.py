"""The training cells of lab 10 at CPU scale: their loss is the library's, and the net learns to point."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
from exercises.lab_cells import COURSE, run_cells

from segedu.datasets.cells import draw_cells
from segedu.instance.spatial_embedding import spatial_embedding_loss
from segedu.metrics.average_precision import average_precision_area, match_detections, precision_recall_curve
from segedu.metrics.instance import label_map_iou
from segedu.teaching.mutants.wrong_answers import load_alternatives

LAB, DRAW = "10_embeddings", {"draw_cells": draw_cells}


@pytest.mark.parametrize("learned", [False, True])
def test_the_loss_is_the_library_s(learned, monkeypatch):
    names = run_cells(monkeypatch, LAB, ("channels", "loss"), {"LEARNED = False": f"LEARNED = {learned}"}, **DRAW)
    names["step_costs"] = names["lovasz_grad"]
    maps = torch.stack([draw_cells(seed, (32, 40))["label_map"] for seed in (0, 1)])
    maps = torch.cat([maps, torch.zeros_like(maps[:1])])  # and an image without a cell
    channels = torch.randn(3, 5, 32, 40, generator=torch.Generator().manual_seed(0)) * 0.3
    channels[:, 2:4] = channels[:, 2:4] * 0.1 - 0.3
    ours = channels.clone().requires_grad_()
    loss = names["embedding_loss"](ours, maps)
    theirs = channels.clone().requires_grad_()
    raw = -theirs[:, 2:4] - 0.1 * math.log(2)  # 1 / (2 sigma^2) = exp(10 raw), log(sigma) = 5 channels
    outputs = {"offsets": theirs[:, :2], "sigma": raw, "seed": theirs[:, 4:]}
    options = {"unit": names["UNIT"], "learned_centre": learned, "smooth_weight": 12.5}
    wanted = spatial_embedding_loss(outputs, {"label_map": maps}, **options)["loss"]
    assert torch.allclose(loss, wanted, rtol=1e-5)
    slopes = [torch.autograd.grad(value, x)[0] for value, x in ((loss, ours), (wanted, theirs))]
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("function", load_alternatives(COURSE, LAB)["pull_push"], ids=lambda f: f.__name__)
def test_vectors_move_apart_whether_or_not_an_answer_has_a_gradient(function, monkeypatch):
    shown = []
    other = {"pull_push": function, "show": lambda fig, alt: shown.append(fig)}
    run_cells(monkeypatch, LAB, ["pull_push_figure"], {}, **DRAW, **other)
    titles = [ax.get_title() for ax in shown[0].axes]
    plt.close(shown[0])
    assert titles[0].startswith("step 0: pull 1.12") and titles[2] == "step 120: pull 0.00, push 0.00"


def average_precision_50(names):
    """Area under precision and recall at IoU 0.5; the score of a cell is its best seed."""
    scores, matched, number = [], [], 0
    for channels, answer, truth in zip(names["outputs"], names["found"], names["new_maps"], strict=True):
        seed = names["read"](channels)[2]
        best = torch.tensor([float(seed[answer == label].max()) for label in range(1, int(answer.max()) + 1)])
        order = best.argsort(descending=True, stable=True)
        matched.append(match_detections(label_map_iou(answer, truth)[order])[0] >= 0)
        scores.append(best[order])
        number += len(truth.unique()) - 1
    return average_precision_area(*precision_recall_curve(torch.cat(scores), torch.cat(matched), number))


@pytest.mark.prove
@pytest.mark.parametrize("learned", [False, True], ids=["pixels", "learned"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_net_finds_cells_that_touch(seed, learned, monkeypatch, capsys):
    changes = {"torch.manual_seed(0)": f"torch.manual_seed({seed})", "LEARNED = False": f"LEARNED = {learned}"}
    names = run_cells(monkeypatch, LAB, ("channels", "loss", "data", "train", "train_score"), changes, **DRAW)
    (plain, _), (ours, strict) = names["scores"].values()
    area = average_precision_50(names)
    with capsys.disabled():
        centre = "learned centre" if learned else "centre of the pixels"
        print(f"cells, seed {seed}, {centre}: accuracy {ours:.3f} at IoU 0.5, {strict:.3f} at 0.75; ", end="")
        print(f"average precision {area:.3f}; watershed {plain:.3f}")
    assert min(ours, area) >= 0.65 and ours - plain >= 0.15
