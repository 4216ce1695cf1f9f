"""Rays of chapter 9: the star polygon of a cell for a number of rays, and its upper bound for cells of other shapes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from segedu.instance.signed_distance import signed_distance
from segedu.instance.stardist import star_distances
from segedu.ops.polygons import rasterize_polygons, star_polygons
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, RAY, CURVE = "#1b1b1b", "#8a8a8a", "#0072b2"
OUTCOMES = (("in both", "#009E73", ""), ("missed", "#0072B2", "////"), ("outside", "#D55E00", "...."))
ROUND, OVAL, LONG, BENT = "round", "oval", "long", "C-shaped"
CELLS = (ROUND, OVAL, LONG, BENT)
LABELS = {"n_rays": "number of rays", "cell": "cell"}
FRAMES = [
    {"n_rays": 4, "cell": ROUND},
    {"n_rays": 32, "cell": ROUND},
    {"n_rays": 32, "cell": LONG},
    {"n_rays": 32, "cell": BENT},
]
MIN_RAYS, MAX_RAYS = 3, 64
_SIZE = 64  # side of the picture in pixels


def cell_mask(cell: str) -> Tensor:
    """Mask (64, 64) bool of a cell, one of `CELLS`, about 30 to 50 pixels long."""
    y, x = (torch.arange(_SIZE, dtype=torch.float64) - _SIZE / 2 + 0.5 for _ in range(2))
    y, x = torch.meshgrid(y, x, indexing="ij")
    turn = torch.tensor(0.5)  # no edge may be parallel to the pixel grid
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    if cell == ROUND:
        return torch.hypot(y, x) < 17 * (1 + 0.06 * torch.cos(3 * torch.atan2(y, x)))
    if cell == OVAL:
        return torch.hypot(along / 25, across / 13) < 1
    if cell == LONG:
        return torch.hypot((along.abs() - 22).clamp(min=0), across) < 4.5  # a rod with round ends
    if cell == BENT:
        angle = torch.atan2(across, along)
        ring = (torch.hypot(along, across) - 18).abs()
        tips = torch.hypot(along - 18 * np.cos(2.3), across.abs() - 18 * np.sin(2.3))
        return torch.where(angle.abs() < 2.3, ring, tips) < 6
    raise ValueError(f"cell is {cell!r}, expected one of {', '.join(CELLS)}")


def middle_pixel(mask: Tensor) -> Tensor:
    """Pixel (y, x) nearest to the centroid, of those whose distance to the outline is within 1 of the maximum."""
    depth = signed_distance(mask.int())
    deepest = (depth > depth.max() - 1).nonzero()
    return deepest[(deepest - mask.nonzero().double().mean(dim=0)).norm(dim=1).argmin()]


@lru_cache(maxsize=512)
def star_fit(cell: str, n_rays: int) -> tuple[Tensor, Tensor, float]:
    """Star polygon around the central pixel of a cell.

    Returns:
        Corners (R, 2) as (y, x), the pixels inside the polygon (H, W) bool, and their IoU with the cell.
    """
    mask = cell_mask(cell)
    y, x = middle_pixel(mask).tolist()
    distances = star_distances(mask.int(), n_rays)[:, y, x][None]
    points = torch.tensor([[y, x]])
    covered = rasterize_polygons(distances, points, tuple(mask.shape)) > 0
    iou = float((covered & mask).sum() / (covered | mask).sum())
    return star_polygons(distances, points)[0], covered, iou


def draw_rays(n_rays: int = 8, cell: str = ROUND) -> None:
    """Show the rays of one pixel, their polygon against the cell, and the IoU for every number of rays."""
    mask = cell_mask(cell)
    corners, covered, iou = star_fit(cell, n_rays)
    outcomes = [covered & mask, mask & ~covered, covered & ~mask]
    _, missed, extra = (int(where.sum()) for where in outcomes)
    fig = Figure(figsize=(9.6, 3.7), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1, 1, 1.15))
    _rays(axes[0], mask, corners)
    _outcomes(axes[1], outcomes)
    _curve(axes[2], cell, n_rays, iou)
    summary = f"{missed} of {int(mask.sum())} pixels missed, {extra} outside"
    fig.suptitle(f"{cell} cell, {n_rays} rays: IoU {iou:.2f}; {summary}", fontsize=11, color=INK)
    best = max(_ious(cell))
    show(
        fig,
        f"Cell: {cell}. {n_rays} rays from its central pixel, and their star polygon: IoU {iou:.2f}, {summary}. "
        f"The best IoU with up to {MAX_RAYS} rays is {best:.2f}.",
    )


def _rays(ax: Axes, mask: Tensor, corners: Tensor) -> None:
    y, x = middle_pixel(mask).tolist()
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=3)
    for row, column in corners.tolist():
        ax.plot([x, column], [y, row], color=RAY, lw=0.9)
    outline = torch.cat([corners, corners[:1]])
    ax.plot(outline[:, 1], outline[:, 0], color=INK, lw=1.6)
    ax.plot(x, y, "o", color=INK, markersize=4)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, _SIZE - 0.5), ylim=(_SIZE - 0.5, -0.5))
    ax.set_title("rays of one pixel", fontsize=10, color=INK)


def _outcomes(ax: Axes, outcomes: list[Tensor]) -> None:
    """Draw the overlap of polygon and cell; a hatch repeats the meaning of each colour."""
    picture, handles = np.ones((_SIZE, _SIZE, 3)), []
    for (name, colour, hatch), where in zip(OUTCOMES, outcomes, strict=True):
        picture[where] = to_rgb(colour)
        handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=f"{name}: {int(where.sum())}"))
    ax.imshow(picture)
    for (_, _, hatch), where in zip(OUTCOMES, outcomes, strict=True):
        if hatch and where.any():
            ax.contourf(where.float(), levels=[0.5, 1.5], colors="none", hatches=[hatch])
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=8, frameon=False)
    ax.set(xticks=[], yticks=[])
    ax.set_title("polygon and cell, in pixels", fontsize=10, color=INK)


@lru_cache
def _ious(cell: str) -> tuple[float, ...]:
    return tuple(star_fit(cell, n)[2] for n in range(MIN_RAYS, MAX_RAYS + 1))


def _curve(ax: Axes, cell: str, n_rays: int, iou: float) -> None:
    ax.plot(range(MIN_RAYS, MAX_RAYS + 1), _ious(cell), color=CURVE, lw=1.4)
    ax.plot(n_rays, iou, "o", color=INK, markersize=7)
    ax.set(ylim=(0, 1.02), xlabel="number of rays")
    ax.set_title("IoU", fontsize=10, color=INK)
    ax.grid(alpha=0.3)


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_rays, "rays", static=FRAMES, labels=LABELS)
