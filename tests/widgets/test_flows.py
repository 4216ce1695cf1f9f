"""The flows widget moves pixels as Cellpose does, and all pixels of a cell meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.instance.cellpose.flows import masks_from_flows
from segedu.metrics.instance import instance_accuracy
from segedu.teaching.widgets import flows as widget


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


def test_the_scenes_are_what_their_names_say():
    pieces = {scene: ndimage.label(widget.draw_scene(scene).numpy() > 0)[1] for scene in widget.SCENES}
    cells = {scene: int(widget.draw_scene(scene).max()) for scene in widget.SCENES}
    assert pieces == {widget.ROUND: 3, widget.TOUCHING: 1, widget.BENT: 1}
    assert cells == {widget.ROUND: 3, widget.TOUCHING: 3, widget.BENT: 1}
    bent = widget.draw_scene(widget.BENT) > 0
    middle = bent.nonzero().double().mean(dim=0).round().long()
    assert not bent[tuple(middle)]  # the mean of its pixels lies outside of it


@pytest.mark.parametrize("scene", widget.SCENES)
def test_in_the_end_each_cell_is_one_group_of_its_own(scene):
    label_map = widget.draw_scene(scene)
    ends, owners = widget.particles(scene, widget.LAST_STEP), label_map[label_map > 0]
    places = [ends[:, owners == label].long().unique(dim=1) for label in range(1, int(label_map.max()) + 1)]
    assert all(place.shape[1] <= 2 for place in places)
    assert len(torch.cat(places, dim=1).unique(dim=1)[0]) == sum(place.shape[1] for place in places)
    found = masks_from_flows(widget.flow_of(scene), label_map > 0, max_size_fraction=1.0)
    assert instance_accuracy(found, label_map, 0.99) == 1


@pytest.mark.parametrize("scene", widget.SCENES)
def test_a_step_is_at_most_one_pixel_long_and_the_first_is_the_flow(scene):
    before, first, later = (widget.particles(scene, step) for step in (0, 1, 2))
    inside = widget.draw_scene(scene) > 0
    assert torch.equal(before, inside.nonzero().T.float())
    assert torch.allclose(first - before, widget.flow_of(scene)[:, inside], atol=1e-5)
    assert float((later - first).norm(dim=0).max()) < 1.001


def test_the_picture_shows_the_points_and_counts_them(shown):
    widget.draw_flows(6, widget.TOUCHING)
    ((fig, alt),) = shown
    label_map, ends = widget.draw_scene(widget.TOUCHING), widget.particles(widget.TOUCHING, 6)
    drawn = [np.asarray(c.get_offsets()) for c in fig.axes[1].collections if len(c.get_offsets()) > 1]
    assert sum(map(len, drawn)) == int((label_map > 0).sum()) == ends.shape[1]
    places = len({tuple(place) for place in ends.T.long().tolist()})
    assert f"{ends.shape[1]} pixels at {places} positions, 3 sinks of 3 cells" in alt
    assert f"{places} positions" in fig.get_suptitle()


def test_words_fit_the_numbers(shown):
    widget.draw_flows(1, widget.BENT)
    widget.draw_flows(widget.LAST_STEP, widget.BENT)
    assert "after 1 step:" in shown[0][1] and "1 sink of 1 cell." in shown[1][1]


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES) == 4


def test_another_scene_is_refused():
    with pytest.raises(ValueError, match="scene is 'square', expected one of round cells"):
        widget.draw_scene("square")
