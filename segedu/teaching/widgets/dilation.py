"""Dilated layers of chapter 8: the pixels that one output pixel depends on, and the effect on single bright pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segedu.teaching.widgets.explore import explore_in_browser
from segedu.viz import show

INK, LINE, TAP, EMPTY = "#1b1b1b", "#8a8a8a", "#0072b2", "#ffffff"
SAME, DOUBLED, GROWING = "the same in each layer", "doubled from layer to layer", "growing from 1 to the rate"
LABELS = {"rate": "rate d", "layers": "3x3 layers", "pattern": "rates"}
FRAMES = [
    {"rate": 1, "layers": 3, "pattern": SAME},
    {"rate": 2, "layers": 3, "pattern": SAME},
    {"rate": 1, "layers": 3, "pattern": DOUBLED},
    {"rate": 5, "layers": 3, "pattern": GROWING},
]
_SMALL = 21  # largest field, in pixels, whose single pixels are marked
_MARKER, _ROW = 5.0, 175  # points: diameter of a pixel in the row of the image, width of that row


def rates_of(rate: int, layers: int, pattern: str) -> list[int]:
    """List the dilation rate of each layer, first layer first, by one of the patterns `SAME`, `DOUBLED`, `GROWING`.

    >>> rates_of(2, 3, SAME), rates_of(2, 3, DOUBLED), rates_of(5, 3, GROWING)
    ([2, 2, 2], [2, 4, 8], [1, 3, 5])
    """
    if pattern == SAME:
        return [rate] * layers
    if pattern == DOUBLED:
        return [rate * 2**i for i in range(layers)]
    return [int(r) for r in np.linspace(1, rate, layers).round()]


def paths(rates: Sequence[int]) -> np.ndarray:
    """Count the paths from one output pixel to each input pixel of a row, through kernels of 3 taps with these rates.

    Returns:
        int64 (2 sum(rates) + 1,), the output pixel itself in the middle; 0 for pixels that it does not depend on.

    >>> paths([1, 1]), paths([2])
    (array([1, 2, 3, 2, 1]), array([1, 0, 1, 0, 1]))
    """
    counts = np.ones(1, np.int64)
    for rate in rates:
        kernel = np.zeros(2 * rate + 1, np.int64)
        kernel[::rate] = 1
        counts = np.convolve(counts, kernel)
    return counts


def draw_rates(rate: int = 2, layers: int = 3, pattern: str = SAME) -> None:
    """Show the taps layer by layer, the receptive field, and single pixels after a stack of averaging layers."""
    rates = rates_of(rate, layers, pattern)
    counts = paths(rates)
    field, seen = len(counts), int((counts > 0).sum())
    fig = Figure(figsize=(9.6, 3.5), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _cone(axes[0], rates)
    _seen(axes[1], counts)
    _spots(axes[2], counts)
    coverage = f"{seen**2} of {field} x {field} = {field**2} pixels used, {seen**2 / field**2:.0%}"
    text = ", ".join(map(str, rates))
    fig.suptitle(f"rates {text}: receptive field {field} x {field}; {coverage}", fontsize=11, color=INK)
    hole_text = "no holes" if seen == field else f"only {seen} of {field} rows and columns"
    lattice = "patches without a hole" if seen == field else "lattices of dots"
    show(
        fig,
        f"Layers of rates {text}: one output pixel depends on {seen} of {field} pixels of a row: {hole_text}. "
        f"Three single bright pixels become {lattice}.",
    )


def _cone(ax: Axes, rates: Sequence[int]) -> None:
    """Draw the taps from one output pixel at the top down to the row of the image."""
    positions = {0}
    for height, rate in zip(range(len(rates), 0, -1), reversed(rates), strict=True):
        below = {position + step for position in positions for step in (-rate, 0, rate)}
        for position in positions:
            for step in (-rate, 0, rate):
                ax.plot([position, position + step], [height, height - 1], color=LINE, lw=0.8, zorder=1)
        ax.scatter(sorted(positions), [height] * len(positions), s=16, color=TAP, zorder=2)
        positions = below
    reach = sum(rates)
    side = min(_MARKER, _ROW / (2 * reach + 3))  # neighbours must not overlap in a wide field
    ax.scatter(sorted(positions), [0] * len(positions), s=side**2, color=TAP, linewidth=0, zorder=3)
    holes = sorted(set(range(-reach, reach + 1)) - positions)
    line = side / 6
    ax.scatter(holes, [0] * len(holes), s=(side - line) ** 2, facecolor=EMPTY, edgecolor=INK, linewidth=line, zorder=2)
    ax.set(xlim=(-reach - 1, reach + 1), ylim=(-0.4, len(rates) + 0.4), xticks=[])
    ax.set_yticks(range(len(rates) + 1), ["image", *(f"rate {rate}" for rate in rates)], fontsize=9)
    ax.set_title("one row: used (filled), holes (rings)", fontsize=10, color=INK)
    for side in ax.spines.values():
        side.set_visible(False)


def _seen(ax: Axes, counts: np.ndarray) -> None:
    grid = np.outer(counts, counts)
    ax.imshow(np.ma.masked_equal(grid, 0), cmap="cividis_r", vmin=0)
    if len(counts) <= _SMALL:
        rows, columns = np.nonzero(grid == 0)
        ax.scatter(columns, rows, s=14, marker="x", color=LINE, linewidth=0.8)
    if not grid.all():
        ax.set_xlabel("white: not used", fontsize=9)
    ax.set(xticks=[], yticks=[])
    ax.set_title("number of paths to each pixel", fontsize=10, color=INK)


def _spots(ax: Axes, counts: np.ndarray) -> None:
    """Draw three bright pixels after as many averaging layers: the effect of holes in the field on a map."""
    size = 61
    image = np.zeros((size, size))
    for row, column in ((16, 16), (24, 46), (45, 29)):
        image[row, column] = 1
    weights = np.array([[_at(counts, i - j) for j in range(size)] for i in range(size)], float)
    ax.imshow(weights @ image @ weights.T, cmap="cividis", vmin=0)
    ax.set(xticks=[], yticks=[])
    ax.set_title("three single pixels, averaged", fontsize=10, color=INK)


def _at(counts: np.ndarray, offset: int) -> int:
    index = offset + len(counts) // 2
    return int(counts[index]) if 0 <= index < len(counts) else 0


def explorer() -> None:
    """Show the chapter's widget: an explorer in a notebook, four static frames elsewhere."""
    explore_in_browser(draw_rates, "dilation", static=FRAMES, labels=LABELS)
