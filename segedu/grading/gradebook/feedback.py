"""The feedback page of one student: what was asked, what came, which misconception, and where the points come from.

It holds no hidden input, no expected value, no path of ours and no message that the student's code chose.
"""

from __future__ import annotations

import re
from html import escape

from segedu.grading.gradebook.atomic_files import points_text
from segedu.grading.gradebook.late import LabPolicy
from segedu.grading.gradebook.page import breakable, listed, moment, page, row, table, text
from segedu.grading.gradebook.roster import Change
from segedu.grading.gradebook.student_result import Attempt, Line, StudentResult

_STYLE = """
.total { font-size: 1.6rem; font-weight: 650; margin: 0; } .sum { font-variant-numeric: tabular-nums; }
section.card { border-left: .5rem solid var(--bad); } section.passed { border-left-color: var(--good); }
section.partly { border-left-color: var(--part); } section.none { border-left-color: var(--line); }
section h2 { margin: 0 0 .25rem; display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
section h2 span:last-child { white-space: nowrap; } .state { font-weight: 600; }
.groups { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; color: var(--soft); }
.foot { margin-top: 1.5rem; } .hint { border-left: 3px solid var(--line); padding-left: .75rem; }
"""
_WORDS = {
    "passed": "Right", "partly": "Partly right", "wrong": "Not right yet", "blank": "Not written yet",
    "missing": "Missing", "timeout": "Too slow: it was stopped", "died": "It ended the Python process",
    "flood": "It printed too much", "memory": "It used too much memory", "skipped": "Not run",
    "tampered": "Not counted", "not graded": "Not graded", "nothing handed in": "Nothing handed in",
}  # fmt: skip
_MARKS = {"passed": "\u2713", "partly": "\u25d0", "blank": "\u25cb", "missing": "\u25cb", "not graded": "\u25cb"}
_OURS = "The grader could not finish with this notebook. That is our fault, and it will be graded again."
_PATH = re.compile(r"(?<![\w.~-])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"<>|]+){2,}")


def feedback_page(student_result: StudentResult, prompts: dict[str, str], policy: LabPolicy) -> str:
    """Make the page.

    Args:
        student_result: of the student.
        prompts: exercise -> what it asks, one line.
        policy: of the lab, for times.

    Returns:
        HTML.
    """
    name = (
        student_result.person.name if student_result.person and student_result.person.name else student_result.student
    )
    parts = [f"<h1>{text(student_result.lab)}: feedback for {text(name)}</h1>", _points(student_result)]
    record = student_result.chosen.record if student_result.chosen else None
    if record is None:
        parts.append("<p><strong>Nothing was handed in.</strong></p>")
    elif record["status"] != "graded":
        why = _OURS if record["status"] == "failed" else _safe(record["problem"])
        parts.append(f"<p><strong>Nothing could be graded:</strong> {text(why)}</p>")
    comments = [line for line in student_result.lines if line.changes]
    lines = student_result.lines if record and record["status"] == "graded" else comments
    parts += [_exercise(line, prompts.get(line.name, "")) for line in lines]
    if record and record["notes"] and record["status"] != "failed":
        parts.append(f"<h2>Notes on the notebook</h2>{listed(list(map(_safe, record['notes'])))}")
    if student_result.attempts:
        parts.append(_attempts(student_result, policy))
    if record and record["status"] == "graded":
        words = "Grading ran your functions on new inputs, drawn as those of the checks in the lab are."
        parts.append(f'<p class="soft foot">{words}</p>')
    return page(f"{student_result.lab}: {name}", "\n".join(parts), _STYLE)


def _safe(words: str) -> str:
    """Without paths of the machine that graded."""
    return _PATH.sub("(a path)", words)


