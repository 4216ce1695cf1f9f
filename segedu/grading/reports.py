"""Reports, all derived from records: terminal table, CSV, JUnit, and a feedback page a student.

What a student wrote is text here, never markup: it is escaped in HTML, cleaned for XML, and kept from being a formula
in a spreadsheet. Feedback holds no hidden input and no expected value, and no message that the student's code chose.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from rich import box
from rich.table import Table
from rich.text import Text

from segedu.grading.batch import SAFE_LEVEL, Batch
from segedu.grading.examine import clean
from segedu.grading.feedback import feedback_page
from segedu.grading.gradebook import write_gradebook
from segedu.grading.records import write_atomic

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def points_text(points: float) -> str:
    """`3`, `2.5`: at most two decimals and no trailing zeros."""
    return f"{round(float(points), 2):g}"


def write_reports(batch: Batch, out: Path) -> list[Path]:
    """Write every report of a batch.

    Args:
        batch: with its records.
        out: the instructor's `--out`.

    Returns:
        The files and folders that were written.
    """
    folder = out / batch.lab
    pages = folder / "feedback"
    pages.mkdir(parents=True, exist_ok=True)
    for record in batch.records:
        write_atomic(pages / f"{record['student']}.html", feedback_page(record).encode())
    write_atomic(folder / "grades.csv", grades_csv(batch.records).encode("utf-8-sig"))  # Excel needs the mark
    write_atomic(folder / "junit.xml", junit(batch).encode())
    write_gradebook(out)
    return [folder / "grades.csv", folder / "junit.xml", pages, out / "gradebook.sqlite"]


def all_notes(record: dict) -> list[str]:
    """The problem, the notes on the notebook and on each exercise.

    Args:
        record: of one submission.

    Returns:
        Plain texts.
    """
    notes = [record["problem"]] if record["problem"] else []
    notes += record["notes"]
    for exercise in record["exercises"]:
        name = exercise["name"]
        notes += [note if name in note else f"{name}: {note}" for note in exercise["notes"]]
    return notes


def _spreadsheet(value: str) -> str:
    """What begins like a formula is shown as text, also after a semicolon: some programs split there."""
    value = re.sub(r"(;\s*)(?=[=+@-])", r"\1'", value)
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def grades_csv(records: list[dict]) -> str:
    """One row a student, one column an exercise.

    Args:
        records: of one lab.

    Returns:
        CSV with a header.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [exercise["name"] for exercise in records[0]["exercises"]] if records else []
    writer.writerow(["student", "status", "points", "max_points", *names, "sandbox_level", "notes"])
    for record in records:
        points = [points_text(exercise["points"]) for exercise in record["exercises"]]
        total = [points_text(record["points"]), points_text(record["max_points"])]
        level = record["sandbox"]["level"] if record["sandbox"] else ""
        row = [record["student"], record["status"], *total, *points, level, "; ".join(all_notes(record))]
        writer.writerow([_spreadsheet(str(value)) for value in row])
    return stream.getvalue()


def _xml(text: object) -> str:
    return _NOT_XML.sub("", str(text))


def junit(batch: Batch) -> str:
    """JUnit: a suite a student, a test case an exercise; less than full points is a failure.

    Args:
        batch: with its records.

    Returns:
        XML.
    """
    suites = [_suite(record, batch.lab) for record in batch.records]
    tests = sum(len(record["exercises"]) for record in batch.records)
    body = "\n".join(suites)
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites name={quoteattr(batch.lab)} tests="{tests}">'
    return f"{head}\n{body}\n</testsuites>\n"


def _suite(record: dict, lab: str) -> str:
    cases, failures, errors = [], 0, 0
    for exercise in record["exercises"]:
        inner = ""
        if record["status"] != "graded":
            errors += 1
            inner = f"<error message={quoteattr(_xml(record['problem']))}/>"
        elif exercise["points"] < exercise["max"]:
            failures += 1
            message = f"{points_text(exercise['points'])} of {exercise['max']}: {exercise['first_line']}"
            notes = escape(_xml("\n".join(exercise["notes"])))
            inner = f"<failure message={quoteattr(_xml(message))}>{notes}</failure>"
        group = quoteattr(_xml(f"{lab}.{record['student']}"))
        name = f"classname={group} name={quoteattr(exercise['name'])}"
        cases.append(f"  <testcase {name}>{inner}</testcase>")
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" time="{record["measured"]["seconds"]}"'
    return "\n".join([f"<testsuite name={quoteattr(_xml(record['student']))} {counts}>", *cases, "</testsuite>"])


