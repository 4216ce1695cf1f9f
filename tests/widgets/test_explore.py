"""The explorer: static frames without a kernel; labelled controls, or an explorer in the browser, with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segedu.teaching.widgets.explore import explore, explore_in_browser, is_live, sliders

ROOT = Path(__file__).resolve().parents[2]


def drawn(depth: int = 3, padding: bool = False, shape: str = "disc") -> None:
    print(f"drawn {depth} {padding} {shape}")


def test_static_frames_are_drawn_in_order_with_captions(monkeypatch, capsys):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    explore(drawn, static=[{"depth": 2}, {"depth": 5, "padding": True}], depth=(1, 5), padding=False)
    assert capsys.readouterr().out.splitlines() == [
        "drawn 2 False disc",
        "depth = 2",
        "drawn 5 True disc",
        "depth = 5, padding = True",
    ]


def test_labels_stand_in_captions(monkeypatch, capsys):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    explore(drawn, static=[{"depth": 2}], labels={"depth": "number of poolings"}, depth=(1, 5))
    assert "number of poolings = 2" in capsys.readouterr().out


def test_live_controls_are_labelled_start_at_the_defaults_and_redraw():
    calls = []

    def draw(depth: int = 3, shape: str = "disc") -> None:
        calls.append((depth, shape))

    words = {"depth": "number of poolings", "shape": "shape"}
    depth, shape, _ = sliders(draw, {"depth": (1, 5, 1), "shape": ["disc", "box"]}, words).children
    assert (depth.description, shape.description) == ("number of poolings", "shape")
    assert (depth.value, shape.value) == (3, "disc")
    assert depth.continuous_update is False
    depth.value = 4
    shape.value = "box"
    assert calls == [(3, "disc"), (4, "disc"), (4, "box")]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"static": [], "depth": (1, 5)}, "static has no frame"),
        ({"static": [{"depht": 1}], "depth": (1, 5)}, r"static\[0\]: .*unexpected keyword argument 'depht'"),
        ({"static": [{"depth": 1}], "depht": (1, 5)}, "controls: .*unexpected keyword argument 'depht'"),
    ],
)
def test_what_does_not_fit_is_said(kwargs, words):
    with pytest.raises(ValueError, match=words):
        explore(drawn, **kwargs)


def test_frames_are_the_same_for_an_explorer_in_the_browser(monkeypatch, capsys):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    frames, labels = [{"depth": 2}, {"depth": 5, "padding": True}], {"depth": "number of poolings"}
    explore(drawn, static=frames, labels=labels, depth=(1, 5))
    expected = capsys.readouterr().out
    explore_in_browser(drawn, "boxes", static=frames, labels=labels)
    assert capsys.readouterr().out == expected != ""


def test_an_explorer_in_the_browser_draws_nothing_in_the_kernel(monkeypatch, capsys):
    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *widgets: shown.extend(widgets))
    explore_in_browser(drawn, "boxes", "nms", static=[{"depth": 2}])
    assert ["FIXED" in widget.explorer for widget in shown] == [True, False] and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="name is 'boxen', expected one of"):
        explore_in_browser(drawn, "boxen", static=[{"depth": 2}])
    with pytest.raises(ValueError, match=r"static\[0\]: .*unexpected keyword argument 'depht'"):
        explore_in_browser(drawn, "boxes", static=[{"depht": 2}])


def test_a_control_that_makes_no_widget_is_refused():
    with pytest.raises(ValueError, match="controls: depth=None makes no control"):
        sliders(drawn, {"depth": None}, {"depth": "depth"})


@pytest.mark.parametrize(("wish", "live"), [("static", False), ("live", True)])
def test_the_variable_decides(monkeypatch, wish, live):
    monkeypatch.setenv("SEGEDU_WIDGETS", wish)
    assert is_live() is live


def test_an_unknown_wish_is_refused(monkeypatch):
    monkeypatch.setenv("SEGEDU_WIDGETS", "dynamic")
    with pytest.raises(ValueError, match="SEGEDU_WIDGETS is 'dynamic'"):
        is_live()


def test_without_a_kernel_nothing_is_live(monkeypatch):
    monkeypatch.delenv("SEGEDU_WIDGETS", raising=False)
    assert is_live() is False


def test_importing_it_does_not_import_ipywidgets_or_torch():
    code = (
        "import sys, segedu.teaching.widgets.explore; "
        "print([m for m in ('torch', 'ipywidgets', 'anywidget') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
