"""A box on its way across a feature map (chapter 14): what RoIPool and RoIAlign read in it, pixel by pixel."""

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
from segedu.teaching.widgets.explore import explore
from segedu.viz import show

INK, POOL, ALIGN = "#1b1b1b", "#D55E00", "#0072B2"
SEED, SIZE = 11, (128, 128)
BOX = (18.8, 62.8, 57.2, 101.2)  # xyxy in pixels, before it moves: a ball
BINS = 3
NUDGE = 0.3  # pixels: how much further the box goes for the change that is written into each bin
SHIFTS = (-8.0, 8.0, 0.1)
STRIDES = [4, 8, 16]
WATCHED = (1, 0)  # row and column of the bin whose value is drawn as a curve
LABELS = {
    "shift": "box moved to the right by, in pixels",
    "stride": "stride of the feature map",
    "points": "RoIAlign: points of a bin along each axis",
    "aligned": "RoIAlign: first place has its middle at 0.5",
}
FRAMES = [
    {"shift": 1.0, "stride": 8},
    {"shift": 1.3, "stride": 8},
    {"shift": -1.3, "stride": 16},
    {"shift": 1.0, "stride": 8, "points": 1},
    {"shift": 1.0, "stride": 8, "aligned": False},
]
RANGE = {"vmin": 0.2, "vmax": 0.85}  # of the brightness that is drawn from black to white


class Scene(NamedTuple):
    """A drawn image, and a feature map of it at each stride."""

    image: np.ndarray  # (H, W, 3)
    features: dict[int, Tensor]  # stride -> (1, 1, H / stride, W / stride) in [0, 1]


@lru_cache
def scene() -> Scene:
    """A scene whose only feature is brightness: each place of a map has the mean of its pixels."""
    image = draw_shapes(SEED, SIZE)["image"].as_subclass(Tensor)
    grey = image.mean(dim=0)[None, None]
    return Scene(np.moveaxis(image.numpy(), 0, 2), {stride: F.avg_pool2d(grey, stride) for stride in STRIDES})


def moved(shifts: Tensor) -> Tensor:
    """The box after each shift.

    Args:
        shifts: (N,) pixels to the right.

    Returns:
        (N, 4), xyxy in pixels.
    """
    return torch.tensor(BOX) + shifts[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])


def pooled(shifts: Tensor, stride: int) -> Tensor:
    """What RoIPool gives for the box after each shift.

    Args:
        shifts: (N,) pixels to the right.
        stride: of the feature map, one of `STRIDES`.

    Returns:
        (N, BINS, BINS).
    """
    return roi_pool(scene().features[stride], [moved(shifts)], BINS, 1 / stride)[:, 0]


def averaged(shifts: Tensor, stride: int, points: int, aligned: bool) -> Tensor:
    """What RoIAlign gives for the box after each shift.

    Args:
        shifts: (N,) pixels to the right.
        stride: of the feature map, one of `STRIDES`.
        points: of a bin along each axis.
        aligned: whether the first place has its middle at 0.5.

    Returns:
        (N, BINS, BINS).
    """
    return roi_align(scene().features[stride], [moved(shifts)], BINS, 1 / stride, points, aligned)[:, 0]


def pool_bins(low: float, high: float) -> list[tuple[int, int]]:
    """First place of each bin of RoIPool along one axis, and the first behind it.

    Args:
        low: where the box begins, in places.
        high: where it ends.

    Returns:
        One pair a bin. Bins overlap where places are shared.

    >>> pool_bins(0.4, 3.6)
    [(0, 2), (1, 4), (3, 5)]
    """
    first, last = (int(np.floor(edge + 0.5)) for edge in (low, high))
    side = (last - first + 1) / BINS  # the last place is inside
    return [(first + int(np.floor(k * side)), first + int(np.ceil((k + 1) * side))) for k in range(BINS)]


def align_points(low: float, high: float, points: int) -> np.ndarray:
    """Where RoIAlign reads along one axis.

    Args:
        low: where the box begins, in places.
        high: where it ends.
        points: of a bin.

    Returns:
        (BINS * points,) in places.

    >>> align_points(0.0, 3.0, 1)
    array([0.5, 1.5, 2.5])
    """
    return low + (high - low) * (np.arange(BINS * points) + 0.5) / (BINS * points)


def draw_regions(shift: float = 1.0, stride: int = 8, points: int = 2, aligned: bool = True) -> None:
    """Show where both read in a moved box, what they read, how it changes 0.3 pixels further, and one bin all the way.

    Args:
        shift: pixels to the right.
        stride: of the feature map, one of `STRIDES`.
        points: RoIAlign's points of a bin along each axis.
        aligned: RoIAlign: whether the first place has its middle at 0.5.
    """
    shifts = torch.tensor([shift, shift + NUDGE])
    pool, align = pooled(shifts, stride).numpy(), averaged(shifts, stride, points, aligned).numpy()
    fig = Figure(figsize=(10.6, 6.9), layout="constrained")
    (image, places, spots), (curves, maxima, means) = fig.subplots(2, 3)
    box = moved(shifts[:1])[0].numpy()
    _paint_image(image, box, stride)
    _paint_places(places, box / stride, stride)
    _paint_points(spots, box / stride, stride, points, aligned)
    _paint_curves(curves, shift, stride, points, aligned)
    jumps = [_paint_values(maxima, "RoIPool", *pool), _paint_values(means, "RoIAlign", *align)]
    show(
        fig,
        f"The box, moved by {shift:.1f} pixels, on a map of stride {stride}. {NUDGE:g} pixels further the values of "
        f"RoIPool change by up to {jumps[0]:.3f}, those of RoIAlign by up to {jumps[1]:.3f}. All the way one bin's "
        f"value is a stair with RoIPool, a slope with RoIAlign.",
    )


