"""What the pictures of check cells share: panels, colours, and words for what cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.outcomes import describe

INK, PAPER = "#1b1b1b", "#f4f1ea"
COLOURS = ("#0072b2", "#d55e00")  # blue and vermilion of Okabe and Ito: apart for every kind of colour vision


def figure(panels: int, width: float = 2.4, height: float = 2.6) -> tuple[Any, list]:
    """A row of panels.

    Args:
        panels: their number.
        width: of each, in inches.
        height: of all, in inches.

    Returns:
        The figure and its axes.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width * panels, height), layout="constrained", facecolor=PAPER)
    return fig, list(np.atleast_1d(fig.subplots(1, panels)))


def short(value: Any) -> str:
    """The value itself where it is small, else its kind and shape.

    Args:
        value: a plain value, or an outcome that raised.

    Returns:
        A few words.
    """
    if isinstance(value, dict) and "raises" in value:
        return value["raises"]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and len(value) <= 3:
        return "(" + ", ".join(short(item) for item in value) + ")"
    if isinstance(value, np.ndarray) and value.size <= 6:
        return np.array2string(value, precision=3, separator=", ").replace("\n", "")
    return describe(value).removeprefix("the ")


def two_answers(want: Any, have: Any, got: Any, paint: Callable, words: str) -> tuple[Any, str]:
    """Expected and given, one drawing each; words where an answer cannot be drawn.

    Args:
        want: what was expected, as `paint` takes it.
        have: what was given, or None.
        got: what was given, as it is.
        paint: `paint(ax, answer, other)`.
        words: below the drawings.

    Returns:
        The figure and its alt text.
    """
    fig, axes = figure(2, width=3.3, height=3.5)
    for ax, title, answer, other in zip(axes, ("expected", "yours"), (want, have), (have, want), strict=True):
        ax.set_title(title, fontsize=9, color=INK)
        ax.set(xticks=[], yticks=[], aspect="equal")
        if answer is None:
            ax.text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9, transform=ax.transAxes)
            ax.set_axis_off()
        else:
            paint(ax, answer, other)
    fig.supxlabel(words, fontsize=8, color=INK)
    lost = f", which cannot be drawn: {short(got)}" * (have is None)
    return fig, f"Two drawings: expected, and yours{lost}. {words}"


def like(want: Any, got: Any) -> np.ndarray | None:
    """An answer of numbers as floats, if it has the shape of the expected one.

    Args:
        want: an array.
        got: anything.

    Returns:
        The array, or None.
    """
    return got.astype(float) if isinstance(got, np.ndarray) and got.shape == want.shape else None
