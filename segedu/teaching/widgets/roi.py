"""A box that moves across a feature map (chapter 14): which values RoIPool and RoIAlign read, pixel by pixel."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from segedu.datasets.shapes import draw_shapes
from segedu.ops.roi_align import roi_align
from segedu.ops.roi_pool import roi_pool
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, POOL, ALIGN = "#1b1b1b", "#D55E00", "#0072B2"
SEED, SIZE = 11, (128, 128)
BOX = (18.8, 62.8, 57.2, 101.2)  # xyxy in pixels, before the shift; around a ball
BINS = 3
NUDGE = 0.3  # pixels: the further shift for which each bin shows its change
SHIFTS = (-8.0, 8.0)  # from, to
STRIDES = [4, 8, 16]
HIGHLIGHTED = (1, 0)  # row and column of the bin whose value is drawn as a curve
LABELS = {
    "shift": "shift of the box to the right, in pixels",
    "stride": "stride of the feature map",
    "points": "RoIAlign: sampling points of a bin along each axis",
    "aligned": "RoIAlign: centre of the first location at 0.5",
}
FRAMES = [
    {"shift": 1.0, "stride": 8},
    {"shift": 1.3, "stride": 8},
    {"shift": -1.3, "stride": 16},
    {"shift": 1.0, "stride": 8, "points": 1},
    {"shift": 1.0, "stride": 8, "aligned": False},
]
RANGE = {"vmin": 0.2, "vmax": 0.85}  # brightness from black to white


class Scene(NamedTuple):
    """A synthetic image, and a feature map of it at each stride."""

    image: np.ndarray  # (H, W, 3)
    features: dict[int, Tensor]  # stride -> (1, 1, H / stride, W / stride) in [0, 1]


@lru_cache
def scene() -> Scene:
    """A scene whose only feature is brightness: each location of a map has the mean of its pixels."""
    image = draw_shapes(SEED, SIZE)["image"].as_subclass(Tensor)
    brightness = image.mean(dim=0)[None, None]
    return Scene(np.moveaxis(image.numpy(), 0, 2), {stride: F.avg_pool2d(brightness, stride) for stride in STRIDES})


def shifted_boxes(shifts: Tensor) -> Tensor:
    """Box (N, 4), xyxy in pixels, after each shift (N,) to the right in pixels."""
    return torch.tensor(BOX) + shifts[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])


def roi_pool_values(shifts: Tensor, stride: int) -> Tensor:
    """RoIPool's output (N, BINS, BINS) for the box after each shift (N,), on the feature map with this stride."""
    return roi_pool(scene().features[stride], [shifted_boxes(shifts)], BINS, 1 / stride)[:, 0]


def roi_align_values(shifts: Tensor, stride: int, points: int, aligned: bool) -> Tensor:
    """RoIAlign's output (N, BINS, BINS) for the box after each shift.

    Args:
        shifts: (N,) pixels to the right.
        stride: stride of the feature map, one of `STRIDES`.
        points: sampling points of a bin along each axis.
        aligned: whether the centre of the first location is at 0.5.
    """
    return roi_align(scene().features[stride], [shifted_boxes(shifts)], BINS, 1 / stride, points, aligned)[:, 0]


def pool_bins(start: float, end: float) -> list[tuple[int, int]]:
    """First location and end of each RoIPool bin along one axis of a box from `start` to `end`; bins may overlap.

    >>> pool_bins(0.4, 3.6)
    [(0, 2), (1, 4), (3, 5)]
    """
    first, last = (int(np.floor(edge + 0.5)) for edge in (start, end))
    side = (last - first + 1) / BINS  # the last location is inside
    return [(first + int(np.floor(k * side)), first + int(np.ceil((k + 1) * side))) for k in range(BINS)]


def align_points(start: float, end: float, points: int) -> np.ndarray:
    """Sampling points of RoIAlign along one axis of a box from `start` to `end`, in units of the feature map.

    >>> align_points(0.0, 3.0, 1)
    array([0.5, 1.5, 2.5])
    """
    return start + (end - start) * (np.arange(BINS * points) + 0.5) / (BINS * points)


def draw_regions(shift: float = 1.0, stride: int = 8, points: int = 2, aligned: bool = True) -> None:
    """Show where both methods read in a shifted box, their values, the change after 0.3 pixels, and a bin's curve.

    Args:
        shift: pixels to the right.
        stride: stride of the feature map, one of `STRIDES`.
        points: RoIAlign's sampling points of a bin along each axis.
        aligned: RoIAlign: whether the centre of the first location is at 0.5.
    """
    shifts = torch.tensor([shift, shift + NUDGE])
    pool, align = roi_pool_values(shifts, stride).numpy(), roi_align_values(shifts, stride, points, aligned).numpy()
    fig = Figure(figsize=(8.6, 6.6), layout="constrained")
    (image, bins, sampling), (curves, pool_values, align_values) = fig.subplots(2, 3)
    box = shifted_boxes(shifts[:1])[0].numpy()
    _paint_image(image, box, stride)
    _paint_bins(bins, box / stride, stride)
    _paint_points(sampling, box / stride, stride, points, aligned)
    _paint_curves(curves, shift, stride, points, aligned)
    changes = [_paint_values(pool_values, "RoIPool", *pool), _paint_values(align_values, "RoIAlign", *align)]
    show(
        fig,
        f"The box, shifted by {shift:.1f} pixels, on a map of stride {stride}. {NUDGE:g} pixels further, the values of "
        f"RoIPool change by up to {changes[0]:.3f}, those of RoIAlign by up to {changes[1]:.3f}. Over all shifts, "
        f"one bin's value is a step function with RoIPool and changes smoothly with RoIAlign.",
    )


