"""The slice viewer of chapter 16: the right slice, the right orientation, true proportions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from segedu.datasets.volume import CLASSES
from segedu.teaching.widgets import volume as widget


def small() -> dict:
    hu = np.arange(3 * 4 * 5, dtype=float).reshape(3, 4, 5)
    return {"hu": hu, "semantic": (hu % 3).astype(np.int64), "spacing": (6.0, 2.0, 1.0)}


@pytest.mark.parametrize(
    ("orientation", "position", "plane", "aspect", "index", "place"),
    [
        ("axial", 0, lambda a: a[0], 2.0, 0, 0.0),
        ("axial", 100, lambda a: a[2], 2.0, 2, 12.0),
        ("coronal", 100, lambda a: a[::-1, 3], 6.0, 3, 6.0),
        ("sagittal", 50, lambda a: a[::-1, :, 2], 3.0, 2, 2.0),
    ],
)
def test_the_slice(orientation, position, plane, aspect, index, place):
    one = widget.extract_slice(small(), orientation, position)
    np.testing.assert_array_equal(one.hu, plane(small()["hu"]))
    np.testing.assert_array_equal(one.labels, plane(small()["semantic"]))
    assert (one.aspect, one.index, one.offset_mm) == (aspect, index, place)


def test_bad_input():
    with pytest.raises(ValueError, match="^orientation is 'oblique', expected one of axial"):
        widget.extract_slice(small(), "oblique", 5)
    with pytest.raises(ValueError, match="^position is 101, expected"):
        widget.extract_slice(small(), "axial", 101)


def test_the_head_is_up_and_the_lungs_are_above_the_kidneys():
    one = widget.extract_slice(widget.scene(), "coronal", 62)
    rows = {name: np.flatnonzero((one.labels == CLASSES.index(name)).any(axis=1)) for name in ("lung", "kidney")}
    assert rows["lung"].size and rows["kidney"].size and rows["lung"].mean() < rows["kidney"].mean()


def test_the_windows_ends_are_black_and_white():
    for level, width in widget.WINDOWS.values():
        ends = widget.apply_window(
            np.array([level - width, level - width / 2, level, level + width / 2, 3000]), level, width
        )
        np.testing.assert_allclose(ends, [0, 0, 0.5, 1, 1])


def test_the_picture_shows_true_proportions_or_square_voxels(monkeypatch):
    figures = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: figures.append(fig))
    widget.draw_slice("coronal", 50, "bone", True, True, small(), ("a", "b", "c"))
    widget.draw_slice("coronal", 50, "bone", True, False, small(), ("a", "b", "c"))
    assert [fig.axes[0].get_aspect() for fig in figures] == [6.0, 1.0]
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == ["b", "c"]
    assert figures[0].axes[0].images[0].get_array().shape == (3, 5, 3)


@pytest.mark.parametrize("orientation", widget.ORIENTATIONS)
@pytest.mark.parametrize("name", [None, "anterior hippocampus of the left hemisphere"])
def test_the_legend_does_not_run_into_the_title(monkeypatch, orientation, name):
    figures = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: figures.append(fig))
    narrow = {"hu": np.zeros((40, 60, 12)), "semantic": np.ones((40, 60, 12), int), "spacing": (3.0, 1.0, 1.0)}
    volume, classes = (None, CLASSES) if name is None else (narrow, ("background", name))
    widget.draw_slice(orientation, volume=volume, classes=classes)
    (fig,) = figures
    fig.canvas.draw()
    title, legend = fig.axes[0].title.get_window_extent(), fig.axes[0].get_legend().get_window_extent()
    assert not legend.overlaps(title) and not legend.overlaps(fig.axes[0].get_window_extent())
    plt.close(fig)


def test_organs_tint_and_do_not(monkeypatch):
    seen = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: seen.append((fig.axes[0].images[0].get_array(), alt)))
    for show_labels in (False, True):
        widget.draw_slice(show_labels=show_labels)
    (plain, without), (tinted, words) = seen
    assert (plain[..., 0] == plain[..., 2]).all() and not (tinted[..., 0] == tinted[..., 2]).all()
    assert "no organ tinted" in without and "liver" in words and "slice 13 of 24" in words


def test_static_frames_and_their_alt_texts(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    alts = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: (alts.append(alt), plt.close(fig)))
    widget.explorer()
    assert len(alts) == 4 and len(set(alts)) == 4
    assert all("CT, " in alt and " mm from the first;" in alt for alt in alts)
    assert "coronal" in alts[2] and "voxels drawn square" in alts[3]


def test_live_controls(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    monkeypatch.setattr(widget, "show", lambda fig, alt: plt.close(fig))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    widget.explorer()
    words = [control.description for control in shown[0].children[:-1]]
    assert words == ["position along the axis, in %", "orientation", "window", "tint organs", "true proportions"]


@pytest.mark.parametrize(("shape", "step"), [(None, 5), ((101, 120, 130), 1), ((6, 40, 40), 25), ((1, 8, 8), 50)])
def test_each_step_of_the_slider_shows_another_slice(monkeypatch, shape, step):
    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    monkeypatch.setattr(widget, "show", lambda fig, alt: plt.close(fig))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    zeros = np.zeros(shape or (1, 1, 1), np.int16)
    volume = None if shape is None else {"hu": zeros, "semantic": zeros, "spacing": (3.0, 1.0, 1.0)}
    widget.explorer(volume)
    slider = shown[0].children[0]
    assert slider.step == step and slider.value == 50
    volume = widget.scene() if volume is None else volume
    for orientation, axis in widget.ORIENTATIONS.items():
        if volume["hu"].shape[axis] > 5:
            places = range(slider.min, slider.max + 1, slider.step)
            found = [widget.extract_slice(volume, orientation, place).index for place in places]
            assert len(set(found)) == len(found), orientation
