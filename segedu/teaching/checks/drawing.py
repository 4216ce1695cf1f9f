"""Small pictures of the expected and the student's answer, one drawing function per kind of exercise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from segedu.teaching.checks.drawing_arguments import ARGUMENTS
from segedu.teaching.checks.drawing_arrays import draw_arrays
from segedu.teaching.checks.drawing_boxes import DETECTION
from segedu.teaching.checks.drawing_panels import COLOURS, INK, PAPER, figure, like, short, two_answers
from segedu.teaching.checks.outcomes import Difference, first_difference, plain


def draw_difference(
    kind: str,
    case: dict,
    expected: dict,
    got: dict,
    difference: Difference | None = None,
    tolerance: float = 1e-6,
    names: Sequence[str] = (),
) -> tuple[Any, str] | None:
    """Draw the visible case that failed, with the expected and the student's outcome.

    Args:
        kind: of the exercise.
        case: the case that failed.
        expected: outcome of the reference.
        got: outcome of the student.
        difference: the one that the message names; by default the first one.
        tolerance: of the exercise.
        names: of the arguments.

    Returns:
        The matplotlib figure and its alternative text, or None if no picture shows this difference.
    """
    difference = difference or first_difference(expected, got, tolerance)
    if difference and (difference.where == "arguments" or difference.path[:1] in (("n_params",), ("depends",))):
        return None
    if _as_arrays(kind, expected, difference):
        values = kind in ("matrix", "mask", "numbers", "points")
        return draw_arrays(expected, got, difference, tolerance, values) if difference else None
    if kind in ARGUMENTS:
        return ARGUMENTS[kind](case, names, expected, got, difference)
    if kind not in DRAWERS:
        return None
    index = {"index": difference.index} if kind == "stars" and difference and difference.index else {}
    return DRAWERS[kind](case, expected.get("value", expected), got.get("value", got), **index)


def _as_arrays(kind: str, expected: dict, difference: Difference | None) -> bool:
    """Whether the answers are drawn as arrays: also a mask among the results, and rows of more than two coordinates."""
    value = expected.get("value")
    if kind == "mask":
        return bool(difference and difference.index and len(difference.index) > 1)
    return kind in ARRAYS or (kind == "points" and isinstance(value, np.ndarray) and value.shape[-1] > 2)


class _PointSet(NamedTuple):
    """Points in the plane: positions (N, 2), the label of each or None, centres (K, 2), and the shape of the rows."""

    positions: np.ndarray
    labels: np.ndarray | None
    centres: np.ndarray
    shape: tuple[int, ...]


def _points(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw both answers at the same scale: rows as points, or the points of the arguments with labels and centres."""
    target, yours = _point_set(case, expected), _point_set(case, got)
    if target is None:
        return None
    if yours and (yours.labels is None) != (target.labels is None):  # centres without labels, or unexpected labels
        yours = None
    target, titles, below = _point_texts(target, yours)
    old_centres = _point_set(case, case["args"][1]).positions if target.labels is not None else target.centres
    fig, axes = figure(2, width=3.3, height=3.5)
    parts = [part for answer in (target, yours) if answer for part in (answer.positions, answer.centres)]
    extent = np.concatenate([old_centres, *parts])
    extent = extent[np.isfinite(extent).all(1)]
    lower, upper = extent.min(0, initial=0), extent.max(0, initial=0)
    pad = 0.1 * (upper - lower).max() + 0.1
    for ax, title, answer, other in zip(axes, titles, (target, yours), (yours, target), strict=True):
        ax.set_title(title, fontsize=8, color=INK)
        if answer is None:
            ax.text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9)
            ax.set_axis_off()
            continue
        _draw_points(ax, answer, other, old_centres)
        ax.set(xlim=(lower[0] - pad, upper[0] + pad), ylim=(lower[1] - pad, upper[1] + pad))
        ax.tick_params(labelsize=7)
    fig.supxlabel(below, fontsize=8, color=INK)
    return fig, f"{len(target.positions)} points in the plane, twice: {titles[0]}; {titles[1]}. {below}"


def _point_texts(target: _PointSet, yours: _PointSet | None) -> tuple[_PointSet, list[str], str]:
    """Return the expected points, with signs flipped to match the student's, the titles, and the text below."""
    suffix = f" (first 2 of {target.shape[1]} coordinates)" if target.shape[1] > 2 else ""
    if target.labels is None:
        titles = [f"expected {target.shape}", f"yours {yours.shape if yours else ''}"]
        if yours and yours.positions.shape == target.positions.shape:
            signs = np.where(np.nansum(target.positions * yours.positions, axis=0) < 0, -1.0, 1.0)
            target = target._replace(positions=target.positions * signs)
            titles[0] += ", signs flipped to match yours" * bool((signs < 0).any())
        return target, titles, f"Each point has its index{suffix}. Both panels have the same scale."
    your_title = "yours"
    if yours:
        moved = [k for k, same in enumerate(_same_centres(target.centres, yours.centres)) if not same]
        wrong = f"{int((target.labels != yours.labels).sum())} of {len(target.labels)} labels wrong"
        count = f"{len(yours.centres)} centres instead of {len(target.centres)}"
        which = f"centre{'s' * (len(moved) > 1)} {', '.join(map(str, moved))} wrong" if moved else "centres right"
        your_title += f": {wrong}, {which if len(yours.centres) == len(target.centres) else count}"
    below = f"Circles: points with their labels{suffix}; red rings: labels that differ."
    return target, ["expected", your_title], f"{below}\nSquares: centres; arrows: from the old centres."


