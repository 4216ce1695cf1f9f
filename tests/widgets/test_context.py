"""The windows of chapter 8 show the class of their name, each from another scene."""

from __future__ import annotations

import pytest

from segedu.datasets.street import CLASSES, draw_street
from segedu.teaching.widgets import context as widget


def test_each_keyhole_lies_on_its_class_and_inside_its_scene():
    holes = widget.find_keyholes()
    assert [hole.name for hole in holes] == list(widget.TARGET_CLASSES)
    assert len({hole.seed for hole in holes}) == len(holes)
    for name, seed, row, column in holes:
        window = draw_street(seed)["semantic"][row : row + 13, column : column + 13]
        assert window.shape == (13, 13)
        assert (window == CLASSES.index(name)).float().mean() > 0.97


def test_windows_that_fit_nowhere_are_refused():
    with pytest.raises(ValueError, match="size is 95, expected windows that fit into"):
        widget.find_keyholes(95)


def test_the_picture_says_in_words_what_it_shows(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    widget.draw_keyholes()
    assert len(calls[0][0].axes) == 8
    assert "1 boat, 2 car, 3 bus, 4 building" in calls[0][1]


def test_class_maps_write_the_names_of_large_classes():
    scene = draw_street(0)
    fig = widget.class_maps({"image": scene["image"], "truth": scene["semantic"]}, columns=3)
    texts = {text.get_text() for text in fig.axes[1].texts}
    assert texts <= set(CLASSES) and len(texts) >= 3
    assert [ax.get_title() for ax in fig.axes] == ["image", "truth"]


def test_class_maps_refuse_what_is_no_map():
    with pytest.raises(ValueError, match="panels is empty"):
        widget.class_maps({})
    with pytest.raises(ValueError, match=r"panel 'x' has shape \(3,\), expected"):
        widget.class_maps({"x": draw_street(0)["image"][:, 0, 0]})
