"""The feedback page of one student: one HTML file, no script, no outside address, everything escaped."""

from __future__ import annotations

import re
from html import escape

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
section { border: 1px solid #8888; border-left: .5rem solid; border-radius: .25rem;
  padding: .75rem 1rem; margin: 1rem 0; }
.passed { border-left-color: #1b7f3b; } .partly { border-left-color: #b36b00; } .wrong { border-left-color: #b3261e; }
.total { font-size: 1.25rem; } p { margin: .35rem 0; } li { overflow-wrap: anywhere; }
"""
_WORDS = {
    "passed": "Right", "partly": "Partly right", "wrong": "Not right yet", "blank": "Not written yet",
    "missing": "Missing", "timeout": "Too slow: it was stopped", "died": "It ended the Python process",
    "flood": "It printed too much", "memory": "It used too much memory", "skipped": "Not run",
    "tampered": "Not counted", "not graded": "Not graded",
}  # fmt: skip


def feedback_page(record: dict) -> str:
    """Make the page from a record.

    Args:
        record: of one submission.

    Returns:
        HTML.
    """
    student, lab = escape(record["student"]), escape(record["lab"])
    parts = [f"<h1>{lab}: feedback for {student}</h1>"]
    parts.append(f'<p class="total"><strong>{record["points"]:g} of {record["max_points"]:g} points</strong></p>')
    if record["problem"]:
        parts.append(f"<p><strong>Nothing could be graded:</strong> {escape(record['problem'])}</p>")
    else:
        parts += [_exercise(exercise) for exercise in record["exercises"]]
    if record["notes"]:
        parts.append(f"<h2>Notes on the notebook</h2>{_list(record['notes'])}")
    parts.append("<p>Grading ran your functions on new inputs, drawn as those of the checks in the lab are.</p>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{lab}: {student}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _exercise(exercise: dict) -> str:
    colour = exercise["status"] if exercise["status"] in ("passed", "partly") else "wrong"
    word = _WORDS.get(exercise["status"], exercise["status"])
    lines = [f"<h2>{escape(exercise['name'])}: {exercise['points']:g} of {exercise['max']:g} points</h2>"]
    lines.append(f"<p>{escape(word)}{escape(_tally(exercise))}</p>")
    if exercise["first_line"] and exercise["status"] != "blank":
        lines.append(f"<p><strong>{_text(exercise['first_line'])}</strong></p>")
    if exercise["hint"]:
        lines.append(f"<p>Hint: {_text(exercise['hint'])}</p>")
    if exercise["notes"]:
        lines.append(_list(exercise["notes"]))
    return f'<section class="{colour}">{"".join(lines)}</section>'


def _text(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _tally(exercise: dict) -> str:
    groups = exercise["groups"].items()
    return "".join(f"; {name} {group['passed']} of {group['total']}" for name, group in groups)


def _list(items: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
