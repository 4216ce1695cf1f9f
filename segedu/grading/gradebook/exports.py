"""Exports of one lab: `grades.csv` per student, `exercises.csv` per exercise, and `junit.xml`.

No cell of a CSV file can act as a formula in a spreadsheet.
"""

from __future__ import annotations

import re
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from segedu.grading.gradebook.atomic_files import CsvRows, points_text
from segedu.grading.gradebook.policy import LabBook, StudentResult

LONG = ["student", "lab", "exercise", "points", "max", "status", "misconceptions"]
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def all_notes(record: dict) -> list[str]:
    """All notes of a record in plain text: the problem, notes on the notebook, for the instructor, on each exercise."""
    notes = [record["problem"]] if record["problem"] else []
    notes += [*record["notes"], *record.get("instructor_notes", [])]
    for exercise in record["exercises"]:
        name = exercise["name"]
        notes += [note if name in note else f"{name}: {note}" for note in exercise["notes"]]
    return notes


class Wide:
    """`grades.csv`: one row per student, with points = final = raw_points x factor + manual_points.

    The columns of the exercises hold autograded points, before the late factor and manual changes.
    """

    def __init__(self, file: TextIO, book: LabBook) -> None:
        self.names = [name for name, _ in book.exercises]
        first = ["student", "status", "points", "max_points", *self.names, "sandbox_level", "notes"]
        last = ["raw_points", "late_hours", "factor", "late", "manual_points", "final", "attempt", "attempts"]
        self.rows = CsvRows(file, [*first, *last, "name", "email", "section", "flags"])

    def add(self, student_result: StudentResult) -> None:
        """Write one row."""
        record = student_result.chosen.record if student_result.chosen else None
        points = {exercise.name: exercise.autograded_points for exercise in student_result.exercises}
        level = record["sandbox"]["level"] if record and record["sandbox"] else ""
        notes = [*(all_notes(record) if record else []), *student_result.notes]
        notes += [f"manual change: {change.summary}" for change in student_result.all_changes]
        attempt = student_result.chosen.number if student_result.chosen else ""
        late = [student_result.late_hours, str(student_result.factor), student_result.late_explanation]
        sums = [student_result.autograded_points, *late, student_result.manual_points, student_result.final]
        person = student_result.person
        contact = [person.name, person.email, person.section] if person else ["", "", ""]
        row = [student_result.student, student_result.status, student_result.final, student_result.max_points]
        row += [*(points.get(name) for name in self.names), level, "; ".join(notes), *sums]
        row += [attempt, len(student_result.attempts), *contact, "; ".join(student_result.flags)]
        self.rows.add(row)


class Long:
    """`exercises.csv`: one row per student and exercise, with points after the late factor and manual changes."""

    def __init__(self, file: TextIO) -> None:
        self.rows = CsvRows(file, LONG)

    def add(self, student_result: StudentResult) -> None:
        """Write the rows of one student."""
        for exercise in student_result.exercises:
            row = [student_result.student, student_result.lab, exercise.name, exercise.points, exercise.max_points]
            self.rows.add([*row, exercise.status, "; ".join(exercise.misconceptions)])


class JUnit:
    """`junit.xml`: a suite per student, a test case per exercise; less than full autograded points is a failure."""

    def __init__(self, file: TextIO, lab: str) -> None:
        self.file, self.lab = file, lab
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites name={_quoted(lab)}>\n')

    def add(self, student_result: StudentResult) -> None:
        """Write the suite of one student, unless the student handed in nothing."""
        if student_result.chosen:
            self.file.write(_suite(student_result, self.lab) + "\n")

    def close(self) -> None:
        """End the document."""
        self.file.write("</testsuites>\n")


def _xml(text: object) -> str:
    return _NOT_XML.sub("", str(text))


def _quoted(text: object) -> str:
    return quoteattr(_xml(text))


def _suite(student_result: StudentResult, lab: str) -> str:
    record, cases, failures, errors = student_result.chosen.record, [], 0, 0
    for exercise in record["exercises"]:
        inner = ""
        if record["status"] != "graded":
            errors += 1
            inner = f"<error message={_quoted(record['problem'])}/>"
        elif exercise["points"] < exercise["max"]:
            failures += 1
            message = f"{points_text(exercise['points'])} of {exercise['max']}: {exercise['first_line']}"
            inner = f"<failure message={_quoted(message)}>{escape(_xml(chr(10).join(exercise['notes'])))}</failure>"
        name = f"classname={_quoted(f'{lab}.{student_result.student}')} name={_quoted(exercise['name'])}"
        cases.append(f"  <testcase {name}>{inner}</testcase>")
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" time="{record["measured"]["seconds"]}"'
    return "\n".join([f"<testsuite name={_quoted(student_result.student)} {counts}>", *cases, "</testsuite>"])
