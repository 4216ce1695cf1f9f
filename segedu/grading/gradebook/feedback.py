"""The feedback page of one student: each task, its result, recognised misconceptions, and how the points add up.

It holds no hidden input, no expected value, no path of the grading machine and no message of the student's own code.
"""

from __future__ import annotations

import re
from html import escape

from segedu.grading.gradebook.atomic_files import points_text
from segedu.grading.gradebook.late import LabPolicy
from segedu.grading.gradebook.page import breakable, listed, moment, page, row, table, text
from segedu.grading.gradebook.roster import Change
from segedu.grading.gradebook.student_result import Attempt, ExerciseResult, StudentResult

_STYLE = """
.total { font-size: 1.6rem; font-weight: 650; margin: 0; } .sum { font-variant-numeric: tabular-nums; }
section.card { border-left: .5rem solid var(--bad); } section.passed { border-left-color: var(--good); }
section.partly { border-left-color: var(--part); } section.none { border-left-color: var(--line); }
section h2 { margin: 0 0 .25rem; display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
section h2 span:last-child { white-space: nowrap; } .state { font-weight: 600; }
.groups { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; color: var(--soft); }
.foot { margin-top: 1.5rem; } .hint { border-left: 3px solid var(--line); padding-left: .75rem; }
"""
STATUS_TEXT = {
    "passed": "Correct", "partly": "Partly correct", "wrong": "Not correct yet", "blank": "Not written yet",
    "missing": "The cell is missing", "timeout": "Too slow: stopped at the time limit",
    "died": "Your code ended the Python process", "flood": "Your code printed too much",
    "memory": "Your code used too much memory", "skipped": "Not run: the time of the whole notebook was used up",
    "tampered": "Not counted", "not graded": "Not graded", "nothing handed in": "Nothing handed in",
}  # fmt: skip
NEW_INPUTS = "The grader ran your functions on new random inputs, of the same kinds as in the lab's own checks."
_MARKS = {"passed": "\u2713", "partly": "\u25d0", "blank": "\u25cb", "missing": "\u25cb", "not graded": "\u25cb"}
_GRADER_FAILED = "The grader failed on this notebook. This is not your fault, and the notebook will be graded again."
_PATH = re.compile(r"(?<![\w.~-])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"<>|]+){2,}")


def feedback_page(student_result: StudentResult, prompts: dict[str, str], policy: LabPolicy) -> str:
    """Render the page as HTML. `prompts` maps each exercise to the first line of its task."""
    person = student_result.person
    name = person.name if person and person.name else student_result.student
    parts = [f"<h1>{text(student_result.lab)}: feedback for {text(name)}</h1>", _points(student_result)]
    record = student_result.chosen.record if student_result.chosen else None
    if record is None:
        parts.append("<p><strong>Nothing was handed in.</strong></p>")
    elif record["status"] != "graded":
        reason = _GRADER_FAILED if record["status"] == "failed" else _safe(record["problem"])
        parts.append(f"<p><strong>Nothing could be graded:</strong> {text(reason)}</p>")
    changed = [exercise for exercise in student_result.exercises if exercise.changes]
    exercises = student_result.exercises if record and record["status"] == "graded" else changed
    parts += [_exercise(exercise, prompts.get(exercise.name, "")) for exercise in exercises]
    if record and record["notes"] and record["status"] != "failed":
        parts.append(f"<h2>Notes on the notebook</h2>{listed(list(map(_safe, record['notes'])))}")
    if student_result.attempts:
        parts.append(_attempts(student_result, policy))
    if record and record["status"] == "graded":
        parts.append(f'<p class="soft foot">{NEW_INPUTS}</p>')
    return page(f"{student_result.lab}: {name}", "\n".join(parts), _STYLE)


def _safe(words: str) -> str:
    """Replace paths, which may be those of the grading machine."""
    return _PATH.sub("(a path)", words)


