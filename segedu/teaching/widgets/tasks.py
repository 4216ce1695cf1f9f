"""One scene, five tasks: classification, detection, semantic, instance and panoptic segmentation."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segedu.datasets.street import CLASSES, THINGS, VOID, draw_street
from segedu.teaching.widgets.explore import explore
from segedu.viz import overlay, palette, show, widest_point

TASKS = ("classification", "detection", "semantic", "instance", "panoptic")
SIZE = (160, 256)
SCENE = 4  # with touching cars, people in front of them, and water beside the street
_BADGE = {"boxstyle": "round,pad=0.12", "facecolor": "black", "alpha": 0.7, "linewidth": 0}


class Categories(NamedTuple):
    """The classes of a scene.

    Attributes:
        names: index = class.
        things: the countable classes.
    """

    names: tuple[str, ...]
    things: tuple[int, ...]


STREET = Categories(CLASSES, THINGS)


def task_output(task: str, scene: dict, categories: Categories = STREET) -> dict:
    """Ground truth of a scene, such as `segedu.datasets.street.draw_street` gives, as the output of a task.

    Returns:
        The arrays of the output by their names in the course's data contracts; `label` for classification is the thing
        class with the most pixels, or the stuff class if there are no things.
    """
    names_by_task = {
        "detection": ("boxes", "labels"),
        "semantic": ("semantic",),
        "instance": ("masks", "labels"),
        "panoptic": ("panoptic_seg", "segments_info"),
    }
    if task == "classification":
        return {"label": _main_class(scene, categories)}
    if task not in names_by_task:
        raise ValueError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    return {name: scene[name] for name in names_by_task[task]}


def _main_class(scene: dict, categories: Categories) -> int:
    labels = scene["semantic"][scene["semantic"] != VOID]
    pixels = np.bincount(labels.numpy(), minlength=len(categories.names))
    things = pixels[list(categories.things)]
    return categories.things[int(things.argmax())] if things.any() else int(pixels.argmax())


def describe(task: str, scene: dict, categories: Categories = STREET) -> str:
    """Describe the output of a task in one short phrase: kind and shape.

    Returns:
        For example `boxes (3, 4) and 3 labels`.
    """
    output = task_output(task, scene, categories)
    if task == "classification":
        return f"one label: {categories.names[output['label']]}"
    if task == "semantic":
        return f"a class for each pixel, {tuple(output['semantic'].shape)}"
    if task == "panoptic":
        count = len(output["segments_info"])
        return f"a segment for each pixel, {tuple(output['panoptic_seg'].shape)}, and a table of {count}"
    name = "boxes" if task == "detection" else "masks"
    return f"{name} {tuple(output[name].shape)} and {len(output['labels'])} labels"


def _label_positions(labels: np.ndarray, min_depth: float) -> list[tuple[int, int, int]]:
    """(label, row, column) of each label at its widest point, at least `min_depth` pixels from its edge."""
    positions = []
    for label in np.unique(labels[labels > 0]).tolist():
        row, column, depth = widest_point(labels == label)
        if depth >= min_depth:
            positions.append((label, row, column))
    return positions


def _regions(axis: plt.Axes, scene: dict, labels: np.ndarray, names: dict[int, str], *, void: bool) -> None:
    """Tint the labels and write a name on each; void pixels are black if every other pixel has a label."""
    picture = overlay(scene["image"], labels, opacity=0.55)
    if void:
        picture[scene["semantic"].numpy() == VOID] = 0
    axis.imshow(picture, interpolation="nearest")
    for label, row, column in _label_positions(labels, 3):
        axis.text(column, row, names[label], color="white", fontsize=7, ha="center", va="center", bbox=_BADGE)


def _boxes(axis: plt.Axes, scene: dict, categories: Categories) -> None:
    axis.imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
    colours = palette(len(categories.names))
    for i, (box, label) in enumerate(zip(scene["boxes"].tolist(), scene["labels"].tolist(), strict=True)):
        x1, y1, x2, y2 = box
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="black", lw=2.6))
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colours[label], lw=1.4))
        if min(x2 - x1, y2 - y1) >= 8:
            axis.text(x1, y1, f"{categories.names[label]} {i + 1}", color="white", fontsize=7, va="bottom", bbox=_BADGE)


def _instance_names(scene: dict, categories: Categories) -> dict[int, str]:
    return {i + 1: f"{categories.names[k]} {i + 1}" for i, k in enumerate(scene["labels"].tolist())}


def _panoptic_names(scene: dict, categories: Categories) -> dict[int, str]:
    names = _instance_names(scene, categories)
    return {
        s["id"]: names[s["id"]] if s["isthing"] else categories.names[s["category_id"]] for s in scene["segments_info"]
    }


def _semantic_labels(scene: dict, categories: Categories) -> tuple[np.ndarray, dict[int, str]]:
    """Labels from 1, things first so that they get the saturated colours; void is 0."""
    order = [*categories.things, *(k for k in range(len(categories.names)) if k not in categories.things)]
    table = np.zeros(VOID + 1, np.int64)
    table[order] = np.arange(1, len(order) + 1)
    return table[scene["semantic"].numpy()], {i: categories.names[k] for i, k in enumerate(order, start=1)}


def draw_output(axis: plt.Axes, task: str, scene: dict, categories: Categories = STREET) -> None:
    """Draw the output of one task over the image. Numbers and names repeat the meaning of the colours."""
    if task == "classification":
        axis.imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
        position = (scene["image"].shape[2] / 2, scene["image"].shape[1] / 6)
        name = categories.names[_main_class(scene, categories)]
        axis.text(*position, name, color="white", fontsize=20, ha="center", va="center", bbox=_BADGE)
    elif task == "detection":
        _boxes(axis, scene, categories)
    elif task == "semantic":
        _regions(axis, scene, *_semantic_labels(scene, categories), void=True)
    elif task == "instance":
        _regions(axis, scene, scene["label_map"].numpy(), _instance_names(scene, categories), void=False)
    else:
        _regions(axis, scene, scene["panoptic_seg"].numpy(), _panoptic_names(scene, categories), void=True)
    axis.set_title(f"{task}\n{describe(task, scene, categories)}", fontsize=9)
    axis.set_axis_off()


def five_ways(scene: dict, categories: Categories = STREET, name: str = "synthetic street") -> tuple[Figure, str]:
    """Draw the image and the outputs of the five tasks; returns a figure of six panels and its alternative text.

    Args:
        scene: a sample with panoptic targets, see `segedu.datasets.sample`.
        categories: the classes of the scene.
        name: says in the alternative text what the image is.
    """
    height, width = scene["image"].shape[1:]
    grid = (6, 1) if width > 3 * height else (2, 3)  # a panorama needs the full width
    panel = 11 / grid[1]
    fig, axes = plt.subplots(*grid, figsize=(11, grid[0] * (panel * height / width + 0.5)), layout="constrained")
    axes.flat[0].imshow(scene["image"].permute(1, 2, 0), interpolation="nearest")
    axes.flat[0].set_title(f"image\n{tuple(scene['image'].shape)}", fontsize=9)
    axes.flat[0].set_axis_off()
    for axis, task in zip(axes.flat[1:], TASKS, strict=True):
        draw_output(axis, task, scene, categories)
    descriptions = "; ".join(f"{task}: {describe(task, scene, categories)}" for task in TASKS)
    return fig, f"A {name} and the outputs of five tasks. {descriptions}."


@lru_cache(maxsize=8)
def _scene(number: int) -> dict:
    return draw_street(number, SIZE)


def draw_task(task: str = "classification", scene: int = SCENE) -> None:
    """Show the image of the street with this seed beside the output of one task."""
    street = _scene(scene)
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
    axes[0].imshow(street["image"].permute(1, 2, 0), interpolation="nearest")
    axes[0].set_title(f"image\n{tuple(street['image'].shape)}", fontsize=9)
    axes[0].set_axis_off()
    draw_output(axes[1], task, street)
    names = ", ".join(CLASSES[k] for k in street["labels"].tolist()) or "none"
    show(
        fig,
        alt=f"A synthetic street with the things: {names}. Beside it, the output of {task}: {describe(task, street)}.",
    )


def explorer() -> None:
    """Show the widget of chapter 1: choose a task and a scene; without a live notebook, one static frame per task."""
    explore(
        draw_task,
        static=[{"task": task, "scene": SCENE} for task in TASKS],
        scene=(0, 59, 1),
        task=list(TASKS),
    )
