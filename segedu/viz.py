"""Pictures of images, masks and instances. Outlines, numbers and hatches repeat the meaning of every colour."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

# Okabe and Ito (2008) without black, for readers with any common kind of colour blindness.
_OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
DENSITY = 2  # pixels of a PNG for each pixel of the page, along each axis
_OUTCOMES = (("correct", "#009E73", ""), ("missed", "#0072B2", "////"), ("false", "#D55E00", "...."))


def palette(num: int) -> np.ndarray:
    """Return `num` colours that colour-blind people can tell apart, as float64 (num, 3) in [0, 1].

    The first seven are those of Okabe and Ito; further groups of seven repeat them lighter and darker in turn.
    """
    if isinstance(num, bool) or not isinstance(num, (int, np.integer)):
        raise TypeError(f"num is {num!r}, expected an integer")
    if num < 0:
        raise ValueError(f"num is {num}, expected at least 0")
    base = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in _OKABE_ITO])
    shades = (base, base * 0.55 + 0.45, base * 0.65)
    groups = [shades[i % 3] for i in range(-(-num // len(base)))]
    return np.concatenate([np.zeros((0, 3)), *groups])[:num]


def show(fig: Figure, alt: str, vector: bool = False) -> None:
    """Display a figure with alternative text, and close it.

    Args:
        fig: a matplotlib figure.
        alt: describes the picture for people who cannot see it; at least 10 characters.
        vector: display an SVG, for diagrams and plots on pages. JupyterLab shows no alternative text for it. Otherwise
            a PNG with two pixels for each pixel of the page, so that text stays sharp on high-density screens.
    """
    from IPython.display import SVG, Image, display

    if not isinstance(fig, Figure):
        raise TypeError(f"fig has type {type(fig).__name__}, expected a matplotlib Figure")
    if not isinstance(alt, str):
        raise TypeError(f"alt has type {type(alt).__name__}, expected a string that describes the picture")
    if len(alt.strip()) < 10:
        raise ValueError(f"alt is {alt!r}, expected at least 10 characters that describe the picture")
    # without dates, versions and random names the same figure gives the same bytes
    if vector:
        text = io.StringIO()
        with plt.rc_context({"svg.hashsalt": "segedu", "svg.fonttype": "path"}):
            fig.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(fig)
        display(SVG(data=text.getvalue()), metadata={"image/svg+xml": {"alt": alt}})
        return
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", bbox_inches="tight", dpi=DENSITY * fig.dpi, metadata={"Software": None})
    plt.close(fig)
    width = int.from_bytes(buffer.getvalue()[16:20]) // DENSITY  # the PNG's header says how wide it is
    # Colab's IPython 7.34 has no argument `alt`; newer versions put it into the metadata too
    display(Image(data=buffer.getvalue(), format="png", width=width, metadata={"alt": alt}))


def _array(name: str, value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a tensor or an array")
    return value


def _picture(image: object) -> np.ndarray:
    """Convert an image (3, H, W), (1, H, W) or (H, W) in [0, 1] to (H, W, 3)."""
    array = _array("image", image)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"image has shape {array.shape}, expected (3, H, W), (1, H, W) or (H, W), not empty")
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"image has dtype {array.dtype}, expected floats in [0, 1]")
    if not (np.isfinite(array).all() and array.min() >= -1e-6 and array.max() <= 1 + 1e-6):
        raise ValueError(f"image runs from {array.min()} to {array.max()}, expected finite values in [0, 1]")
    return np.repeat(np.moveaxis(array, 0, 2), 3 // array.shape[0], axis=2).clip(0, 1).astype(np.float64)


def _labels(name: str, value: object, shape: tuple[int, int]) -> np.ndarray:
    """Convert a label map or mask (H, W), or masks (N, H, W), to an integer map of `shape`; 255 stays 255."""
    array = _array(name, value)
    if array.ndim == 3 and array.dtype == bool:
        indices = np.arange(1, len(array) + 1)[:, None, None]
        array = (array * indices).max(axis=0, initial=0)
    if array.ndim != 2 or array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}, the size of the image")
    if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} has dtype {array.dtype}, expected integers or bool")
    if array.size and array.min() < 0:
        raise ValueError(f"{name} has the negative label {array.min()}, expected labels of at least 0")
    return array.astype(np.int64)


def outline(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels of a label map (H, W) with a smaller label above, below, left or right; returns bool (H, W)."""
    cross = ndimage.generate_binary_structure(2, 1)
    return ndimage.minimum_filter(labels, footprint=cross, mode="nearest") < labels


def overlay(image: object, labels: object, *, opacity: float = 0.4) -> np.ndarray:
    """Tint each label of an image in its own colour and draw its outline.

    Args:
        image: (3, H, W), (1, H, W) or (H, W), float in [0, 1].
        labels: label map or semantic target (H, W), mask (H, W) bool, or masks (N, H, W) bool; 0 is not tinted.
            The same label has the same colour in every picture.
        opacity: of the tint, from 0 (outlines only) to 1.

    Returns:
        float64 (H, W, 3) in [0, 1], for `imshow`.
    """
    picture = _picture(image)
    labels = _labels("labels", labels, picture.shape[:2])
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity!r}, expected a number from 0 to 1")
    colours = np.concatenate([np.zeros((1, 3)), palette(int(labels.max()))])[labels]
    inside = (labels > 0)[..., None]
    tinted = np.where(inside, (1 - opacity) * picture + opacity * colours, picture)
    return np.where(outline(labels)[..., None], colours, tinted)


