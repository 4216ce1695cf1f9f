"""Pictures of arrays: the part of both answers in which the message's difference is, and the shapes if they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segedu.teaching.checks.drawing_panels import COLOURS, INK, PAPER, figure, short, written
from segedu.teaching.checks.outcomes import Difference, array_like, gaps

MOST_VALUES, LONGEST_ROW, PAGE_WIDTH = 100, 24, 10.0  # of a matrix with its values written out; inches
NAMES = {"value": "result", "grads": "gradient"}


def draw_arrays(
    expected: dict, got: dict, difference: Difference, tolerance: float, show_values: bool = False
) -> tuple[Any, str] | None:
    """Draw the plane of both answers with the first difference, or their shapes if these differ.

    Args:
        expected: outcome of the reference.
        got: outcome of the student.
        difference: the one that the message names.
        tolerance: of the exercise.
        show_values: whether small planes show their values.

    Returns:
        The figure and its alternative text. None if the difference is not in an array: in the arguments, in the kind of
        values, in a number or in the structure of the result.
    """
    if difference.where == "exception" or (not difference.path and "value" in expected):
        return _first_beside_text(expected.get("value"), "result", got.get("value", got))
    if not difference.path or difference.path[0] not in NAMES:
        return None
    whole, answer = (part_of(outcome, difference.path) for outcome in (expected, got))
    target, yours, name = array_like(whole), array_like(answer), as_written(difference.path)
    if target is None:
        return _first_beside_text(whole, name, answer)
    if not target.ndim or not target.size:
        return None
    if difference.index is not None and yours is not None:
        return _planes(target, yours, difference.index, tolerance, name, show_values)
    if yours is not None and yours.shape == target.shape:
        return None  # the kinds of values differ, which no picture shows
    if yours is None or yours.ndim < 2 or target.ndim < 2 or not yours.size:
        return _first_beside_text(target, name, answer)
    return _stacks(target, yours, name)


def part_of(outcome: dict, path: Sequence) -> Any:
    """Return the part of an outcome that a path leads to."""
    part: Any = outcome
    for step in path:
        part = part[step]
    return part


def as_written(path: Sequence) -> str:
    """Write a path as in Python: `result[1]`."""
    return NAMES[path[0]] + "".join(f"[{step!r}]" for step in path[1:])


def cell_size(*planes: np.ndarray) -> tuple[float, float]:
    """Return the width and height, in inches, that a value of these small planes needs."""
    longest = max((len(written(v)) for plane in planes for v in plane.flat), default=1)
    return max(0.3, 0.065 * longest + 0.08), 0.22


def _planes(
    target: np.ndarray, yours: np.ndarray, index: tuple[int, ...], tolerance: float, name: str, show_values: bool
) -> tuple[Any, str] | None:
    """Draw expected, yours and their difference; a ring marks the first value that differs."""
    gap, wrong = gaps(target, yours, tolerance)
    leading = index[:-2]
    planes = [np.atleast_2d(array[leading]).astype(float) for array in (target, yours)]
    plane_gap, plane_wrong = np.atleast_2d(gap[leading]), np.atleast_2d(wrong[leading])
    finite = plane_gap[np.isfinite(plane_gap)]
    top = max(float(finite.max(initial=0.0)), 1e-9) if np.isfinite(plane_gap).all() else max(finite.max(initial=0), 1.0)
    planes.append(np.where(plane_wrong, np.minimum(plane_gap, top), 0.0))
    rows, columns = planes[0].shape
    if target.ndim == 1 and columns > LONGEST_ROW:
        return None
    write = (show_values or target.ndim == 1) and planes[0].size <= MOST_VALUES
    cell = cell_size(*planes) if write else (0.0, 0.0)
    write = write and columns * cell[0] < PAGE_WIDTH - 0.6
    fig, axes = _figure_for(rows, columns, cell if write else None)
    values = np.concatenate([p[np.isfinite(p)] for p in planes[:2]])
    limits = (float(values.min()), float(values.max()) + 1e-9) if values.size else (0.0, 1.0)
    position = (0, *index)[-2:]
    titles = ("expected", "yours", "difference")
    for ax, plane, title, of_plane in zip(axes, planes, titles, (limits, limits, (0.0, top)), strict=True):
        panel(ax, plane, title, of_plane, write)
        _ring(ax, position, target.ndim, write)
    which = f"{name}[{', '.join(map(str, leading))}]" if leading else name
    of = f" of {name} with shape {target.shape}" if leading else f", shape {target.shape}"
    caption = f"{which}{of}: {plane_wrong.sum()} of {plane_wrong.size} values differ"
    caption += f" here, {wrong.sum()} of {wrong.size} in all." if leading else "."
    _caption(fig, caption)
    first = f"{name}[{', '.join(map(str, index))}]"
    return fig, f"Three maps: expected, yours, and their difference. {caption} A ring marks the first, {first}."


def _figure_for(rows: int, columns: int, cell: tuple[float, float] | None) -> tuple[Any, list]:
    """Make three panels, above each other if they are too wide for the page; `cell` is (width, height) of a value."""
    if cell is None:
        tall = 2.4 * rows / columns
        return figure(3, width=2.6, height=min(max(tall, 1.0), 3.4) + 0.75)
    width, height = columns * cell[0] + 0.4, rows * cell[1] + 0.5
    if 3 * width > PAGE_WIDTH:
        return figure(3, width=width, height=3 * height + 0.3, stacked=True)
    return figure(3, width=max(width, 1.6), height=height + 0.3)


def panel(ax: Any, plane: np.ndarray, title: str, limits: tuple[float, float], write: bool) -> None:
    """Draw a plane in colours; `write` says whether with its values, in cells that need not be square."""
    aspect = "auto" if write else "equal"
    ax.imshow(plane, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect=aspect)
    ax.set_title(title, fontsize=9, color=INK)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(labelsize=7, length=2)
    if write:
        middle = sum(limits) / 2
        for (y, x), v in np.ndenumerate(plane):
            ax.text(x, y, written(v), ha="center", va="center", fontsize=7, color="w" if v < middle else "k")


def _ring(ax: Any, position: tuple[int, int], axes_count: int, all_ticks: bool) -> None:
    """Mark a value, with its row and column at the edges."""
    from matplotlib.patches import Rectangle

    row, column = position
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=COLOURS[1], lw=2, clip_on=False, zorder=3))
    image = ax.get_images()[0].get_array()
    ax.set_xticks(range(image.shape[1]) if all_ticks else [column])
    ax.set_yticks([] if axes_count == 1 else range(image.shape[0]) if all_ticks else [row])


def _first_beside_text(expected: Any, name: str, got: Any) -> tuple[Any, str] | None:
    """Draw the first array of an expected result that has planes, beside the words for the answer."""
    if isinstance(expected, tuple):
        items = ((array_like(item), f"{name}[{i}]") for i, item in enumerate(expected))
    else:
        items = iter([(array_like(expected), name)])
    found = next(((a, which) for a, which in items if a is not None and a.ndim > 1 and a.size), None)
    return _beside_text(*found, got) if found else None


def _beside_text(target: np.ndarray, name: str, got: Any) -> tuple[Any, str]:
    """Draw the first expected plane beside the words for an answer that is not such an array."""
    leading = (0,) * (target.ndim - 2)
    plane = np.atleast_2d(target[leading]).astype(float)
    fig, axes = figure(2)
    finite = plane[np.isfinite(plane)]
    limits = (float(finite.min(initial=0)), float(finite.max(initial=0)) + 1e-9)
    panel(axes[0], plane, "expected", limits, write=False)
    axes[1].set_title("yours", fontsize=9, color=INK)
    axes[1].text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9, transform=axes[1].transAxes)
    axes[1].set_axis_off()
    which = f"{name}[{', '.join(map(str, leading))}] of shape {target.shape}" if leading else f"shape {target.shape}"
    _caption(fig, f"expected: {which}")
    return fig, f"One map, the expected {which}; yours is {short(got)}."


def _stacks(target: np.ndarray, yours: np.ndarray, name: str) -> tuple[Any, str]:
    """Draw arrays as stacks of planes to scale."""
    from matplotlib.patches import Rectangle

    fig, axes = figure(2)
    shapes = (target.shape, yours.shape)
    side = max(target.shape[-2:] + yours.shape[-2:])
    for ax, title, shape, colour in zip(axes, ("expected", "yours"), shapes, COLOURS, strict=True):
        plates = min(shape[-3] if len(shape) > 2 else 1, 6)
        for k in reversed(range(plates)):
            corner = (k * side / 25, -k * side / 25)
            ax.add_patch(Rectangle(corner, shape[-1], shape[-2], facecolor=PAPER, edgecolor=colour, lw=1.5))
        ax.set(xlim=(-0.1 * side, 1.3 * side), ylim=(1.1 * side, -0.3 * side), aspect="equal")
        ax.set_title(f"{title} {shape}", fontsize=9, color=INK)
        ax.set_axis_off()
    _caption(fig, f"The shape of {name} differs; only shapes are drawn.")
    return fig, f"Two stacks of planes to scale: expected {name} of shape {shapes[0]}, yours of shape {shapes[1]}."


def _caption(fig: Any, text: str) -> None:
    fig.supxlabel(text, fontsize=8, color=INK, wrap=True)
