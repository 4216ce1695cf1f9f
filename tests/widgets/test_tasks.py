"""The widget of chapter 1: its outputs and its pictures, without a slider."""

from __future__ import annotations

import pytest
import torch

from segedu.datasets.street import CLASSES, THINGS, draw_street
from segedu.teaching.widgets import tasks


@pytest.fixture(scope="module")
def scene():
    return draw_street(tasks.SCENE, tasks.SIZE)


def test_the_default_scene_shows_what_the_page_speaks_of(scene):
    """Several cars, more than one class of things, and at least three classes of stuff."""
    labels = [CLASSES[k] for k in scene["labels"].tolist()]
    assert labels.count("car") >= 3 and len(set(labels)) >= 2
    assert sum(not s["isthing"] for s in scene["segments_info"]) >= 3


def test_answers_hold_the_arrays_of_the_contracts(scene):
    assert tasks.task_output("classification", scene)["label"] in THINGS
    assert set(tasks.task_output("detection", scene)) == {"boxes", "labels"}
    assert set(tasks.task_output("instance", scene)) == {"masks", "labels"}
    assert tasks.task_output("semantic", scene)["semantic"] is scene["semantic"]
    assert set(tasks.task_output("panoptic", scene)) == {"panoptic_seg", "segments_info"}
    with pytest.raises(ValueError, match="^task is 'depth', expected one of classification"):
        tasks.task_output("depth", scene)


def test_the_one_label_is_the_thing_with_most_pixels(scene):
    counts = {k: int((scene["semantic"] == k).sum()) for k in THINGS}
    assert counts[tasks.task_output("classification", scene)["label"]] == max(counts.values())


def test_a_scene_without_things_is_labelled_by_its_stuff(scene):
    semantic = torch.full((64, 64), CLASSES.index("road"))
    assert CLASSES[tasks.task_output("classification", {"semantic": semantic})["label"]] == "road"


def test_words_say_shape_and_number(scene):
    count = len(scene["labels"])
    assert tasks.describe("detection", scene) == f"boxes ({count}, 4) and {count} labels"
    assert tasks.describe("semantic", scene) == "a class for each pixel, (160, 256)"
    assert f"table of {len(scene['segments_info'])}" in tasks.describe("panoptic", scene)


def test_every_segment_has_a_name(scene):
    words = tasks._panoptic_names(scene, tasks.STREET)
    assert set(words) == set(scene["panoptic_seg"].unique().tolist()) - {0}
    stuff = [words[s["id"]] for s in scene["segments_info"] if not s["isthing"]]
    assert all(name in CLASSES for name in stuff)


def test_other_scenes_bring_their_own_classes():
    categories = tasks.Categories(("paper", "text"), (1,))
    scene = {"semantic": torch.tensor([[0, 0, 0], [1, 255, 0]]), "labels": torch.tensor([1])}
    assert tasks.task_output("classification", scene, categories) == {"label": 1}
    labels, words = tasks._semantic_labels(scene, categories)
    assert labels.tolist() == [[2, 2, 2], [1, 0, 2]] and words == {1: "text", 2: "paper"}


def test_five_ways_draws_six_panels(scene):
    fig, alt = tasks.five_ways(scene)
    assert len(fig.axes) == 6 and all(task in alt for task in tasks.TASKS)


def test_pictures_have_alt_text(monkeypatch):
    shown = []
    monkeypatch.setattr(tasks, "show", lambda fig, alt: shown.append(alt))
    for seed in (0, 4):
        for task in tasks.TASKS:
            tasks.draw_task(task, seed)
    assert len(set(shown)) == 10 and all("synthetic street" in alt for alt in shown)


def test_static_frames_are_drawn(monkeypatch):
    shown = []
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    monkeypatch.setattr(tasks, "show", lambda fig, alt: shown.append(alt))
    tasks.explorer()
    assert len(shown) == 5 and len(set(shown)) == 5
