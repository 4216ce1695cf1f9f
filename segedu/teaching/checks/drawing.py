"""Tiny pictures of what was expected and what came, one drawer a kind of exercise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from segedu.teaching.checks.drawing_boxes import DETECTION
from segedu.teaching.checks.drawing_panels import COLOURS, INK, PAPER, figure, like, short, two_answers
from segedu.teaching.checks.outcomes import plain


def draw_difference(kind: str, case: dict, expected: dict, got: dict) -> tuple[Any, str] | None:
    """Draw one case with the expected and the given answer.

    Args:
        kind: of the exercise; a kind that has no picture gives None.
        case: the visible case that failed.
        expected: outcome of the reference.
        got: outcome of the student.

    Returns:
        The matplotlib figure and its alt text, or None.
    """
    drawer = DRAWERS.get(kind)
    return drawer(case, expected.get("value"), got.get("value", got)) if drawer else None


def _plane(value: Any) -> np.ndarray | None:
    """The first (H, W) plane of an array, or None where there is none to draw."""
    if isinstance(value, list | tuple):
        return next((p for item in value if (p := _plane(item)) is not None), None)
    try:
        array = np.asarray(plain(value))
    except (TypeError, ValueError):
        return None
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array.size == 0:
        return None
    return array.reshape(-1, *array.shape[-2:])[0].astype(float)


def _panel(ax: Any, plane: np.ndarray, title: str, limits: tuple[float, float], numbers: bool) -> None:
    ax.imshow(plane, cmap="cividis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_title(title, fontsize=9, color=INK)
    ax.set_xticks([])
    ax.set_yticks([])
    if numbers and plane.size <= 100:
        middle, longest = sum(limits) / 2, max((len(f"{v:.3g}") for v in plane.flat), default=1)
        size = min(7.0, 280 / (plane.shape[1] * longest))  # numbers of neighbours must not run into each other
        for (y, x), v in np.ndenumerate(plane):
            ax.text(x, y, f"{v:.3g}", ha="center", va="center", fontsize=size, color="w" if v < middle else "k")


def _maps(case: dict, expected: Any, got: Any, numbers: bool = False) -> tuple[Any, str] | None:
    """Expected, given, and where they differ."""
    want, have = _plane(expected), _plane(got)
    if want is None:
        return None
    same_shape = have is not None and have.shape == want.shape
    fig, axes = figure(3 if same_shape else 2)
    values = np.concatenate([p[np.isfinite(p)] for p in (want, have) if p is not None] or [np.zeros(1)])
    limits = (float(values.min()), float(values.max()) + 1e-9) if values.size else (0.0, 1.0)
    _panel(axes[0], want, f"expected {want.shape}", limits, numbers)
    if have is None:
        axes[1].text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9)
        axes[1].set_axis_off()
    else:
        _panel(axes[1], have, f"yours {have.shape}", limits, numbers)
    alt = f"Two maps side by side: expected, of shape {want.shape}, and yours, {short(got)}."
    if same_shape:
        gap = np.nan_to_num(np.abs(want - have), nan=1.0, posinf=1.0)
        _panel(axes[2], gap, "difference", (0.0, float(gap.max()) + 1e-9), numbers)
        alt = f"Three maps: expected, yours, and their difference in {int((gap > 0).sum())} of {gap.size} places."
    return fig, alt


def _shapes(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Feature maps as plates to scale where the shapes differ, as maps where they agree."""
    from matplotlib.patches import Rectangle

    want, have = _shape(expected), _shape(got)
    if not want or want == have:
        return _maps(case, expected, got)
    fig, axes = figure(2)
    side = max(want[-1], want[-2], *(have[-2:] if len(have) > 1 else (1,)))
    for ax, name, shape, colour in zip(axes, ("expected", "yours"), (want, have), COLOURS, strict=True):
        if len(shape) > 1:
            plates = min(shape[-3] if len(shape) > 2 else 1, 6)
            for k in reversed(range(plates)):
                corner = (k * side / 25, -k * side / 25)
                ax.add_patch(Rectangle(corner, shape[-1], shape[-2], facecolor=PAPER, edgecolor=colour, lw=1.5))
        ax.set(xlim=(-0.1 * side, 1.3 * side), ylim=(1.1 * side, -0.3 * side), aspect="equal")
        ax.set_title(f"{name} {shape if shape else short(got)}", fontsize=8, color=INK)
        ax.set_axis_off()
    return fig, f"Two stacks of feature maps to scale: expected shape {want}, yours {have or short(got)}."


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, np.ndarray) and value.ndim > 1 and value.size else ()