def _same_centres(one: np.ndarray, other: np.ndarray) -> list[bool]:
    """Whether two centres are at the same position, row by row."""
    return [bool(np.allclose(a, b, atol=1e-6)) for a, b in zip(one, other, strict=False)]


def _draw_points(ax: Any, answer: _PointSet, other: _PointSet | None, old_centres: np.ndarray) -> None:
    """Draw points by label or index, ringed if the labels differ, and centres with an arrow from the old centre."""
    from segedu.viz import palette

    colours = 0.5 + 0.5 * palette(7)  # light, so that text on them stays readable
    ax.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    ax.axvline(0, color="#cccccc", lw=0.8, zorder=0)
    labels = np.arange(len(answer.positions)) if answer.labels is None else answer.labels
    for i, ((x, y), label) in enumerate(zip(answer.positions, labels, strict=True)):
        ring = answer.labels is not None and other is not None and other.labels[i] != label
        fill = PAPER if answer.labels is None else colours[int(np.nan_to_num(label)) % 7]
        ax.plot(x, y, "o", ms=11, mfc=fill, mec=COLOURS[1] if ring else INK, mew=2 if ring else 0.4)
        ax.text(x, y, f"{label:g}", ha="center", va="center_baseline", fontsize=7, color=INK)
    undefined = [str(k) for k, centre in enumerate(answer.centres) if not np.isfinite(centre).all()]
    if undefined:
        ax.text(0.98, 0.02, f"centre {', '.join(undefined)} is NaN", ha="right", transform=ax.transAxes, fontsize=8)
    for k, centre in enumerate(answer.centres):
        if str(k) in undefined:
            continue
        if k < len(old_centres) and len(old_centres) == len(answer.centres):
            ax.annotate(
                "", centre, old_centres[k], arrowprops={"arrowstyle": "->", "color": INK, "shrinkA": 0, "shrinkB": 7}
            )
        ax.plot(*centre, "s", ms=12, mfc=colours[k % 7], mec=INK, mew=1.8)
        ax.text(*centre, str(k), ha="center", va="center_baseline", fontsize=8, weight="bold", color=INK)


def _point_set(case: dict, value: Any) -> _PointSet | None:
    """Place an answer in the plane: rows of one value lie on a line, of longer rows the first two values count."""
    rows, labels = value, None
    if isinstance(value, tuple) and len(value) == 2:  # labels and centres: the points are the first argument
        labels, rows = value
    try:
        rows = np.asarray(plain(rows), dtype=float)
        points = rows if labels is None else np.asarray(plain(case["args"][0]), dtype=float)
        labels = None if labels is None else np.asarray(labels, dtype=float)
    except (TypeError, ValueError):
        return None
    if not all(a.ndim == 2 and a.size for a in (rows, points)):
        return None
    if labels is not None and labels.shape != points.shape[:1]:
        return None
    flat, centres = (np.pad(a, ((0, 0), (0, 1)))[:, :2] for a in (points, rows))
    return _PointSet(flat, labels, centres if labels is not None else np.zeros((0, 2)), points.shape)


def _draw_label_map(ax: Any, label_map: np.ndarray) -> None:
    """Draw a label map in light colours."""
    from segedu.viz import palette

    colours = np.stack([[1, 1, 1], *(0.6 + 0.4 * palette(7))])
    ax.imshow(colours[np.where(label_map > 0, 1 + label_map.astype(int) % 7, 0)], interpolation="nearest")


