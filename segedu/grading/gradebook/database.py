"""The gradebook: a small SQLite file made anew from the records, for queries. It holds no truth of its own."""

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
from segedu.grading.judging.atomic_write import replacing

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
    """The file while it is written.

    Args:
        book: the database.
    """

    def __init__(self, book: sqlite3.Connection) -> None:
        self.book = book
        book.executescript(_TABLES)

    def add_person(self, person: Person) -> None:
        """Insert a row of the roster."""
        ids = "; ".join(f"{column} {value}" for column, value in person.ids)
        row = (person.student, person.name, person.email, person.section, person.alias, ids)
        self._insert("roster", [row])

    def add(self, student_result: StudentResult) -> None:
        """Insert what counts for one student, and where it comes from."""
        who = (student_result.lab, student_result.student)
        self._insert("submissions", [_submission(student_result, attempt) for attempt in student_result.attempts])
        self._insert("exercises", [
            (*who, line.name, float(line.auto), float(line.max), line.status, "; ".join(line.misconceptions),
             float(line.points)) for line in student_result.lines
        ])  # fmt: skip
        notes = [(*who, "", note) for note in student_result.notes]
        notes += [(*who, "", note) for note in (student_result.chosen.record["notes"] if student_result.chosen else ())]
        notes += [(*who, line.name, note) for line in student_result.lines for note in line.record.get("notes", ())]
        self._insert("notes", notes)
        changes = [(*who, change.exercise, change.words, change.comment) for change in student_result.all_changes]
        self._insert("manual", changes)
        late = None if student_result.late is None else float(student_result.late)
        attempt = student_result.chosen.number if student_result.chosen else None
        sums = [student_result.by_hand, student_result.final, student_result.max]
        start = (*who, student_result.status, attempt, len(student_result.attempts), float(student_result.raw), late)
        rest = (float(student_result.factor), student_result.words, *map(float, sums), "; ".join(student_result.flags))
        self._insert("standings", [(*start, *rest)])

    def _insert(self, table: str, rows: list[tuple]) -> None:
        if rows:
            self.book.executemany(f"insert into {table} values ({','.join('?' * len(rows[0]))})", map(_plain, rows))

    def course(self) -> tuple[int, Decimal]:
        """Number of students, and the mean of their points over all labs."""
        students, mean = self.book.execute("select count(*), avg(points) from totals").fetchone()
        return students, Decimal(str(mean or 0))

    def write_totals(self, file: TextIO) -> None:
        """Write `totals.csv`: a row a student, a column a lab, and the sum."""
        labs = [lab for (lab,) in self.book.execute("select distinct lab from standings order by lab")]
        columns = ", ".join(f"max(case when lab = ?{i} then final_points end)" for i in range(1, len(labs) + 1))
        found = self.book.execute(
            f"select student, {columns or 'null'}, sum(final_points), sum(max_points) from standings "
            "group by student order by student",
            labs,
        )
        rows = CsvRows(file, ["student", *labs, "points", "max_points"])
        for student, *points in found:
            rows.add([student, *points])


def _submission(student_result: StudentResult, attempt: Attempt) -> tuple:
    record = attempt.record
    level = record["sandbox"]["level"] if record["sandbox"] else None
    submitted = attempt.submitted.isoformat() if attempt.submitted else None
    points = (float(attempt.raw), float(record["max_points"]), submitted)
    rest = (record["source"], record["tool"], level, record["measured"]["seconds"], record["student"])
    return (student_result.lab, student_result.student, attempt.number, record["status"], *points, *rest)


def _plain(row: tuple) -> tuple:
    """Half a character, which JSON may hold, is nothing that SQLite can store."""
    return tuple(value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value for value in row)


@contextlib.contextmanager
def open_gradebook(out: Path) -> Iterator[Gradebook]:
    """Write `gradebook.sqlite` anew; it takes its place at the end.

    Args:
        out: the instructor's `--out`.

    Yields:
        The gradebook to fill. After an error in the block the old file stays.

    Raises:
        OSError: if the file cannot be written, as any other file's would be.
    """
    path = out / "gradebook.sqlite"
    try:
        with replacing(path) as part, contextlib.closing(sqlite3.connect(part)) as book:
            book.execute("pragma synchronous = off")  # what is lost in a power cut is made again
            book.execute("pragma journal_mode = off")
            yield Gradebook(book)
            book.commit()
    except sqlite3.OperationalError as error:  # SQLite's word for a full disk
        raise OSError(errno.ENOSPC, str(error), str(path)) from error
