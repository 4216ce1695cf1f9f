"""A picture to click on in a notebook: SAM's masks for points and a box of your choice (chapter 16)."""

from __future__ import annotations

from typing import Any, NamedTuple

import anywidget
import numpy as np
import torch
import traitlets

from segedu.teaching.widgets import prompts as sam
from segedu.teaching.widgets.sam_picture import MASK_COLOUR, REFUSED, STYLE, browser_module, png_url, tint
from segedu.viz import outline

START = "Click on an object, or drag a box around it."
ENLARGED = 4  # pixels of a picture beside the image, for one pixel of the image


class Prompts(NamedTuple):
    """A scene and its prompts, which an undo restores.

    `points` are (x, y, 1 or 0) and `box` is xyxy, in pixels with (0, 0) at the centre of the first one.
    """

    scene: str
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None


class PromptSAM(anywidget.AnyWidget):
    """The widget; `prompts` are those of the picture, and `prediction` holds SAM's masks for them."""

    _esm = browser_module("prompt_sam")
    _css = STYLE
    scenes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scene = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    box = traitlets.List().tag(sync=True)
    masks = traitlets.List().tag(sync=True)  # name, lines of the caption, picture, and whether it is the chosen one
    status = traitlets.Unicode().tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)  # a counter, so that repeating a sentence is also sent as an update

    def __init__(self) -> None:
        super().__init__(scenes=list(sam.SCENES))
        self.prompts = Prompts(self.scenes[0])
        self.prediction: sam.Prediction | None = None
        self._past: list[Prompts] = []
        self._show(START)
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, message: Any, buffers: Any) -> None:
        """Handle a message of the user interface. The answer is a picture and a sentence, never a traceback."""
        try:
            text = self._run_action(dict(message))
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            text = f"{REFUSED} {error}"
        self._show(text)

    def _run_action(self, message: dict[str, Any]) -> str:
        if message.get("action") == "undo":
            if not self._past:
                return "There is nothing to undo."
            self.prediction = predict(self._past[-1])
            self.prompts = self._past.pop()
            return f"Undone. {describe(self.prediction)}"
        changed = change(self.prompts, message)
        if changed != self.prompts:
            self.prediction = predict(changed)  # may fail: then the prompts stay as they are
            self._past.append(self.prompts)
            self.prompts = changed
        return describe(self.prediction)

    def _show(self, text: str) -> None:
        image = np.moveaxis(sam.scene(self.prompts.scene).image.numpy(), 0, 2).clip(0, 1)
        prediction = self.prediction
        with self.hold_sync():
            self.scene = self.prompts.scene
            self.height, self.width = image.shape[:2]
            self.picture = png_url(image if prediction is None else tint(image, prediction.masks[prediction.chosen]))
            self.points = [list(point) for point in self.prompts.points]
            self.box = list(self.prompts.box or ())
            self.masks = [] if prediction is None else [mask_entry(image, prediction, k) for k in range(len(sam.NAMES))]
            self.status = text
            self.answered += 1


def change(prompts: Prompts, message: dict[str, Any]) -> Prompts:
    """The prompts after an action of the user interface.

    Raises:
        ValueError: if there is no such action or scene, a position is outside the image, the box has no area, or the
            message belongs to another scene.
    """
    action = message.get("action")
    if action == "open":
        if message["name"] not in sam.SCENES:
            raise ValueError(f"name is {message['name']!r}, expected one of {', '.join(sam.SCENES)}")
        return Prompts(message["name"])
    if message.get("scene", prompts.scene) != prompts.scene:  # clicked before the new scene was shown
        raise ValueError("another scene has been opened in the meantime. Repeat it on this scene.")
    if action == "clear":
        return Prompts(prompts.scene)
    if action == "click":
        x, y = _inside(prompts.scene, float(message["x"]), float(message["y"]))
        return prompts._replace(points=(*prompts.points, (x, y, int(bool(message["positive"])))))
    if action == "draw_box":
        x1, y1, x2, y2 = (float(value) for value in message["corners"])
        (x1, y1), (x2, y2) = _inside(prompts.scene, x1, y1), _inside(prompts.scene, x2, y2)
        if x1 == x2 or y1 == y2:
            raise ValueError("the box has no area: drag from one corner to the opposite one")
        return prompts._replace(box=(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
    raise ValueError(f"action is {action!r}, expected an action of the widget")


def _inside(scene: str, x: float, y: float) -> tuple[float, float]:
    height, width = sam.SCENES[scene][2]
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise ValueError(f"({x}, {y}) is outside the image of {width} x {height} pixels")
    return x, y


def predict(prompts: Prompts) -> sam.Prediction | None:
    """Run SAM on the prompts; None if there are none."""
    if not prompts.points and prompts.box is None:
        return None
    points = torch.tensor([point[:2] for point in prompts.points]).reshape(-1, 2)
    clicks = [sam.CLICKS[0] if positive else sam.CLICKS[1] for _, _, positive in prompts.points]
    box = None if prompts.box is None else torch.tensor(prompts.box) + 0.5  # edges of pixels instead of their centres
    return sam.segment(prompts.scene, points, clicks, box)


def describe(prediction: sam.Prediction | None) -> str:
    """Say which mask is chosen, and why."""
    if prediction is None:
        return START
    name, predicted_iou = sam.NAMES[prediction.chosen], prediction.predicted_ious[prediction.chosen]
    if prediction.chosen:
        text = f"One click is ambiguous. Of the three masks for it, {name} has the highest predicted IoU,"
    else:
        text = f"A box, or more than one click, is a clear prompt, so the {name} is chosen. Its predicted IoU is"
    no_target = "" if prediction.targets else " There is no object that these prompts mean, so no IoU can be measured."
    return f"{text} {predicted_iou:.2f}.{no_target}"


def mask_entry(image: np.ndarray, prediction: sam.Prediction, index: int) -> dict[str, Any]:
    """One mask for the user interface: on the darkened image, with the outline of the target that it fits best.

    Args:
        image: (H, W, 3) in [0, 1].
        prediction: SAM's masks for it.
        index: of the mask, 0 to 3.
    """
    mask, overlap = prediction.masks[index], sam.best_overlap(prediction, index)
    picture = np.where(mask[..., None], 0.5 * image + 0.5 * MASK_COLOUR, 0.45 * image)
    picture = picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    lines = [f"predicted IoU {prediction.predicted_ious[index]:.2f}"]
    if overlap is not None:
        iou, kind = overlap
        target = prediction.targets[kind].repeat(ENLARGED, 0).repeat(ENLARGED, 1)
        picture[outline(target.astype(np.int32))] = 1.0
        lines.append(f"IoU with the {kind} {iou:.2f}")
    chosen = index == prediction.chosen
    return {"name": sam.NAMES[index], "lines": lines, "picture": png_url(picture), "chosen": chosen}
