"""Pictures of the arguments of a case, with both answers in words: for results that are few values or indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from segedu.teaching.checks.drawing_arrays import MOST_VALUES, PAGE_WIDTH, as_written, cell_size, panel, part_of
from segedu.teaching.checks.drawing_panels import COLOURS, INK, PAPER, short, two_answers
from segedu.teaching.checks.outcomes import Difference, array_like, plain

LABEL = {"facecolor": "w", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}


def both_answers(expected: dict, got: dict, difference: Difference | None) -> tuple[str, str]:
    """Describe the part of both outcomes that differs: the whole result if it is short, otherwise one value of it."""
    whole = tuple(short(outcome.get("value", outcome)) for outcome in (expected, got))
    if difference and difference.path[:1] == ("grads",) and difference.index is None:
        name, parts = as_written(difference.path), (part_of(outcome, difference.path) for outcome in (expected, got))
        left, right = (f"{name}: {short(part)}" for part in parts)
        return left, right
    if difference is None or difference.index is None:
        return whole[0], whole[1]
    left, right = (array_like(part_of(outcome, difference.path)) for outcome in (expected, got))
    if difference.path[0] == "value" and left.size <= 6 and left.ndim < 2:
        return whole[0], whole[1]
    where = f"[{', '.join(map(str, difference.index))}]" if difference.index else ""
    where = as_written(difference.path) + where
    left, right = (array[difference.index].item() for array in (left, right))
    return f"{where} = {left:.4g}", f"{where} = {right:.4g}"


def _argument_planes(case: dict, names: Sequence[str], difference: Difference | None) -> list[tuple[str, np.ndarray]]:
    """List what of the arguments can be drawn, with titles: of several planes, the one with the index that differs."""
    planes = []
    index = difference.index[0] if difference and difference.index and difference.path == ("value",) else 0
    for i, argument in enumerate(case["args"]):
        name = names[i] if i < len(names) else f"argument {i + 1}"
        try:
            array = np.asarray(plain(argument))
        except (TypeError, ValueError):
            continue
        if array.dtype.kind not in "biuf" or not array.ndim or not array.size:
            continue
        if array.ndim == 1 and (array.size > 20 or not hasattr(argument, "shape")):
            continue
        leading = (index if index < len(array) else 0, *(0,) * (array.ndim - 3)) if array.ndim > 2 else ()
        title = f"{name}[{', '.join(map(str, leading))}]" if leading else name
        if leading:
            title += f" of shape {array.shape}"
        planes.append((title, np.atleast_2d(array[leading]).astype(float)))
    return planes


def _masks(
    case: dict, names: Sequence[str], expected: dict, got: dict, difference: Difference | None
) -> tuple[Any, str] | None:
    """Draw the masks, label maps and matrices of the arguments, with the two answers below."""
    from matplotlib.figure import Figure

    planes = _argument_planes(case, names, difference)
    if not any(np.ndim(argument) > 1 for argument in case["args"] if hasattr(argument, "shape")) or not planes:
        return None
    written = [plane.size <= MOST_VALUES and (len(np.unique(plane)) > 2 or len(plane) == 1) for _, plane in planes]
    sizes = []
    for (title, plane), write in zip(planes, written, strict=True):
        width, height = cell_size(plane) if write else (0.18, 0.18)
        if not write:
            width = height = min(0.22, 2.4 / max(plane.shape))
        sizes.append((max(plane.shape[1] * width + 0.2, 0.075 * len(title)), len(plane) * height + 0.35))
    stacked = sum(width for width, _ in sizes) > PAGE_WIDTH
    texts = both_answers(expected, got, difference)
    below = f"expected {texts[0]}\nyours {texts[1]}"
    if stacked:
        shape, ratios = (len(planes), 1), {"height_ratios": [height for _, height in sizes]}
        size = max(width for width, _ in sizes), sum(height for _, height in sizes)
    else:
        shape, ratios = (1, len(planes)), {"width_ratios": [width for width, _ in sizes]}
        size = sum(width for width, _ in sizes), max(height for _, height in sizes)
    least = 0.075 * max(map(len, below.split("\n")))
    fig = Figure(figsize=(max(size[0], min(least, PAGE_WIDTH)), size[1] + 0.5), layout="constrained", facecolor=PAPER)
    axes = np.atleast_1d(fig.subplots(*shape, gridspec_kw=ratios))
    for ax, (title, plane), write, (_, height) in zip(axes, planes, written, sizes, strict=True):
        finite = plane[np.isfinite(plane) & (plane != 255)]  # void, 255, would use up the range of colours
        limits = float(finite.min(initial=0.0)), float(finite.max(initial=1.0))
        panel(ax, plane, title, limits, write)
        if write and not stacked:  # a row beside a matrix keeps the height of its cells
            ax.set_box_aspect((height - 0.35) / (cell_size(plane)[0] * plane.shape[1]))
    fig.supxlabel(below, fontsize=9, color=INK)
    return fig, f"The {len(planes)} arguments of this case as small images; expected {texts[0]}, yours {texts[1]}."


def _boxes(
    case: dict, names: Sequence[str], expected: dict, got: dict, difference: Difference | None
) -> tuple[Any, str] | None:
    """Draw the boxes of the arguments in one panel, with the two answers above."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    box_sets = [np.asarray(plain(a), dtype=float).reshape(-1, 4) for a in case["args"][:2]]
    everything = np.concatenate(box_sets)
    if everything.size == 0:
        return None
    fig = Figure(figsize=(4.6, 3.6), layout="constrained", facecolor=PAPER)
    ax = fig.subplots()
    corners: dict[tuple, list[str]] = {}
    for name, boxes, colour, style in zip("ab", box_sets, COLOURS, ("-", "--"), strict=True):
        for i, (x1, y1, x2, y2) in enumerate(boxes[:6]):
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=2))
            corners.setdefault((x1, y1), []).append(f"{name}{i}")
    for (x, y), labels in corners.items():
        ax.text(x, y, ", ".join(labels), color=INK, fontsize=9, va="bottom")
    lower, upper = everything.reshape(-1, 2).min(0), everything.reshape(-1, 2).max(0)
    pad = 0.1 * (upper - lower).max() + 0.5
    ax.set(xlim=(lower[0] - pad, upper[0] + pad), ylim=(upper[1] + pad, lower[1] - pad), aspect="equal")
    ax.tick_params(labelsize=7)
    texts = both_answers(expected, got, difference)
    ax.set_title(f"expected {texts[0]}\nyours {texts[1]}", fontsize=9, color=INK)
    left, right = (names[i] if i < len(names) else "ab"[i] for i in range(2))
    caption = f"Solid a: {left}; dashed b: {right}."
    fig.supxlabel(caption, fontsize=8, color=INK)
    counts = f"{len(box_sets[0])} boxes a, solid, and {len(box_sets[1])} boxes b, dashed"
    return fig, f"{counts}; expected {texts[0]}, yours {texts[1]}. {caption}"