def _matrix(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    return _maps(case, expected, got, numbers=True)


def _masks(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The masks or label maps that went in, with the two answers under them."""
    planes = [p for a in case["args"] if not isinstance(a, int | float | str) and (p := _plane(a)) is not None]
    if not planes:
        return None
    fig, axes = figure(len(planes))
    for i, (ax, plane) in enumerate(zip(axes, planes, strict=True)):
        top = float(np.max(plane[plane < 255], initial=1.0))  # void, 255, must not make all classes look alike
        _panel(ax, plane, f"argument {i + 1}", (0.0, top), numbers=len(np.unique(plane)) > 2)
    want, have = short(expected), short(got)
    fig.supxlabel(f"expected {want}\nyours {have}", fontsize=9)
    return fig, f"The {len(planes)} inputs of this case as small pictures; expected {want}, yours {have}."


def _boxes(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The boxes that went in, drawn on one plane, with the two answers beside them."""
    from matplotlib.patches import Rectangle

    sets = [np.asarray(plain(a), dtype=float).reshape(-1, 4) for a in case["args"][:2]]
    everything = np.concatenate(sets)
    if everything.size == 0:
        return None
    fig, axes = figure(1, width=4.2)
    for name, boxes, colour, style in zip("ab", sets, COLOURS, ("-", "--"), strict=True):
        for i, (x1, y1, x2, y2) in enumerate(boxes[:6]):
            axes[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=2))
            axes[0].text(x1, y1, f"{name}{i}", color=colour, fontsize=9, va="bottom")
    low, high = everything.reshape(-1, 2).min(0), everything.reshape(-1, 2).max(0)
    pad = 0.1 * (high - low).max() + 0.5
    axes[0].set(xlim=(low[0] - pad, high[0] + pad), ylim=(high[1] + pad, low[1] - pad), aspect="equal")
    answer = f"first pair: expected {_first(expected)}, yours {_first(got)}"
    axes[0].set_title(answer, fontsize=9, color=INK)
    return fig, f"{len(sets[0])} boxes a, solid, and {len(sets[1])} boxes b, dashed; {answer}."


class _Placed(NamedTuple):
    """Points in the plane: places (N, 2), the label of each or None, centres (K, 2), and the shape of the rows."""

    places: np.ndarray
    labels: np.ndarray | None
    centres: np.ndarray
    shape: tuple[int, ...]


def _points(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The two answers in the plane, to one scale: rows as points; or the points given, with labels and centres."""
    want, have = _placed(case, expected), _placed(case, got)
    if want is None:
        return _matrix(case, expected, got)
    if have and (have.labels is None) != (want.labels is None):  # centres alone, or labels that nobody asked for
        have = None
    want, titles, below = _words(want, have)
    old = _placed(case, case["args"][1]).places if want.labels is not None else want.centres
    fig, axes = figure(2, width=3.3, height=3.5)
    parts = [part for answer in (want, have) if answer for part in (answer.places, answer.centres)]
    around = np.concatenate([old, *parts])
    around = around[np.isfinite(around).all(1)]
    low, high = around.min(0, initial=0), around.max(0, initial=0)
    pad = 0.1 * (high - low).max() + 0.1
    for ax, title, answer, other in zip(axes, titles, (want, have), (have, want), strict=True):
        ax.set_title(title, fontsize=8, color=INK)
        if answer is None:
            ax.text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9)
            ax.set_axis_off()
            continue
        _cloud(ax, answer, other, old)
        ax.set(xlim=(low[0] - pad, high[0] + pad), ylim=(low[1] - pad, high[1] + pad))
        ax.tick_params(labelsize=7)
    fig.supxlabel(below, fontsize=8, color=INK)
    return fig, f"{len(want.places)} points in the plane, twice: {titles[0]}; {titles[1]}. {below}"


def _words(want: _Placed, have: _Placed | None) -> tuple[_Placed, list[str], str]:
    """What stands above the two panels and below them; and what was expected, its columns turned towards the answer."""
    cut = f", first 2 of {want.shape[1]} coordinates" if want.shape[1] > 2 else ""
    if want.labels is None:
        titles = [f"expected {want.shape}", f"yours {have.shape if have else ''}"]
        if have and have.places.shape == want.places.shape:
            signs = np.where(np.nansum(want.places * have.places, axis=0) < 0, -1.0, 1.0)
            want = want._replace(places=want.places * signs)
            titles[0] += ", mirrored to lie as yours" * bool((signs < 0).any())
        return want, titles, f"Each point by its number{cut}. Both to one scale."
    said = "yours"
    if have:
        moved = [k for k, same in enumerate(_same(want.centres, have.centres)) if not same]
        wrong = f"{int((want.labels != have.labels).sum())} of {len(want.labels)} labels wrong"
        count = f"{len(have.centres)} centres, not {len(want.centres)}"
        which = f"centre{'s' * (len(moved) > 1)} {', '.join(map(str, moved))} elsewhere" if moved else "centres right"
        said += f": {wrong}, {which if len(have.centres) == len(want.centres) else count}"
    below = f"Circles: points by their labels{cut}; red rings: labels that differ."
    return want, ["expected", said], f"{below}\nSquares: centres; arrows: from where they were."


def _same(one: np.ndarray, other: np.ndarray) -> list[bool]:
    """Row by row, whether two centres lie at the same place."""
    return [bool(np.allclose(a, b, atol=1e-6)) for a, b in zip(one, other, strict=False)]


def _cloud(ax: Any, answer: _Placed, other: _Placed | None, old: np.ndarray) -> None:
    """Points by label or number, ringed where the label is another one; centres, each with the way that it came."""
    from segedu.viz import palette

    colours = 0.5 + 0.5 * palette(7)  # light: what is written on them stays readable
    ax.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    ax.axvline(0, color="#cccccc", lw=0.8, zorder=0)
    labels = np.arange(len(answer.places)) if answer.labels is None else answer.labels
    for i, ((x, y), label) in enumerate(zip(answer.places, labels, strict=True)):
        ring = answer.labels is not None and other is not None and other.labels[i] != label
        fill = PAPER if answer.labels is None else colours[int(np.nan_to_num(label)) % 7]
        ax.plot(x, y, "o", ms=11, mfc=fill, mec=COLOURS[1] if ring else INK, mew=2 if ring else 0.4)
        ax.text(x, y, f"{label:g}", ha="center", va="center_baseline", fontsize=7, color=INK)
    lost = [str(k) for k, centre in enumerate(answer.centres) if not np.isfinite(centre).all()]
    if lost:
        ax.text(0.98, 0.02, f"centre {', '.join(lost)} is nowhere: nan", ha="right", transform=ax.transAxes, fontsize=8)
    for k, centre in enumerate(answer.centres):
        if str(k) in lost:
            continue
        if k < len(old) and len(old) == len(answer.centres):
            ax.annotate("", centre, old[k], arrowprops={"arrowstyle": "->", "color": INK, "shrinkA": 0, "shrinkB": 7})
        ax.plot(*centre, "s", ms=12, mfc=colours[k % 7], mec=INK, mew=1.8)
        ax.text(*centre, str(k), ha="center", va="center_baseline", fontsize=8, weight="bold", color=INK)


def _placed(case: dict, value: Any) -> _Placed | None:
    """An answer in the plane; a row of one number lies on a line, of more than two the first two count."""
    rows, labels = value, None
    if isinstance(value, tuple) and len(value) == 2:  # labels and centres: the points are what went in
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
    return _Placed(flat, labels, centres if labels is not None else np.zeros((0, 2)), points.shape)


def _first(value: Any) -> str:
    array = np.asarray(value) if isinstance(value, np.ndarray | list | float | int) else np.array("")
    return f"{array.reshape(-1)[0]:.4g}" if array.dtype.kind in "iuf" and array.size else short(value)


def _cells(ax: Any, label_map: np.ndarray) -> None:
    """A label map in light colours."""
    from segedu.viz import palette

    colours = np.stack([[1, 1, 1], *(0.6 + 0.4 * palette(7))])
    ax.imshow(colours[np.where(label_map > 0, 1 + label_map.astype(int) % 7, 0)], interpolation="nearest")


def _polygons(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """What is kept is filled and has its index, what is gone is dashed; vermilion where the two answers differ."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Polygon

    polygons, scores = (np.asarray(plain(a), dtype=float) for a in case["args"][:2])
    if not len(polygons):
        return None
    flat = isinstance(got, np.ndarray) and got.ndim == 1 and got.dtype != bool
    kept = got.tolist() if flat and set(got.tolist()) <= set(range(len(polygons))) else None
    low, high = polygons.reshape(-1, 2).min(0) - 1, polygons.reshape(-1, 2).max(0) + 1

    def paint(ax: Any, answer: list, other: list | None) -> None:
        for i, corners in enumerate(polygons):
            colour = COLOURS[int(other is not None and (i in answer) != (i in other))]
            style = {"fc": to_rgba(colour, 0.25), "ls": "-"} if i in answer else {"fc": "none", "ls": "--"}
            ax.add_patch(Polygon(corners[:, ::-1], ec=colour, lw=1.5, **style))
            ax.text(*corners[corners[:, 0].argmin(), ::-1], f"{i}: {scores[i]:.2f}", fontsize=6, color=INK, va="bottom")
        ax.set(xlim=(low[1], high[1]), ylim=(high[0], low[0]))
        ax.set_xlabel(f"{answer}" if len(answer) < 12 else f"{len(answer)} indices", fontsize=8)

    words = "Each polygon with its index and score. Filled: kept; dashed: gone; vermilion: kept in one answer only."
    return two_answers(expected.tolist(), kept, got, paint, words)


def _stars(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The rays of one pixel, that where the answers differ most, with the corners at their ends."""
    label_map, have = np.asarray(plain(case["args"][0])), like(expected, got)
    gap = expected.min(0) if have is None else np.nan_to_num(np.abs(expected - have), nan=99.0).max(0)
    y, x = (int(n) for n in np.unravel_index(gap.argmax(), gap.shape))
    angles = np.arange(len(expected)) * 2 * np.pi / len(expected)

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _cells(ax, label_map)
        corners = x + answer[:, y, x] * np.cos(angles), y + answer[:, y, x] * np.sin(angles)
        for k, (right, down) in enumerate(zip(*corners, strict=True)):
            colour = COLOURS[int(other is not None and not abs(answer[k, y, x] - other[k, y, x]) < 1e-6)]
            ax.plot([x, right], [y, down], color=colour, lw=1.5)
        ax.fill(*corners, fill=False, ec=INK, lw=1, ls="--")
        ax.text(*(c[0] for c in corners), "ray 0", fontsize=7, color=INK)
        ax.set(xlim=(-1.5, label_map.shape[1] + 0.5), ylim=(label_map.shape[0] + 0.5, -1.5))

    return two_answers(expected, have, got, paint, f"The rays of pixel ({y}, {x}); vermilion: those that differ.")


def _arrows(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """An arrow for each pixel of the label map, (dy, dx)."""
    label_map, have = np.asarray(plain(case["args"][0])), like(expected, got)

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _cells(ax, label_map)
        wrong = ~(np.abs(answer - (answer if other is None else other)).max(0) < 1e-6)
        for on, colour in zip((~wrong, wrong), COLOURS, strict=True):
            y, x = (on & (np.nan_to_num(answer, nan=1.0) != 0).any(0)).nonzero()
            dy, dx = answer[:, y, x]
            ax.quiver(x, y, dx, dy, color=colour, angles="xy", scale_units="xy", scale=1.15, pivot="mid", width=0.012)
            ax.plot(*np.isnan(answer).any(0).nonzero()[::-1], "x", color=COLOURS[1])
            ax.plot(*(wrong & (answer == 0).all(0)).nonzero()[::-1], ".", color=COLOURS[1])

    below = "An arrow for each pixel. Vermilion: arrows that differ; a dot: no arrow; a cross: nan."
    return two_answers(expected, have, got, paint, below)


def _drift(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The way of each pixel from its start to its end, on the cells that the answer makes of them."""
    starts = np.argwhere(np.asarray(plain(case["args"][1])))
    pair = got if isinstance(got, tuple) and len(got) == 2 else (None, None)
    have = tuple(map(like, expected, pair))
    have = None if any(answer is None for answer in have) else have

    def paint(ax: Any, answer: tuple, other: tuple | None) -> None:
        _cells(ax, np.asarray(answer[1]))
        for p, (start, end) in enumerate(zip(starts, answer[0], strict=True)):
            colour = COLOURS[int(other is not None and not np.abs(end - other[0][p]).max() < 1e-4)]
            ax.plot(*np.stack([start, end])[:, ::-1].T, color=colour, lw=0.8, marker="o", ms=3, markevery=[1])
        for number in set(answer[1][answer[1] != 0].tolist()):
            ax.text(*np.argwhere(answer[1] == number)[0, ::-1], f"{number:g}", weight="bold", ha="center", va="center")

    words = "Colours and numbers: cells. Lines: from pixels to their ends, the dots; vermilion: ends that differ."
    return two_answers(expected, have, got, paint, words)


DRAWERS: dict[str, Callable] = {
    "map": _maps,
    "image": _maps,
    "matrix": _matrix,
    "mask": _masks,
    "boxes": _boxes,
    "points": _points,
    "shape": _shapes,
    "polygons": _polygons,
    "stars": _stars,
    "arrows": _arrows,
    "drift": _drift,
    **DETECTION,
}
