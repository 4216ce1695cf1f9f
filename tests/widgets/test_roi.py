"""The widget of chapter 14 draws the locations and points that RoIPool and RoIAlign read, and only RoIPool jumps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from segedu.teaching.exercises.lab14_top_down.roi_align import roi_align
from segedu.teaching.widgets import roi as widget

SHIFTS = torch.arange(*widget.SHIFTS, 0.1)
STRIDES = widget.STRIDES


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize("stride", STRIDES)
def test_the_locations_drawn_are_those_that_are_pooled(stride):
    features = widget.scene().features[stride][0, 0]
    for box, values in zip(widget.shifted_boxes(SHIFTS) / stride, widget.roi_pool_values(SHIFTS, stride), strict=True):
        x1, y1, x2, y2 = box.tolist()
        for (i, rows), (j, columns) in itertools.product(
            enumerate(widget.pool_bins(y1, y2)), enumerate(widget.pool_bins(x1, x2))
        ):
            assert values[i, j] == features[slice(*rows), slice(*columns)].max()


@pytest.mark.parametrize(("stride", "points"), list(itertools.product(STRIDES, (1, 2, 4))))
def test_values_are_those_of_the_exercise(stride, points):
    features, boxes = widget.scene().features[stride][0], widget.shifted_boxes(SHIFTS)
    expected = roi_align(features, boxes, (widget.BINS, widget.BINS), 1 / stride, points)[:, 0]
    assert torch.allclose(widget.roi_align_values(SHIFTS, stride, points, True), expected, atol=1e-5)


@pytest.mark.parametrize("points", (1, 2, 3))
def test_the_points_drawn_are_those_that_are_read(points):
    """On a map that rises by 1 per location, the mean of a bin is the mean of its points, less 0.5 for the centres."""
    ramp = torch.arange(16.0).expand(1, 16, 16)
    for x1, _, x2, _ in (widget.shifted_boxes(SHIFTS[::10]) / 8).tolist():
        read = roi_align(ramp, torch.tensor([[x1, 2.0, x2, 5.0]]), (1, widget.BINS), 1.0, points)[0, 0, 0]
        drawn = widget.align_points(x1, x2, points).reshape(widget.BINS, points).mean(axis=1)
        assert np.allclose(read.numpy(), drawn - 0.5, atol=1e-5)


@pytest.mark.parametrize("stride", STRIDES)
def test_pooled_values_stand_still_and_jump_while_averages_move_a_little(stride):
    def change(values):
        return (values[1:] - values[:-1]).abs().amax(dim=(1, 2))

    steps = torch.arange(*widget.SHIFTS, widget.NUDGE)
    pool, align = change(widget.roi_pool_values(steps, stride)), change(widget.roi_align_values(steps, stride, 2, True))
    assert (pool == 0).float().mean() > 0.6 and pool.max() > 0.09
    assert (align > 0).all() and align.max() < 0.03 and 5 * align.max() < pool.max()


def test_without_aligned_all_is_read_half_a_location_further_to_the_right_and_down():
    shifted = widget.roi_align(
        widget.scene().features[8], [widget.shifted_boxes(SHIFTS) + 4], widget.BINS, 1 / 8, 2, aligned=True
    )
    assert torch.allclose(widget.roi_align_values(SHIFTS, 8, 2, False), shifted[:, 0], atol=1e-5)


@pytest.mark.parametrize(("shift", "stride"), [(1.0, 8), (-1.3, 16), (-8.0, 4)])
def test_the_picture_says_what_changes(shown, shift, stride):
    widget.draw_regions(shift=shift, stride=stride)
    fig, alt = shown[0]
    two = torch.tensor([shift, shift + widget.NUDGE])
    for ax, values in zip(
        fig.axes[-2:], (widget.roi_pool_values(two, stride), widget.roi_align_values(two, stride, 2, True)), strict=True
    ):
        largest = f"up to {(values[1] - values[0]).abs().max():.3f}"
        assert largest in ax.get_title() and largest in alt
        assert [text.get_text().split()[0] for text in ax.texts] == [f"{value:.2f}" for value in values[0].flatten()]


def test_the_first_frame_is_a_jump_of_one_and_not_of_the_other(shown):
    widget.draw_regions(**widget.FRAMES[0])
    titles = [ax.get_title() for ax in shown[0][0].axes[-2:]]
    assert titles == [
        f"{name}: after 0.3 pixels,\nchanges of up to {change}"
        for name, change in (("RoIPool", 0.167), ("RoIAlign", 0.006))
    ]


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len(shown) == len(widget.FRAMES)
    assert len({fig.axes[-1].get_title() + alt for fig, alt in shown}) == len(widget.FRAMES)
