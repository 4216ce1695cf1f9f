"""A tool to label images in a notebook: click, and SAM answers; keep, undo, and save for COCO or CVAT (chapter 16).

    from segedu.pretrained import load
    from segedu.widgets.annotate import annotate

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
import traitlets
from PIL import Image
from torch import Tensor

from segedu.promptable.sam.sam import SAM
from segedu.viz import overlay
from segedu.widgets.annotation import Annotation

FILES = {"coco": "instances.json", "cvat": "annotations.xml"}
ASKED = np.array([0.94, 0.89, 0.26])  # the colour of the mask that nobody has kept yet
STYLE = """
.segedu-annotate { font-family: sans-serif; font-size: 14px; max-width: 660px; }
.segedu-annotate .bar { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 6px; }
.segedu-annotate button, .segedu-annotate select { font: inherit; padding: 3px 8px; }
.segedu-annotate canvas { cursor: crosshair; touch-action: none; max-width: 100%; height: auto; }
.segedu-annotate canvas:focus-visible { outline: 3px solid #0072B2; }
.segedu-annotate .status { min-height: 1.4em; margin: 4px 0; }
.segedu-annotate .objects { margin: 4px 0; padding-left: 2em; max-height: 9em; overflow-y: auto; }
"""


class Annotate(anywidget.AnyWidget):
    """The widget; `work` is what it has done so far, and can be used from other cells at any time.

    Args:
        work: images, model, classes, and what was kept.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = STYLE
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    box = traitlets.List().tag(sync=True)
    objects = traitlets.List(traitlets.Unicode()).tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)

    def __init__(self, work: Annotation) -> None:
        super().__init__(classes=work.classes)
        self.work = work
        self.show("Click on an object.")
        self.on_msg(self._heard)

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:
        """One wish of the person. Whatever it is, the answer is a picture and a sentence, never a traceback."""
        try:
            said = self._obey(dict(message))
        except (ValueError, TypeError, KeyError, OSError) as error:
            said = f"Not done: {error}"
        self.show(said)

    def _obey(self, wish: dict[str, Any]) -> str:
        work, action = self.work, wish["action"]
        if action == "click":
            work.click(float(wish["x"]), float(wish["y"]), bool(wish["positive"]))
        elif action == "draw_box":
            work.draw_box(*(float(v) for v in wish["corners"]))
        elif action == "next_mask":
            work.next_mask()
        elif action == "keep":
            work.keep(int(wish["label"]))
            return f"Kept: {work.classes[int(wish['label'])]}."
        elif action == "remove" or action == "remove_last":
            work.remove(int(wish.get("index", len(work.kept) - 1)))
            return "Taken away; Undo brings it back."
        elif action == "clear":
            work.clear()
        elif action == "undo":
            return "Undone." if work.undo() else "There is nothing to undo."
        elif action == "redo":
            return "Done again." if work.redo() else "There is nothing to do again."
        elif action == "go":
            work.go(work.state.image + int(wish["by"]))
        elif action == "export":
            kind = str(wish["kind"])
            self.send({"file": FILES[kind], "text": work.as_text(kind)})
            return f"{FILES[kind]} goes to the downloads of the browser."
        else:
            raise ValueError(f"action is {action!r}, which the tool does not know")
        return self._answer()

    def _answer(self) -> str:
        state, mask = self.work.state, self.work.mask
        if mask is None:
            return "Click on an object."
        which = f"answer {state.choice + 1} of {len(state.scores)}, " if len(state.scores) > 1 else ""
        return f"{int(mask.sum())} pixels, {which}SAM guesses an IoU of {state.scores[state.choice]:.2f}. Keep it?"

    def show(self, said: str) -> None:
        """Bring the screen to the state of `work`; call it after a change from another cell.

        Args:
            said: the sentence below the picture.
        """
        work = self.work
        name = f"Image {work.state.image + 1} of {len(work.names)}, {work.names[work.state.image]}. "
        with self.hold_sync():
            self.height, self.width = (int(side) for side in work.image.shape[1:])
            self.picture = painted(work)
            self.points = [list(point) for point in work.state.points]
            self.box = list(work.state.box or ())
            self.objects = [f"{work.classes[one.label]}, {int(one.mask.sum())} pixels" for one in work.kept]
            self.status = name + said


def painted(work: Annotation) -> str:
    """The open image with what was kept and, in yellow, what SAM answers, as a PNG in a data address.

    Args:
        work: any.

    Returns:
        `data:image/png;base64,...`.
    """
    label_map = np.zeros(work.image.shape[1:], np.int32)
    for number, one in enumerate(work.kept, start=1):
        label_map[one.mask.numpy()] = number
    picture = np.asarray(overlay(work.image, label_map), np.float64).copy()
    if work.mask is not None:
        mask = work.mask.numpy()
        picture[mask] = 0.45 * picture[mask] + 0.55 * ASKED
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, format="PNG")
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
        model: a SAM, such as `segedu.pretrained.load("shapes_sam")`.
        kept: instances to begin with, by file name: those of a detector and SAM, to be put right by hand.

    Returns:
        The widget; as the last value of a cell it is shown.

    Raises:
        TypeError: an image is no tensor of floats.
        ValueError: no image or no class, a wrong shape, or `kept` does not fit.
    """
    return Annotate(Annotation(model, images, classes, kept))
