"""One sigma (chapter 10): which pixels does a Gaussian take in, around the place that a cell's pixels point at?"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from segedu.datasets.cells import draw_cells
from segedu.teaching.widgets.explore import explore
from segedu.viz import outline, palette, show

INK, RIGHT, MISSED, FALSE, OTHER = "#1b1b1b", "#009E73", "#0072B2", "#D55E00", "#8a8a8a"
SEED, SIZE = 36, (64, 64)
CELLS = {"small cell": 3, "large cell": 2}  # labels of two cells of the scene that touch
MISS = 1.0  # pixels: how far off the pointers are along each axis
SIGMAS = (0.5, 12.0, 0.5)
REACH = float(np.sqrt(2 * np.log(2)))  # sigmas from the centre to where the Gaussian is 1/2
LABELS = {"sigma": "sigma in pixels", "way": "part of the way that pixels point"}
FRAMES = [
    {"cell": "small cell", "sigma": 4.0, "way": 0.1},
    {"cell": "small cell", "sigma": 10.0, "way": 0.1},
    {"cell": "large cell", "sigma": 4.0, "way": 0.1},
    {"cell": "large cell", "sigma": 10.0, "way": 0.1},
    {"cell": "large cell", "sigma": 4.0, "way": 0.8},
]


class Scene(NamedTuple):
    """An image, its cells, the way from each pixel to the centre of its cell, and how far each pointer is off."""

    image: np.ndarray  # (3, H, W)
    label_map: np.ndarray  # (H, W)
    offsets: np.ndarray  # (2, H, W), dy before dx, in pixels
    noise: np.ndarray  # (2, H, W)


@lru_cache
def scene() -> Scene:
    """A large cell with small ones around it, the same whenever it is asked for."""
    sample = draw_cells(SEED, SIZE, radius=(3.5, 13.0), touching=0.8, noise=0.5)
    label_map = sample["label_map"].numpy()
    places, offsets = np.mgrid[: SIZE[0], : SIZE[1]].astype(float), np.zeros((2, *SIZE))
    for label in np.unique(label_map[label_map > 0]):
        inside = label_map == label
        offsets[:, inside] = places[:, inside].mean(axis=1, keepdims=True) - places[:, inside]
    noise = np.random.default_rng(0).normal(0, MISS, offsets.shape)
    return Scene(sample["image"].numpy(), label_map, offsets, noise)


def embeddings(way: float) -> np.ndarray:
    """Where each pixel points.

    Args:
        way: the part of the way to its centre that a pixel goes, 0 (stays where it is) to 1.

    Returns:
        (2, H, W) in pixels, y before x.
    """
    shown = scene()
    return np.mgrid[: SIZE[0], : SIZE[1]] + way * (shown.offsets + shown.noise)


def included(cell: str, sigma: float, way: float) -> np.ndarray:
    """The foreground pixels whose Gaussian exp(-d^2 / (2 sigma^2)) around the centre of a cell is above 1/2.

    Args:
        cell: a key of `CELLS`.
        sigma: in pixels.
        way: see `embeddings`.

    Returns:
        (H, W) bool.
    """
    return (np.exp(-_squares(cell, way) / (2 * sigma**2)) > 0.5) & (scene().label_map > 0)


def _centre(cell: str, way: float) -> np.ndarray:
    return embeddings(way)[:, scene().label_map == CELLS[cell]].mean(axis=1)


@lru_cache(maxsize=64)
def _squares(cell: str, way: float) -> np.ndarray:
    """Squared distance of each pixel's embedding from the centre of the cell (H, W); kept for the curves."""
    return ((embeddings(way) - _centre(cell, way)[:, None, None]) ** 2).sum(axis=0)


def iou(cell: str, sigma: float, way: float) -> float:
    """IoU of the pixels that are included with the cell itself.

    Args:
        cell: a key of `CELLS`.
        sigma: in pixels.
        way: see `embeddings`.

    Returns:
        A number in [0, 1].
    """
    mask, truth = included(cell, sigma, way), scene().label_map == CELLS[cell]
    return float((mask & truth).sum() / (mask | truth).sum())


def draw_walk(ways: tuple[float, ...] = (0.0, 0.5, 0.9)) -> None:
    """Show an image, and its pixels on their walk to the centres of their cells.

    Args:
        ways: parts of the way, one panel each.
    """
    shown = scene()
    inside = shown.label_map > 0
    colours = palette(int(shown.label_map.max()))[shown.label_map[inside] - 1]
    fig = Figure(figsize=(11, 3.1), layout="constrained")
    first, *others = fig.subplots(1, 1 + len(ways))
    first.imshow(np.moveaxis(shown.image, 0, 2).clip(0, 1))
    first.set_title("cells that touch", fontsize=10, color=INK)
    for ax, way in zip(others, ways, strict=True):
        places = embeddings(way)
        ax.scatter(places[1][inside], places[0][inside], s=2, c=colours)
        for label in np.unique(shown.label_map[inside]):
            row, column = places[:, shown.label_map == label].mean(axis=1)
            ax.text(column, row, str(label), ha="center", va="center", fontsize=8, bbox={"fc": "white", "pad": 1})
        ax.set(xlim=(-0.5, SIZE[1] - 0.5), ylim=(SIZE[0] - 0.5, -0.5), aspect="equal")
        ax.set_title("where the pixels are" if way == 0 else f"{way:.0%} of the way", fontsize=10, color=INK)
    for ax in (first, *others):
        ax.set(xticks=[], yticks=[])
    show(fig, "Cells that touch; their pixels; half-way to their centres they lie apart; near the end each is a heap.")


