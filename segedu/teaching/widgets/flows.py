"""Flows of chapter 9: pixels follow the diffusion flow of a label map until the pixels of each cell have met."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from segedu.instance.cellpose.flows import cluster_end_points, diffusion_flow, follow_flows
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import palette, show

INK, ARROW, CURVE = "#1b1b1b", "#4d4d4d", "#0072b2"
ROUND, TOUCHING, BENT = "round cells", "cells that touch", "a bent cell"
SCENES = (ROUND, TOUCHING, BENT)
LABELS = {"step": "steps", "scene": "scene"}
FRAMES = [
    {"step": 0, "scene": TOUCHING},
    {"step": 6, "scene": TOUCHING},
    {"step": 40, "scene": TOUCHING},
    {"step": 15, "scene": BENT},
]
LAST_STEP = 80
_HEIGHT, _WIDTH = 48, 60
_MARKERS = "o^sDv"  # of the cells: markers repeat the meaning of the colours
_DISCS = {  # (y, x, radius); where two overlap, a pixel belongs to the disc whose edge is further away
    ROUND: ((15, 15, 10), (32, 40, 12), (11, 48, 7)),
    TOUCHING: ((18, 18, 12), (22, 37, 12), (37, 23, 9)),
}


def draw_scene(scene: str) -> Tensor:
    """Label map (48, 60) int32 of a scene, one of `SCENES`; cells are numbered from 1."""
    y, x = torch.meshgrid(torch.arange(_HEIGHT) + 0.0, torch.arange(_WIDTH) + 0.0, indexing="ij")
    if scene == BENT:
        angle = torch.atan2(y - 24, x - 30)
        ring = (torch.hypot(y - 24, x - 30) - 15).abs()
        tips = torch.hypot((y - 24).abs() - 15 * np.sin(2.2), x - 30 - 15 * np.cos(2.2))
        return (torch.where(angle.abs() < 2.2, ring, tips) < 5).int()
    if scene not in _DISCS:
        raise ValueError(f"scene is {scene!r}, expected one of {', '.join(SCENES)}")
    depth = torch.stack([radius - torch.hypot(y - row, x - column) for row, column, radius in _DISCS[scene]])
    return torch.where(depth.amax(dim=0) > 0, depth.argmax(dim=0) + 1, 0).int()


@lru_cache
def flow_of(scene: str) -> Tensor:
    """`diffusion_flow` of a scene, (2, H, W)."""
    return diffusion_flow(draw_scene(scene))


@lru_cache(maxsize=512)
def particles(scene: str, step: int) -> Tensor:
    """Positions (2, N), rows and columns, of the pixels of all cells after some steps, in order of `nonzero()`."""
    foreground = draw_scene(scene) > 0
    return follow_flows(flow_of(scene), foreground, step)[:, foreground]


def count_positions(ends: Tensor) -> int:
    """Count the pixels of the image that hold at least one of the points (2, N).

    >>> count_positions(torch.tensor([[0.2, 0.9, 3.0], [1.0, 1.5, 0.0]]))
    2
    """
    return len(ends.long().unique(dim=1)[0])


def draw_flows(step: int = 0, scene: str = TOUCHING) -> None:
    """Show the flow, the pixels after 0 to 80 steps, and the number of occupied positions."""
    label_map, ends = draw_scene(scene), particles(scene, step)
    groups = int(cluster_end_points(ends, tuple(label_map.shape), 1.0).max())
    pixels, positions, cells = ends.shape[1], count_positions(ends), int(label_map.max())
    fig = Figure(figsize=(10.6, 3.4), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    _arrows(axes[0], label_map, flow_of(scene))
    _points(axes[1], label_map, ends, step)
    _curve(axes[2], scene, step, positions)
    summary = (
        f"{pixels} pixels at {_plural(positions, 'position')}, {_plural(groups, 'sink')} of {_plural(cells, 'cell')}"
    )
    fig.suptitle(f"{scene}, {_plural(step, 'step')}: {summary}", fontsize=11, color=INK)
    show(
        fig,
        f"Flow of {scene}, arrows towards higher heat, and the pixels after {_plural(step, 'step')}: {summary}.",
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _outlines(ax: Axes, label_map: Tensor) -> None:
    for label in range(1, int(label_map.max()) + 1):
        ax.contour((label_map == label).float(), levels=[0.5], colors=INK, linewidths=1)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, _WIDTH - 0.5), ylim=(_HEIGHT - 0.5, -0.5), aspect="equal")


def _arrows(ax: Axes, label_map: Tensor, flow: Tensor) -> None:
    """Draw the arrow of every second pixel."""
    _outlines(ax, label_map)
    rows, columns = (label_map > 0).nonzero().T
    kept = (rows % 2 == 0) & (columns % 2 == 0)
    rows, columns = rows[kept], columns[kept]
    dy, dx = flow[:, rows, columns]
    ax.quiver(columns, rows, dx, dy, angles="xy", scale_units="xy", scale=0.55, pivot="mid", color=ARROW, width=0.005)
    ax.set_title("flow: arrows of length 1", fontsize=10, color=INK)


def _points(ax: Axes, label_map: Tensor, ends: Tensor, step: int) -> None:
    _outlines(ax, label_map)
    owners = label_map[label_map > 0]
    for label, (colour, marker) in enumerate(zip(palette(int(label_map.max())), _MARKERS, strict=False), 1):
        rows, columns = ends[:, owners == label]
        size = min(60, 10 + 400 / count_positions(ends[:, owners == label]))  # pixels that have met must stay visible
        ax.scatter(columns, rows, s=size, marker=marker, color=colour * 0.8, edgecolor=INK, linewidth=0.3)
    ax.set_title(f"each pixel after {_plural(step, 'step')}", fontsize=10, color=INK)


@lru_cache
def _counts(scene: str) -> tuple[int, ...]:
    return tuple(count_positions(particles(scene, step)) for step in range(LAST_STEP + 1))


def _curve(ax: Axes, scene: str, step: int, positions: int) -> None:
    ax.plot(_counts(scene), color=CURVE, lw=1.4)
    ax.plot(step, positions, "o", color=INK, markersize=7)
    ax.set(xlabel="steps", yscale="log")
    ax.set_title("occupied positions", fontsize=10, color=INK)
    ax.grid(alpha=0.3, which="both")


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_flows, "flows", static=FRAMES, labels=LABELS)
