"""Pictures of chapter 12: cells of a grid, decoded boxes, and predictions that are matched with objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.drawing_panels import COLOURS, INK, figure, like, short, two_answers
from segedu.teaching.checks.outcomes import plain


def _outlines(ax: Any, boxes: np.ndarray, colours: list[str] | str, **style: Any) -> None:
    """Boxes (N, 4) xyxy."""
    from matplotlib.patches import Rectangle

    for i, (x1, y1, x2, y2) in enumerate(boxes):
        colour = colours if isinstance(colours, str) else colours[i]
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, **style))


def _differs(answer: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """(N,): whether two lists of rows differ, row by row."""
    if other is None:
        return np.zeros(len(answer), dtype=bool)
    return ~(np.abs(answer - other) < 1e-3).reshape(len(answer), -1).all(axis=1)


def _corners(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(cx, cy, w, h) as parts of the image (H, W) to xyxy pixels."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * np.tile(size[::-1], 2)


def _grid(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The grid over the objects; cells that say something are filled, with the place that they say."""
    boxes, cells, (height, width) = np.asarray(plain(case["args"][0])), case["args"][2], case["args"][3]
    wide, high = width / cells, height / cells

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        flat = answer.reshape(cells * cells, -1)
        wrong = _differs(flat, None if other is None else other.reshape(flat.shape))
        for number in (flat != 0).any(axis=1).nonzero()[0]:
            row, column = divmod(int(number), cells)
            colour = COLOURS[int(wrong[number])]
            ax.axvspan(column * wide, (column + 1) * wide, 1 - (row + 1) / cells, 1 - row / cells, fc=colour, alpha=0.3)
            x, y = flat[number, :2]
            ax.plot((column + x) * wide, (row + y) * high, "o", color=colour, ms=5)
        _outlines(ax, boxes, INK, lw=1.5)
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.hlines(np.arange(1, cells) * high, 0, width, color="#9a9a9a", lw=0.7)
        ax.vlines(np.arange(1, cells) * wide, 0, height, color="#9a9a9a", lw=0.7)

    words = "Objects on the grid. Filled: cells that say something; a dot: where; vermilion: cells that differ."
    return two_answers(expected, like(expected, got), got, paint, words)


def _decoded(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Default boxes dashed, decoded ones solid."""
    anchors, (height, width) = np.asarray(plain(case["args"][2])), case["args"][3]
    pair = got if isinstance(got, tuple | list) and len(got) == 2 else (None, None)
    have, scores = (like(want, value) for want, value in zip(expected, pair, strict=True))
    wrong = "not of the right shape" if scores is None else f"{int(_differs(expected[1], scores).sum())} rows differ"

    def paint(ax: Any, answer: np.ndarray, other: np.ndarray | None) -> None:
        _outlines(ax, anchors, "#9a9a9a", ls="--", lw=1)
        _outlines(ax, answer, [COLOURS[int(w)] for w in _differs(answer, other)], lw=1.5)
        _outlines(ax, np.array([[0, 0, width, height]]), INK, lw=2)
        ax.set(xlim=(-0.15 * width, 1.15 * width), ylim=(1.15 * height, -0.15 * height))

    words = f"Dashed: default boxes; solid: what they become; vermilion: boxes that differ. Scores: {wrong}."
    return two_answers(expected[0], have, got, paint, words)


def _matches(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """The matrix of costs; what is matched has a ring."""
    if not expected[0].size:
        return None
    pair = got if isinstance(got, tuple | list) and len(got) == 2 else (None, None)
    have = tuple(like(want, value) for want, value in zip(expected, pair, strict=True))

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

    words = "Costs, with a ring for each pair. Vermilion: pairs that differ; !: costs that differ."
    return two_answers(expected, None if any(h is None for h in have) else have, got, paint, words)


def _pairs(case: dict, expected: Any, got: Any) -> tuple[Any, str] | None:
    """Objects solid, predictions dashed; a line leads from each object to its prediction."""
    predicted, boxes, size, queries = (case["args"][i] for i in (1, 3, 4, 5))
    predicted, boxes, queries = (np.asarray(plain(part)) for part in (predicted, boxes, queries))
    given = _corners(predicted, size)
    fig, (ax,) = figure(1, width=4.6, height=3.4)
    matched = np.isin(np.arange(len(given)), queries)
    _outlines(ax, given[~matched], "#9a9a9a", ls=":", lw=1)
    _outlines(ax, given[matched], COLOURS[0], ls="--", lw=1.5)
    _outlines(ax, boxes, INK, lw=1.5)
    for box, query in zip(boxes, queries.tolist(), strict=True):
        ends = np.stack([box, given[query]]).reshape(2, 2, 2).mean(axis=1)
        ax.plot(*ends.T, "o-", color=COLOURS[0], ms=3, lw=1)
    ax.set(xlim=(0, size[1]), ylim=(size[0], 0), xticks=[], yticks=[], aspect="equal")
    answer = f"expected {short(expected)}, yours {short(got)}"
    ax.set_title(answer, fontsize=9, color=INK)
    words = "Solid: objects; dashed: their predictions; dotted: the others."
    fig.supxlabel(words, fontsize=8, color=INK)
    return fig, f"{len(boxes)} objects and {len(given)} predictions; {answer}. {words}"


DETECTION: dict[str, Callable] = {"grid": _grid, "decoded": _decoded, "matches": _matches, "pairs": _pairs}
