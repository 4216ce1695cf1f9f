"""Reports, all derived from records: terminal table, CSV, JUnit, feedback and overview pages, and the gradebook.

What a student wrote is text here, never markup: it is escaped in HTML, cleaned for XML, and kept from being a formula
in a spreadsheet. Feedback holds no hidden input and no expected value, and no message that the student's code chose.
`bookkeeping` writes the files; here is what a run of `segedu grade` shows of its batch.
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

TABLE_ROWS = 50  # a terminal shows no more at once
NAMES = 20


def write_reports(batch: Batch, out: Path, course: Path | None = None) -> list[Path]:
    """Write every report of a batch's lab, from all records of the output folder.

    Args:
        batch: that was graded.
        out: the instructor's `--out`.
        course: the checkout with `labs/`, for what each exercise asks; None: as it was known before.

    Returns:
        The files and folders that were written.

    Raises:
        ValueError: if one of the instructor's files is wrong; nothing is written then.
    """
    try:
        return rebuild(out, [batch.lab], course)
    except ValueError as error:
        kept = f"What was graded is kept: mend the file, then run `segedu gradebook {out}`"
        raise ValueError(f"{error}. {kept}") from None


def table(batch: Batch) -> Table:
    """The batch as a table for the terminal, the first `TABLE_ROWS` submissions of it.

    Args:
        batch: with its records.

    Returns:
        A rich table.
    """
    title = f"{batch.lab}: {len(batch.records)} submissions"
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("student", overflow="ellipsis", no_wrap=True, min_width=12, max_width=16)
    first = next(iter(batch.records), None)
    exercises = first["exercises"] if first else []
    for exercise in exercises:
        words = [*exercise["name"].split("_"), f"of {exercise['max']}"]  # narrow: six of them fit 80 columns
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
    """The status, where it is not the usual one; else how many notes there are to read."""
    count = len(all_notes(record))
    notes = f"{count} note{'s' * (count > 1)}" if count else ""
    return {"graded": notes, "unreadable": "bad file"}.get(record["status"], record["status"])


def _points_cell(exercise: dict) -> Text:
    style = "green" if exercise["points"] == exercise["max"] else "red" if exercise["tampered"] else "yellow"
    return Text(points_text(exercise["points"]) + ("!" if exercise["tampered"] else ""), style=style)


def sandbox_line(level: int, reason: str) -> str:
    """What holds the submissions, in a sentence.

    Args:
        level: of the sandbox.
        reason: why this one.

    Returns:
        Plain text.
    """
    return f"Sandbox level {level}: {reason}."


def summary(batch: Batch) -> list[str]:
    """The lines under the table.

    Args:
        batch: with its records.

    Returns:
        Plain texts.
    """
    lines = [f"{batch.graded} graded now, {batch.kept} had their record already; {batch.seconds:.1f} s for the batch."]
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
    for label, students in (("Tampering was seen in", tampered), ("The grader failed on (run again)", failed)):
        if students:
            more = f" and {len(students) - NAMES} more" * (len(students) > NAMES)
            lines.append(f"{label}: {', '.join(students[:NAMES])}{more}.")
    if batch.left_out:
        names = ", ".join(clean(name, 80) for name in batch.left_out[:10])
        lines.append(f"Left out, being no notebook, archive or folder: {names}.")
    return lines


def expected_differences(batch: Batch, rows: list[dict[str, Any]]) -> list[str]:
    """Compare a batch with what it should be, for the example submissions.

    Args:
        batch: with its records.
        rows: with the keys `student` and `points`; optional `status`, `note` (a part of some note, or "none"
            where there must be none), and any exercise by name.

    Returns:
        One line a difference; none means equal.
    """
    names, found, unexpected = {row["student"] for row in rows}, {}, set()
    for record in batch.records:
        if record["student"] in names:
            found[record["student"]] = (_got(record), all_notes(record))
        else:
            unexpected.add(record["student"])
    lines = [f"{name} has a record, but is not expected" for name in sorted(unexpected)]
    for row in rows:
        if row["student"] not in found:
            lines.append(f"{row['student']} is expected, but has no record")
            continue
        got, notes = found[row["student"]]
        for key in [key for key in row if key in got and (row[key] or "").strip()]:
            if got[key] != row[key].strip():
                lines.append(f"{row['student']}: {key} is {got[key]}, expected {row[key].strip()}")
        note = (row.get("note") or "").strip()
        if note == "none" and notes:
            lines.append(f"{row['student']}: there must be no note; the notes are {notes}")
        elif note and note != "none" and not any(note in text for text in notes):
            lines.append(f"{row['student']}: no note says {note!r}; the notes are {notes}")
    return lines


def _got(record: dict) -> dict[str, str]:
    got = {"points": points_text(record["points"]), "status": record["status"]}
    return got | {exercise["name"]: points_text(exercise["points"]) for exercise in record["exercises"]}
