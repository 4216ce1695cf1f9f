"""The card below a check's message: points, and a tick or a cross for each case of each group."""

from __future__ import annotations

import html

from segedu.teaching.checks.judge import Verdict

RULE = "A group counts only if all its cases are right."
# readable on white and on dark backgrounds; the symbols and texts differ too, for those who do not see the colours
GREEN, RED = "#2b9348", "#e5484d"


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
    colour = GREEN if verdict.passed else RED
    head = f"{'✓' if verdict.passed else '✗'} {verdict.name}: {verdict.points:g} of {verdict.max_points} points"
    return (
        f'<div style="border-left: 4px solid {colour}; padding: 2px 10px; margin: 4px 0; color: inherit">'
        f'<b style="color: {colour}">{html.escape(head)}</b><br>{rows}<small>{RULE} {html.escape(note)}</small></div>'
    )


def _row(name: str, group: dict) -> str:
    right, wrong = group["passed"], group["total"] - group["passed"]
    marks = f'<span style="color: {GREEN}">{"✓" * right}</span><span style="color: {RED}">{"✗" * wrong}</span>'
    counts = f"{right} of {group['total']} cases, {group['points']:g} of {group['max']} points"
    return f"{html.escape(name)} {marks} {counts}<br>"
