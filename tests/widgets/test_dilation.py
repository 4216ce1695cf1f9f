"""The dilation widget shows the pixels that torch's convolutions really read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segedu.ops.convolution import receptive_field
from segedu.teaching.widgets import dilation as widget


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


ALL = list(itertools.product((1, 2, 3, 6), (1, 2, 4), (widget.SAME, widget.DOUBLED, widget.GROWING)))


@pytest.mark.parametrize(("rate", "layers", "pattern"), ALL)
def test_paths_are_those_of_a_stack_of_convolutions(rate, layers, pattern):
    rates = widget.rates_of(rate, layers, pattern)
    counts = widget.paths(rates)
    row = torch.zeros(1, 1, len(counts), dtype=torch.float64)
    row[..., len(counts) // 2] = 1
    for r in rates:
        row = F.conv1d(row, torch.ones(1, 1, 3, dtype=torch.float64), padding=r, dilation=r)
    assert np.array_equal(counts, row[0, 0].numpy())
    assert receptive_field([("atrous", 3, 1, r, r) for r in rates])[0] == len(counts)


def test_every_layer_has_a_rate_and_growing_ends_at_the_rate():
    for rate, layers, pattern in ALL:
        rates = widget.rates_of(rate, layers, pattern)
        assert len(rates) == layers and min(rates) >= 1
    assert widget.rates_of(6, 4, widget.GROWING)[-1] == 6


def test_one_rate_leaves_holes_and_rates_from_one_up_do_not(shown):
    widget.draw_rates(rate=2, layers=3, pattern=widget.SAME)
    widget.draw_rates(rate=1, layers=3, pattern=widget.DOUBLED)
    widget.draw_rates(rate=5, layers=3, pattern=widget.GROWING)
    titles = [fig.get_suptitle() for fig, _ in shown]
    assert "49 of 13 x 13 = 169 pixels used, 29%" in titles[0] and "receptive field 13 x 13" in titles[0]
    assert "225 of 15 x 15 = 225 pixels used, 100%" in titles[1]
    assert "361 of 19 x 19 = 361 pixels used, 100%" in titles[2]
    assert "lattices" in shown[0][1] and "without a hole" in shown[1][1]


def test_the_spots_are_what_convolutions_make_of_single_pixels(shown):
    widget.draw_rates(rate=3, layers=2, pattern=widget.SAME)
    drawn = np.asarray(shown[0][0].axes[2].images[0].get_array())
    image = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    for row, column in ((16, 16), (24, 46), (45, 29)):
        image[0, 0, row, column] = 1
    for _ in range(2):
        image = F.conv2d(image, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=3, dilation=3)
    assert np.allclose(drawn, image[0, 0].numpy())


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == 4


@pytest.mark.parametrize("rate", [1, 6])
def test_marks_of_the_image_row_do_not_cover_each_other(shown, rate):
    widget.draw_rates(rate=rate, layers=4, pattern=widget.DOUBLED)
    figure = shown[0][0]
    figure.canvas.draw()
    row = figure.axes[0]
    (left, _), (right, _) = row.transData.transform([(0, 0), (1, 0)]) * 72 / figure.dpi  # points
    taps, holes = row.collections[-2:]
    assert np.sqrt(taps.get_sizes()[0]) <= right - left
    assert np.sqrt(holes.get_sizes()[0]) + holes.get_linewidths()[0] <= right - left
