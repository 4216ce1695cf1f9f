"""Bar charts beside tables of results, drawn at build time as SVG in the colours of the theme.

A bar is a method's score, and a dashed line the score of the baseline. Circles are the single seeds where there are
several: the bar is then the lowest of them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from docutils import nodes

ROW, BAR, LABEL, PLOT, RIGHT, TOP, LINE = 24, 15, 214, 356, 60, 26, 15  # pixels
CHARACTERS = 27  # of a name in one line; a longer one goes on in the next line


@dataclass(frozen=True)
class Bar:
    """One method: its name and its scores, of which the lowest is the length of the bar."""

    name: str
    scores: tuple[float, ...]

    @property
    def length(self) -> float:
        return min(self.scores)


def svg(baseline: Bar, bars: Sequence[Bar], unit: float) -> str:
    """The chart: the baseline first, then the methods from the highest score to the lowest.

    Args:
        baseline: its own bar is grey.
        bars: of the methods.
        unit: the score at the right end of the axis, such as 1, or 100 for percent.
    """

    def x(score: float) -> float:
        return LABEL + PLOT * score / unit

    ordered = sorted(bars, key=lambda bar: -bar.length)
    drawn, height = [], TOP
    for bar in [baseline, *ordered]:
        lines = textwrap.wrap(bar.name, CHARACTERS)
        drawn.append(_row(bar, lines, height, x, bar is baseline))
        height += _height(lines)
    plain = f"{x(baseline.length):.1f}"
    line = f'<line class="baseline" x1="{plain}" x2="{plain}" y1="{TOP - 4}" y2="{height}"/>'
    ticks = "".join(
        f'<text x="{x(share * unit):.1f}" y="14" text-anchor="middle">{share * unit:g}</text>' for share in (0, 0.5, 1)
    )
    width = LABEL + PLOT + RIGHT
    words = escape(description(baseline, ordered))
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">{ticks}{"".join(drawn)}{line}</svg>'


def _height(lines: Sequence[str]) -> int:
    return ROW + LINE * (len(lines) - 1)


def _row(bar: Bar, lines: Sequence[str], top: float, x, is_baseline: bool) -> str:
    kind, middle = ("baseline-bar" if is_baseline else "bar"), top + _height(lines) / 2
    first = middle - LINE * (len(lines) - 1) / 2 + 3
    name = "".join(
        f'<text x="{LABEL - 8}" y="{first + LINE * n:g}" text-anchor="end">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    seeds = "".join(
        f'<circle class="seed" cx="{x(score):.1f}" cy="{middle - 1:g}" r="4"/>'
        for score in bar.scores
        if len(bar.scores) > 1
    )
    end = x(max(bar.scores)) + 9
    return (
        f'{name}<rect class="{kind}" x="{LABEL}" y="{middle - ROW / 2 + 4:g}" width="{x(bar.length) - LABEL:.1f}" '
        f'height="{BAR}"/>'
        f'{seeds}<text x="{end:.1f}" y="{middle + 3:g}">{bar.length:.3g}</text>'
    )


def description(baseline: Bar, bars: Sequence[Bar]) -> str:
    """What the chart shows, in words."""
    words = ", ".join(f"{bar.name} {bar.length:.3g}" for bar in bars)
    return f"Bar chart: {words}; baseline {baseline.name} {baseline.length:.3g}"


def chart(metric: str, baseline: Bar, bars: Sequence[Bar], unit: float = 1.0) -> list[nodes.Node]:
    """A figure with a chart and its caption, for HTML only: the table beside it holds the same numbers."""
    if not bars:
        return []
    seeds = (
        " A bar, and the number in its row, is the lowest of three seeds; the circles are the seeds."
        if len(bars[0].scores) > 1
        else ""
    )
    caption = f"{metric}.{seeds} The dashed line is the baseline, {baseline.name}."
    frame = f'<div class="figure-frame">{svg(baseline, bars, unit)}</div>'
    text = f'<figure class="bar-chart">{frame}<figcaption>{escape(caption)}</figcaption></figure>'
    return [nodes.raw("", text, format="html", classes=["no-search"])]


def bars_of(table: str, columns: Sequence[str]) -> tuple[Bar, list[Bar]]:
    """The baseline and the methods of a Markdown table whose first row is the baseline.

    >>> bars_of("| | a | b |\\n|---|---:|---:|\\n| *plain* | 0.1 | 0.2 |\\n| **net** (old) | 0.3 | 0.4 |", ["b"])
    (Bar(name='plain', scores=(0.2,)), [Bar(name='net', scores=(0.4,))])
    """
    head, _, *lines = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines())
    head = head if head[0] == "" else ["", *head]
    found = []
    for cells in lines:
        name = re.match(r"\*+(.+?)\*+", cells[0])[1]
        found.append(Bar(name, tuple(float(cells[head.index(column)]) for column in columns)))
    return found[0], found[1:]
