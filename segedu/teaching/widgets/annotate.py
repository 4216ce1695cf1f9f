"""A tool to label images in a notebook: click, and SAM answers; keep, undo, and save for COCO or CVAT (chapter 16).

    from segedu.weights import load
    from segedu.teaching.widgets.annotate import annotate

    tool = annotate({"street.png": image}, ["background", "person", "car"], load("shapes_sam"))
    tool.work.save("street.json")

It works in JupyterLab and in Colab, with the mouse and with keys alone; nothing is fetched.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from segedu.promptable.sam.sam import SAM
from segedu.teaching.widgets.annotation import Annotation
from segedu.viz import outline, overlay
from segedu.weights.own.shapes_sam import centre

FILES = {"coco": "instances.json", "cvat": "annotations.xml"}
BEGIN = "Click on an object. Or drag a box around it."
REFUSED = "Not done:"
ASKED = np.array([0.94, 0.89, 0.26])  # the colour of the mask that nobody has kept yet
STYLE = """
.segedu-annotate { font-family: sans-serif; font-size: 14px; max-width: 660px; }
.segedu-annotate .bar { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 6px; }
.segedu-annotate button, .segedu-annotate select { font: inherit; padding: 3px 8px; }
.segedu-annotate .first { margin: 4px 0; }
.segedu-annotate canvas { cursor: crosshair; touch-action: none; max-width: 100%; height: auto; }
.segedu-annotate.busy canvas { cursor: progress; }
.segedu-annotate canvas:focus-visible { outline: 3px solid #0072B2; }
.segedu-annotate .status { min-height: 1.4em; margin: 4px 0; }
.segedu-annotate .status.refused { font-weight: bold; }
.segedu-annotate .objects { margin: 4px 0; padding-left: 2em; max-height: 12em; overflow-y: auto; }
.segedu-annotate .objects li { margin-bottom: 2px; }
"""


class Annotate(anywidget.AnyWidget):
    """The widget; `work` is what it has done so far, and can be used from other cells at any time.

    Args:
        work: images, model, classes, and what was kept.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = STYLE
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    number = traitlets.Int(0).tag(sync=True)  # of the open image
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    box = traitlets.List().tag(sync=True)
    objects = traitlets.List().tag(sync=True)  # of each: label, pixels, and where its number stands
    status = traitlets.Unicode().tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)  # counts, so that the same sentence again is an answer too

    def __init__(self, work: Annotation) -> None:
        super().__init__(classes=work.classes)
        self.work = work
        self.show(BEGIN)
        self.on_msg(self._heard)

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:
        """One wish of the person. Whatever it is, the answer is a picture and a sentence, never a traceback."""
        try:
            said = self._obey(dict(message))
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            said = f"{REFUSED} {error}"
        self.show(said)

    def _obey(self, wish: dict[str, Any]) -> str:
        action = wish["action"]
        if action in ("click", "draw_box", "next_mask", "clear"):
            return self._ask(action, wish)
        if action in ("keep", "relabel", "remove", "remove_last"):
            return self._change(action, wish)
        if action == "undo":
            return "Undone." if self.work.undo() else "There is nothing to undo."
        if action == "redo":
            return "Done again." if self.work.redo() else "There is nothing to do again."
        if action == "go":
            return self._go(int(wish["by"]))
        if action == "export":
            return self._export(str(wish["kind"]), wish.get("view"))
        raise ValueError(f"action is {action!r}, which the tool does not know")

    def _ask(self, action: str, wish: dict[str, Any]) -> str:
        work, before = self.work, self.work.state
        if wish.get("number", before.image) != before.image:  # the mouse was faster than the change of the image
            raise ValueError("another image has been opened meanwhile. Ask again on this one.")
        if action == "click":
            work.click(float(wish["x"]), float(wish["y"]), bool(wish["positive"]))
        elif action == "draw_box":
            work.draw_box(*(float(v) for v in wish["corners"]))
        elif action == "next_mask":
            work.next_mask()
            if work.state is before and work.mask is not None:
                return "SAM has one answer to this. Add a click where it is wrong."
        else:
            work.clear()
        state, mask = work.state, work.mask
        if mask is None:
            return BEGIN
        many = len(state.scores) > 1
        which = f"answer {state.choice + 1} of {len(state.scores)}, " if many else ""
        more = ", look at the next answer, or click where this one is wrong" if many else ", or click where it is wrong"
        advice = f"Keep it{more}." if mask.any() else "There is nothing to keep: Undo, or ask in another way."
        return f"{int(mask.sum())} pixels, {which}SAM guesses an IoU of {state.scores[state.choice]:.2f}. {advice}"

    def _change(self, action: str, wish: dict[str, Any]) -> str:
        work = self.work
        if action == "keep":
            work.keep(int(wish["label"]))
            return f"Kept: {work.classes[int(wish['label'])]}. Now the next object, or the next image."
        if action == "relabel":
            index, label = int(wish["index"]), int(wish["label"])
            work.relabel(index, label)
            return f"Object {index + 1} is a {work.classes[label]} now."
        if action == "remove_last" and not work.kept:
            raise ValueError("there is no object to take away")
        work.remove(int(wish["index"]) if action == "remove" else len(work.kept) - 1)
        return "Taken away; Undo brings it back."

    def _go(self, by: int) -> str:
        work, before = self.work, self.work.state
        work.go(before.image + by)
        if work.state is before:
            return "There is no other image."
        return f"{BEGIN} (The last answer was not kept; Undo leads back to it.)" if before.masks is not None else BEGIN

    def _export(self, kind: str, view: Any) -> str:
        text = self.work.as_text(kind)
        count = sum(len(kept) for kept in self.work.state.kept)
        self.send({"file": FILES[kind], "text": text, "view": view})  # only the view that asked takes it
        what = f"{count} object{'' if count == 1 else 's'}"
        return f"{FILES[kind]}, with {what} of {len(self.work.names)} image(s), goes to the downloads of the browser."

    def show(self, said: str) -> None:
        """Bring the screen to the state of `work`; call it after a change from another cell.

        Args:
            said: the sentence below the picture.
        """
        work = self.work
        name = f"Image {work.state.image + 1} of {len(work.names)}, {work.names[work.state.image]}. "
        with self.hold_sync():
            self.number = work.state.image
            self.height, self.width = (int(side) for side in work.image.shape[1:])
            self.picture = painted(work)
            self.points = [list(point) for point in work.state.points]
            self.box = list(work.state.box or ())
            self.objects = about(work)
            self.status = name + said
            self.answered += 1


