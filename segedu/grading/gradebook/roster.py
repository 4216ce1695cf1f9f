"""Three optional CSV files of the instructor in the output folder, beside `seed.json`.

`roster.csv`     Students of the course. Columns: student, and optionally name, email, section, alias, canvas_id,
                 moodle_id (or any other `..._id`). A submission belongs to the student whose id, alias, e-mail address
                 or platform id is its name. Several aliases are separated by semicolons. The names that Canvas and
                 Moodle give to downloaded files are understood.
`manual.csv`     Manual changes. Columns: lab, student, exercise, points, comment. `points` replaces those of the
                 exercise; with a sign, such as +1 or -0.5, it is added (if a spreadsheet drops the plus, write `'+1`).
                 An empty exercise stands for the whole lab, and empty points for a comment alone. To undo a change,
                 delete its row.
`submitted.csv`  Submission times. Columns: student, attempt, submitted, and lab if the folder holds several labs. They
                 replace the times in the records. An attempt without a row counts with the latest known time of its
                 student.

These files are held in memory: about 100 MB for 100,000 students with names, addresses and two ids.
"""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from segedu.grading.submissions.find_submissions import CANVAS_NUMBER, moodle_numbers, student_id

PERSON_COLUMNS = ("student", "name", "email", "section", "alias")
_MOODLE_ID = re.compile(r"^(?:participant )?(\d+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Person:
    """One row of `roster.csv`.

    Attributes:
        student: the id.
        alias: other names of the student's submissions, separated by semicolons.
        ids: pairs such as `("canvas_id", "7")`.
    """

    student: str
    name: str = ""
    email: str = ""
    section: str = ""
    alias: str = ""
    ids: tuple[tuple[str, str], ...] = ()

    def id(self, column: str) -> str:
        """The id of a learning platform, or ""."""
        return dict(self.ids).get(column, "")

    def keys(self) -> list[str]:
        """Keys that identify a submission of this student."""
        names = [self.student, *self.alias.split(";"), self.email]
        keys = [student_id(name).casefold() for name in map(str.strip, names) if name]
        return keys + [key for column, value in self.ids for key in _id_keys(column, value)]


def _id_keys(column: str, value: str) -> list[str]:
    """Keys of a platform's id. They begin with the column, because two platforms may use the same number."""
    match = _MOODLE_ID.match(value) if column == "moodle_id" else None
    value = match[1] if match else value.casefold()
    return [f"{column}:{value}"] if value else []


def submission_keys(name: str, layout: str | None = None) -> list[str]:
    """Keys that may identify the student of a submission: its id, and the platform number of downloaded work.

    Args:
        name: the id of the submission.
        layout: layout of its folder, because a number counts only in the platform's own download; None if it is not
            known, as in records of earlier versions.

    >>> submission_keys("Anna_M_4711_assignsubmission_file")[1]
    'moodle_id:4711'
    >>> submission_keys("mulleranna_LATE_77_4242_lab04", "canvas")[1]
    'canvas_id:77'
    >>> len(submission_keys("mallory_4711_assignsubmission_file_17_assignsubmission_file", "moodle"))
    1
    >>> submission_keys("mallory_4711_assignsubmission_file", "students")
    ['mallory_4711_assignsubmission_file']
    """
    keys = [name.casefold()]  # not shortened again: two long ids may differ only at their ends
    numbers_of = {"moodle": moodle_numbers(name), "canvas": CANVAS_NUMBER.findall(name)}
    for platform, numbers in numbers_of.items():
        # one of two numbers was written by a student, in a name that students can edit; which one is unknown
        if len(numbers) == 1 and layout in (None, platform):
            keys.append(f"{platform}_id:{numbers[0]}")
    return keys


def record_keys(record: dict) -> list[str]:
    """Keys that may identify the student of a record."""
    return submission_keys(record["student"], record.get("layout"))


def names_of_ids(path: Path, ids: Collection[str]) -> set[str]:
    """The ids, aliases and addresses in `roster.csv`, as written there, whose student id is one of `ids` (lower case).

    The file does not need to exist, and errors in it are ignored here.
    """
    matching: set[str] = set()
    with contextlib.suppress(ValueError):
        for _, row in _rows(path, ("student",)):
            names = [row["student"], *row.get("alias", "").split(";"), row.get("email", "")]
            matching |= {name for name in map(str.strip, names) if name and student_id(name).casefold() in ids}
    return matching


class Roster:
    """The students of the course. Without a roster file (`exists` is False) every student belongs to it."""

    def __init__(self, exists: bool = False) -> None:
        self.exists = exists
        self.people: dict[str, Person] = {}
        self._by_key: dict[str, str] = {}  # key of a submission -> student

    def add(self, person: Person) -> tuple[str, str] | None:
        """Add a row. If one of its keys is another student's already, add nothing and return (key, that student)."""
        for key in set(person.keys()):
            if key in self._by_key:
                return key, self._by_key[key]
            self._by_key[key] = person.student
        self.people[person.student] = person
        return None

    def find(self, *keys: str) -> Person | None:
        """The student of the first key that is known."""
        students = (self._by_key.get(key) for key in keys)
        return next((self.people[student] for student in students if student), None)


@dataclass(frozen=True, slots=True)
class Change:
    """One row of `manual.csv`.

    Attributes:
        exercise: its name, or "" for the whole lab.
        points: new points, or points to add; None for a comment alone.
        is_addition: True if the points had a sign, so that they are added.
        comment: comment for the student.
        line: line number in the file.
    """

    exercise: str
    points: Decimal | None
    is_addition: bool
    comment: str
    line: int

    @property
    def signed_points(self) -> str:
        """`+1`, `3`, or "" for a comment alone."""
        return "" if self.points is None else f"{self.points:+f}" if self.is_addition else f"{self.points:f}"

    @property
    def summary(self) -> str:
        """One line with exercise, points and comment."""
        return " ".join(f"{self.exercise} {self.signed_points} {self.comment}".split())


@dataclass
class Tables:
    """The content of the instructor's CSV files.

    Attributes:
        roster: content of `roster.csv`.
        changes: (lab, key or name of the student) -> rows of `manual.csv`.
        submitted: (lab or "", key or name of the student, attempt) -> (line, text of the time) in `submitted.csv`.
    """

    roster: Roster = field(default_factory=Roster)
    changes: dict[tuple[str, str], list[Change]] = field(default_factory=dict)
    submitted: dict[tuple[str, str, int], tuple[int, str]] = field(default_factory=dict)


def read_tables(out: Path, labs: list[str]) -> Tables:
    """Read `roster.csv`, `manual.csv` and `submitted.csv` of an output folder, if they exist.

    Args:
        out: the output folder.
        labs: the labs that have records.

    Raises:
        ValueError: names the file, the line, the wrong entry and what is expected.
    """
    tables = Tables(_roster(out / "roster.csv"))
    _manual(out / "manual.csv", labs, tables)
    _submitted(out / "submitted.csv", labs, tables)
    return tables


def entry_error(path: Path, line: int, problem: str, expected: str) -> ValueError:
    """The error of a wrong entry in one of the instructor's files."""
    return ValueError(f"{path}, line {line}: {problem}; expected {expected}")


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a CSV file with commas or semicolons between its cells; nothing if there is no file."""
    if not path.is_file():
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
            names = [(name or "").strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in required if name not in names]
            if missing or len({*filter(None, names)}) < len([*filter(None, names)]):
                problem = f"the columns are {', '.join(names) or 'none'}"
                raise entry_error(path, 1, problem, f"each once, and among them {', '.join(required)}")
            reader.fieldnames = names
            for row in reader:
                if any(row.pop(None, ())):
                    raise entry_error(path, reader.line_num, f"more than {len(names)} cells", "one cell per column")
                yield reader.line_num, {name: (value or "").strip() for name, value in row.items()}
    except UnicodeDecodeError as error:
        raise entry_error(path, 1, f"byte {error.start} is not UTF-8", "the file saved as CSV UTF-8") from None
    except csv.Error as error:
        raise entry_error(path, reader.line_num, f"not CSV ({error})", "cells in matching quotes") from None


def _roster(path: Path) -> Roster:
    roster = Roster(path.is_file())
    for line, row in _rows(path, ("student",)):
        if not row["student"]:
            if any(row.values()):
                raise entry_error(path, line, "student is empty", "an id in every row")
            continue
        ids = tuple((name, value) for name, value in row.items() if name.endswith("_id") and value)
        texts = {name: row.get(name, "") for name in PERSON_COLUMNS}
        person = Person(**texts | {"section": sys.intern(texts["section"])}, ids=ids)
        clash = roster.add(person)
        if clash:
            first = next(number for number, other in _rows(path, ()) if other["student"] == clash[1])
            problem = f"{clash[0]!r} names {person.student!r}, and on line {first} another student"
            raise entry_error(path, line, problem, "ids, aliases and addresses that name one student each")
    return roster


def _manual(path: Path, labs: list[str], tables: Tables) -> None:
    for line, row in _rows(path, ("lab", "student", "exercise", "points", "comment")):
        if not any(row.values()):
            continue
        if row["lab"] not in labs:
            raise entry_error(path, line, f"lab is {row['lab']!r}", f"one with records: {', '.join(labs)}")
        if not row["student"]:
            raise entry_error(path, line, "student is empty", "an id")
        points, is_addition = _points(path, line, row["points"])
        if points is None and not row["comment"]:
            raise entry_error(path, line, "neither points nor a comment", "one of them, or no row")
        rows = tables.changes.setdefault((row["lab"], key_of(tables.roster, row["student"])), [])
        earlier = [
            one for one in rows if one.exercise == row["exercise"] and one.points is not None and not one.is_addition
        ]
        if earlier and points is not None and not is_addition:
            problem = f"line {earlier[0].line} already replaces these points of {row['student']}"
            raise entry_error(path, line, problem, "one row that replaces; points with a sign are added")
        rows.append(Change(row["exercise"], points, is_addition, row["comment"], line))


def _points(path: Path, line: int, text: str) -> tuple[Decimal | None, bool]:
    text = text.removeprefix("'").replace("\u2212", "-")
    if not text:
        return None, False
    if re.fullmatch(r"[+-]?(?:\d{1,6}(?:[.,]\d{1,6})?|[.,]\d{1,6})", text):
        try:
            return Decimal(text.replace(",", ".")), text[0] in "+-"
        except InvalidOperation:
            pass
    raise entry_error(path, line, f"points is {text!r}", "a number such as 3, 2.5, +1 or -0.5, or nothing")


def _submitted(path: Path, labs: list[str], tables: Tables) -> None:
    for line, row in _rows(path, ("student", "attempt", "submitted")):
        if not any(row.values()):
            continue
        lab = row.get("lab", "")
        if lab not in labs and (lab or len(labs) > 1):
            problem = f"lab is {lab!r}" if "lab" in row else f"no column lab, and there are {len(labs)} labs"
            raise entry_error(path, line, problem, f"a column lab with one of {', '.join(labs)}")
        if not row["student"] or not row["submitted"]:
            raise entry_error(path, line, "student or submitted is empty", "an id and a time, such as 2026-10-01 23:59")
        if not re.fullmatch(r"[1-9]\d{0,3}|", row["attempt"]):
            raise entry_error(path, line, f"attempt is {row['attempt']!r}", "1, 2, ..., or nothing for 1")
        lab, attempt = lab or (labs[0] if labs else ""), int(row["attempt"] or 1)
        key = (lab, key_of(tables.roster, row["student"]), attempt)
        if key in tables.submitted:
            problem = f"attempt {attempt} of {row['student']} again, after line {tables.submitted[key][0]}"
            raise entry_error(path, line, problem, "one row per attempt")
        tables.submitted[key] = (line, row["submitted"])


def key_of(roster: Roster, student: str) -> str:
    """The key of a student whose name the instructor wrote: the id on the roster, or the name in lower case."""
    person = roster.find(student_id(student).casefold())
    return person.student if person else student.casefold()