def _paint_image(ax: Axes, box: np.ndarray, stride: int) -> None:
    ax.imshow(scene().image, extent=(0, SIZE[1], SIZE[0], 0))
    for place in range(0, SIZE[0] + 1, stride):
        ax.axhline(place, color="white", linewidth=0.4, alpha=0.6)
        ax.axvline(place, color="white", linewidth=0.4, alpha=0.6)
    _frame(ax, box, INK)
    ax.set(xticks=[], yticks=[], xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
    ax.set_title(f"image; places of {stride} x {stride} pixels", fontsize=10, color=INK)


def _paint_map(ax: Axes, box: np.ndarray, stride: int) -> None:
    """The feature map and the box, with both corners that RoIPool might round it to in sight."""
    values = scene().features[stride][0, 0].numpy()
    ax.imshow(values, cmap="gray", **RANGE, extent=(0, values.shape[1], values.shape[0], 0))
    x1, y1, x2, y2 = box
    ax.set(xticks=[], yticks=[], xlim=(x1 - 1.6, x2 + 1.6), ylim=(y2 + 1.6, y1 - 1.6))


def _paint_places(ax: Axes, box: np.ndarray, stride: int) -> None:
    """RoIPool: the places of each bin. Neighbouring bins share some, so they are drawn a little apart."""
    _paint_map(ax, box, stride)
    columns, rows = pool_bins(box[0], box[2]), pool_bins(box[1], box[3])
    for j, (left, right) in enumerate(columns):
        for i, (top, bottom) in enumerate(rows):
            inset = 0.08 + 0.09 * ((i + j) % 2)
            corners = np.array([left + inset, top + inset, right - inset, bottom - inset])
            _frame(ax, corners, POOL, "-" if (i + j) % 2 else "--", watched=(i, j) == WATCHED)
    _frame(ax, box, INK)
    ax.set_title("RoIPool: whole places of each bin", fontsize=10, color=INK)


def _paint_points(ax: Axes, box: np.ndarray, stride: int, points: int, aligned: bool) -> None:
    """RoIAlign: the points of each bin. Without `aligned` place 0 is read where its corner is drawn."""
    _paint_map(ax, box, stride)
    drawn = box if aligned else box + 0.5
    edges = [np.linspace(drawn[axis], drawn[axis + 2], BINS + 1) for axis in (0, 1)]
    for j in range(BINS):
        for i in range(BINS):
            corners = np.array([edges[0][j], edges[1][i], edges[0][j + 1], edges[1][i + 1]])
            _frame(ax, corners, ALIGN, watched=(i, j) == WATCHED)
    x, y = (align_points(drawn[axis], drawn[axis + 2], points) for axis in (0, 1))
    ax.scatter(*np.meshgrid(x, y), s=16, color=ALIGN, edgecolor="white", linewidth=0.7, zorder=3)
    _frame(ax, box, INK)
    ax.set_title("RoIAlign: points of each bin", fontsize=10, color=INK)


def _frame(ax: Axes, corners: np.ndarray, colour: str, style: str = "-", watched: bool = False) -> None:
    x1, y1, x2, y2 = corners
    width = 3.5 if watched else 1.6 if colour == INK else 1.3
    if colour == INK:  # the box itself, which must be seen on dark places too
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="white", lw=3.6))
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width, ls=style))


def _paint_curves(ax: Axes, shift: float, stride: int, points: int, aligned: bool) -> None:
    """One bin's value while the box goes all the way."""
    shifts = torch.arange(SHIFTS[0], SHIFTS[1] + NUDGE, 0.05)
    row, column = WATCHED
    curves = {"RoIPool": pooled(shifts, stride), "RoIAlign": averaged(shifts, stride, points, aligned)}
    for (name, values), colour, style in zip(curves.items(), (POOL, ALIGN), ("-", "--"), strict=True):
        ax.plot(shifts, values[:, row, column], style, color=colour, label=name)
    ax.axvspan(shift, shift + NUDGE, color=INK, alpha=0.35, linewidth=0)
    ax.set(xlabel="box moved by, in pixels", ylabel="value of the thick bin", xlim=SHIFTS[:2])
    ax.set_title(f"one bin; grey: from here {NUDGE:g} pixels on", fontsize=10, color=INK)
    ax.legend(fontsize=8)


def _paint_values(ax: Axes, name: str, here: np.ndarray, there: np.ndarray) -> float:
    """What each bin reads, and how that changes a nudge further; gives the largest change."""
    change = there - here
    ax.imshow(here, cmap="gray", **RANGE)
    for (i, j), value in np.ndenumerate(here):
        ax.text(
            j,
            i,
            f"{value:.2f}\n{change[i, j]:+.3f}",
            ha="center",
            va="center",
            fontsize=11,
            color="white" if value < 0.55 else INK,
            weight="bold" if (i, j) == WATCHED else "normal",
        )
    ax.set(xticks=[], yticks=[])
    jump = float(np.abs(change).max())
    ax.set_title(f"{name}; change {NUDGE:g} pixels on: up to {jump:.3f}", fontsize=10, color=INK)
    return jump


def explorer() -> None:
    """The chapter's widget: sliders where somebody can move them, five frames elsewhere."""
    explore(
        draw_regions,
        static=FRAMES,
        labels=LABELS,
        shift=SHIFTS,
        stride=STRIDES,
        points=(1, 4, 1),
        aligned=True,
    )