def table(batch: Batch) -> Table:
    """The batch as a table for the terminal.

    Args:
        batch: with its records.

    Returns:
        A rich table.
    """
    title = f"{batch.lab}: {len(batch.records)} submissions"
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("student", overflow="ellipsis", no_wrap=True, min_width=12, max_width=16)
    exercises = batch.records[0]["exercises"] if batch.records else []
    for exercise in exercises:
        words = [*exercise["name"].split("_"), f"of {exercise['max']}"]  # narrow: six of them fit 80 columns
        result.add_column("\n".join(words), justify="right", min_width=max(map(len, words)), vertical="bottom")
    result.add_column("total", justify="right", no_wrap=True, min_width=5)
    result.add_column("remarks", no_wrap=True, min_width=8)
    for record in batch.records:
        points = [_points_cell(exercise) for exercise in record["exercises"]]
        total = Text(f"{points_text(record['points'])}/{record['max_points']}", style="bold")
        result.add_row(Text(record["student"]), *points, total, Text(_remarks(record)))
    return result


def _remarks(record: dict) -> str:
    """The status, where it is not the usual one; else how many notes there are to read."""
    count = len(all_notes(record))
    notes = f"{count} note{'s' * (count > 1)}" if count else ""
    return {"graded": notes, "unreadable": "bad file"}.get(record["status"], record["status"])


def _points_cell(exercise: dict) -> Text:
    style = "green" if exercise["points"] == exercise["max"] else "red" if exercise["tampered"] else "yellow"
    return Text(points_text(exercise["points"]) + ("!" if exercise["tampered"] else ""), style=style)


def summary(batch: Batch) -> list[str]:
    """The lines under the table.

    Args:
        batch: with its records.

    Returns:
        Plain texts.
    """
    lines = [f"{batch.graded} graded now, {batch.kept} had their record already; {batch.seconds:.1f} s for the batch."]
    levels = sorted({(r["sandbox"]["level"], r["sandbox"]["reason"]) for r in batch.records if r["sandbox"]})
    lines += [f"Sandbox level {level}: {reason}." for level, reason in levels]
    if any(level < SAFE_LEVEL for level, _ in levels):
        lines.append(
            "WARNING: below level 2 a submission can read and write your files. Check before you use these points."
        )
    tampered = [r["student"] for r in batch.records if any(e["tampered"] for e in r["exercises"])]
    failed = [r["student"] for r in batch.records if r["status"] == "failed"]
    for label, students in (("Tampering was seen in", tampered), ("The grader failed on (run again)", failed)):
        if students:
            lines.append(f"{label}: {', '.join(students)}.")
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
    records = {record["student"]: record for record in batch.records}
    unexpected = sorted(set(records) - {row["student"] for row in rows})
    lines = [f"{name} has a record, but is not expected" for name in unexpected]
    for row in rows:
        record = records.get(row["student"])
        if record is None:
            lines.append(f"{row['student']} is expected, but has no record")
            continue
        got = {"points": points_text(record["points"]), "status": record["status"]}
        got |= {exercise["name"]: points_text(exercise["points"]) for exercise in record["exercises"]}
        for key in [key for key in row if key in got and (row[key] or "").strip()]:
            if got[key] != row[key].strip():
                lines.append(f"{row['student']}: {key} is {got[key]}, expected {row[key].strip()}")
        note = (row.get("note") or "").strip()
        notes = all_notes(record)
        if note == "none" and notes:
            lines.append(f"{row['student']}: there must be no note; the notes are {notes}")
        elif note and note != "none" and not any(note in text for text in notes):
            lines.append(f"{row['student']}: no note says {note!r}; the notes are {notes}")
    return lines
