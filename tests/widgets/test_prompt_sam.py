"""The picture to click on: each message changes the prompts, and SAM's masks for them are shown or refused in a sentence."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from promptable.small_sam import small

from segedu.teaching.widgets import prompts as sam
from segedu.teaching.widgets.prompt_sam import START, PromptSAM

CELL = {"x": 33, "y": 33}  # a cell of a chain


@pytest.fixture
def widget(monkeypatch) -> PromptSAM:
    """The widget on the scene of cells, with a SAM of random weights."""
    model = small().eval()
    monkeypatch.setattr(sam, "model", lambda: model)
    sam.embedding.cache_clear()
    widget = PromptSAM()
    assert say(widget, action="open", name="cells") == START
    yield widget
    sam.embedding.cache_clear()


def say(widget: PromptSAM, **message: Any) -> str:
    widget._on_message(widget, message, [])
    return widget.status


def pixels(url: str) -> np.ndarray:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def shown(widget: PromptSAM) -> tuple:
    return widget.scene, widget.points, widget.box, widget.picture, widget.masks


def test_a_click_shows_four_masks_and_marks_the_chosen_one(widget) -> None:
    before = widget.picture
    text = say(widget, action="click", **CELL, positive=True)
    prediction = widget.prediction
    assert widget.points == [[33.0, 33.0, 1]] and widget.box == [] and list(prediction.targets) == ["object", "clump"]
    assert [entry["name"] for entry in widget.masks] == list(sam.NAMES)
    assert [entry["chosen"] for entry in widget.masks].index(True) == prediction.chosen > 0
    assert text.startswith(
        f"One click is ambiguous. Of the three masks for it, mask {prediction.chosen} has the highest"
    )
    for index, entry in enumerate(widget.masks):
        iou, kind = sam.best_overlap(prediction, index)
        assert entry["lines"] == [
            f"predicted IoU {prediction.predicted_ious[index]:.2f}",
            f"IoU with the {kind} {iou:.2f}",
        ]
        assert pixels(entry["picture"]).shape == (4 * 64, 4 * 64, 3)
    tinted = (pixels(widget.picture) != pixels(before)).any(axis=2)
    assert np.array_equal(tinted, prediction.masks[prediction.chosen])


def test_more_prompts_are_clear_and_come_in_the_order_of_training(widget) -> None:
    say(widget, action="click", **CELL, positive=True)
    text = say(widget, action="click", x=23, y=18, positive=False)
    assert text.startswith("A box, or more than one click, is a clear prompt, so the fourth mask is chosen.")
    expected = sam.segment("cells", torch.tensor([[33.0, 33.0], [23.0, 18.0]]), ["this", "not this"])
    assert np.array_equal(widget.prediction.masks, expected.masks) and widget.prediction.clicks == expected.clicks
    say(widget, action="draw_box", corners=[40, 41, 20.5, 18])
    assert widget.box == [20.5, 18, 40, 41] and len(widget.points) == 2 and widget.prediction.chosen == 0
    assert widget.prediction.box.tolist() == [21, 18.5, 40.5, 41.5]  # edges of pixels


def test_a_box_means_the_object_whose_box_fits_it(widget) -> None:
    objects = sam.scene("cells").targets["object"].numpy()
    for mask in objects[:2]:
        rows, columns = np.nonzero(mask)
        corners = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        assert "no object" not in say(widget, action="draw_box", corners=[float(value) for value in corners])
        assert np.array_equal(widget.prediction.targets["object"], mask)
    assert "There is no object that these prompts mean" in say(widget, action="draw_box", corners=[60, 0, 62, 2])
    assert [len(entry["lines"]) for entry in widget.masks] == [1] * 4


def test_every_step_can_be_undone(widget) -> None:
    steps = [
        {"action": "click", **CELL, "positive": True},
        {"action": "click", "x": 0, "y": 0, "positive": False},
        {"action": "draw_box", "corners": [1, 1, 30, 30]},
        {"action": "clear"},
        {"action": "click", "x": 63.5, "y": 63.5, "positive": True},
        {"action": "open", "name": "street"},
        {"action": "click", "x": 80, "y": 50, "positive": True},
    ]
    states = [shown(widget)]
    for step in steps:
        say(widget, **step)
        states.append(shown(widget))
        assert states[-1] != states[-2]
    for state in states[-2::-1]:
        assert say(widget, action="undo").startswith("Undone.")
        assert shown(widget) == state
    assert say(widget, action="undo").startswith("Undone.") and widget.scene == "shapes"  # the first scene
    assert say(widget, action="undo") == "There is nothing to undo."


def test_what_changes_nothing_is_no_step(widget) -> None:
    answered = widget.answered
    assert say(widget, action="clear") == START and say(widget, action="open", name="cells") == START
    assert widget.answered == answered + 2 and len(widget._past) == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {"action": "click", "x": 64, "y": 3, "positive": True},
            r"\(64.0, 3.0\) is outside the image of 64 x 64 pixels",
        ),
        ({"action": "click", "x": float("nan"), "y": 3, "positive": True}, "is outside the image"),
        ({"action": "click", "x": 3, "y": 3, "positive": True, "scene": "street"}, "another scene has been opened"),
        ({"action": "draw_box", "corners": [3, 3, 3, 9]}, "the box has no area"),
        ({"action": "draw_box", "corners": [3, "x", 3, 9]}, "could not convert"),
        ({"action": "open", "name": "moon"}, "name is 'moon', expected one of shapes, cells, street"),
        ({"action": "format the disk"}, "action is 'format the disk', expected an action of the widget"),
        ({}, "action is None"),
    ],
)
def test_bad_messages_are_refused_in_a_sentence_and_change_nothing(widget, message, words) -> None:
    say(widget, action="click", **CELL, positive=True)
    before, steps = shown(widget), len(widget._past)
    assert say(widget, **message).startswith("Not done: ")
    assert re.search(words, widget.status)
    assert shown(widget) == before and len(widget._past) == steps


def test_a_model_that_breaks_changes_nothing(widget, monkeypatch) -> None:
    say(widget, action="click", **CELL, positive=True)
    before = shown(widget)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sam.model(), "decode", broken)
    assert say(widget, action="click", x=3, y=4, positive=True) == "Not done: out of memory"
    assert shown(widget) == before


def test_the_chapter_s_widget_is_this_one_in_a_live_notebook(widget, monkeypatch) -> None:
    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    displayed: list[Any] = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    monkeypatch.setattr(sam, "show", lambda fig, alt: pytest.fail("a static frame in a live notebook"))
    sam.explorer()
    assert len(displayed) == 1 and isinstance(displayed[0], PromptSAM)
