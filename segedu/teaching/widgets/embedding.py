"""The bandwidth sigma of a Gaussian (chapter 10): which pixels belong to the centre that a cell's pixels point to?"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from segedu.datasets.cells import draw_cells
from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import outline, palette, show

INK, RIGHT, MISSED, FALSE, OTHER = "#1b1b1b", "#009E73", "#0072B2", "#D55E00", "#8a8a8a"
SEED, SIZE = 36, (64, 64)
CELLS = {"small cell": 3, "large cell": 2}  # labels of two touching cells of the scene
OFFSET_NOISE = 1.0  # standard deviation of the offsets' error along each axis, in pixels
SIGMAS = (0.5, 12.0)  # from, to
HALF_WIDTH = float(np.sqrt(2 * np.log(2)))  # distance from the centre, in sigmas, at which the Gaussian is 1/2
LABELS = {"sigma": "sigma in pixels", "fraction": "fraction of the offset"}
FRAMES = [
    {"cell": "small cell", "sigma": 4.0, "fraction": 0.1},
    {"cell": "small cell", "sigma": 10.0, "fraction": 0.1},
    {"cell": "large cell", "sigma": 4.0, "fraction": 0.1},
    {"cell": "large cell", "sigma": 10.0, "fraction": 0.1},
    {"cell": "large cell", "sigma": 4.0, "fraction": 0.8},
]


class Scene(NamedTuple):
    """An image, its cells, the offset of each pixel to the centre of its cell, and the error of each offset."""

    image: np.ndarray  # (3, H, W)
    label_map: np.ndarray  # (H, W)
    offsets: np.ndarray  # (2, H, W), dy before dx, in pixels
    noise: np.ndarray  # (2, H, W)


@lru_cache
def scene() -> Scene:
    """A large cell with small ones around it, always the same."""
    sample = draw_cells(SEED, SIZE, radius=(3.5, 13.0), touching=0.8, noise=0.5)
    label_map = sample["label_map"].numpy()
    positions, offsets = np.mgrid[: SIZE[0], : SIZE[1]].astype(float), np.zeros((2, *SIZE))
    for label in np.unique(label_map[label_map > 0]):
        inside = label_map == label
        offsets[:, inside] = positions[:, inside].mean(axis=1, keepdims=True) - positions[:, inside]
    noise = np.random.default_rng(0).normal(0, OFFSET_NOISE, offsets.shape)
    return Scene(sample["image"].numpy(), label_map, offsets, noise)


def embeddings(fraction: float) -> np.ndarray:
    """Positions (2, H, W), y before x, after each pixel has moved by a fraction of its offset to its centre."""
    sample = scene()
    return np.mgrid[: SIZE[0], : SIZE[1]] + fraction * (sample.offsets + sample.noise)


def gaussian_mask(cell: str, sigma: float, fraction: float) -> np.ndarray:
    """Foreground pixels (H, W) whose Gaussian exp(-d^2 / (2 sigma^2)) around the centre of a cell is above 1/2.

    Args:
        cell: a key of `CELLS`.
        sigma: standard deviation of the Gaussian in pixels.
        fraction: see `embeddings`.
    """
    return (np.exp(-_squares(cell, fraction) / (2 * sigma**2)) > 0.5) & (scene().label_map > 0)


def _centre(cell: str, fraction: float) -> np.ndarray:
    return embeddings(fraction)[:, scene().label_map == CELLS[cell]].mean(axis=1)


@lru_cache(maxsize=64)
def _squares(cell: str, fraction: float) -> np.ndarray:
    """Squared distance (H, W) of each pixel's embedding from the centre of the cell; cached for the curves."""
    return ((embeddings(fraction) - _centre(cell, fraction)[:, None, None]) ** 2).sum(axis=0)


def iou(cell: str, sigma: float, fraction: float) -> float:
    """IoU of a cell and its `gaussian_mask`."""
    mask, target = gaussian_mask(cell, sigma, fraction), scene().label_map == CELLS[cell]
    return float((mask & target).sum() / (mask | target).sum())


