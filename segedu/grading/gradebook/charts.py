"""Histograms of points as inline SVG, with a description in words for screen readers."""

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


def bins_for(max_points: Decimal) -> int:
    """The number of bins below the maximum points: one per point for up to 20 points, otherwise 10."""
    if max_points == max_points.to_integral_value() and 1 <= max_points <= MOST_BINS:
        return int(max_points)
    return 10


def bin_index(value: Decimal, max_points: Decimal, bins: int) -> int:
    """The index of the bin that counts `value` points. The maximum and more have a bin of their own, `bins`."""
    if max_points <= 0 or value >= max_points:
        return bins
    return max(0, math.floor(value / max_points * bins))


def histogram(counts: list[int], max_points: Decimal, label: str, key: str, height: int = 110) -> str:
    """Draw a histogram as SVG.

    Args:
        counts: students per bin, `bins_for(max_points) + 1` of them.
        max_points: maximum points.
        label: title in plain text.
        key: prefix of the chart's HTML ids, unique within the page; letters, digits and `-`.
        height: height of the drawing area in pixels.
    """
    bins, highest, width, left, foot = len(counts) - 1, max([*counts, 1]), 340, 30, 18
    step = (width - left - 4) / len(counts)
    bars = []
    for i, count in enumerate(counts):
        bar_height = count / highest * (height - 14)
        x, y = left + i * step + 1, height - bar_height
        bars.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{bar_height:.1f}">'
            f"<title>{escape(span_of(i, bins, max_points))} points: {count}</title></rect>"
        )
        if count and 6.5 * len(_short(count)) <= step:
            bars.append(f'<text x="{x + step / 2 - 1:.1f}" y="{y - 3:.1f}" text-anchor="middle">{_short(count)}</text>')
    parts = [f"{span_of(i, bins, max_points)}: {count}" for i, count in enumerate(counts) if count]
    description = ", ".join(parts) or "nobody"
    axis = f'<line x1="{left}" y1="{height}" x2="{width}" y2="{height}"/>'
    every = 1 if bins <= 10 and max_points == max_points.to_integral_value() else 5 if bins > 10 else 2
    labelled = [i for i in range(bins) if i % every == 0 and (i == 0 or bins - i >= every / 2)] + [bins]
    ticks = "".join(
        f'<text x="{left + (i + 0.5) * step:.1f}" y="{height + 13}" text-anchor="middle">'
        f"{points_text(max_points * i / bins)}</text>"
        for i in labelled
    )
    return (
        f'<svg viewBox="0 0 {width} {height + foot}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(label)}</title>'
        f'<desc id="{key}-d">Students by points: {escape(description)}.</desc>'
        f'{axis}<text x="{left - 4}" y="{height}" text-anchor="end">0</text>'
        f'<text x="{left - 4}" y="20" text-anchor="end">{_short(highest)}</text>{"".join(bars)}{ticks}</svg>'
    )


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)


def span_of(i: int, bins: int, max_points: Decimal) -> str:
    """The points that a bin counts: `3 to below 4`, or `full`."""
    if i == bins:
        return "full"
    low, high = max_points * i / bins, max_points * (i + 1) / bins
    return f"{points_text(low)} to below {points_text(high)}"
