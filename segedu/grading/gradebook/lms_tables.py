"""Code shared by the exports to Canvas and Moodle: find the student of a row, and report what was filled.

A platform's own table is edited cell by cell. The cells of students without a submission and without manual changes
stay as they were, and so do `EX` (excused) in Canvas and grades that cannot be changed according to Moodle.
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
    """Report on filling a platform's table.

    Attributes:
        path: the filled table.
        cells: number of filled cells.
        unknown: ids of rows in the table that belong to no student of the gradebook.
        missing: ids of students with points who have no row in the table.
        remarks: other remarks for the instructor.
    """

    path: Path
    cells: int = 0
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Finder:
    """Finds the student of a row in a platform's table.

    Args:
        book: results of the lab.
        row_of: the part of a student's result that is kept in memory, in `rows`.
    """

    def __init__(self, book: LabBook, row_of: Callable[[StudentResult], tuple]) -> None:
        self.book, self.rows = book, {}
        self._names: dict[str, str | None] = {}  # None if submissions of two students have one number
        for key, student_result in zip(book.keys, book, strict=True):
            self.rows[key] = None if idle(student_result) else row_of(student_result)
            for name in {name for one in student_result.attempts for name in record_keys(one.record)}:
                self._names[name] = key if self._names.get(name, key) == key else None

    def find(self, *keys: str) -> str | None:
        """The key of a student by the first known of these keys, on the roster or else among the submissions."""
        keys = tuple(key for key in keys if key and not key.endswith(":"))
        person = self.book.roster.find(*keys)
        return person.student if person else next((name for key in keys if (name := self._names.get(key))), None)


def idle(student_result: StudentResult) -> bool:
    """Whether there is neither a submission nor a manual change, so that the platform's cell stays as it is."""
    return student_result.chosen is None and not student_result.all_changes


def name_keys(*texts: str) -> list[str]:
    """Keys of a student's logins, numbers or addresses on a platform."""
    return [student_id(text).casefold() for text in texts if text.strip()]


def comment_of(student_result: StudentResult) -> str:
    """One line for a student that explains the points."""
    points, max_points = points_text(student_result.autograded_points), points_text(student_result.max_points)
    parts = [f"{points} of {max_points} from the autograder"]
    parts += [student_result.late_explanation] if student_result.late_explanation else []
    parts += [f"manual change: {change.summary}" for change in student_result.all_changes]
    return f"{'; '.join(parts)}. {points_text(student_result.final)} points."
