"""The sigma widget includes the pixels that lab 10's reference includes, and its two cells need two sigmas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from segedu.teaching.exercises.lab10_embeddings.gaussian_mask import gaussian_mask
from segedu.teaching.exercises.lab10_embeddings.offset_target import offset_target
from segedu.teaching.widgets import embedding as widget

WAYS = (0.0, 0.1, 0.8, 1.0)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize(("cell", "sigma", "way"), list(itertools.product(widget.CELLS, (1.0, 4.5, 11.0), WAYS)))
def test_pixels_are_those_of_the_exercise(cell, sigma, way):
    places, foreground = torch.from_numpy(widget.embeddings(way)), widget.scene().label_map > 0
    own = widget.scene().label_map == widget.CELLS[cell]
    centre = places[:, torch.from_numpy(own)].mean(dim=1)
    mask = gaussian_mask(places, centre[None], torch.full((1, 2), sigma, dtype=torch.float64).log())[0].numpy()
    assert np.array_equal(widget.gaussian_mask(cell, sigma, way), mask & foreground)


def test_offsets_are_those_of_the_exercise():
    label_map = torch.from_numpy(widget.scene().label_map)
    assert np.allclose(widget.scene().offsets, offset_target(label_map, 1.0).numpy())


def test_the_two_cells_touch_and_lie_inside_the_image():
    label_map = widget.scene().label_map
    small, large = (label_map == label for label in widget.CELLS.values())
    assert 5 * small.sum() < large.sum()
    rim = np.concatenate([label_map[[0, -1]].ravel(), label_map[:, [0, -1]].ravel()])
    assert not set(rim) & set(widget.CELLS.values())
    near = (small[1:] & large[:-1]).any() or (small[:, 1:] & large[:, :-1]).any() or (small[:-1] & large[1:]).any()
    assert near


def test_one_sigma_fails_until_pixels_point_well():
    sigmas = np.arange(0.5, 12, 0.25)

    def best(way):
        curves = [np.array([widget.iou(cell, s, way) for s in sigmas]) for cell in widget.CELLS]
        return np.minimum(*curves).max(), min(c.max() for c in curves)

    both, each = best(0.1)
    assert both < 0.7 and each > 0.95
    both, each = best(0.8)
    assert both > 0.95


@pytest.mark.parametrize("way", WAYS)
def test_a_wider_gaussian_takes_in_more(way):
    counts = [widget.gaussian_mask("small cell", s, way).sum() for s in np.arange(*widget.SIGMAS, 0.5)]
    assert (np.diff(counts) >= 0).all() and counts[-1] > counts[0]


def test_the_picture_says_what_it_shows(shown):
    widget.draw_sigma(cell="large cell", sigma=4.0, fraction=0.1)
    fig, alt = shown[0]
    mask = widget.gaussian_mask("large cell", 4.0, 0.1)
    assert f"includes {mask.sum()} of its pixels" in alt and "IoU 0.19" in alt
    assert "best IoU, one sigma: 0.62" in fig.axes[2].get_title()
    radius = fig.axes[1].patches[0].radius
    assert np.isclose(np.exp(-(radius**2) / (2 * 4.0**2)), 0.5)


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)
