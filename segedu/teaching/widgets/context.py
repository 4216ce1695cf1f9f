"""Pictures of chapter 8: what a net sees through a keyhole, and where its errors lie."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from segedu.datasets.street import CLASSES, VOID, draw_street
from segedu.viz import palette, show

INK, FRAME = "#1b1b1b", "#d55e00"
LOOKED_FOR = ("boat", "car", "bus", "building")
_SEEDS = 60  # scenes to look through; far fewer are enough


class Keyhole(NamedTuple):
    """A window of a scene that lies on one class."""

    name: str
    seed: int
    row: int  # of its first pixel
    column: int


@lru_cache
def find_keyholes(size: int = 13) -> tuple[Keyhole, ...]:
    """For each of four classes, the first scene with a window on it, and there the window with most contrast.

    Args:
        size: height and width of a window, odd.

    Returns:
        One for each of `LOOKED_FOR`, from different scenes.

    Raises:
        ValueError: some class has no such window in any scene.
    """
    found: dict[str, Keyhole] = {}
    for seed in range(_SEEDS):
        scene = draw_street(seed)
        for name in LOOKED_FOR:
            place = None if name in found else _place(scene, CLASSES.index(name), size)
            if place:
                found[name] = Keyhole(name, seed, *place)
                break  # the next class from another scene
        if len(found) == len(LOOKED_FOR):
            return tuple(found[name] for name in LOOKED_FOR)
    missing = sorted(set(LOOKED_FOR) - set(found))
    raise ValueError(f"size is {size}, expected windows that fit into {', '.join(missing)}")


def _place(scene: dict, label: int, size: int) -> tuple[int, int] | None:
    """First pixel of the window of most contrast among those that lie on the class but for a few pixels."""
    inside = (scene["semantic"].numpy() == label).astype(float)
    share = ndimage.uniform_filter(inside, size, mode="constant")
    grey = scene["image"].numpy().mean(axis=0)
    contrast = ndimage.uniform_filter(grey**2, size) - ndimage.uniform_filter(grey, size) ** 2
    contrast = np.where(share > 0.97, contrast, -1)
    row, column = np.unravel_index(contrast.argmax(), contrast.shape)
    half = size // 2
    return (int(row) - half, int(column) - half) if contrast[row, column] > 0.004 else None


def draw_keyholes(size: int = 13) -> None:
    """Show four windows alone, and below them where they are from.

    Args:
        size: height and width of a window, odd.
    """
    keyholes = find_keyholes(size)
    fig = Figure(figsize=(11, 4.4), layout="constrained")
    top, bottom = fig.subplots(2, len(keyholes), height_ratios=(1.1, 1))
    for number, (hole, upper, lower) in enumerate(zip(keyholes, top, bottom, strict=True), 1):
        image = draw_street(hole.seed)["image"].permute(1, 2, 0).numpy()
        upper.imshow(image[hole.row : hole.row + size, hole.column : hole.column + size])
        upper.set_title(f"{number}: what is this?", fontsize=11, color=INK)
        lower.imshow(image)
        frame = Rectangle((hole.column - 0.5, hole.row - 0.5), size, size, fill=False, ec=FRAME, lw=2)
        lower.add_patch(frame)
        lower.set_title(f"{number}: {hole.name}", fontsize=11, color=INK)
    for ax in (*top, *bottom):
        ax.set(xticks=[], yticks=[])
    names = ", ".join(f"{number} {hole.name}" for number, hole in enumerate(keyholes, 1))
    show(fig, f"Four windows of {size} by {size} pixels that hardly tell what they show; below, their scenes: {names}.")


def class_maps(panels: dict[str, object], columns: int = 4, width: float = 2.7) -> Figure:
    """Images and class maps of streets in a grid; the name of each class is written where it is widest.

    Args:
        panels: title -> image (3, H, W) in [0, 1] or classes (H, W), tensors or arrays; void stays white.
        columns: of the grid.
        width: of a panel, in inches.

    Returns:
        The figure.

    Raises:
        ValueError: there is no panel, or one has another number of axes.
    """
    if not panels:
        raise ValueError("panels is empty, expected at least one")
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
        depth = ndimage.distance_transform_edt(np.pad(labels == label, 1))[1:-1, 1:-1]
        if depth.max() > 0.03 * labels.shape[1]:  # else the word would hide the region
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            style = {"boxstyle": "round,pad=0.1", "facecolor": "black", "alpha": 0.6, "linewidth": 0}
            text = {"color": "white", "fontsize": 6.5, "ha": "center", "va": "center"}
            room = 0.11 * labels.shape[1]  # half a long word: it must not stick out into the next panel
            ax.text(np.clip(column, room, labels.shape[1] - room), row, CLASSES[label], bbox=style, **text)