def about(work: Annotation) -> list[dict[str, Any]]:
    """What the list says of the objects of the open image, and where their numbers stand in the picture.

    Args:
        work: any.

    Returns:
        Of each `label`, `pixels`, and `at`, the pixel (x, y) furthest from the outline of what one sees of it.
    """
    found, covered = [], torch.zeros(work.image.shape[1:], dtype=torch.bool)
    for one in reversed(work.kept):  # the last one lies on top
        seen = one.mask & ~covered
        seen = seen if seen.any() else one.mask
        rows, columns = (seen.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        x, y = centre(seen[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]).tolist()
        found.append({"label": one.label, "pixels": int(one.mask.sum()), "at": [x + left, y + top]})
        covered |= one.mask
    return found[::-1]


def painted(work: Annotation) -> str:
    """The open image with what was kept and, in yellow with a white edge, what SAM answers, as a PNG.

    Args:
        work: any.

    Returns:
        A data address, `data:image/png;base64,...`.
    """
    label_map = np.zeros(work.image.shape[1:], np.int32)
    for number, one in enumerate(work.kept, start=1):
        label_map[one.mask.numpy()] = number
    picture = np.asarray(overlay(work.image, label_map), np.float64).copy()
    if work.mask is not None:
        mask = work.mask.numpy()
        picture[mask] = 0.45 * picture[mask] + 0.55 * ASKED
        picture[outline(mask.astype(np.int32))] = 1.0
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def annotate(
    images: Mapping[str, Tensor],
    classes: Sequence[str],
    model: SAM,
    kept: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Annotate:
    """Open the tool.

    Args:
        images: (3, H, W) in [0, 1] by file name, as exports will name them.
        classes: `classes[label]`, the background first.
        model: a SAM, such as `segedu.weights.load("shapes_sam")`.
        kept: instances to begin with, by file name: those of a detector and SAM, to be put right by hand.

    Returns:
        The widget; as the last value of a cell it is shown.

    Raises:
        TypeError: an image is no tensor of floats, or classes are no names.
        ValueError: no image or no class, a class twice, a wrong shape, values outside [0, 1], or `kept` does not fit.
    """
    return Annotate(Annotation(model, images, classes, kept))