def _paint_image(ax: Axes, box: np.ndarray, stride: int) -> None:
    ax.imshow(scene().image, extent=(0, SIZE[1], SIZE[0], 0))
    for line in range(0, SIZE[0] + 1, stride):
        ax.axhline(line, color="white", linewidth=0.4, alpha=0.6)
        ax.axvline(line, color="white", linewidth=0.4, alpha=0.6)
    _frame(ax, box, INK)
    ax.set(xticks=[], yticks=[], xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
    ax.set_title(f"image; locations of\n{stride} x {stride} pixels", fontsize=10, color=INK)


def _paint_map(ax: Axes, box: np.ndarray, stride: int) -> None:
    """Draw the feature map around the box, with room for the corners that RoIPool may round to."""
    values = scene().features[stride][0, 0].numpy()
    ax.imshow(values, cmap="gray", **RANGE, extent=(0, values.shape[1], values.shape[0], 0))
    x1, y1, x2, y2 = box
    ax.set(xticks=[], yticks=[], xlim=(x1 - 1.6, x2 + 1.6), ylim=(y2 + 1.6, y1 - 1.6))


def _paint_bins(ax: Axes, box: np.ndarray, stride: int) -> None:
    """Draw the locations of each bin of RoIPool, inset, because neighbouring bins share some."""
    _paint_map(ax, box, stride)
    columns, rows = pool_bins(box[0], box[2]), pool_bins(box[1], box[3])
    for j, (left, right) in enumerate(columns):
        for i, (top, bottom) in enumerate(rows):
            inset = 0.08 + 0.09 * ((i + j) % 2)
            corners = np.array([left + inset, top + inset, right - inset, bottom - inset])
            _frame(ax, corners, POOL, "-" if (i + j) % 2 else "--", highlighted=(i, j) == HIGHLIGHTED)
    _frame(ax, box, INK)
    ax.set_title("RoIPool:\nlocations of each bin", fontsize=10, color=INK)


def _paint_points(ax: Axes, box: np.ndarray, stride: int, points: int, aligned: bool) -> None:
    """Draw the sampling points of RoIAlign's bins. Without `aligned`, location 0 is at its drawn corner."""
    _paint_map(ax, box, stride)
    shifted_box = box if aligned else box + 0.5
    edges = [np.linspace(shifted_box[axis], shifted_box[axis + 2], BINS + 1) for axis in (0, 1)]
    for j in range(BINS):
        for i in range(BINS):
            corners = np.array([edges[0][j], edges[1][i], edges[0][j + 1], edges[1][i + 1]])
            _frame(ax, corners, ALIGN, highlighted=(i, j) == HIGHLIGHTED)
    x, y = (align_points(shifted_box[axis], shifted_box[axis + 2], points) for axis in (0, 1))
    ax.scatter(*np.meshgrid(x, y), s=16, color=ALIGN, edgecolor="white", linewidth=0.7, zorder=3)
    _frame(ax, box, INK)
    ax.set_title("RoIAlign:\nsampling points of each bin", fontsize=10, color=INK)


def _frame(ax: Axes, corners: np.ndarray, colour: str, style: str = "-", highlighted: bool = False) -> None:
    x1, y1, x2, y2 = corners
    width = 3.5 if highlighted else 1.6 if colour == INK else 1.3
    if colour == INK:  # the box itself must be visible on dark pixels too
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="white", lw=3.6))
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width, ls=style))


def _paint_curves(ax: Axes, shift: float, stride: int, points: int, aligned: bool) -> None:
    """Plot one bin's value over the whole range of shifts."""
    shifts = torch.arange(SHIFTS[0], SHIFTS[1] + NUDGE, 0.05)
    row, column = HIGHLIGHTED
    curves = {"RoIPool": roi_pool_values(shifts, stride), "RoIAlign": roi_align_values(shifts, stride, points, aligned)}
    for (name, values), colour, style in zip(curves.items(), (POOL, ALIGN), ("-", "--"), strict=True):
        ax.plot(shifts, values[:, row, column], style, color=colour, label=name)
    ax.axvspan(shift, shift + NUDGE, color=INK, alpha=0.35, linewidth=0)
    ax.set(xlabel="shift of the box in pixels", ylabel="value of the thick bin", xlim=SHIFTS)
    ax.set_title(f"one bin; grey:\nthe next {NUDGE:g} pixels", fontsize=10, color=INK)
    ax.legend(fontsize=9)


def _paint_values(ax: Axes, name: str, here: np.ndarray, nudged: np.ndarray) -> float:
    """Draw each bin's value and its change after a small further shift; returns the largest change."""
    change = nudged - here
    ax.imshow(here, cmap="gray", **RANGE)
    for (i, j), value in np.ndenumerate(here):
        ax.text(
            j,
            i,
            f"{value:.2f}\n{change[i, j]:+.3f}",
            ha="center",
            va="center",
            fontsize=11,
            color="white" if value < 0.5 else INK,
            weight="bold" if (i, j) == HIGHLIGHTED else "normal",
        )
    ax.set(xticks=[], yticks=[])
    largest = float(np.abs(change).max())
    ax.set_title(f"{name}: after {NUDGE:g} pixels,\nchanges of up to {largest:.3f}", fontsize=10, color=INK)
    return largest


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, five static frames elsewhere."""
    explore_in_browser(draw_regions, "roi_align", static=FRAMES, labels=LABELS)
