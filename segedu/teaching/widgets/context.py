"""Pictures of chapter 8: the content of small windows of a scene, and class maps of networks' errors."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from segedu.datasets.street import CLASSES, VOID, draw_street
from segedu.viz import palette, show, widest_point

INK, FRAME = "#1b1b1b", "#d55e00"
TARGET_CLASSES = ("boat", "car", "bus", "building")
_SEEDS = 60  # scenes to search; far fewer are enough


class Keyhole(NamedTuple):
    """A small window of a scene that shows only one class."""

    name: str
    seed: int
    row: int  # of its first pixel
    column: int


@lru_cache
def find_keyholes(size: int = 13) -> tuple[Keyhole, ...]:
    """Find one window per class, each in a different scene: the window with the highest contrast in that scene."""
    keyholes: dict[str, Keyhole] = {}
    for seed in range(_SEEDS):
        scene = draw_street(seed)
        for name in TARGET_CLASSES:
            corner = None if name in keyholes else _best_window(scene, CLASSES.index(name), size)
            if corner:
                keyholes[name] = Keyhole(name, seed, *corner)
                break  # the next class from another scene
        if len(keyholes) == len(TARGET_CLASSES):
            return tuple(keyholes[name] for name in TARGET_CLASSES)
    missing = sorted(set(TARGET_CLASSES) - set(keyholes))
    raise ValueError(f"size is {size}, expected windows that fit into {', '.join(missing)}")


def _best_window(scene: dict, label: int, size: int) -> tuple[int, int] | None:
    """First pixel of the window with the highest contrast among those that show (almost) only the class, or None."""
    is_class = (scene["semantic"].numpy() == label).astype(float)
    fraction = ndimage.uniform_filter(is_class, size, mode="constant")
    intensity = scene["image"].numpy().mean(axis=0)
    contrast = ndimage.uniform_filter(intensity**2, size) - ndimage.uniform_filter(intensity, size) ** 2
    contrast = np.where(fraction > 0.97, contrast, -1)
    row, column = np.unravel_index(contrast.argmax(), contrast.shape)
    half = size // 2
    return (int(row) - half, int(column) - half) if contrast[row, column] > 0.004 else None


def draw_keyholes(size: int = 13) -> None:
    """Show four windows of `size` pixels (odd) alone, and below them the scenes that they come from."""
    keyholes = find_keyholes(size)
    fig = Figure(figsize=(11, 4.4), layout="constrained")
    top, bottom = fig.subplots(2, len(keyholes), height_ratios=(1.1, 1))
    for number, (keyhole, upper, lower) in enumerate(zip(keyholes, top, bottom, strict=True), 1):
        image = draw_street(keyhole.seed)["image"].permute(1, 2, 0).numpy()
        upper.imshow(image[keyhole.row : keyhole.row + size, keyhole.column : keyhole.column + size])
        upper.set_title(f"{number}: what is this?", fontsize=11, color=INK)
        lower.imshow(image)
        frame = Rectangle((keyhole.column - 0.5, keyhole.row - 0.5), size, size, fill=False, ec=FRAME, lw=2)
        lower.add_patch(frame)
        lower.set_title(f"{number}: {keyhole.name}", fontsize=11, color=INK)
    for ax in (*top, *bottom):
        ax.set(xticks=[], yticks=[])
    names = ", ".join(f"{number} {keyhole.name}" for number, keyhole in enumerate(keyholes, 1))
    show(
        fig,
        f"Four windows of {size} x {size} pixels, hard to recognise; below, the scenes that they come from: {names}.",
    )


def class_maps(panels: dict[str, object], columns: int = 4, width: float = 2.7) -> Figure:
    """Draw images and class maps of streets in a grid, with the name of each class at the widest point of its regions.

    Args:
        panels: title -> image (3, H, W) in [0, 1] or classes (H, W), tensors or arrays; void stays white.
        columns: number of columns of the grid.
        width: width of a panel in inches.
    """
    if not panels:
        raise ValueError("panels is empty, expected at least one panel")
    rows = -(-len(panels) // columns)
    height = 0.62 * width + 0.35
    fig = Figure(figsize=(width * min(columns, len(panels)), height * rows), layout="constrained")
    axes = np.atleast_1d(fig.subplots(rows, min(columns, len(panels)))).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, panel) in zip(axes, panels.items(), strict=False):
        array = np.asarray(panel)
        if array.ndim not in (2, 3):
            raise ValueError(f"panel {title!r} has shape {array.shape}, expected (3, H, W) or (H, W)")
        if array.ndim == 3:
            ax.imshow(np.moveaxis(array, 0, 2).clip(0, 1))
        else:
            _paint_classes(ax, array)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=10, color=INK)
    return fig


def _paint_classes(ax: Axes, labels: np.ndarray) -> None:
    colours = np.concatenate([palette(len(CLASSES)), np.ones((1, 3))])
    ax.imshow(colours[np.where(labels == VOID, len(CLASSES), labels)])
    for label in np.unique(labels[labels != VOID]):
        row, column, depth = widest_point(labels == label)
        if depth > 0.03 * labels.shape[1]:  # else the word would hide the region
            style = {"boxstyle": "round,pad=0.1", "facecolor": "black", "alpha": 0.6, "linewidth": 0}
            text = {"color": "white", "fontsize": 6.5, "ha": "center", "va": "center"}
            room = 0.11 * labels.shape[1]  # half a long word, which must not reach into the next panel
            ax.text(np.clip(column, room, labels.shape[1] - room), row, CLASSES[label], bbox=style, **text)
