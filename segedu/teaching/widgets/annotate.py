"""A tool for labelling images in a notebook with SAM: click, keep, undo, export to COCO or CVAT (chapter 16).

    from segedu.weights import load
    from segedu.teaching.widgets.annotate import annotate

    tool = annotate({"street.png": image}, ["background", "person", "car"], load("shapes_sam"))
    tool.work.save("street.json")

It works in JupyterLab and in Colab, with the mouse or with the keyboard alone, and needs no download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor

from segedu.promptable.sam.sam import SAM
from segedu.teaching.widgets.annotation import Annotation
from segedu.teaching.widgets.explore import is_live
from segedu.teaching.widgets.sam_picture import REFUSED, STYLE, browser_module, png_url, tint
from segedu.viz import gallery, overlay, show
from segedu.weights.own.shapes_sam import centre

FILES = {"coco": "instances.json", "cvat": "annotations.xml"}
START = "Click on an object, or drag a box around it."


class Annotate(anywidget.AnyWidget):
    """The widget; `work` is the current `Annotation`, which other cells can use at any time."""

    _esm = browser_module("annotate")
    _css = STYLE
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    number = traitlets.Int(0).tag(sync=True)  # of the open image
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    box = traitlets.List().tag(sync=True)
    objects = traitlets.List().tag(sync=True)  # label, pixels, and the position of its number
    status = traitlets.Unicode().tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)  # a counter, so that repeating a sentence is also sent as an update

    def __init__(self, work: Annotation) -> None:
        super().__init__(classes=work.classes)
        self.work = work
        self.show(START)
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, message: Any, buffers: Any) -> None:
        """Handle a message of the user interface. The answer is a picture and a sentence, never a traceback."""
        try:
            text = self._run_action(dict(message))
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            text = f"{REFUSED} {error}"
        self.show(text)

    def _run_action(self, message: dict[str, Any]) -> str:
        action = message["action"]
        if action in ("click", "draw_box", "next_mask", "clear"):
            return self._prompt(action, message)
        if action in ("keep", "relabel", "remove", "remove_last"):
            return self._change(action, message)
        if action == "undo":
            return "Undone." if self.work.undo() else "There is nothing to undo."
        if action == "redo":
            return "Redone." if self.work.redo() else "There is nothing to redo."
        if action == "go":
            return self._go(int(message["by"]))
        if action == "export":
            return self._export(str(message["kind"]), message.get("view"))
        raise ValueError(f"action is {action!r}, expected an action of the tool")

    def _prompt(self, action: str, message: dict[str, Any]) -> str:
        work, state_before = self.work, self.work.state
        if message.get("number", state_before.image) != state_before.image:  # clicked before the new image was shown
            raise ValueError("another image has been opened in the meantime. Repeat it on this image.")
        if action == "click":
            work.click(float(message["x"]), float(message["y"]), bool(message["positive"]))
        elif action == "draw_box":
            work.draw_box(*(float(v) for v in message["corners"]))
        elif action == "next_mask":
            work.next_mask()
            if work.state is state_before and work.mask is not None:
                return "SAM predicts one mask for these prompts. Add a click where it is wrong."
        else:
            work.clear()
        state, mask = work.state, work.mask
        if mask is None:
            return START
        is_ambiguous = len(state.scores) > 1
        which = f"mask {state.choice + 1} of {len(state.scores)}, " if is_ambiguous else ""
        other_options = (
            ", look at the next mask, or click where this one is wrong"
            if is_ambiguous
            else ", or click where it is wrong"
        )
        advice = f"Keep it{other_options}." if mask.any() else "The mask is empty: undo, or use other prompts."
        return f"{int(mask.sum())} pixels, {which}SAM predicts an IoU of {state.scores[state.choice]:.2f}. {advice}"

    def _change(self, action: str, message: dict[str, Any]) -> str:
        work = self.work
        if action == "keep":
            work.keep(int(message["label"]))
            return f"Kept: {work.classes[int(message['label'])]}. Continue with the next object or the next image."
        if action == "relabel":
            index, label = int(message["index"]), int(message["label"])
            work.relabel(index, label)
            return f"The class of object {index + 1} is now {work.classes[label]}."
        if action == "remove_last" and not work.kept:
            raise ValueError("there is no object to remove")
        work.remove(int(message["index"]) if action == "remove" else len(work.kept) - 1)
        return "Removed. Undo restores it."

    def _go(self, step: int) -> str:
        work, state_before = self.work, self.work.state
        work.go(state_before.image + step)
        if work.state is state_before:
            return "There is no other image."
        return f"{START} (The last mask was not kept. Undo restores it.)" if state_before.masks is not None else START

    def _export(self, file_format: str, view: Any) -> str:
        text = self.work.as_text(file_format)
        count = sum(len(kept) for kept in self.work.state.kept)
        self.send(
            {"file": FILES[file_format], "text": text, "view": view}
        )  # only the view that sent the request downloads it
        objects = f"{count} object{'' if count == 1 else 's'}"
        return (
            f"{FILES[file_format]}, with {objects} of {len(self.work.names)} image(s), is in the browser's downloads."
        )

    def show(self, text: str) -> None:
        """Show the state of `work`, with a sentence below the picture; call it after changes from another cell."""
        work = self.work
        heading = f"Image {work.state.image + 1} of {len(work.names)}, {work.names[work.state.image]}. "
        with self.hold_sync():
            self.number = work.state.image
            self.height, self.width = (int(side) for side in work.image.shape[1:])
            self.picture = draw_png(work)
            self.points = [list(point) for point in work.state.points]
            self.box = list(work.state.box or ())
            self.objects = describe_objects(work)
            self.status = heading + text
            self.answered += 1


def describe_objects(work: Annotation) -> list[dict[str, Any]]:
    """Describe the objects of the open image for the list and for their numbers in the picture.

    Returns:
        For each object `label`, `pixels`, and `at`, the pixel (x, y) furthest from the outline of its visible part.
    """
    objects, covered = [], torch.zeros(work.image.shape[1:], dtype=torch.bool)
    for one in reversed(work.kept):  # the last one is on top
        visible = one.mask & ~covered
        visible = visible if visible.any() else one.mask
        rows, columns = (visible.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        x, y = centre(visible[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]).tolist()
        objects.append({"label": one.label, "pixels": int(one.mask.sum()), "at": [x + left, y + top]})
        covered |= one.mask
    return objects[::-1]


def draw_png(work: Annotation) -> str:
    """Draw the open image with the kept objects and, in yellow with a white outline, SAM's mask, as a PNG data URL."""
    label_map = np.zeros(work.image.shape[1:], np.int32)
    for number, one in enumerate(work.kept, start=1):
        label_map[one.mask.numpy()] = number
    picture = np.asarray(overlay(work.image, label_map))
    return png_url(picture if work.mask is None else tint(picture, work.mask.numpy()))


