"""What the pictures of check cells share: panels, colours, and text that replaces answers that cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.outcomes import describe

INK, PAPER = "#1b1b1b", "#f4f1ea"
COLOURS = ("#0072b2", "#d55e00")  # blue and vermilion of Okabe and Ito, safe for colour-blind readers


def figure(panels: int, width: float = 2.4, height: float = 2.6, stacked: bool = False) -> tuple[Any, list]:
    """Make a row or a stack of panels; `width` of each panel and `height` of the figure in inches."""
    from matplotlib.figure import Figure

    rows, columns = (panels, 1) if stacked else (1, panels)
    fig = Figure(figsize=(width * columns, height), layout="constrained", facecolor=PAPER)
    return fig, list(np.atleast_1d(fig.subplots(rows, columns)))


def written(value: float) -> str:
    """Write a value of an array in few characters, integers of up to six digits in full."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def short(value: Any) -> str:
    """Describe a plain value, or an outcome that raised, in a few words."""
    if isinstance(value, dict) and "raises" in value:
        return value["raises"]
    if isinstance(value, dict) and "refused" in value:
        return value["refused"]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and (len(value) <= 3 or (len(value) <= 6 and set(map(type, value)) <= {int})):
        return "(" + ", ".join(repr(item) if type(item) is int else short(item) for item in value) + ")"
    if isinstance(value, np.ndarray) and value.size <= 6:
        return np.array2string(value, precision=3, separator=", ").replace("\n", "")
    return describe(value).removeprefix("the ")


def two_answers(expected: Any, yours: Any, got: Any, paint: Callable, caption: str) -> tuple[Any, str]:
    """Draw the expected and the student's answer side by side; text replaces an answer that cannot be drawn.

    Args:
        expected: the expected answer, in the form that `paint` expects.
        yours: the student's answer in the same form, or None if it cannot be drawn.
        got: the student's answer as returned, to describe it in text.
        paint: function `paint(ax, answer, other)` that draws one of the two answers; `other` is the other one.
        caption: text below the drawings.
    """
    fig, axes = figure(2, width=3.3, height=3.5)
    for ax, title, answer, other in zip(axes, ("expected", "yours"), (expected, yours), (yours, expected), strict=True):
        ax.set_title(title, fontsize=9, color=INK)
        ax.set(xticks=[], yticks=[], aspect="equal")
        if answer is None:
            ax.text(0.5, 0.5, short(got), ha="center", va="center", wrap=True, fontsize=9, transform=ax.transAxes)
            ax.set_axis_off()
        else:
            paint(ax, answer, other)
    fig.supxlabel(caption, fontsize=8, color=INK)
    failure = f", which cannot be drawn: {short(got)}" * (yours is None)
    return fig, f"Two drawings: expected, and yours{failure}. {caption}"


def like(expected: Any, got: Any) -> np.ndarray | None:
    """Convert an answer to floats if it is an array with the shape of the expected one, else return None."""
    return got.astype(float) if isinstance(got, np.ndarray) and got.shape == expected.shape else None
