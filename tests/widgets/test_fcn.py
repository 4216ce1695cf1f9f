"""The widget of chapter 5: its cells, its upper bound and its picture, without a slider."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segedu.datasets.street import CLASSES
from segedu.metrics.semantic import mean_iou
from segedu.semantic.fcn import bilinear_kernel
from segedu.teaching.widgets import fcn


def test_cells_hold_the_shares_of_what_counts():
    target = torch.full((5, 7), 255)
    target[:2, :3], target[2:4, 4:6] = 1, 2
    target[0, 0] = 0
    scores = fcn.pooled_target(target, 4, 3)
    assert scores.shape == (3, 2, 2)
    assert scores[:, 0, 0].tolist() == pytest.approx([1 / 6, 5 / 6, 0])
    assert scores[:, 0, 1].tolist() == [0, 0, 1]
    assert scores[:, 1].sum() == 0, "all void"


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_bringing_up_is_fcns_bilinear_kernel(stride):
    scores = torch.rand(3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edges = F.pad(scores[None], (1, 1, 1, 1), mode="replicate")  # beyond the border interpolation repeats
    kernel = bilinear_kernel(3, 2 * stride).double()
    up = F.conv_transpose2d(edges, kernel, stride=stride, padding=stride + stride // 2)[0]
    size = (5 * stride - 1, 6 * stride)
    assert (fcn.upsampled_labels(scores, stride, size) == up[:, : size[0], : size[1]].argmax(0)).double().mean() == 1


@pytest.mark.parametrize("seed", [0, 3])
def test_finer_scores_can_say_more(seed):
    target = fcn.street(seed)[1]
    scores = [
        float(mean_iou(fcn.upper_bound(target, stride, 10), target, 10, ignore_index=255))
        for stride in (32, 16, 8, 4, 2, 1)
    ]
    assert scores == sorted(scores) and scores[-1] == 1
    assert scores[0] < scores[2] - 0.1


def test_picture_says_its_numbers(monkeypatch):
    shown = []
    monkeypatch.setattr(fcn, "show", lambda fig, alt: shown.append((fig, alt)))
    fcn.draw_upper_bound()
    fcn.draw_upper_bound(stride=8, seed=1)
    assert "6 by 10 cells of 32 pixels" in shown[0][1] and "24 by 40 cells of 8 pixels" in shown[1][1]
    target = fcn.street(1)[1]
    iou = float(mean_iou(fcn.upper_bound(target, 8, 10), target, 10, ignore_index=255))
    assert f"upper bound is {iou:.2f} mean IoU" in shown[1][1]
    assert len(shown[0][0].axes) == 4


def test_colours_tell_classes_and_void_apart():
    labels = torch.arange(len(CLASSES))[None].repeat_interleave(3, 0)
    colours = {tuple(colour) for colour in fcn.class_picture(labels, lines=False)[0].round(3).tolist()}
    assert len(colours) == len(CLASSES)
    assert (fcn.class_picture(torch.full((2, 2), 255)) < 0.2).all()


def test_static_frames_fit(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    alts = []
    monkeypatch.setattr(fcn, "show", lambda fig, alt: alts.append(alt))
    fcn.explorer()
    assert len(alts) == 3 and "32 pixels" in alts[0] and "8 pixels" in alts[2]


def test_the_nets_are_steps_of_a_slider(monkeypatch):
    """JupyterLab handles the arrow keys of a drop-down list itself, but not those of a slider."""
    from ipywidgets import SelectionSlider

    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    drawn, shown = [], []
    monkeypatch.setattr(fcn, "show", lambda fig, alt: drawn.append(alt))
    monkeypatch.setattr("IPython.display.display", shown.append)
    fcn.explorer()
    first = shown[0].children[0]
    assert isinstance(first, SelectionSlider) and first.description == "stride of the scores"
    for index, stride in enumerate((32, 16, 8, 4, 2)):
        first.index = index
        assert f"cells of {stride} pixels" in drawn[-1]