def annotate(
    images: Mapping[str, Tensor],
    classes: Sequence[str],
    model: SAM,
    kept: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Annotate:
    """Open the tool; the returned widget is shown if it is the last value of a cell. For the errors see `Annotation`.

    Args:
        images: (3, H, W) in [0, 1] by file name, as exports will name them.
        classes: `classes[label]`, the background first.
        model: a SAM, such as `segedu.weights.load("shapes_sam")`.
        kept: initial instances by file name, such as those of a detector and SAM, to be corrected.
    """
    return Annotate(Annotation(model, images, classes, kept))


def open_tool(
    images: Mapping[str, Tensor],
    classes: Sequence[str],
    model: SAM,
    kept: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Annotation:
    """Open the tool in a live notebook; elsewhere, show a picture of its first image. Arguments as in `annotate`.

    Returns:
        The annotation, which other cells can use at any time.
    """
    work = Annotation(model, images, classes, kept)
    if is_live():
        from IPython.display import display

        display(Annotate(work))
        return work
    masks = torch.stack([item.mask for item in work.kept]) if work.kept else None
    listed = "; ".join(f"{number} {work.classes[item.label]}" for number, item in enumerate(work.kept, start=1))
    title = f"{work.names[0]}: {listed or 'no object'}"
    show(gallery([work.image], [masks], numbers=True, width=3.5), alt=f"What the annotation tool shows first, {title}.")
    return work