def draw_walk(fractions: tuple[float, ...] = (0.0, 0.5, 0.9)) -> None:
    """Show an image, and its pixels at the given fractions of their offsets to the centres of their cells."""
    sample = scene()
    inside = sample.label_map > 0
    colours = palette(int(sample.label_map.max()))[sample.label_map[inside] - 1]
    fig = Figure(figsize=(6.6, 7), layout="constrained")
    panels = list(fig.subplots(-(-(1 + len(fractions)) // 2), 2, squeeze=False).flat)
    for unused in panels[1 + len(fractions) :]:
        unused.remove()
    first, *others = panels[: 1 + len(fractions)]
    first.imshow(np.moveaxis(sample.image, 0, 2).clip(0, 1))
    first.set_title("touching cells", fontsize=10, color=INK)
    for ax, fraction in zip(others, fractions, strict=True):
        positions = embeddings(fraction)
        ax.scatter(positions[1][inside], positions[0][inside], s=5, c=colours)
        for label in np.unique(sample.label_map[inside]):
            row, column = positions[:, sample.label_map == label].mean(axis=1)
            ax.text(column, row, str(label), ha="center", va="center", fontsize=9, bbox={"fc": "white", "pad": 1})
        ax.set(xlim=(-0.5, SIZE[1] - 0.5), ylim=(SIZE[0] - 0.5, -0.5), aspect="equal")
        ax.set_title(
            "pixels" if fraction == 0 else f"pixels after {fraction:.0%} of their offset", fontsize=10, color=INK
        )
    for ax in (first, *others):
        ax.set(xticks=[], yticks=[])
    show(
        fig,
        "Touching cells; their pixels; half-way to their centres the cells separate; at the end they are clusters.",
    )


def draw_sigma(cell: str = "small cell", sigma: float = 4.0, fraction: float = 0.1) -> None:
    """Show the pixels of one `gaussian_mask`, all embeddings, and the IoU of both cells as a function of sigma."""
    fig = Figure(figsize=(8.6, 4.0), layout="constrained")
    image, space, curves = fig.subplots(1, 3, width_ratios=(1, 1, 1.15))
    mask, target = gaussian_mask(cell, sigma, fraction), scene().label_map == CELLS[cell]
    _paint_image(image, mask, target)
    _paint_space(space, cell, sigma, fraction)
    sentence = _paint_curves(curves, cell, sigma, fraction)
    right, missed, false = ((mask & target).sum(), (target & ~mask).sum(), (mask & ~target).sum())
    show(
        fig,
        f"The Gaussian of the {cell} with sigma {sigma:g} pixels includes {right} of its pixels, misses {missed}, and "
        f"includes {false} of other cells: IoU {iou(cell, sigma, fraction):.2f}. {sentence}",
    )


def _paint_image(ax: Axes, mask: np.ndarray, target: np.ndarray) -> None:
    """Draw the image with correct and wrong pixels; a hatch repeats the meaning of each colour."""
    sample = scene()
    ax.imshow(np.moveaxis(sample.image, 0, 2).clip(0, 1))
    outcomes = (("correct", mask & target, RIGHT, ""), ("missed", target & ~mask, MISSED, "////"))
    handles = []
    for name, mask_part, colour, hatch in (*outcomes, ("of other cells", mask & ~target, FALSE, "....")):
        tint = np.zeros((*SIZE, 4))
        tint[mask_part] = to_rgba(colour, 0.75)
        ax.imshow(tint)
        if hatch and mask_part.any():
            ax.contourf(mask_part, levels=[0.5, 1.5], colors="none", hatches=[hatch])
        handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor=INK, label=f"{name}: {mask_part.sum()}"))
    edge = np.zeros((*SIZE, 4))
    edge[outline(np.where(target, 1, 0))] = 1
    ax.imshow(edge)
    ax.set(xticks=[], yticks=[])
    ax.set_title("image\nincluded pixels", fontsize=10, color=INK)
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=9, frameon=False)


def _paint_space(ax: Axes, cell: str, sigma: float, fraction: float) -> None:
    """Draw the embeddings of all cells, and the circle inside which the Gaussian is above 1/2."""
    positions, label_map, centre = embeddings(fraction), scene().label_map, _centre(cell, fraction)
    is_this_cell = label_map == CELLS[cell]
    for selected, marker, colour, name in (
        (~is_this_cell & (label_map > 0), "x", OTHER, "other cells"),
        (is_this_cell, ".", INK, "this cell"),
    ):
        ax.scatter(
            positions[1][selected], positions[0][selected], s=9, marker=marker, color=colour, linewidth=0.6, label=name
        )
    ax.add_patch(Circle(centre[::-1], HALF_WIDTH * sigma, fill=False, ec=FALSE, lw=2))
    ax.set(xlim=(-0.5, SIZE[1] - 0.5), ylim=(SIZE[0] - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    ax.set_title("embeddings\ncircle: 1.18 sigma", fontsize=10, color=INK)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=9, frameon=False, markerscale=2)


def _paint_curves(ax: Axes, cell: str, sigma: float, fraction: float) -> str:
    """Plot the IoU of both cells as a function of sigma; returns a sentence on the best common sigma."""
    sigmas = np.arange(*SIGMAS, 0.25)
    curves = {name: np.array([iou(name, s, fraction) for s in sigmas]) for name in CELLS}
    for (name, values), style in zip(curves.items(), ("--", "-"), strict=True):
        ax.plot(sigmas, values, style, color=INK, label=name)
    ax.plot(sigma, iou(cell, sigma, fraction), "o", color=FALSE, markersize=9)
    ax.axvline(sigma, color=FALSE, linewidth=1)
    lower = np.minimum(*curves.values())
    separate = min(values.max() for values in curves.values())
    ax.set(xlabel="sigma in pixels", ylabel="IoU", ylim=(0, 1.03), xlim=(0, SIGMAS[1]))
    ax.set_title(f"best IoU, one sigma: {lower.max():.2f}\nseparate sigmas: {separate:.2f}", fontsize=10, color=INK)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9, frameon=False)
    return f"With one sigma, both cells reach at most IoU {lower.max():.2f}; with separate sigmas, {separate:.2f}."


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, five static frames elsewhere."""
    explore_in_browser(draw_sigma, "offsets", static=FRAMES, labels=LABELS)