def _points(student_result: StudentResult) -> str:
    """What counts, and how it came about where that is more than one number."""
    final, most, raw = map(points_text, (student_result.final, student_result.max, student_result.raw))
    steps = []
    if student_result.words:
        steps.append(f"{raw} of {most} points from the autograder")
        counted = f": {points_text(student_result.chosen.counted)} points" if student_result.factor != 1 else ""
        steps.append(f"{student_result.words}{counted}")
    elif student_result.all_changes:
        steps.append(f"{raw} of {most} points from the autograder")
    if student_result.by_hand:
        steps.append(f"by hand: {'+' if student_result.by_hand > 0 else ''}{points_text(student_result.by_hand)}")
    rest = "".join(f"<p>{_change(change)}</p>" for change in student_result.changes)
    total = f'<p class="total">{final} of {most} points</p>'
    return f'<div class="card sum">{total}{listed(steps)}{rest}</div>'


def _change(change: Change) -> str:
    amount = ""
    if change.points is not None:
        amount = f", {change.words} {'point' if abs(change.points) == 1 else 'points'}{' instead' * (not change.adds)}"
    comment = f": {text(change.comment)}" if change.comment else ""
    return f"<strong>From your instructor{escape(amount)}</strong>{comment}"


def _exercise(line: Line, prompt: str) -> str:
    part = line.record
    kind = line.status if line.status in ("passed", "partly") else "none" if line.status in _MARKS else "wrong"
    mark = f'<span aria-hidden="true">{_MARKS.get(line.status, chr(0x2717))}</span> '
    points = f"{points_text(line.auto)} of {points_text(line.max)} points"
    lines = [f"<h2><span>{breakable(line.name)}</span><span>{points}</span></h2>"]
    lines += [f'<p class="soft">Asked: {text(prompt)}</p>'] if prompt else []
    lines.append(f'<p class="state">{mark}{escape(_WORDS.get(line.status, line.status))}</p>')
    groups = part.get("groups", {}).items()
    listed_groups = "".join(
        f"<li>{text(name)}: {group['passed']} of {group['total']} right</li>" for name, group in groups
    )
    lines += [f'<ul class="groups" aria-label="Groups of cases">{listed_groups}</ul>'] if listed_groups else []
    lines += _misconceptions(part)
    lines.append(listed([_safe(note) for note in part.get("notes", ())]))
    lines += [f"<p>{_change(change)}</p>" for change in line.changes]
    return f'<section class="card {kind}">{"".join(lines)}</section>'


def _misconceptions(part: dict) -> list[str]:
    """What the judge says first, then what else it recognised, each with its hint."""
    if part.get("status") == "blank":
        return []
    said, hint = part.get("first_line", ""), part.get("hint", "")
    lines = [f"<p><strong>{text(_safe(said))}</strong></p>"] if said else []
    lines += [f'<p class="hint">Hint: {text(hint)}</p>'] if hint else []
    for wrong in part.get("named", ()):
        if wrong["message"] and wrong["message"] not in said:
            lines.append(f"<p><strong>{text(wrong['message'])}</strong></p>")
            lines += [f'<p class="hint">Hint: {text(wrong["hint"])}</p>'] if wrong["hint"] else []
    return lines


def _attempts(student_result: StudentResult, policy: LabPolicy) -> str:
    """What was handed in, and when; nothing where there is one attempt of which nobody knows the time."""
    known = any(attempt.submitted for attempt in student_result.attempts)
    if len(student_result.attempts) < 2 and not known:
        return ""
    rows = [_attempt(attempt, attempt is student_result.chosen, policy) for attempt in student_result.attempts]
    header = ["Attempt", "Handed in", "Points"]
    due = f'<p class="soft">Due {text(policy.shown(policy.due))}.</p>' if policy.due else ""
    return f"<h2>Attempts</h2>{due}{table(header, rows, (2,), 'Attempts')}"


def _attempt(attempt: Attempt, counts: bool, policy: LabPolicy) -> str:
    graded = attempt.record["status"] == "graded"
    points = points_text(attempt.raw) if graded else _WORDS["not graded"].lower()
    when = moment(policy.shown(attempt.submitted)) if attempt.submitted else "not known"
    late = f'<br><span class="soft">{text(attempt.lateness.words)}</span>' if attempt.lateness.words else ""
    return row([f"{attempt.number}{', counts' * counts}", when + late, points], (2,))
