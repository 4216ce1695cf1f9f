"""A slice viewer for CT volumes (chapter 16): axis, position, intensity window, organ labels and voxel proportions."""

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

ORIENTATIONS = {"axial": 0, "coronal": 1, "sagittal": 2}  # axis of the volume along which the slider moves
# Name -> (level, width) of an intensity window in Hounsfield units; the level is the centre of the window.
WINDOWS = {"soft tissue": (40.0, 400.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0)}
SCENE, SIZE = 3, (24, 64, 80)


class Slice(NamedTuple):
    """One slice for display.

    Attributes:
        hu: (H, W) Hounsfield units.
        labels: (H, W) classes.
        aspect: height of a voxel in the slice divided by its width, both in mm.
        index: index of the slice along its axis, from 0.
        offset_mm: distance from the first slice in mm.
    """

    hu: np.ndarray
    labels: np.ndarray
    aspect: float
    index: int
    offset_mm: float


def extract_slice(volume: Mapping[str, Any], orientation: str, position: int) -> Slice:
    """Extract one slice of a volume, with the head or the front of the body at the top.

    Args:
        volume: dict of `hu` (D, H, W), `semantic` (D, H, W) and `spacing` (3,) in mm. The axes run from the feet to the
            head, from the front to the back, and from the patient's right to the left.
        orientation: a key of `ORIENTATIONS`: the orientation of the slice.
        position: position along the axis in percent; 0 is the first slice and 100 the last.
    """
    if orientation not in ORIENTATIONS:
        raise ValueError(f"orientation is {orientation!r}, expected one of {', '.join(ORIENTATIONS)}")
    if not 0 <= position <= 100:
        raise ValueError(f"position is {position}, expected a percentage, 0 to 100")
    axis, spacing = ORIENTATIONS[orientation], volume["spacing"]
    hu, labels = np.asarray(volume["hu"]), np.asarray(volume["semantic"])
    index = round(position / 100 * (hu.shape[axis] - 1))
    planes = [np.take(array, index, axis) for array in (hu, labels)]
    if axis:
        planes = [plane[::-1] for plane in planes]  # the head, at the end of axis 0, goes to the top
    height, width = (step for other, step in enumerate(spacing) if other != axis)
    return Slice(planes[0], planes[1], height / width, index, index * spacing[axis])


def apply_window(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map Hounsfield units to grey values in [0, 1] with an intensity window.

    Values up to level - width / 2 become 0 (black), values from level + width / 2 become 1 (white), and values between
    these limits are mapped linearly.

    >>> apply_window(np.array([-1000.0, 40.0, 140.0]), 40, 400)
    array([0.  , 0.5 , 0.75])
    """
    return np.clip((hu - level) / width + 0.5, 0, 1)


@lru_cache(maxsize=1)
def scene() -> dict[str, Any]:
    """The synthetic CT volume of chapter 16: 24 thick slices of the upper abdomen."""
    return draw_volume(SCENE, SIZE)


def draw_figure(
    ct_slice: Slice, window: str, show_labels: bool, true_proportions: bool, classes: tuple[str, ...]
) -> Figure:
    """Draw one slice as a figure.

    Args:
        ct_slice: a slice from `extract_slice`.
        window: a key of `WINDOWS`.
        show_labels: whether to overlay the organ labels as colours, with a legend.
        true_proportions: whether to draw voxels with their physical proportions; False draws them square.
        classes: name of each class, by label.
    """
    intensities = apply_window(ct_slice.hu, *WINDOWS[window])
    fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    shown = overlay(intensities, ct_slice.labels) if show_labels else np.repeat(intensities[..., None], 3, axis=2)
    ax.imshow(shown, aspect=ct_slice.aspect if true_proportions else 1.0, interpolation="nearest")
    ax.axis("off")
    ax.set_anchor("N")  # keep a slice of small height directly below the title instead of centring it
    labels = [label for label in np.unique(ct_slice.labels) if label]
    if show_labels and labels:
        colours = palette(max(labels))
        handles = [Patch(color=colours[label - 1], label=classes[label]) for label in labels]
        beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "borderaxespad": 0}  # and below its title
        ax.legend(handles=handles, **beside, frameon=False, fontsize=9)
    return fig


def draw_slice(
    orientation: str = "axial",
    position: int = 50,
    window: str = "soft tissue",
    show_labels: bool = True,
    true_proportions: bool = True,
    volume: Mapping[str, Any] | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> None:
    """Show one slice of a volume (None: `scene()`); for the arguments see `extract_slice` and `draw_figure`."""
    volume = scene() if volume is None else volume
    ct_slice = extract_slice(volume, orientation, position)
    fig = draw_figure(ct_slice, window, show_labels, true_proportions, classes)
    level, width = WINDOWS[window]
    count = np.asarray(volume["hu"]).shape[ORIENTATIONS[orientation]]
    where = f"slice {ct_slice.index + 1} of {count}, {ct_slice.offset_mm:.0f} mm from the first"
    title = f"{orientation} {where}; level {level:.0f}, width {width:.0f} HU"
    fig.axes[0].set_title(title.replace("; ", "\n"), fontsize=10)
    names = [classes[label] for label in np.unique(ct_slice.labels) if label]
    label_text = f"tinted: {', '.join(names) or 'no organ'}" if show_labels else "no organ tinted"
    shape = f"voxels {ct_slice.aspect:.2g} times as high as wide" if true_proportions else "voxels drawn square"
    show(fig, f"CT, {title}; {shape}; {label_text}.")


def explorer(volume: Mapping[str, Any] | None = None, classes: tuple[str, ...] = CLASSES) -> None:
    """Show the slice viewer for a volume (None: `scene()`): live controls in a notebook, else four static frames."""

    def draw(
        orientation: str = "axial",
        position: int = 50,
        window: str = "soft tissue",
        show_labels: bool = True,
        true_proportions: bool = True,
    ) -> None:
        draw_slice(orientation, position, window, show_labels, true_proportions, volume, classes)

    num_steps = min(SIZE if volume is None else np.shape(volume["hu"])) - 1
    # so that each step of the slider shows another slice
    step = next((step for step in (1, 2, 5, 10, 25) if step * num_steps >= 100), 50)

    explore(
        draw,
        static=[
            {"orientation": "axial", "position": 55, "show_labels": False},
            {"orientation": "axial", "position": 55, "show_labels": True},
            {"orientation": "coronal", "position": 55, "true_proportions": True},
            {"orientation": "coronal", "position": 55, "true_proportions": False, "window": "lung"},
        ],
        labels={
            "position": "position along the axis, in %",
            "show_labels": "tint organs",
            "true_proportions": "true proportions",
        },
        position=(0, 100, step),  # first, because JupyterLab intercepts the arrow keys in a drop-down list
        orientation=list(ORIENTATIONS),
        window=list(WINDOWS),
        show_labels=True,
        true_proportions=True,
    )
