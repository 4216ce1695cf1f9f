"""A volume slice by slice: three directions, windows of grey values, organs tinted or not, millimetres or voxels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from segedu.datasets.volume import CLASSES, draw_volume
from segedu.teaching.widgets.explore import explore
from segedu.viz import overlay, palette, show

DIRECTIONS = {"axial": 0, "coronal": 1, "sagittal": 2}  # the axis of the slider
WINDOWS = {"soft tissue": (40.0, 400.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0)}  # level and width, HU
SCENE, SIZE = 3, (24, 64, 80)


class Slice(NamedTuple):
    """One slice for display.

    Attributes:
        hu: (H, W) Hounsfield units.
        labels: (H, W) classes.
        aspect: height of a voxel divided by its width.
        index: number of the slice along its axis.
        offset_mm: distance from the first slice, in mm.
    """

    hu: np.ndarray
    labels: np.ndarray
    aspect: float
    index: int
    offset_mm: float


def cut(volume: Mapping[str, Any], direction: str, position: int) -> Slice:
    """Extract one slice of a volume, with the head or the front of the body at the top.

    Args:
        volume: dict of `hu` (D, H, W), `semantic` (D, H, W) and `spacing`; axes from feet to head, front to back,
            the patient's right to left.
        direction: one of `DIRECTIONS`.
        position: percent of the way along the axis; 0 is the first slice and 100 the last.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    if not 0 <= position <= 100:
        raise ValueError(f"position is {position}, expected a percentage, 0 to 100")
    axis, spacing = DIRECTIONS[direction], volume["spacing"]
    hu, labels = np.asarray(volume["hu"]), np.asarray(volume["semantic"])
    index = round(position / 100 * (hu.shape[axis] - 1))
    planes = [np.take(array, index, axis) for array in (hu, labels)]
    if axis:
        planes = [plane[::-1] for plane in planes]  # the head is at the end of axis 0, but belongs at the top
    height, width = (step for other, step in enumerate(spacing) if other != axis)
    return Slice(planes[0], planes[1], height / width, index, index * spacing[axis])


def grey(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map Hounsfield units to grey values in [0, 1] with a window: its ends are black and white.

    >>> grey(np.array([-1000.0, 40.0, 140.0]), 40, 400)
    array([0.  , 0.5 , 0.75])
    """
    return np.clip((hu - level) / width + 0.5, 0, 1)


@lru_cache(maxsize=1)
def scene() -> dict[str, Any]:
    """The volume of the book: 24 thick slices of the upper abdomen."""
    return draw_volume(SCENE, SIZE)


def figure_of(section: Slice, window: str, organs: bool, millimetres: bool, classes: tuple[str, ...]) -> Figure:
    """Draw a slice, from `cut`.

    Args:
        section: the slice.
        window: one of `WINDOWS`.
        organs: whether to tint the classes.
        millimetres: draw voxels with their true proportions; False draws them square.
        classes: names of the classes.
    """
    picture = grey(section.hu, *WINDOWS[window])
    fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    shown = overlay(picture, section.labels) if organs else np.repeat(picture[..., None], 3, axis=2)
    ax.imshow(shown, aspect=section.aspect if millimetres else 1.0, interpolation="nearest")
    ax.axis("off")
    ax.set_anchor("N")  # a flat slice stays below its title
    present = [label for label in np.unique(section.labels) if label]
    if organs and present:
        colours = palette(max(present))
        handles = [Patch(color=colours[label - 1], label=classes[label]) for label in present]
        fig.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return fig


def draw_slice(
    direction: str = "axial",
    position: int = 50,
    window: str = "soft tissue",
    organs: bool = True,
    millimetres: bool = True,
    volume: Mapping[str, Any] | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> None:
    """Show one slice of a volume, None for the book's; for the arguments see `cut` and `figure_of`."""
    volume = scene() if volume is None else volume
    section = cut(volume, direction, position)
    fig = figure_of(section, window, organs, millimetres, classes)
    level, width = WINDOWS[window]
    count = np.asarray(volume["hu"]).shape[DIRECTIONS[direction]]
    where = f"slice {section.index + 1} of {count}, {section.offset_mm:.0f} mm from the first"
    title = f"{direction} {where}; level {level:.0f}, width {width:.0f} HU"
    fig.suptitle(title, fontsize=10)
    names = [classes[label] for label in np.unique(section.labels) if label]
    tinted = f"tinted: {', '.join(names) or 'no organ'}" if organs else "no organ tinted"
    shape = f"voxels {section.aspect:.2g} times as high as wide" if millimetres else "voxels drawn square"
    show(fig, f"CT, {title}; {shape}; {tinted}.")


def explorer(volume: Mapping[str, Any] | None = None, classes: tuple[str, ...] = CLASSES) -> None:
    """Show the slice viewer of chapter 16, of the book's volume by default: live controls, or four static frames."""

    def draw(
        direction: str = "axial",
        position: int = 50,
        window: str = "soft tissue",
        organs: bool = True,
        millimetres: bool = True,
    ) -> None:
        draw_slice(direction, position, window, organs, millimetres, volume, classes)

    last = min(SIZE if volume is None else np.shape(volume["hu"])) - 1
    step = next((step for step in (1, 2, 5, 10, 25) if step * last >= 100), 50)  # each step shows another slice

    explore(
        draw,
        static=[
            {"direction": "axial", "position": 55, "organs": False},
            {"direction": "axial", "position": 55, "organs": True},
            {"direction": "coronal", "position": 55, "millimetres": True},
            {"direction": "coronal", "position": 55, "millimetres": False, "window": "lung"},
        ],
        labels={
            "position": "position along the axis, in %",
            "organs": "tint organs",
            "millimetres": "true proportions",
        },
        position=(0, 100, step),  # first, because JupyterLab keeps the arrow keys of a list to itself
        direction=list(DIRECTIONS),
        window=list(WINDOWS),
        organs=True,
        millimetres=True,
    )
