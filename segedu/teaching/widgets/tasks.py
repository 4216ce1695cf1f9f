"""One scene, five questions: classification, detection, semantic, instance and panoptic segmentation."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from segedu.datasets.street import CLASSES, THINGS, VOID, draw_street
from segedu.teaching.widgets.explore import explore
from segedu.viz import overlay, palette, show

TASKS = ("classification", "detection", "semantic", "instance", "panoptic")
SIZE = (160, 256)
SCENE = 4  # cars that touch in the picture, people before them, water beside the street
_BADGE = {"boxstyle": "round,pad=0.12", "facecolor": "black", "alpha": 0.7, "linewidth": 0}


class Kinds(NamedTuple):
    """The classes of a scene.

    Attributes:
        classes: names, index = class.
        things: the classes that are counted.
    """

    classes: tuple[str, ...]
    things: tuple[int, ...]


STREET = Kinds(CLASSES, THINGS)


def answer(task: str, scene: dict, kinds: Kinds = STREET) -> dict:
    """What a task hands out, from the truth of a scene.

    Args:
        task: one of `TASKS`.
        scene: a drawn scene with panoptic truth, such as `segedu.datasets.street.draw_street` gives.
        kinds: its classes.

    Returns:
        The arrays of the answer by their names in the course's data contracts; `label` for classification is the
        class of things with the most pixels, or of stuff where there is no thing.

    Raises:
        ValueError: for another task.
    """
    parts = {
        "detection": ("boxes", "labels"),
        "semantic": ("semantic",),
        "instance": ("masks", "labels"),
        "panoptic": ("panoptic_seg", "segments_info"),
    }
    if task == "classification":
        return {"label": _main_class(scene, kinds)}
    if task not in parts:
        raise ValueError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    return {name: scene[name] for name in parts[task]}


def _main_class(scene: dict, kinds: Kinds) -> int:
    known = scene["semantic"][scene["semantic"] != VOID]
    pixels = np.bincount(known.numpy(), minlength=len(kinds.classes))
    things = pixels[list(kinds.things)]
    return kinds.things[int(things.argmax())] if things.any() else int(pixels.argmax())


def describe(task: str, scene: dict, kinds: Kinds = STREET) -> str:
    """The answer in one short phrase: kind and shape.

    Args:
        task: one of `TASKS`.
        scene: as in `answer`.
        kinds: its classes.

    Returns:
        For example `boxes (3, 4) and 3 labels`.
    """
    found = answer(task, scene, kinds)
    if task == "classification":
        return f"one label: {kinds.classes[found['label']]}"
    if task == "semantic":
        return f"a class for each pixel, {tuple(found['semantic'].shape)}"
    if task == "panoptic":
        count = len(found["segments_info"])
        return f"a segment for each pixel, {tuple(found['panoptic_seg'].shape)}, and a table of {count}"
    name = "boxes" if task == "detection" else "masks"
    return f"{name} {tuple(found[name].shape)} and {len(found['labels'])} labels"


def _places(labels: np.ndarray, least: float) -> list[tuple[int, int, int]]:
    """(label, row, column) of each label where it is widest, if at least `least` pixels from its edge."""
    found = []
    for label in np.unique(labels[labels > 0]).tolist():
        depth = ndimage.distance_transform_edt(np.pad(labels == label, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        if depth.max() >= least:
            found.append((label, int(row), int(column)))
    return found


def _regions(axis: plt.Axes, scene: dict, labels: np.ndarray, words: dict[int, str], *, void: bool) -> None:
    """Tint the labels and write a word on each; void pixels are black where every other pixel has a label."""
    picture = overlay(scene["image"], labels, opacity=0.55)
    if void:
        picture[scene["semantic"].numpy() == VOID] = 0
    axis.imshow(picture, interpolation="nearest")
    for label, row, column in _places(labels, 3):
        axis.text(column, row, words[label], color="white", fontsize=7, ha="center", va="center", bbox=_BADGE)


def _boxes(axis: plt.Axes, scene: dict, kinds: Kinds) -> None:
    axis.imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
    colours = palette(len(kinds.classes))
    for i, (box, label) in enumerate(zip(scene["boxes"].tolist(), scene["labels"].tolist(), strict=True)):
        x1, y1, x2, y2 = box
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="black", lw=2.6))
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colours[label], lw=1.4))
        if min(x2 - x1, y2 - y1) >= 8:
            axis.text(x1, y1, f"{kinds.classes[label]} {i + 1}", color="white", fontsize=7, va="bottom", bbox=_BADGE)


def _instance_words(scene: dict, kinds: Kinds) -> dict[int, str]:
    return {i + 1: f"{kinds.classes[k]} {i + 1}" for i, k in enumerate(scene["labels"].tolist())}


def _panoptic_words(scene: dict, kinds: Kinds) -> dict[int, str]:
    words = _instance_words(scene, kinds)
    return {
        s["id"]: words[s["id"]] if s["isthing"] else kinds.classes[s["category_id"]] for s in scene["segments_info"]
    }


def _semantic_labels(scene: dict, kinds: Kinds) -> tuple[np.ndarray, dict[int, str]]:
    """Labels from 1, things first so that they get the strong colours; void is 0."""
    order = [*kinds.things, *(k for k in range(len(kinds.classes)) if k not in kinds.things)]
    table = np.zeros(VOID + 1, np.int64)
    table[order] = np.arange(1, len(order) + 1)
    return table[scene["semantic"].numpy()], {i: kinds.classes[k] for i, k in enumerate(order, start=1)}


def draw_answer(axis: plt.Axes, task: str, scene: dict, kinds: Kinds = STREET) -> None:
    """Draw the answer of one task on an axis, over the image. Numbers and words repeat what colours say.

    Args:
        axis: of matplotlib.
        task: one of `TASKS`.
        scene: as in `answer`.
        kinds: its classes.
    """
    if task == "classification":
        axis.imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
        place = (scene["image"].shape[2] / 2, scene["image"].shape[1] / 6)
        word = kinds.classes[_main_class(scene, kinds)]
        axis.text(*place, word, color="white", fontsize=20, ha="center", va="center", bbox=_BADGE)
    elif task == "detection":
        _boxes(axis, scene, kinds)
    elif task == "semantic":
        _regions(axis, scene, *_semantic_labels(scene, kinds), void=True)
    elif task == "instance":
        _regions(axis, scene, scene["label_map"].numpy(), _instance_words(scene, kinds), void=False)
    else:
        _regions(axis, scene, scene["panoptic_seg"].numpy(), _panoptic_words(scene, kinds), void=True)
    axis.set_title(f"{task}\n{describe(task, scene, kinds)}", fontsize=9)
    axis.set_axis_off()


def five_ways(scene: dict, kinds: Kinds = STREET, name: str = "street") -> tuple[Figure, str]:
    """The image and the five answers.

    Args:
        scene: as in `answer`.
        kinds: its classes.
        name: of the kind of scene, for the alternative text.

    Returns:
        A figure of six panels and its alternative text.
    """
    height, width = scene["image"].shape[1:]
    grid = (6, 1) if width > 3 * height else (2, 3)  # a panorama needs the whole width
    panel = 11 / grid[1]
    fig, axes = plt.subplots(*grid, figsize=(11, grid[0] * (panel * height / width + 0.5)), layout="constrained")
    axes.flat[0].imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
    axes.flat[0].set_title(f"image\n{tuple(scene['image'].shape)}", fontsize=9)
    axes.flat[0].set_axis_off()
    for axis, task in zip(axes.flat[1:], TASKS, strict=True):
        draw_answer(axis, task, scene, kinds)
    said = "; ".join(f"{task}: {describe(task, scene, kinds)}" for task in TASKS)
    return fig, f"A drawn {name} and the answers of five tasks to it. {said}."


@lru_cache(maxsize=8)
def _scene(number: int) -> dict:
    return draw_street(number, SIZE)


def draw_task(task: str = "classification", scene: int = SCENE) -> None:
    """Show the image beside the answer of one task.

    Args:
        task: one of `TASKS`.
        scene: seed of the street.
    """
    drawn = _scene(scene)
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
    axes[0].imshow(drawn["image"].permute(1, 2, 0), interpolation="nearest")
    axes[0].set_title(f"image\n{tuple(drawn['image'].shape)}", fontsize=9)
    axes[0].set_axis_off()
    draw_answer(axes[1], task, drawn)
    names = ", ".join(CLASSES[k] for k in drawn["labels"].tolist()) or "none"
    show(fig, alt=f"A drawn street; things in it: {names}. Beside it the answer of {task}: {describe(task, drawn)}.")


def explorer() -> None:
    """The widget of chapter 1: choose a task and a scene; without a live notebook, one frame for each task."""
    explore(
        draw_task,
        static=[{"task": task, "scene": SCENE} for task in TASKS],
        scene=(0, 59, 1),
        task=list(TASKS),
    )