def _points(student_result: StudentResult) -> str:
    """The final points, and how they were computed if lateness or manual changes affect them."""
    final, max_points, autograded = map(
        points_text, (student_result.final, student_result.max_points, student_result.autograded_points)
    )
    steps = []
    if student_result.late_explanation:
        steps.append(f"{autograded} of {max_points} points from the autograder")
        late_points = (
            f": {points_text(student_result.chosen.points_after_lateness)} points" if student_result.factor != 1 else ""
        )
        steps.append(f"{student_result.late_explanation}{late_points}")
    elif student_result.all_changes:
        steps.append(f"{autograded} of {max_points} points from the autograder")
    if student_result.manual_points:
        sign = "+" if student_result.manual_points > 0 else ""
        steps.append(f"manual change: {sign}{points_text(student_result.manual_points)}")
    comments = "".join(f"<p>{_change(change)}</p>" for change in student_result.changes)
    total = f'<p class="total">{final} of {max_points} points</p>'
    return f'<div class="card sum">{total}{listed(steps)}{comments}</div>'


def _change(change: Change) -> str:
    amount = ""
    if change.points is not None:
        unit = "point" if abs(change.points) == 1 else "points"
        amount = f", {change.signed_points} {unit}{' instead' * (not change.is_addition)}"
    comment = f": {text(change.comment)}" if change.comment else ""
    return f"<strong>From your instructor{escape(amount)}</strong>{comment}"


def _exercise(exercise: ExerciseResult, prompt: str) -> str:
    record, status = exercise.record, exercise.status
    css_class = status if status in ("passed", "partly") else "none" if status in _MARKS else "wrong"
    mark = f'<span aria-hidden="true">{_MARKS.get(status, chr(0x2717))}</span> '
    points = f"{points_text(exercise.autograded_points)} of {points_text(exercise.max_points)} points"
    lines = [f"<h2><span>{breakable(exercise.name)}</span><span>{points}</span></h2>"]
    lines += [f'<p class="soft">Task: {text(prompt)}</p>'] if prompt else []
    lines.append(f'<p class="state">{mark}{escape(STATUS_TEXT.get(status, status))}</p>')
    groups = "".join(
        f"<li>{text(name)}: {group['passed']} of {group['total']} correct</li>"
        for name, group in record.get("groups", {}).items()
    )
    lines += [f'<ul class="groups" aria-label="Groups of cases">{groups}</ul>'] if groups else []
    lines += _misconceptions(record)
    lines.append(listed([_safe(note) for note in record.get("notes", ())]))
    lines += [f"<p>{_change(change)}</p>" for change in exercise.changes]
    return f'<section class="card {css_class}">{"".join(lines)}</section>'


def _misconceptions(record: dict) -> list[str]:
    """The main message of the judge, then the other misconceptions that it recognised, each with its hint."""
    if record.get("status") == "blank":
        return []
    first_line, hint = record.get("first_line", ""), record.get("hint", "")
    lines = [f"<p><strong>{text(_safe(first_line))}</strong></p>"] if first_line else []
    lines += [f'<p class="hint">Hint: {text(hint)}</p>'] if hint else []
    for wrong in record.get("named", ()):
        if wrong["message"] and wrong["message"] not in first_line:
            lines.append(f"<p><strong>{text(wrong['message'])}</strong></p>")
            lines += [f'<p class="hint">Hint: {text(wrong["hint"])}</p>'] if wrong["hint"] else []
    return lines


def _attempts(student_result: StudentResult, policy: LabPolicy) -> str:
    """A table of attempts with their times; nothing for a single attempt without a known time."""
    if len(student_result.attempts) < 2 and not any(attempt.submitted for attempt in student_result.attempts):
        return ""
    rows = [_attempt(attempt, attempt is student_result.chosen, policy) for attempt in student_result.attempts]
    header = ["Attempt", "Handed in", "Points"]
    due = f'<p class="soft">Due {text(policy.shown(policy.due))}.</p>' if policy.due else ""
    return f"<h2>Attempts</h2>{due}{table(header, rows, (2,), 'Attempts')}"


def _attempt(attempt: Attempt, counts: bool, policy: LabPolicy) -> str:
    graded = attempt.record["status"] == "graded"
    points = points_text(attempt.autograded_points) if graded else STATUS_TEXT["not graded"].lower()
    when = moment(policy.shown(attempt.submitted)) if attempt.submitted else "not known"
    explanation = attempt.lateness.explanation
    late = f'<br><span class="soft">{text(explanation)}</span>' if explanation else ""
    return row([f"{attempt.number}{', counts' * counts}", when + late, points], (2,))