def draw_sigma(cell: str = "small cell", sigma: float = 4.0, way: float = 0.1) -> None:
    """Show the pixels that one Gaussian takes in, where all pixels point, and the IoU of both cells by sigma.

    Args:
        cell: a key of `CELLS`.
        sigma: in pixels.
        way: see `embeddings`.
    """
    fig = Figure(figsize=(10.6, 4.0), layout="constrained")
    image, space, curves = fig.subplots(1, 3, width_ratios=(1, 1, 1.15))
    mask, truth = included(cell, sigma, way), scene().label_map == CELLS[cell]
    _paint_image(image, mask, truth)
    _paint_space(space, cell, sigma, way)
    words = _paint_curves(curves, cell, sigma, way)
    right, missed, false = ((mask & truth).sum(), (truth & ~mask).sum(), (mask & ~truth).sum())
    show(
        fig,
        f"The Gaussian of the {cell} with sigma {sigma:g} pixels takes {right} of its pixels, misses {missed}, and "
        f"takes {false} of other cells: IoU {iou(cell, sigma, way):.2f}. {words}",
    )


def _paint_image(ax: Axes, mask: np.ndarray, truth: np.ndarray) -> None:
    """The image, with what is taken and missed; a hatch and a sign repeat each colour."""
    shown = scene()
    ax.imshow(np.moveaxis(shown.image, 0, 2).clip(0, 1))
    kinds = (("right", mask & truth, RIGHT, ""), ("missed", truth & ~mask, MISSED, "////"))
    handles = []
    for name, where, colour, hatch in (*kinds, ("not its own", mask & ~truth, FALSE, "....")):
        tint = np.zeros((*SIZE, 4))
        tint[where] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [0.75]
        ax.imshow(tint)
        if hatch and where.any():
            ax.contourf(where, levels=[0.5, 1.5], colors="none", hatches=[hatch])
        handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor=INK, label=f"{name}: {where.sum()}"))
    edge = np.zeros((*SIZE, 4))
    edge[outline(np.where(truth, 1, 0))] = 1
    ax.imshow(edge)
    ax.set(xticks=[], yticks=[])
    ax.set_title("image: pixels that are taken in", fontsize=10, color=INK)
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=8, frameon=False)


def _paint_space(ax: Axes, cell: str, sigma: float, way: float) -> None:
    """Where the pixels of all cells point, and the circle in which the Gaussian is above 1/2."""
    places, label_map, centre = embeddings(way), scene().label_map, _centre(cell, way)
    own = label_map == CELLS[cell]
    for where, marker, colour, name in ((~own & (label_map > 0), "x", OTHER, "of others"), (own, ".", INK, "its own")):
        ax.scatter(places[1][where], places[0][where], s=9, marker=marker, color=colour, linewidth=0.6, label=name)
    ax.add_patch(Circle(centre[::-1], REACH * sigma, fill=False, ec=FALSE, lw=2))
    ax.set(xlim=(-0.5, SIZE[1] - 0.5), ylim=(SIZE[0] - 0.5, -0.5), xticks=[], yticks=[], aspect="equal")
    ax.set_title("where pixels point; circle: 1.18 sigma", fontsize=10, color=INK)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=8, frameon=False, markerscale=2)


def _paint_curves(ax: Axes, cell: str, sigma: float, way: float) -> str:
    """IoU of both cells by sigma; gives in words how well one sigma can do for both."""
    sigmas = np.arange(*SIGMAS[:2], 0.25)
    curves = {name: np.array([iou(name, s, way) for s in sigmas]) for name in CELLS}
    for (name, values), style in zip(curves.items(), ("--", "-"), strict=True):
        ax.plot(sigmas, values, style, color=INK, label=name)
    ax.plot(sigma, iou(cell, sigma, way), "o", color=FALSE, markersize=9)
    ax.axvline(sigma, color=FALSE, linewidth=1)
    worse = np.minimum(*curves.values())
    alone = min(values.max() for values in curves.values())
    ax.set(xlabel="sigma in pixels", ylabel="IoU", ylim=(0, 1.03), xlim=(0, SIGMAS[1]))
    ax.set_title(f"one sigma for both: {worse.max():.2f} at best\na sigma each: {alone:.2f}", fontsize=10, color=INK)
    ax.legend(loc="lower right", fontsize=8)
    return f"One sigma for both cells gives both at best IoU {worse.max():.2f}; a sigma each gives {alone:.2f}."


def explorer() -> None:
    """The chapter's widget: sliders where somebody can move them, five frames elsewhere."""
    explore(
        draw_sigma,
        static=FRAMES,
        labels=LABELS,
        sigma=SIGMAS,
        way=(0.0, 1.0, 0.1),
        cell=list(CELLS),
    )
