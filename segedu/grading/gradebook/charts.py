"""Histograms as SVG inside a page: no script; the counts are in words too, for those who do not see them."""

from __future__ import annotations

import math
from decimal import Decimal
from html import escape

from segedu.grading.gradebook.atomic_files import points_text

STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: .75rem; }
.charts .card { margin: 0; } svg { display: block; width: 100%; height: auto; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); } svg text { fill: var(--soft); font-size: 11px; }
"""
MOST_BINS = 20


def bins_for(most: Decimal) -> int:
    """One bin a point where there are few points, else a number of equal bins with round borders."""
    if most == most.to_integral_value() and 1 <= most <= MOST_BINS:
        return int(most)
    return 10


def place(value: Decimal, most: Decimal, bins: int) -> int:
    """The bin of a value: 0 for the lowest points, `bins` for full points and more, which have a bin of their own.

    Args:
        value: points.
        most: points to be had.
        bins: from `bins_for`.
    """
    if most <= 0 or value >= most:
        return bins
    return max(0, math.floor(value / most * bins))


def histogram(counts: list[int], most: Decimal, label: str, key: str, height: int = 110) -> str:
    """Bars for the bins of `place`.

    Args:
        counts: one a bin, `bins + 1` of them.
        most: points to be had.
        label: what is counted, plain text.
        key: names the chart within its page; letters, digits and `-`.
        height: of the drawing area.

    Returns:
        SVG with a title and a description in words.
    """
    bins, top, width, left, foot = len(counts) - 1, max([*counts, 1]), 340, 30, 18
    step = (width - left - 4) / len(counts)
    bars = []
    for i, count in enumerate(counts):
        tall = count / top * (height - 14)
        what = f"{escape(span_of(i, bins, most))} points: {count}"
        x, y = left + i * step + 1, height - tall
        bars.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"><title>{what}</title></rect>'
        )
        if count and 6.5 * len(_short(count)) <= step:
            bars.append(f'<text x="{x + step / 2 - 1:.1f}" y="{y - 3:.1f}" text-anchor="middle">{_short(count)}</text>')
    said = ", ".join(f"{span_of(i, bins, most)}: {count}" for i, count in enumerate(counts) if count) or "nobody"
    axis = f'<line x1="{left}" y1="{height}" x2="{width}" y2="{height}"/>'
    every = 1 if bins <= 10 and most == most.to_integral_value() else 5 if bins > 10 else 2
    marked = [i for i in range(bins) if i % every == 0 and (i == 0 or bins - i >= every / 2)] + [bins]
    ticks = "".join(
        f'<text x="{left + (i + 0.5) * step:.1f}" y="{height + 13}" text-anchor="middle">'
        f"{points_text(most * i / bins)}</text>"
        for i in marked
    )
    return (
        f'<svg viewBox="0 0 {width} {height + foot}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(label)}</title><desc id="{key}-d">Students by points: {escape(said)}.</desc>'
        f'{axis}<text x="{left - 4}" y="{height}" text-anchor="end">0</text>'
        f'<text x="{left - 4}" y="20" text-anchor="end">{_short(top)}</text>{"".join(bars)}{ticks}</svg>'
    )


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def span_of(i: int, bins: int, most: Decimal) -> str:
    """Which points a bin counts: `3`, `3 to 4`, or `full`."""
    if i == bins:
        return "full"
    low, high = most * i / bins, most * (i + 1) / bins
    return f"{points_text(low)} to below {points_text(high)}"
