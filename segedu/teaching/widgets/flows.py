"""Flows of chapter 9: the pixels of a label map go with the diffusion flow until those of a cell have met."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from segedu.instance.cellpose.flows import diffusion_flow, follow_flows, group_ends
from segedu.teaching.widgets.explore import explore
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
LAST = 80
_HEIGHT, _WIDTH = 48, 60
_MARKERS = "o^sDv"  # of the cells: colour never speaks alone
_DISCS = {  # (y, x, radius): of two that overlap a pixel belongs to the one whose edge is further away
    ROUND: ((15, 15, 10), (32, 40, 12), (11, 48, 7)),
    TOUCHING: ((18, 18, 12), (22, 37, 12), (37, 23, 9)),
}


def draw_scene(scene: str) -> Tensor:
    """The label map of a scene.

    Args:
        scene: one of `SCENES`.

    Returns:
        (48, 60) int32, cells from 1 on.

    Raises:
        ValueError: another name.
    """
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
    """Where the pixels of all cells are.

    Args:
        scene: one of `SCENES`.
        step: how many have been taken.

    Returns:
        (2, N) rows and columns, in the order of `foreground.nonzero()`.
    """
    foreground = draw_scene(scene) > 0
    return follow_flows(flow_of(scene), foreground, step)[:, foreground]


def count_places(ends: Tensor) -> int:
    """How many pixels of the image hold at least one of the points.

    Args:
        ends: (2, N).

    Returns:
        A number.

    >>> count_places(torch.tensor([[0.2, 0.9, 3.0], [1.0, 1.5, 0.0]]))
    2
    """
    return len(ends.long().unique(dim=1)[0])


def draw_flows(step: int = 0, scene: str = TOUCHING) -> None:
    """Show the flow, the pixels after some steps, and how many places hold them.

    Args:
        step: how many steps have been taken, 0 to 80.
        scene: one of `SCENES`.
    """
    label_map, ends = draw_scene(scene), particles(scene, step)
    groups = int(group_ends(ends, tuple(label_map.shape), 1.0).max())
    pixels, places, cells = ends.shape[1], count_places(ends), int(label_map.max())
    fig = Figure(figsize=(10.6, 3.4), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    _arrows(axes[0], label_map, flow_of(scene))
    _points(axes[1], label_map, ends, step)
    _curve(axes[2], scene, step, places)
    said = f"{pixels} pixels in {_many(places, 'place')}, {_many(groups, 'meeting place')} of {_many(cells, 'cell')}"
    fig.suptitle(f"{scene}, {_many(step, 'step')}: {said}", fontsize=11, color=INK)
    show(fig, f"Arrows in {scene}, each towards where heat rises, and the pixels after {_many(step, 'step')}: {said}.")


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _outlines(ax: Axes, label_map: Tensor) -> None:
    for label in range(1, int(label_map.max()) + 1):
        ax.contour((label_map == label).float(), levels=[0.5], colors=INK, linewidths=1)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, _WIDTH - 0.5), ylim=(_HEIGHT - 0.5, -0.5), aspect="equal")


def _arrows(ax: Axes, label_map: Tensor, flow: Tensor) -> None:
    """Every second pixel has its arrow."""
    _outlines(ax, label_map)
    rows, columns = (label_map > 0).nonzero().T
    kept = (rows % 2 == 0) & (columns % 2 == 0)
    rows, columns = rows[kept], columns[kept]
    dy, dx = flow[:, rows, columns]
    ax.quiver(columns, rows, dx, dy, angles="xy", scale_units="xy", scale=0.55, pivot="mid", color=ARROW, width=0.005)
    ax.set_title("the flow: arrows of length 1", fontsize=10, color=INK)


def _points(ax: Axes, label_map: Tensor, ends: Tensor, step: int) -> None:
    _outlines(ax, label_map)
    owners = label_map[label_map > 0]
    for label, (colour, marker) in enumerate(zip(palette(int(label_map.max())), _MARKERS, strict=False), 1):
        rows, columns = ends[:, owners == label]
        size = min(60, 10 + 400 / count_places(ends[:, owners == label]))  # those that have met must be seen
        ax.scatter(columns, rows, s=size, marker=marker, color=colour * 0.8, edgecolor=INK, linewidth=0.3)
    ax.set_title(f"each pixel after {_many(step, 'step')}", fontsize=10, color=INK)


@lru_cache
def _counts(scene: str) -> tuple[int, ...]:
    return tuple(count_places(particles(scene, step)) for step in range(LAST + 1))


def _curve(ax: Axes, scene: str, step: int, places: int) -> None:
    ax.plot(_counts(scene), color=CURVE, lw=1.4)
    ax.plot(step, places, "o", color=INK, markersize=7)
    ax.set(xlabel="steps", yscale="log")
    ax.set_title("places that hold pixels", fontsize=10, color=INK)
    ax.grid(alpha=0.3, which="both")


def explorer() -> None:
    """The chapter's widget for Cellpose: a slider and a list where somebody can move them, four frames elsewhere."""
    explore(draw_flows, static=FRAMES, labels=LABELS, step=(0, LAST, 1), scene=list(SCENES))
