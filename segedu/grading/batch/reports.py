"""The report that `segedu grade` prints about a batch; `gradebook.bookkeeping` writes the files.

Text of students is never interpreted: it is escaped in HTML, cleaned for XML, and cannot act as a formula in a
spreadsheet. Feedback holds no hidden input, no expected value and no message of the student's own code.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from segedu.grading.batch.batch import SAFE_LEVEL, Batch
from segedu.grading.gradebook.atomic_files import points_text
from segedu.grading.gradebook.bookkeeping import rebuild
from segedu.grading.gradebook.exports import all_notes
from segedu.grading.judging.records import clean

TABLE_ROWS = 50
NAMES = 20


def write_reports(batch: Batch, out: Path, course: Path | None = None) -> list[Path]:
    """Write all reports of a batch's lab, see `rebuild`; the error of a wrong file adds what to do."""
    try:
        return rebuild(out, [batch.lab], course)
    except ValueError as error:
        advice = f"All records are kept: correct the file, then run `segedu gradebook {out}`"
        raise ValueError(f"{error}. {advice}") from None


def table(batch: Batch) -> Table:
    """A terminal table of the first `TABLE_ROWS` submissions of a batch."""
    title = f"{batch.lab}: {len(batch.records)} submissions"
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("student", overflow="ellipsis", no_wrap=True, min_width=12, max_width=16)
    first = next(iter(batch.records), None)
    exercises = first["exercises"] if first else []
    for exercise in exercises:
        words = [*exercise["name"].split("_"), f"of {exercise['max']}"]  # one word per line, so that six columns fit
        result.add_column("\n".join(words), justify="right", min_width=max(map(len, words)), vertical="bottom")
    result.add_column("total", justify="right", no_wrap=True, min_width=5)
    result.add_column("remarks", no_wrap=True, min_width=8)
    for record in islice(batch.records, TABLE_ROWS):
        points = [_points_cell(exercise) for exercise in record["exercises"]]
        total = Text(f"{points_text(record['points'])}/{record['max_points']}", style="bold")
        result.add_row(Text(record["student"]), *points, total, Text(_remarks(record)))
    more = len(batch.records) - TABLE_ROWS
    if more > 0:
        result.caption, result.caption_justify = f"and {more} more: see {batch.lab}/index.html in --out", "left"
    return result


def _remarks(record: dict) -> str:
    """The status of a submission that was not graded; otherwise its number of notes."""
    count = len(all_notes(record))
    notes = f"{count} note{'s' * (count > 1)}" if count else ""
    return {"graded": notes, "unreadable": "bad file"}.get(record["status"], record["status"])


def _points_cell(exercise: dict) -> Text:
    style = "green" if exercise["points"] == exercise["max"] else "red" if exercise["tampered"] else "yellow"
    return Text(points_text(exercise["points"]) + ("!" if exercise["tampered"] else ""), style=style)


def sandbox_line(level: int, reason: str) -> str:
    """A sentence about the sandbox."""
    return f"Sandbox level {level}: {reason}."


def summary(batch: Batch) -> list[str]:
    """The lines of plain text under the table."""
    lines = [f"{batch.graded} graded now, {batch.kept} had a record already; {batch.seconds:.1f} s for the batch."]
    levels, tampered, failed = set(), [], []
    for record in batch.records:
        levels |= {(record["sandbox"]["level"], record["sandbox"]["reason"])} if record["sandbox"] else set()
        tampered += [record["student"]] * any(exercise["tampered"] for exercise in record["exercises"])
        failed += [record["student"]] * (record["status"] == "failed")
    lines += [sandbox_line(level, reason) for level, reason in sorted(levels)]
    if any(level < SAFE_LEVEL for level, _ in levels):
        lines.append(
            "WARNING: below level 2 a submission can read and write your files. Check before you use these points."
        )
    labels = ("Tampering was detected in", "The grader failed on these submissions (run it again)")
    for label, students in zip(labels, (tampered, failed), strict=True):
        if students:
            more = f" and {len(students) - NAMES} more" * (len(students) > NAMES)
            lines.append(f"{label}: {', '.join(students[:NAMES])}{more}.")
    if batch.ignored_files:
        names = ", ".join(clean(name, 80) for name in batch.ignored_files[:10])
        lines.append(f"Ignored files, which are not notebooks, archives or folders: {names}.")
    return lines


def expected_differences(batch: Batch, rows: list[dict[str, Any]]) -> list[str]:
    """Compare a batch with expected points; returns one line per difference.

    Args:
        batch: the batch with its records.
        rows: with the keys `student` and `points`; optional are `status`, `note` (a part of a note, or "none" if there
            must be no note), and the name of any exercise with its points.
    """
    names, actual, unexpected = {row["student"] for row in rows}, {}, set()
    for record in batch.records:
        if record["student"] in names:
            actual[record["student"]] = (_values(record), all_notes(record))
        else:
            unexpected.add(record["student"])
    lines = [f"{name} has a record, but is not expected" for name in sorted(unexpected)]
    for row in rows:
        if row["student"] not in actual:
            lines.append(f"{row['student']} is expected, but has no record")
            continue
        values, notes = actual[row["student"]]
        for key in [key for key in row if key in values and (row[key] or "").strip()]:
            if values[key] != row[key].strip():
                lines.append(f"{row['student']}: {key} is {values[key]}, expected {row[key].strip()}")
        note = (row.get("note") or "").strip()
        if note == "none" and notes:
            lines.append(f"{row['student']}: there must be no note; the notes are {notes}")
        elif note and note != "none" and not any(note in text for text in notes):
            lines.append(f"{row['student']}: no note says {note!r}; the notes are {notes}")
    return lines


def _values(record: dict) -> dict[str, str]:
    values = {"points": points_text(record["points"]), "status": record["status"]}
    return values | {exercise["name"]: points_text(exercise["points"]) for exercise in record["exercises"]}
