"""The card below a check's message: points, and a tick or a cross for each case of each group."""

from __future__ import annotations

import html

from segedu.teaching.checks.judge import Verdict

RULE = "A group counts only if all its cases are right."
# behind white symbols, so that they are legible on light and dark pages; the symbols differ too, without the colours
GREEN, RED = "#1a7f37", "#cf222e"


def points_text(verdict: Verdict) -> str:
    """Write the points and the rule of the groups as one line."""
    return f"{verdict.points:g} of {verdict.max_points} points. {RULE}"


def card_html(verdict: Verdict, note: str) -> str:
    """Write the card: one row per group, its ticks before its crosses, whatever the order of the cases.

    Args:
        verdict: the verdict of the check.
        note: one sentence below the rows.
    """
    rows = "".join(_row(name, group) for name, group in verdict.groups.items())
    symbol, colour = ("✓", GREEN) if verdict.passed else ("✗", RED)
    head = html.escape(f"{verdict.name}: {verdict.points:g} of {verdict.max_points} points")
    return (
        f'<div style="border-left: 4px solid {colour}; padding: 2px 10px; margin: 4px 0; line-height: 1.7">'
        f"{_marks(symbol, colour)} <b>{head}</b><br>{rows}<small>{RULE} {html.escape(note)}</small></div>"
    )


def _row(name: str, group: dict) -> str:
    right, wrong = group["passed"], group["total"] - group["passed"]
    marks = " ".join(
        _marks(symbols, colour) for symbols, colour in (("✓" * right, GREEN), ("✗" * wrong, RED)) if symbols
    )
    counts = f"{right} of {group['total']} cases, {group['points']:g} of {group['max']} points"
    return f"{html.escape(name)} {marks} {counts}<br>"


def _marks(symbols: str, colour: str) -> str:
    return f'<span style="background: {colour}; color: #fff; border-radius: 3px; padding: 0 4px">{symbols}</span>'
