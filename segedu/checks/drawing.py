"""Tiny pictures of what was expected and what came, one drawer a kind of exercise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.checks.outcomes import describe, plain

INK, PAPER = "#1b1b1b", "#f4f1ea"
COLOURS = ("#0072b2", "#d55e00")  # blue and vermilion of Okabe and Ito: apart for every kind of colour vision


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


def _figure(panels: int, width: float = 2.4) -> tuple[Any, list]:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width * panels, 2.6), layout="constrained", facecolor=PAPER)
    return fig, list(np.atleast_1d(fig.subplots(1, panels)))


def _short(value: Any) -> str:
    """The value itself where it is small, else its kind and shape."""
    if isinstance(value, dict) and "raises" in value:
        return value["raises"]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and len(value) <= 3:
        return "(" + ", ".join(_short(item) for item in value) + ")"
    if isinstance(value, np.ndarray) and value.size <= 6:
        return np.array2string(value, precision=3, separator=", ").replace("\n", "")
    return describe(value).removeprefix("the ")


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
        middle = sum(limits) / 2
        for (y, x), v in np.ndenumerate(plane):
            ax.text(x, y, f"{v:.3g}", ha="center", va="center", fontsize=7, color="w" if v < middle else "k")


def _maps(case: dict, expected: Any, got: Any, numbers: bool = False) -> tuple[Any, str] | None:
    """Expected, given, and where they differ."""
    want, have = _plane(expected), _plane(got)
    if want is None:
        return None
    same_shape = have is not None and have.shape == want.shape
    fig, axes = _figure(3 if same_shape else 2)
    values = np.concatenate([p[np.isfinite(p)] for p in (want, have) if p is not None] or [np.zeros(1)])
    limits = (float(values.min()), float(values.max()) + 1e-9) if values.size else (0.0, 1.0)
    _panel(axes[0], want, f"expected {want.shape}", limits, numbers)
    if have is None:
        axes[1].text(0.5, 0.5, _short(got), ha="center", va="center", wrap=True, fontsize=9)
        axes[1].set_axis_off()
    else:
        _panel(axes[1], have, f"yours {have.shape}", limits, numbers)
    alt = f"Two maps side by side: expected, of shape {want.shape}, and yours, {_short(got)}."
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
    fig, axes = _figure(2)
    side = max(want[-1], want[-2], *(have[-2:] if len(have) > 1 else (1,)))
    for ax, name, shape, colour in zip(axes, ("expected", "yours"), (want, have), COLOURS, strict=True):
        if len(shape) > 1:
            plates = min(shape[-3] if len(shape) > 2 else 1, 6)
            for k in reversed(range(plates)):
                corner = (k * side / 25, -k * side / 25)
                ax.add_patch(Rectangle(corner, shape[-1], shape[-2], facecolor=PAPER, edgecolor=colour, lw=1.5))
        ax.set(xlim=(-0.1 * side, 1.3 * side), ylim=(1.1 * side, -0.3 * side), aspect="equal")
        ax.set_title(f"{name} {shape if shape else _short(got)}", fontsize=8, color=INK)
        ax.set_axis_off()
    return fig, f"Two stacks of feature maps to scale: expected shape {want}, yours {have or _short(got)}."


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, np.ndarray) and value.ndim > 1 and value.size else ()


def _matrix(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    return _maps(case, expected, got, numbers=True)


def _masks(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The masks or label maps that went in, with the two answers under them."""
    planes = [p for a in case["args"] if not isinstance(a, int | float | str) and (p := _plane(a)) is not None]
    if not planes:
        return None
    fig, axes = _figure(len(planes))
    for i, (ax, plane) in enumerate(zip(axes, planes, strict=True)):
        top = float(np.max(plane[plane < 255], initial=1.0))  # void, 255, must not make all classes look alike
        _panel(ax, plane, f"argument {i + 1}", (0.0, top), numbers=len(np.unique(plane)) > 2)
    want, have = _short(expected), _short(got)
    fig.supxlabel(f"expected {want}\nyours {have}", fontsize=9)
    return fig, f"The {len(planes)} inputs of this case as small pictures; expected {want}, yours {have}."


def _boxes(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The boxes that went in, drawn on one plane, with the two answers beside them."""
    from matplotlib.patches import Rectangle

    sets = [np.asarray(plain(a), dtype=float).reshape(-1, 4) for a in case["args"][:2]]
    everything = np.concatenate(sets)
    if everything.size == 0:
        return None
    fig, axes = _figure(1, width=4.2)
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


def _points(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The two answers as points in the plane: rows of two numbers, or labels of the points that went in."""
    want, have = _placed(case, expected), _placed(case, got)
    if want is None:
        return _matrix(case, expected, got)
    fig, axes = _figure(2)
    for ax, name, answer in zip(axes, ("expected", "yours"), (want, have), strict=True):
        ax.set_title(name, fontsize=9, color=INK)
        if answer is None:
            ax.text(0.5, 0.5, _short(got), ha="center", va="center", wrap=True, fontsize=9)
            ax.set_axis_off()
            continue
        places, marks, centres = answer
        for (x, y), mark in zip(places, marks, strict=True):
            ax.text(x, y, mark, ha="center", va="center", fontsize=8, color=INK)
        ax.plot(*centres.T, "x", color=COLOURS[1], markersize=9)
        around = np.concatenate([p[np.isfinite(p).all(1)] for p in (places, centres)])
        low, high = around.min(0, initial=0), around.max(0, initial=0)
        pad = 0.1 * (high - low).max() + 0.1
        ax.set(xlim=(low[0] - pad, high[0] + pad), ylim=(low[1] - pad, high[1] + pad))
        ax.tick_params(labelsize=7)
    return fig, f"{len(want[0])} points by their numbers, crosses for centres: expected, and yours, {_short(got)}."


def _placed(case: dict, value: Any) -> tuple[np.ndarray, list[str], np.ndarray] | None:
    """Places (N, 2), what is written at each, and centres (K, 2); a row of one number lies on a line."""
    rows, labels = value, None
    if isinstance(value, tuple) and len(value) == 2:  # labels and centres: the points are what went in
        labels, rows = value
    try:
        rows = np.asarray(rows, dtype=float)
        points = rows if labels is None else np.asarray(plain(case["args"][0]), dtype=float)
        marks = np.arange(len(points)) if labels is None else np.asarray(labels)
    except (TypeError, ValueError):
        return None
    if not all(a.ndim == 2 and a.size for a in (rows, points)) or marks.shape != points.shape[:1]:
        return None
    flat, centres = (np.pad(a, ((0, 0), (0, 1)))[:, :2] for a in (points, rows))
    return flat, [str(m) for m in marks.tolist()], centres if labels is not None else np.zeros((0, 2))


def _first(value: Any) -> str:
    array = np.asarray(value) if isinstance(value, np.ndarray | list | float | int) else None
    return (
        f"{array.reshape(-1)[0]:.4g}"
        if array is not None and array.dtype.kind in "iuf" and array.size
        else _short(value)
    )


DRAWERS: dict[str, Callable] = {
    "map": _maps,
    "image": _maps,
    "matrix": _matrix,
    "mask": _masks,
    "boxes": _boxes,
    "points": _points,
    "shape": _shapes,
}
