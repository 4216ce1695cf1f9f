"""A volume, slice by slice: three directions, the window of grey values, organs on and off, millimetres or voxels."""

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

DIRECTIONS = {"axial": 0, "coronal": 1, "sagittal": 2}  # the axis that the slider walks along
WINDOWS = {"soft tissue": (40.0, 400.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0)}  # level and width, HU
SCENE, SIZE = 3, (24, 64, 80)


class Slice(NamedTuple):
    """One slice as it is shown.

    Attributes:
        hu: (H, W) Hounsfield units.
        labels: (H, W) classes.
        aspect: height of a voxel over its width, in mm.
        index: number of the slice along its axis.
        place: its distance from the first slice, in mm.
    """

    hu: np.ndarray
    labels: np.ndarray
    aspect: float
    index: int
    place: float


def cut(volume: Mapping[str, Any], direction: str, position: int) -> Slice:
    """One slice of a volume, with the head or the front of the body at the top.

    Args:
        volume: dict of `hu` (D, H, W), `semantic` (D, H, W) and `spacing`; axes from feet to head, front to back,
            the patient's right to left.
        direction: one of `DIRECTIONS`.
        position: per cent of the way along the axis, 0 is the first slice and 100 the last.

    Returns:
        The slice.

    Raises:
        ValueError: another direction, or a position outside 0 to 100.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    if not 0 <= position <= 100:
        raise ValueError(f"position is {position}, expected per cent, 0 to 100")
    axis, spacing = DIRECTIONS[direction], volume["spacing"]
    hu, labels = np.asarray(volume["hu"]), np.asarray(volume["semantic"])
    index = round(position / 100 * (hu.shape[axis] - 1))
    planes = [np.take(array, index, axis) for array in (hu, labels)]
    if axis:
        planes = [plane[::-1] for plane in planes]  # the head is at the end of axis 0 and belongs at the top
    height, width = (step for other, step in enumerate(spacing) if other != axis)
    return Slice(planes[0], planes[1], height / width, index, index * spacing[axis])


def grey(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Hounsfield units as grey values: the window's ends are black and white, what lies beyond is cut.

    Args:
        hu: any shape.
        level: middle of the window.
        width: of the window.

    Returns:
        The same shape in [0, 1].

    >>> grey(np.array([-1000.0, 40.0, 140.0]), 40, 400)
    array([0.  , 0.5 , 0.75])
    """
    return np.clip((hu - level) / width + 0.5, 0, 1)


@lru_cache(maxsize=1)
def scene() -> dict[str, Any]:
    """The volume that the book shows: 24 thick slices of the upper abdomen."""
    return draw_volume(SCENE, SIZE)


def figure_of(one: Slice, window: str, organs: bool, millimetres: bool, classes: tuple[str, ...]) -> Figure:
    """The picture of a slice.

    Args:
        one: from `cut`.
        window: one of `WINDOWS`.
        organs: tint the classes.
        millimetres: draw voxels as large as they are; False draws them square.
        classes: names of the classes.

    Returns:
        The figure.
    """
    picture = grey(one.hu, *WINDOWS[window])
    fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    shown = overlay(picture, one.labels) if organs else np.repeat(picture[..., None], 3, axis=2)
    ax.imshow(shown, aspect=one.aspect if millimetres else 1.0, interpolation="nearest")
    ax.axis("off")
    ax.set_anchor("N")  # a flat slice stays below its title
    found = [label for label in np.unique(one.labels) if label]
    if organs and found:
        colours = palette(max(found))
        handles = [Patch(color=colours[label - 1], label=classes[label]) for label in found]
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
    """Show one slice.

    Args:
        direction: one of `DIRECTIONS`.
        position: per cent of the way along the axis.
        window: one of `WINDOWS`.
        organs: tint the classes.
        millimetres: draw voxels as large as they are; False draws them square.
        volume: see `cut`; None is the book's.
        classes: names of its classes.
    """
    volume = scene() if volume is None else volume
    one = cut(volume, direction, position)
    fig = figure_of(one, window, organs, millimetres, classes)
    level, width = WINDOWS[window]
    count = np.asarray(volume["hu"]).shape[DIRECTIONS[direction]]
    where = f"slice {one.index + 1} of {count}, {one.place:.0f} mm from the first"
    title = f"{direction} {where}; level {level:.0f}, width {width:.0f} HU"
    fig.suptitle(title, fontsize=10)
    names = [classes[label] for label in np.unique(one.labels) if label]
    seen = f"tinted: {', '.join(names) or 'no organ'}" if organs else "no organ tinted"
    shape = f"voxels {one.aspect:.2g} times as high as wide" if millimetres else "voxels drawn square"
    show(fig, f"CT, {title}; {shape}; {seen}.")


def explorer(volume: Mapping[str, Any] | None = None, classes: tuple[str, ...] = CLASSES) -> None:
    """The slice viewer of chapter 16: sliders where somebody can move them, four frames elsewhere.

    Args:
        volume: see `cut`; None is the book's.
        classes: names of its classes.
    """

    def draw(
        direction: str = "axial",
        position: int = 50,
        window: str = "soft tissue",
        organs: bool = True,
        millimetres: bool = True,
    ) -> None:
        draw_slice(direction, position, window, organs, millimetres, volume, classes)

    last = min(SIZE if volume is None else np.shape(volume["hu"])) - 1
    step = next((step for step in (1, 2, 5, 10, 25) if step * last >= 100), 50)  # each shows another slice

    explore(
        draw,
        static=[
            {"direction": "axial", "position": 55, "organs": False},
            {"direction": "axial", "position": 55, "organs": True},
            {"direction": "coronal", "position": 55, "millimetres": True},
            {"direction": "coronal", "position": 55, "millimetres": False, "window": "lung"},
        ],
        labels={"position": "per cent along the axis", "organs": "tint organs", "millimetres": "true proportions"},
        position=(0, 100, step),  # first, for JupyterLab keeps the arrow keys of a list to itself
        direction=list(DIRECTIONS),
        window=list(WINDOWS),
        organs=True,
        millimetres=True,
    )