def widest_point(mask: np.ndarray) -> tuple[int, int, float]:
    """Find the pixel of a mask (H, W) that is furthest from its edge: row, column and distance."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column), float(depth.max())


def _write_numbers(axis: plt.Axes, labels: np.ndarray) -> None:
    """Write each label at its widest point."""
    for label in np.unique(labels[labels > 0])[:60]:
        row, column, _ = widest_point(labels == label)
        style = {"boxstyle": "round,pad=0.1", "facecolor": "black", "alpha": 0.6, "linewidth": 0}
        axis.text(column, row, str(label), color="white", fontsize=7, ha="center", va="center", bbox=style)


def gallery(
    images: Sequence,
    labels: Sequence | None = None,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    numbers: bool = False,
    width: float = 2.2,
) -> Figure:
    """Draw images in a grid, with labels over them if given; pass the figure to `show`.

    Args:
        images: at least one image, each (3, H, W), (1, H, W) or (H, W) in [0, 1]; or a batch (B, 3, H, W).
        labels: one label map, mask or stack of masks per image, as in `overlay`; None for an image without labels.
        titles: one per image.
        columns: images per row.
        numbers: whether to write the label on each instance.
        width: of an image, in inches.
    """
    images = list(images)
    labels = [None] * len(images) if labels is None else list(labels)
    titles = [""] * len(images) if titles is None else list(titles)
    if not images:
        raise ValueError("images is empty, expected at least one image")
    for name, values in (("labels", labels), ("titles", titles)):
        if len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} entries, expected {len(images)}, one per image")
    if columns < 1:
        raise ValueError(f"columns is {columns}, expected at least 1")
    across = min(columns, len(images))
    down = -(-len(images) // across)
    fig, axes = plt.subplots(down, across, figsize=(width * across, width * down * 1.08), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label, title in zip(axes.flat, images, labels, titles, strict=False):
        picture = _picture(image) if label is None else overlay(image, label)
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        if numbers and label is not None:
            _write_numbers(axis, _labels("labels", label, picture.shape[:2]))
    fig.set_layout_engine("constrained", w_pad=0.03, h_pad=0.05, wspace=0, hspace=0)  # titles clear of images above
    fig.get_layout_engine().execute(fig)
    fig.set_layout_engine("none")  # a caller may arrange the panels anew
    return fig


def _outcomes(target: np.ndarray, prediction: np.ndarray, ignore_index: int | None) -> list[np.ndarray]:
    """Correct, missed and false pixels; a pixel of a wrong class is false."""
    counted = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    correct = counted & (target == prediction) & (target > 0)
    missed = counted & (target > 0) & (prediction == 0)
    return [correct, missed, counted & (prediction > 0) & (prediction != target)]


def compare(
    image: object, target: object, prediction: object, *, ignore_index: int | None = 255, width: float = 2.6
) -> Figure:
    """Draw image, ground truth, prediction and errors side by side.

    In the panel of errors, correct foreground is plain green, missed foreground (false negative) is blue and hatched
    with lines, and false foreground (false positive, or a wrong class) is orange and dotted; the legend has their
    pixel counts.

    Args:
        image: (3, H, W), (1, H, W) or (H, W), float in [0, 1].
        target: semantic target or mask (H, W).
        prediction: predicted classes or mask (H, W). For instances compare `label_map > 0`, because ids are arbitrary.
        ignore_index: label of `target` that is ignored.
        width: of a panel, in inches.
    """
    picture = _picture(image)
    target = _labels("target", target, picture.shape[:2])
    prediction = _labels("prediction", prediction, picture.shape[:2])
    shown = target if ignore_index is None else np.where(target == ignore_index, 0, target)
    outcomes = _outcomes(target, prediction, ignore_index)
    errors = np.repeat(0.5 + 0.3 * picture.mean(axis=2, keepdims=True), 3, axis=2)
    for (_, colour, _), where in zip(_OUTCOMES, outcomes, strict=True):
        errors[where] = 0.25 * errors[where] + 0.75 * np.array(to_rgb(colour))
    fig, axes = plt.subplots(1, 4, figsize=(4 * width, width * 1.25))
    panels = (picture, overlay(image, shown), overlay(image, prediction), errors)
    for axis, panel, title in zip(axes, panels, ("image", "ground truth", "prediction", "errors"), strict=True):
        axis.imshow(panel, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    handles = []
    for (name, colour, hatch), where in zip(_OUTCOMES, outcomes, strict=True):
        handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=f"{name}: {where.sum()} px"))
        if hatch and where.any() and min(where.shape) > 1:
            axes[3].contourf(where, levels=[0.5, 1.5], colors="none", hatches=[hatch])
    fig.legend(handles=handles, loc="lower right", ncols=3, fontsize=8, frameon=False)
    fig.tight_layout(pad=0.4, rect=(0, 0.09, 1, 1))
    return fig