def _polygons(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw kept polygons filled with their index and suppressed ones dashed; vermilion where the answers differ."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Polygon

    polygons, scores = (np.asarray(plain(a), dtype=float) for a in case["args"][:2])
    if not len(polygons):
        return None
    flat = isinstance(got, np.ndarray) and got.ndim == 1 and got.dtype != bool
    indices = got.tolist() if flat and set(got.tolist()) <= set(range(len(polygons))) else None
    lower, upper = polygons.reshape(-1, 2).min(0) - 1, polygons.reshape(-1, 2).max(0) + 1

    def paint(ax: Any, answer: list, other: list | None) -> None:
        for i, corners in enumerate(polygons):
            colour = COLOURS[int(other is not None and (i in answer) != (i in other))]
            style = {"fc": to_rgba(colour, 0.25), "ls": "-"} if i in answer else {"fc": "none", "ls": "--"}
            ax.add_patch(Polygon(corners[:, ::-1], ec=colour, lw=1.5, **style))
            ax.text(*corners[corners[:, 0].argmin(), ::-1], f"{i}: {scores[i]:.2f}", fontsize=6, color=INK, va="bottom")
        ax.set(xlim=(lower[1], upper[1]), ylim=(upper[0], lower[0]))
        ax.set_xlabel(f"{answer}" if len(answer) < 12 else f"{len(answer)} indices", fontsize=8)

    caption = "Polygons with index and score. Filled: kept; dashed: suppressed; vermilion: kept in one answer only."
    return two_answers(expected.tolist(), indices, got, paint, caption)


def _stars(case: dict, expected: Any, got: Any, index: tuple[int, ...] = (0, 0, 0)) -> tuple[Any, str] | None:
    """Draw the rays of the pixel of the first difference (ray, row, column), with the polygon through their ends."""
    label_map, yours = np.asarray(plain(case["args"][0])), like(expected, got)
    y, x = (
        index[1:] if yours is not None else (int(n) for n in np.argwhere(expected.min(0) == expected.min(0).max())[0])
    )
    angles = np.arange(len(expected)) * 2 * np.pi / len(expected)

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _draw_label_map(ax, label_map)
        corners = x + answer[:, y, x] * np.cos(angles), y + answer[:, y, x] * np.sin(angles)
        for k, (right, down) in enumerate(zip(*corners, strict=True)):
            colour = COLOURS[int(other is not None and not abs(answer[k, y, x] - other[k, y, x]) < 1e-6)]
            ax.plot([x, right], [y, down], color=colour, lw=1.5)
        ax.fill(*corners, fill=False, ec=INK, lw=1, ls="--")
        ax.text(*(c[0] for c in corners), "ray 0", fontsize=7, color=INK)
        ax.set(xlim=(-1.5, label_map.shape[1] + 0.5), ylim=(label_map.shape[0] + 0.5, -1.5))

    return two_answers(expected, yours, got, paint, f"The rays of pixel ({y}, {x}). Vermilion: rays that differ.")


def _arrows(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw one arrow per pixel of the label map, (dy, dx)."""
    label_map, yours = np.asarray(plain(case["args"][0])), like(expected, got)

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _draw_label_map(ax, label_map)
        wrong = ~(np.abs(answer - (answer if other is None else other)).max(0) < 1e-6)
        for selected, colour in zip((~wrong, wrong), COLOURS, strict=True):
            y, x = (selected & (np.nan_to_num(answer, nan=1.0) != 0).any(0)).nonzero()
            dy, dx = answer[:, y, x]
            ax.quiver(x, y, dx, dy, color=colour, angles="xy", scale_units="xy", scale=1.15, pivot="mid", width=0.012)
            ax.plot(*np.isnan(answer).any(0).nonzero()[::-1], "x", color=COLOURS[1])
            ax.plot(*(wrong & (answer == 0).all(0)).nonzero()[::-1], ".", color=COLOURS[1])

    caption = "One arrow per pixel. Vermilion: arrows that differ; dot: no arrow; cross: NaN."
    return two_answers(expected, yours, got, paint, caption)


def _drift(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw a line from each pixel to its end point, over the cells of the answer."""
    starts = np.argwhere(np.asarray(plain(case["args"][1])))
    pair = got if isinstance(got, tuple) and len(got) == 2 else (None, None)
    yours = tuple(map(like, expected, pair))
    yours = None if any(answer is None for answer in yours) else yours

    def paint(ax: Any, answer: tuple, other: tuple | None) -> None:
        _draw_label_map(ax, np.asarray(answer[1]))
        for p, (start, end) in enumerate(zip(starts, answer[0], strict=True)):
            colour = COLOURS[int(other is not None and not np.abs(end - other[0][p]).max() < 1e-4)]
            ax.plot(*np.stack([start, end])[:, ::-1].T, color=colour, lw=0.8, marker="o", ms=3, markevery=[1])
        for number in set(answer[1][answer[1] != 0].tolist()):
            ax.text(*np.argwhere(answer[1] == number)[0, ::-1], f"{number:g}", weight="bold", ha="center", va="center")

    caption = "Colours and numbers: cells. Lines: from pixels to their end points (dots); vermilion: ends that differ."
    return two_answers(expected, yours, got, paint, caption)


ARRAYS = ("map", "image", "matrix", "shape", "numbers")
DRAWERS: dict[str, Callable] = {
    "points": _points,
    "polygons": _polygons,
    "stars": _stars,
    "arrows": _arrows,
    "drift": _drift,
    **DETECTION,
}

KINDS = (*ARRAYS, *ARGUMENTS, *DRAWERS)
