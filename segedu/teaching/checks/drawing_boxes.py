"""Pictures of chapter 12: grid cells, decoded boxes, and predictions matched with objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.drawing_panels import COLOURS, INK, figure, like, short, two_answers
from segedu.teaching.checks.outcomes import plain


def _outlines(ax: Any, boxes: np.ndarray, colours: list[str] | str, **style: Any) -> None:
    """Outline boxes (N, 4) xyxy."""
    from matplotlib.patches import Rectangle

    for i, (x1, y1, x2, y2) in enumerate(boxes):
        colour = colours if isinstance(colours, str) else colours[i]
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, **style))


def _differs(answer: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Compare two lists of rows, row by row: (N,) bool."""
    if other is None:
        return np.zeros(len(answer), dtype=bool)
    return ~(np.abs(answer - other) < 1e-3).reshape(len(answer), -1).all(axis=1)


def _corners(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert (cx, cy, w, h) relative to the image size (H, W) to xyxy pixels."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * np.tile(size[::-1], 2)


def _grid(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw the grid over the objects; cells with a target are filled, with a dot at the encoded centre."""
    boxes, cells, (height, width) = np.asarray(plain(case["args"][0])), case["args"][2], case["args"][3]
    dx, dy = width / cells, height / cells

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        flat = answer.reshape(cells * cells, -1)
        wrong = _differs(flat, None if other is None else other.reshape(flat.shape))
        for number in (flat != 0).any(axis=1).nonzero()[0]:
            row, column = divmod(int(number), cells)
            colour = COLOURS[int(wrong[number])]
            ax.axvspan(column * dx, (column + 1) * dx, 1 - (row + 1) / cells, 1 - row / cells, fc=colour, alpha=0.3)
            x, y = flat[number, :2]
            ax.plot((column + x) * dx, (row + y) * dy, "o", color=colour, ms=5)
        _outlines(ax, boxes, INK, lw=1.5)
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.hlines(np.arange(1, cells) * dy, 0, width, color="#9a9a9a", lw=0.7)
        ax.vlines(np.arange(1, cells) * dx, 0, height, color="#9a9a9a", lw=0.7)

    caption = "Objects on the grid. Filled: cells with a target; dot: encoded centre; vermilion: cells that differ."
    return two_answers(expected, like(expected, got), got, paint, caption)


def _decoded(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw default boxes dashed, decoded boxes solid."""
    anchors, (height, width) = np.asarray(plain(case["args"][2])), case["args"][3]
    pair = got if isinstance(got, tuple | list) and len(got) == 2 else (None, None)
    yours, scores = (like(target, value) for target, value in zip(expected, pair, strict=True))
    wrong = "wrong shape" if scores is None else f"{int(_differs(expected[1], scores).sum())} rows differ"

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _outlines(ax, anchors, "#9a9a9a", ls="--", lw=1)
        _outlines(ax, answer, [COLOURS[int(w)] for w in _differs(answer, other)], lw=1.5)
        _outlines(ax, np.array([[0, 0, width, height]]), INK, lw=2)
        ax.set(xlim=(-0.15 * width, 1.15 * width), ylim=(1.15 * height, -0.15 * height))

    caption = f"Dashed: default boxes; solid: decoded boxes; vermilion: boxes that differ. Scores: {wrong}."
    return two_answers(expected[0], yours, got, paint, caption)


def _matches(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw the cost matrix with a ring around each matched pair."""
    if not expected[0].size:
        return None
    pair = got if isinstance(got, tuple | list) and len(got) == 2 else (None, None)
    yours = tuple(like(target, value) for target, value in zip(expected, pair, strict=True))

    def paint(ax: Any, answer: tuple, other: tuple | None) -> None:
        cost, queries = answer
        ax.imshow(cost, cmap="cividis", aspect="auto")
        wrong = np.zeros(cost.shape, bool) if other is None else ~(np.abs(cost - other[0]) < 1e-3)
        for (q, n), value in np.ndenumerate(cost):
            colour = "w" if value < np.nanmean(cost) else "k"
            ax.text(n, q, f"{value:.2f}" + "!" * bool(wrong[q, n]), ha="center", va="center", fontsize=7, color=colour)
        for n, query in enumerate(queries):
            same = other is None or other[1][n] == query
            ax.plot(n, query, "o", ms=24, mfc="none", mec="w" if same else COLOURS[1], mew=2.5)
        ax.set(xlabel="objects", ylabel="queries", xlim=(-0.5, cost.shape[1] - 0.5), ylim=(len(cost) - 0.5, -0.5))

    caption = "Cost matrix; rings: matched pairs. Vermilion: pairs that differ; !: costs that differ."
    return two_answers(expected, None if any(part is None for part in yours) else yours, got, paint, caption)


def _pairs(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Draw objects solid and predictions dashed, with a line from each object to its prediction."""
    relative_boxes, boxes, size, queries = (case["args"][i] for i in (1, 3, 4, 5))
    relative_boxes, boxes, queries = (np.asarray(plain(part)) for part in (relative_boxes, boxes, queries))
    predicted_boxes = _corners(relative_boxes, size)
    fig, (ax,) = figure(1, width=4.6, height=3.4)
    matched = np.isin(np.arange(len(predicted_boxes)), queries)
    _outlines(ax, predicted_boxes[~matched], "#9a9a9a", ls=":", lw=1)
    _outlines(ax, predicted_boxes[matched], COLOURS[0], ls="--", lw=1.5)
    _outlines(ax, boxes, INK, lw=1.5)
    for box, query in zip(boxes, queries.tolist(), strict=True):
        ends = np.stack([box, predicted_boxes[query]]).reshape(2, 2, 2).mean(axis=1)
        ax.plot(*ends.T, "o-", color=COLOURS[0], ms=3, lw=1)
    ax.set(xlim=(0, size[1]), ylim=(size[0], 0), xticks=[], yticks=[], aspect="equal")
    answer = f"expected {short(expected)}, yours {short(got)}"
    ax.set_title(answer, fontsize=9, color=INK)
    caption = "Solid: objects; dashed: matched predictions; dotted: unmatched predictions."
    fig.supxlabel(caption, fontsize=8, color=INK)
    return fig, f"{len(boxes)} objects and {len(predicted_boxes)} predictions; {answer}. {caption}"


DETECTION: dict[str, Callable] = {"grid": _grid, "decoded": _decoded, "matches": _matches, "pairs": _pairs}