def _label_positions(boxes: np.ndarray, distance: float) -> list[np.ndarray]:
    """Place a label on the edge of each box, as far as possible from the labels before it."""
    positions: list[np.ndarray] = []
    for x1, y1, x2, y2 in boxes:
        steps = np.linspace(0, 1, 9)[:, None]
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
        edge = np.concatenate([a + steps * (b - a) for a, b in zip(corners[:-1], corners[1:], strict=True)])
        gaps = [min((np.abs(point - other).max() for other in positions), default=distance) for point in edge]
        positions.append(edge[int(np.argmax(np.minimum(gaps, 2 * distance)))])
    return positions


def _kept_boxes(
    case: dict, names: Sequence[str], expected: dict, got: dict, difference: Difference | None
) -> tuple[Any, str] | None:
    """Draw kept boxes solid and suppressed ones dashed; vermilion where the answers differ."""
    from matplotlib.patches import Rectangle

    boxes, scores, labels = (np.asarray(plain(a), dtype=float) for a in case["args"][:3])
    answers = [array_like(outcome.get("value")) for outcome in (expected, got)]
    inside = [
        a.tolist()
        if a is not None and a.ndim == 1 and a.dtype.kind in "iu" and set(a.tolist()) <= set(range(len(boxes)))
        else None
        for a in answers
    ]
    if not len(boxes) or inside[0] is None:
        return None
    lower, upper = boxes.reshape(-1, 2).min(0), boxes.reshape(-1, 2).max(0)
    pad = 0.08 * (upper - lower).max()
    labelled = _label_positions(boxes, distance=pad / 2)

    def paint(ax: Any, answer: list, other: list | None) -> None:
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            colour = COLOURS[int(other is not None and (i in answer) != (i in other))]
            style = "-" if i in answer else "--"
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.5))
        for i, (x, y) in enumerate(labelled):
            ax.text(x, y, f"{i}", fontsize=7, color=INK, ha="center", va="center", bbox=LABEL)
        ax.set(xlim=(lower[0] - pad, upper[0] + pad), ylim=(upper[1] + pad, lower[1] - pad))
        ax.set_xlabel(f"{[int(i) for i in answer]}", fontsize=8)

    words = [f"{i}: {score:.2f}, class {label:g}" for i, (score, label) in enumerate(zip(scores, labels, strict=True))]
    rows = ["; ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
    caption = "\n".join(["Solid: kept; dashed: suppressed; vermilion: kept in one answer only. Scores:", *rows])
    return two_answers(inside[0], inside[1], got.get("value", got), paint, caption)


ARGUMENTS: dict[str, Callable] = {"mask": _masks, "boxes": _boxes, "kept boxes": _kept_boxes}
