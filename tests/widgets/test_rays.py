"""The rays widget draws the polygon of StarDist's targets, and reports the pixels that it misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.draw import polygon as fill

from segedu.instance.stardist import object_probability, star_distances
from segedu.teaching.widgets import rays as widget


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize("cell", widget.CELLS)
def test_each_cell_is_one_piece_without_holes_clear_of_the_border(cell):
    mask = widget.cell_mask(cell).numpy()
    assert ndimage.label(mask)[1] == 1 and (ndimage.binary_fill_holes(mask) == mask).all()
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


@pytest.mark.parametrize("cell", widget.CELLS)
def test_the_pixel_lies_deep_in_the_cell(cell):
    mask = widget.cell_mask(cell)
    y, x = widget.middle_pixel(mask)
    assert mask[y, x] and object_probability(mask.int())[y, x] > 0.8


@pytest.mark.parametrize("cell", widget.CELLS)
@pytest.mark.parametrize("n_rays", [5, 32])
def test_the_corners_lie_as_far_away_as_the_rays_reach_and_the_pixels_fill_them(cell, n_rays):
    mask = widget.cell_mask(cell)
    corners, covered, iou = widget.star_fit(cell, n_rays)
    y, x = widget.middle_pixel(mask)
    lengths = (corners - torch.stack([y, x])).norm(dim=1)
    assert torch.allclose(lengths.float(), star_distances(mask.int(), n_rays)[:, y, x], atol=1e-4)
    ours, theirs = covered.numpy(), np.zeros(mask.shape, bool)
    theirs[fill(*corners.T.numpy(), mask.shape)] = True
    assert (ours != theirs).sum() <= 4  # pixels whose centre lies on the outline
    assert iou == pytest.approx((ours & mask.numpy()).sum() / (ours | mask.numpy()).sum())


def test_rays_help_a_long_cell_and_not_a_bent_one():
    few, usual, many = ({cell: widget.star_fit(cell, n)[2] for cell in widget.CELLS} for n in (8, 32, 64))
    assert few[widget.ROUND] > 0.9 and few[widget.LONG] < 0.5
    assert usual[widget.LONG] > 0.85 and usual[widget.ROUND] > 0.95
    assert many[widget.BENT] < 0.65


def test_the_picture_and_its_words_agree(shown):
    widget.draw_rays(12, widget.LONG)
    ((fig, alt),) = shown
    mask, (_, covered, iou) = widget.cell_mask(widget.LONG), widget.star_fit(widget.LONG, 12)
    assert f"IoU {iou:.2f}" in fig.get_suptitle() and f"IoU {iou:.2f}" in alt
    assert f"{int((mask & ~covered).sum())} of {int(mask.sum())} pixels missed" in alt
    assert len(fig.axes[0].lines) == 12 + 2  # rays, outline, the pixel
    names = [text.get_text() for text in fig.axes[1].get_legend().get_texts()]
    assert names[1] == f"missed: {int((mask & ~covered).sum())}"


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES) == 4


def test_another_cell_is_refused():
    with pytest.raises(ValueError, match="cell is 'square', expected one of round"):
        widget.cell_mask("square")
