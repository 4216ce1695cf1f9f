"""`gradebook.sqlite`: the results of all labs in a database for queries, computed again from the records each time."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from segedu.grading.gradebook.atomic_files import CsvRows
from segedu.grading.gradebook.roster import Person
from segedu.grading.gradebook.student_result import Attempt, StudentResult
from segedu.grading.judging.atomic_write import atomic_path

_TABLES = """
create table submissions (lab text, student text, attempt integer, status text, points real, max_points real,
                          submitted text, source text, tool text, sandbox_level integer, seconds real,
                          name text);
create table exercises (lab text, student text, exercise text, points real, max_points real, status text,
                        misconceptions text, final_points real, primary key (lab, student, exercise));
create table notes (lab text, student text, exercise text, note text);
create table standings (lab text, student text, status text, attempt integer, attempts integer, raw_points real,
                        late_hours real, factor real, late text, manual_points real, final_points real,
                        max_points real, flags text, primary key (lab, student));
create table manual (lab text, student text, exercise text, points text, comment text);
create table roster (student text primary key, name text, email text, section text, alias text, ids text);
create view totals as select student, sum(final_points) as points, sum(max_points) as max_points
                      from standings group by student;
"""


class Gradebook:
    """The database while it is written."""

    def __init__(self, book: sqlite3.Connection) -> None:
        self.book = book
        book.executescript(_TABLES)

    def add_person(self, person: Person) -> None:
        """Insert a row of the roster."""
        ids = "; ".join(f"{column} {value}" for column, value in person.ids)
        row = (person.student, person.name, person.email, person.section, person.alias, ids)
        self._insert("roster", [row])

    def add(self, student_result: StudentResult) -> None:
        """Insert the rows of one student in one lab."""
        key = (student_result.lab, student_result.student)
        chosen, exercises = student_result.chosen, student_result.exercises
        self._insert("submissions", [_submission(student_result, attempt) for attempt in student_result.attempts])
        self._insert("exercises", [
            (*key, one.name, float(one.autograded_points), float(one.max_points), one.status,
             "; ".join(one.misconceptions), float(one.points)) for one in exercises
        ])  # fmt: skip
        notes = [(*key, "", note) for note in student_result.notes]
        notes += [(*key, "", note) for note in (chosen.record["notes"] if chosen else ())]
        notes += [(*key, one.name, note) for one in exercises for note in one.record.get("notes", ())]
        self._insert("notes", notes)
        changes = [
            (*key, change.exercise, change.signed_points, change.comment) for change in student_result.all_changes
        ]
        self._insert("manual", changes)
        late = None if student_result.late_hours is None else float(student_result.late_hours)
        sums = [student_result.manual_points, student_result.final, student_result.max_points]
        row = [*key, student_result.status, chosen.number if chosen else None, len(student_result.attempts)]
        row += [
            float(student_result.autograded_points),
            late,
            float(student_result.factor),
            student_result.late_explanation,
        ]
        self._insert("standings", [(*row, *map(float, sums), "; ".join(student_result.flags))])

    def _insert(self, table: str, rows: list[tuple]) -> None:
        if rows:
            self.book.executemany(f"insert into {table} values ({','.join('?' * len(rows[0]))})", map(_storable, rows))

    def course(self) -> tuple[int, Decimal]:
        """Number of students, and the mean of their points over all labs."""
        students, mean = self.book.execute("select count(*), avg(points) from totals").fetchone()
        return students, Decimal(str(mean or 0))

    def write_totals(self, file: TextIO) -> None:
        """Write `totals.csv`: one row per student, one column per lab, and the sum."""
        labs = [lab for (lab,) in self.book.execute("select distinct lab from standings order by lab")]
        columns = ", ".join(f"max(case when lab = ?{i} then final_points end)" for i in range(1, len(labs) + 1))
        totals = self.book.execute(
            f"select student, {columns or 'null'}, sum(final_points), sum(max_points) from standings "
            "group by student order by student",
            labs,
        )
        rows = CsvRows(file, ["student", *labs, "points", "max_points"])
        for student, *points in totals:
            rows.add([student, *points])


def _submission(student_result: StudentResult, attempt: Attempt) -> tuple:
    record = attempt.record
    level = record["sandbox"]["level"] if record["sandbox"] else None
    submitted = attempt.submitted.isoformat() if attempt.submitted else None
    points = (float(attempt.autograded_points), float(record["max_points"]), submitted)
    rest = (record["source"], record["tool"], level, record["measured"]["seconds"], record["student"])
    return (student_result.lab, student_result.student, attempt.number, record["status"], *points, *rest)


def _storable(row: tuple) -> tuple:
    """Replace lone surrogates in texts: JSON may hold them, and SQLite cannot store them."""
    return tuple(value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value for value in row)


@contextlib.contextmanager
def open_gradebook(out: Path) -> Iterator[Gradebook]:
    """Write a new `gradebook.sqlite`, which replaces the old one at the end of the block unless an error occurs."""
    path = out / "gradebook.sqlite"
    try:
        with atomic_path(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as book:
            book.execute("pragma synchronous = off")  # after a power cut the file is computed again
            book.execute("pragma journal_mode = off")
            yield Gradebook(book)
            book.commit()
    except sqlite3.OperationalError as error:  # raised for a full disk
        raise OSError(errno.ENOSPC, str(error), str(path)) from error
