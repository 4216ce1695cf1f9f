"""What Canvas and Moodle have in common: whose row it is, what stays as it was, what was filled.

A platform's own table is edited cell by cell. Cells of students who handed in nothing and were given nothing by hand
stay as they were, and so do `EX` (excused) in Canvas and a grade that Moodle says cannot be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from segedu.grading.gradebook.atomic_files import points_text
from segedu.grading.gradebook.policy import LabBook, StudentResult
from segedu.grading.gradebook.roster import record_keys
from segedu.grading.submissions.find_submissions import student_id


@dataclass
class Filled:
    """What came of filling a table.

    Attributes:
        path: of the filled table.
        cells: how many were filled.
        unknown: rows of the table that are nobody with a submission here; ids.
        left: students with points here who have no row in the table; ids.
        remarks: what else to know.
    """

    path: Path
    cells: int = 0
    unknown: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Finder:
    """Finds whose row of a platform's table it is.

    Args:
        book: of the lab; what counts is kept by id, not the records.
        row_of: what to keep of a student's result.
    """

    def __init__(self, book: LabBook, row_of: Callable[[StudentResult], tuple]) -> None:
        self.book, self.rows = book, {}
        self._names: dict[str, str | None] = {}  # None where two students' submissions have one number
        for key, student_result in zip(book.keys, book, strict=True):
            self.rows[key] = None if idle(student_result) else row_of(student_result)
            for name in {name for one in student_result.attempts for name in record_keys(one.record)}:
                self._names[name] = key if self._names.get(name, key) == key else None

    def find(self, *keys: str) -> str | None:
        """The key of the student whom one of these names: the roster first, then the names of submissions."""
        keys = tuple(key for key in keys if key and not key.endswith(":"))
        person = self.book.roster.find(*keys)
        return person.student if person else next((name for key in keys if (name := self._names.get(key))), None)


def idle(student_result: StudentResult) -> bool:
    """Nothing handed in and nothing given by hand: a platform knows better what that means."""
    return student_result.chosen is None and not student_result.all_changes


def name_keys(*texts: str) -> list[str]:
    """Keys of what a platform calls a student: logins, numbers, addresses."""
    return [student_id(text).casefold() for text in texts if text.strip()]


def comment_of(student_result: StudentResult) -> str:
    """One line for a student: where the points come from."""
    parts = [f"{points_text(student_result.raw)} of {points_text(student_result.max)} from the autograder"]
    parts += [student_result.words] if student_result.words else []
    for change in student_result.all_changes:
        text = " ".join(f"{change.exercise} {change.words} {change.comment}".split())
        parts.append(f"by hand: {text}")
    return f"{'; '.join(parts)}. {points_text(student_result.final)} points."
