"""The annotation tool: the effect and undo of each step, saved files, and messages for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from promptable.small_sam import small
from pycocotools.coco import COCO

from segedu.datasets.cvat import from_cvat
from segedu.ops.masks import rle_decode
from segedu.teaching.widgets import annotate as module
from segedu.teaching.widgets.annotate import FILES, Annotate, annotate, describe_objects, open_tool
from segedu.teaching.widgets.annotation import STEPS, Annotation

CLASSES = ["background", "person", "car"]


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))


def work(**more: Any) -> Annotation:
    return Annotation(small(), {"a.png": picture(40, 30), "b.png": picture(25, 37)}, CLASSES, **more)


def filled() -> Annotation:
    """Two objects on the first image: whatever the weights predict, their masks are neither empty nor full."""
    done = work()
    done.click(10, 20)
    while not done.mask.any():
        done.next_mask()
    done.keep(2)
    done.draw_box(28, 30, 4, 6)
    done.click(12, 12, positive=False)
    if done.mask.any():
        done.keep(1)
    return done


def look(done: Annotation) -> tuple:
    state = done.state
    kept = [[(one.label, int(one.mask.sum())) for one in image] for image in state.kept]
    return (
        state.image,
        state.points,
        state.box,
        state.choice,
        kept,
        None if done.mask is None else done.mask.sum().item(),
    )


def test_one_click_has_three_answers_and_more_prompts_one() -> None:
    done = work()
    done.click(10, 20)
    assert len(done.state.scores) == 3 and done.mask.shape == (40, 30)
    assert done.state.choice == max(range(3), key=lambda i: done.state.scores[i])
    before = done.state.choice
    done.next_mask()
    assert done.state.choice == (before + 1) % 3
    expected = done.model.decode(
        done.model.encode(done.image[None]),
        (40, 30),
        point_coords=torch.tensor([[[10.0, 20.0], [3.0, 4.0]]]),
        point_labels=torch.tensor([[1, 0]]),
        mask_inputs=done.state.mask_logits[done.state.choice][None],
        multimask_output=False,
    )
    done.click(3, 4, positive=False)
    assert len(done.state.scores) == 1 and done.state.scores[0] == pytest.approx(expected["iou_scores"].item())
    done.draw_box(20, 30, 4, 6)
    assert done.state.box == (4, 6, 20, 30) and len(done.state.points) == 2


def test_every_step_can_be_undone_and_done_again() -> None:
    done = work()
    steps = [
        lambda: done.click(10, 20),
        done.next_mask,
        lambda: done.click(3, 3, positive=False),
        lambda: done.draw_box(1, 1, 20, 30),
        done.clear,
        lambda: done.click(12, 12),
        lambda: [done.next_mask() for _ in range(3) if not done.mask.any()],
        lambda: done.keep(1),
        lambda: done.go(1),
        lambda: done.click(5, 5),
        lambda: done.go(2),  # goes round
        lambda: done.relabel(0, 2),
        lambda: done.click(7, 7),
        lambda: done.remove(0),
    ]
    seen = [look(done)]
    for step in steps:
        step()
        if look(done) != seen[-1]:
            seen.append(look(done))
    states = len(done._past)
    for _ in range(states):
        assert done.undo()
    assert look(done) == seen[0] and not done.undo()
    again = [look(done)]
    while done.redo():
        again.append(look(done))
    assert [one for i, one in enumerate(again) if not i or one != again[i - 1]] == seen
    done.undo()
    done.clear()
    done.click(1, 1)
    assert not done.redo()  # a new step forgets what was undone


def test_a_long_day_forgets_its_first_steps_only() -> None:
    done = filled()
    for step in range(STEPS):
        done.relabel(0, 1 + step % 2)
        done.relabel(0, 2 - step % 2)
    assert sum(iter(done.undo, False)) == STEPS and len(done.kept) >= 1


def test_what_changes_nothing_is_no_step() -> None:
    done = filled()
    done.clear()
    before = len(done._past)
    done.relabel(0, done.kept[0].label)
    done.go(0)
    done.go(2)
    done.clear()
    done.next_mask()
    assert len(done._past) == before


def test_an_object_gets_another_class_and_keeps_its_place_and_the_prompts() -> None:
    done = filled()
    done.click(3, 3)
    mask, points, count = done.kept[0].mask, done.state.points, len(done.kept)
    done.relabel(0, 1)
    assert done.kept[0].label == 1 and torch.equal(done.kept[0].mask, mask)
    assert done.state.points == points and done.mask is not None and len(done.kept) == count


def test_what_is_saved_is_read_by_others(tmp_path: Path) -> None:
    done = filled()
    done.save(tmp_path / "a.json")
    done.save(tmp_path / "a.xml")
    coco, kept = COCO(tmp_path / "a.json"), done.annotated()["a.png"]
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.png"]
    assert len(coco.anns) == len(kept["labels"]) >= 1
    for annotation, label, mask in zip(coco.anns.values(), kept["labels"], kept["masks"], strict=True):
        assert annotation["category_id"] == label
        assert torch.equal(torch.from_numpy(coco.annToMask(annotation)).bool(), mask)
        assert torch.equal(rle_decode(annotation["segmentation"]), mask)
    again, classes = from_cvat((tmp_path / "a.xml").read_text())
    assert classes == CLASSES and torch.equal(again["a.png"]["masks"], kept["masks"])
    assert list(again["b.png"]["labels"]) == []
    more = work(kept=again)
    assert json.loads(more.as_text("coco")) == json.loads(done.as_text("coco"))


def test_a_failing_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = filled()
    done.save(tmp_path / "a.json")
    before = (tmp_path / "a.json").read_text()

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        done.save(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == before


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda d: d.click(30, 5), "is outside the image of 30 x 40 pixels"),
        (lambda d: d.click(float("nan"), 5), "is outside the image"),
        (lambda d: d.draw_box(1, 1, 1, 9), "expected a box with an area"),
        (lambda d: d.keep(1), "there is no mask to keep"),
        (lambda d: d.keep(3), "label is 3, expected 1 to 2"),
        (lambda d: d.remove(0), "index is 0, expected one of the 0 objects"),
        (lambda d: d.relabel(0, 1), "index is 0, expected one of the 0 objects"),
        (lambda d: d.as_text("yolo"), "file_format is 'yolo', expected 'coco' or 'cvat'"),
        (lambda d: d.save("a.txt"), "path is 'a.txt', expected a name that ends in .json"),
    ],
)
def test_bad_steps_are_refused_and_change_nothing(act: Any, words: str) -> None:
    done = work()
    before = look(done)
    with pytest.raises(ValueError, match=words):
        act(done)
    assert look(done) == before and not done.undo()


@pytest.mark.parametrize(
    ("images", "more", "error", "words"),
    [
        ({}, {}, ValueError, "images is empty"),
        ({"a": [1]}, {}, TypeError, "expected a float tensor"),
        ([torch.zeros(3, 4, 4)], {}, TypeError, "images has type list, expected a dict"),
        ({"a": torch.zeros(3, 4, 4).byte()}, {}, TypeError, r"has type torch.uint8, expected a float tensor"),
        ({"a": torch.zeros(1, 4, 4)}, {}, ValueError, r"shape \(1, 4, 4\), expected \(3, H, W\); for a grey image"),
        (
            {"a": torch.full((3, 4, 4), 255.0)},
            {},
            ValueError,
            r"has values from 255 to 255, expected values in \[0, 1\]",
        ),
        (
            {"a": torch.full((3, 4, 4), torch.nan)},
            {},
            ValueError,
            r"has values from nan to nan, expected values in \[0, 1\]",
        ),
        ({"a\n": torch.zeros(3, 4, 4)}, {}, ValueError, "expected the name of an image file"),
        ({"a": torch.zeros(3, 4, 4)}, {"classes": []}, ValueError, "expected the background and at least one class"),
        (
            {"a": torch.zeros(3, 4, 4)},
            {"classes": ["background"]},
            ValueError,
            "expected the background and at least one class",
        ),
        ({"a": torch.zeros(3, 4, 4)}, {"classes": ["background", "a", "a"]}, ValueError, "all names different"),
        ({"a": torch.zeros(3, 4, 4)}, {"classes": "cats"}, TypeError, "classes is 'cats', expected a list of names"),
        ({"a": torch.zeros(3, 4, 4)}, {"kept": {"b": {}}}, ValueError, "kept has the image 'b'"),
        (
            {"a": torch.zeros(3, 4, 4)},
            {"kept": {"a": {"labels": torch.tensor([1]), "masks": torch.ones(1, 5, 4).bool()}}},
            ValueError,
            r"masks of \(5, 4\) pixels, expected \(4, 4\)",
        ),
    ],
)
def test_bad_beginnings_are_refused(images: dict, more: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Annotation(**{"model": small(), "images": images, "classes": CLASSES, **more})


# --- the widget, without a browser --------------------------------------------------------------------------------


def test_messages_become_steps_and_sentences() -> None:
    sent: list[Any] = []
    tool = annotate({"a.png": picture(40, 30)}, CLASSES, small())
    tool.send = lambda content, buffers=None: sent.append(content)
    first = tool.picture

    def say(**message: Any) -> str:
        tool._on_message(tool, message, [])
        return tool.status

    assert (tool.width, tool.height) == (30, 40) and first.startswith("data:image/png;base64,")
    assert "SAM predicts an IoU of" in say(action="click", x=10, y=20, positive=True)
    while not tool.work.mask.any():
        say(action="next_mask")
    assert tool.picture != first and tool.points == [[10.0, 20.0, 1]]
    assert "Kept: car" in say(action="keep", label=2)
    assert tool.points == [] and len(tool.objects) == 1 and tool.objects[0]["label"] == 2
    x, y = tool.objects[0]["at"]
    assert tool.work.kept[0].mask[int(y), int(x)] and tool.objects[0]["pixels"] == tool.work.kept[0].mask.sum()
    assert (
        "The class of object 1 is now person" in say(action="relabel", index=0, label=1)
        and tool.objects[0]["label"] == 1
    )
    assert "Undone" in say(action="undo") and tool.objects[0]["label"] == 2
    assert "Undone" in say(action="undo") and tool.objects == [] and tool.points
    assert "Redone" in say(action="redo") and len(tool.objects) == 1
    answered = tool.answered
    assert "Not done: there is no mask" in say(action="keep", label=1)
    assert "Not done: there is no mask" in say(action="keep", label=1)  # the same sentence, and an answer all the same
    assert tool.answered == answered + 2
    for kind, file in FILES.items():
        assert f"{file}, with 1 object of 1 image" in say(action="export", kind=kind, view=0.25)
        assert sent[-1] == {"file": file, "text": tool.work.as_text(kind), "view": 0.25}
    assert "There is no other image" in say(action="go", by=1)
    assert "Undo restores it" in say(action="remove_last") and tool.objects == []
    assert "Not done: there is no object" in say(action="remove_last")
    assert "Not done" in say(action="remove", index=4)


def test_numbers_stand_on_what_one_sees_of_an_object() -> None:
    masks = torch.zeros(3, 40, 30, dtype=torch.bool)
    masks[0, 2:38, 2:28], masks[1, 10:38, 2:28], masks[2] = True, True, masks[1]
    given = {"a.png": {"labels": torch.tensor([1, 2, 2]), "masks": masks}}
    found = describe_objects(work(kept=given))
    assert [one["label"] for one in found] == [1, 2, 2] and [one["pixels"] for one in found] == [936, 728, 728]
    (x, y), hidden, shown = (one["at"] for one in found)
    assert masks[0, int(y), int(x)] and not masks[1, int(y), int(x)] and hidden == shown


def test_leaving_an_answer_and_asking_for_another_one_are_answered() -> None:
    tool = Annotate(work())

    def say(**message: Any) -> str:
        tool._on_message(tool, message, [])
        return tool.status

    assert "Click on an object" in say(action="next_mask")
    say(action="click", x=3, y=4, positive=True)
    say(action="click", x=9, y=9, positive=False)
    assert "SAM predicts one mask for these prompts" in say(action="next_mask")
    assert "Image 2 of 2, b.png" in say(action="go", by=1) and "was not kept. Undo restores" in tool.status
    assert "was not kept" not in say(action="go", by=1)
    steps = len(tool.work._past)
    assert "Not done: another image has been opened" in say(action="click", x=1, y=1, positive=True, number=1)
    assert len(tool.work._past) == steps and "Not done" not in say(action="click", x=1, y=1, positive=True, number=0)


def test_nothing_kept_is_a_file_that_pycocotools_reads(tmp_path: Path) -> None:
    done = work()
    done.save(tmp_path / "a.json")
    coco = COCO(tmp_path / "a.json")
    assert len(coco.imgs) == 2 and not coco.anns and [one["name"] for one in coco.cats.values()] == CLASSES[1:]
    assert work(kept=from_cvat(done.as_text("cvat"))[0]).as_text("coco") == done.as_text("coco")


def test_a_model_that_breaks_is_told_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Annotate(filled())
    count = len(tool.objects)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tool.work.model, "decode", broken)
    tool._on_message(tool, {"action": "click", "x": 3, "y": 4, "positive": True}, [])
    assert "Not done: out of memory" in tool.status and len(tool.objects) == count


@pytest.mark.parametrize(
    "message", [{"action": "format the disk"}, {}, {"action": "click"}, {"action": "draw_box", "corners": [1, "x"]}]
)
def test_odd_messages_do_no_harm(message: dict) -> None:
    tool = Annotate(work())
    tool._on_message(tool, message, [])
    assert "Not done" in tool.status and not tool.work.undo()


def test_the_tool_is_open_in_a_live_notebook_and_a_picture_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(2, 40, 30, dtype=torch.bool)
    masks[0, 2:20, 2:20], masks[1, 25:38, 5:28] = True, True
    kept = {"a.png": {"labels": torch.tensor([2, 1]), "masks": masks}}
    displayed, shown = [], []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    monkeypatch.setattr(module, "show", lambda fig, alt: shown.append(alt))
    monkeypatch.setenv("SEGEDU_WIDGETS", "live")
    done = open_tool({"a.png": picture(40, 30)}, CLASSES, small(), kept)
    assert len(displayed) == 1 and displayed[0].work is done and len(displayed[0].objects) == 2 and shown == []
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    done = open_tool({"a.png": picture(40, 30)}, CLASSES, small(), kept)
    open_tool({"a.png": picture(40, 30)}, CLASSES, small())
    assert len(displayed) == 1 and len(done.kept) == 2
    assert shown == [
        "What the annotation tool shows first, a.png: 1 car; 2 person.",
        "What the annotation tool shows first, a.png: no object.",
    ]
