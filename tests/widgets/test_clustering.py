"""The clustering widget shows what k-means computes, and the position weight has the effect that the page describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.teaching.widgets import clustering as widget
from segedu.unsupervised.kmeans import colour_position_features, kmeans_step


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize("photo", list(widget.PHOTOS))
def test_photographs_are_images_of_at_most_160_pixels_a_side(photo):
    image = widget.photograph(photo)
    assert image.dtype == torch.float32 and image.ndim == 3 and max(image.shape) <= 160
    assert 0 <= float(image.min()) < 0.2 and 0.8 < float(image.max()) <= 1


@pytest.mark.parametrize(("k", "weight", "colours"), [(3, 0.0, "RGB"), (5, 0.7, "Lab"), (4, 0.3, "grey")])
def test_the_labels_are_those_of_nearest_means(k, weight, colours):
    """After enough iterations hardly any pixel is nearer to another mean."""
    labels = widget.clusters("coffee", k, weight, colours)
    points = colour_position_features(widget.COLOURS[colours](widget.photograph("coffee")), weight)
    flat = labels.flatten()
    means = torch.stack([points[flat == label].mean(dim=0) for label in range(k)])
    again, _ = kmeans_step(points, means)
    assert (again == flat).float().mean() > 0.97
    counts = torch.bincount(flat, minlength=k)
    assert len(counts) == k and (counts.diff() <= 0).all()


@pytest.mark.parametrize("photo", list(widget.PHOTOS))
def test_the_place_of_a_pixel_makes_fewer_pieces(photo):
    pieces = [widget.count_regions(widget.clusters(photo, 5, weight, "RGB")) for weight in (0.0, 0.8, 2.0)]
    assert pieces[0] > 1.5 * pieces[1] and pieces[1] > 1.5 * pieces[2] and pieces[2] >= 5


def test_a_picture_shows_the_photograph_the_labels_and_mean_colours(shown):
    widget.draw_clusters("coffee", 3, 0.4, "RGB")
    (fig, alt), image, labels = *shown, widget.photograph("coffee"), widget.clusters("coffee", 3, 0.4, "RGB")
    photo, painted, means = (np.asarray(ax.images[0].get_array()) for ax in fig.axes)
    assert np.allclose(photo, image.permute(1, 2, 0)) and len(np.unique(painted.reshape(-1, 3), axis=0)) == 3
    for label in range(3):
        inside = (labels == label).numpy()
        assert np.allclose(means[inside], photo[inside].mean(axis=0), atol=1e-5)
    assert f"in {widget.count_regions(labels)} connected regions" in alt and "weight 0.4" in alt


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)
