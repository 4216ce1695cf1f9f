"""The instructor's tables, each optional, in the output folder beside `seed.json`: who is in the course, what was
changed by hand, and when work came in. Spreadsheets write them; a file that is wrong says where.

`roster.csv`     student, and if wanted name, email, section, alias, canvas_id, moodle_id (or any other `..._id`).
                 A submission belongs to the student whose id, alias, e-mail or LMS id is its name; several aliases
                 stand between semicolons. The names that Canvas and Moodle give to downloaded work are understood.
`manual.csv`     lab, student, exercise, points, comment. `points` replaces those of the exercise; with a sign, +1 or
                 -0.5, it is added (a spreadsheet that drops the plus: write `'+1`). An empty exercise means the whole
                 lab. Empty points: a comment alone. To undo a change, delete its row.
`submitted.csv`  student, attempt, submitted, and lab where the folder holds several; it overrules the records.
                 An attempt without a row counts with the latest time that is known of its student.

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
        name: for people.
        email: address.
        section: of the course.
        alias: other names of the student's submissions, between semicolons.
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
        """What a submission of this student may be called."""
        names = [self.student, *self.alias.split(";"), self.email]
        keys = [student_id(name).casefold() for name in map(str.strip, names) if name]
        return keys + [key for column, value in self.ids for key in _id_keys(column, value)]


def _id_keys(column: str, value: str) -> list[str]:
    """Two platforms may give one number to two people: their numbers stay apart."""
    match = _MOODLE_ID.match(value) if column == "moodle_id" else None
    value = match[1] if match else value.casefold()
    return [f"{column}:{value}"] if value else []


def submission_keys(name: str, layout: str | None = None) -> list[str]:
    """What the id of a submission says about whose it is; a downloaded one holds a platform's number.

    Args:
        name: the id.
        layout: of the folder in which it lay: only in a platform's own download has the platform chosen the number.
            None where it is not known, as in records of earlier versions.

    >>> submission_keys("Anna_M_4711_assignsubmission_file")[1]
    'moodle_id:4711'
    >>> submission_keys("mulleranna_LATE_77_4242_lab04", "canvas")[1]
    'canvas_id:77'
    >>> len(submission_keys("mallory_4711_assignsubmission_file_17_assignsubmission_file", "moodle"))
    1
    >>> submission_keys("mallory_4711_assignsubmission_file", "students")
    ['mallory_4711_assignsubmission_file']
    """
    keys = [name.casefold()]  # not shortened once more: two long ids may differ at their ends alone
    numbers = {"moodle": moodle_numbers(name), "canvas": CANVAS_NUMBER.findall(name)}
    for platform, found in numbers.items():
        # of two numbers one was written by a student, as a part of a name that people can edit; nobody knows which
        if len(found) == 1 and layout in (None, platform):
            keys.append(f"{platform}_id:{found[0]}")
    return keys


def record_keys(record: dict) -> list[str]:
    """What a record says about whose work it is."""
    return submission_keys(record["student"], record.get("layout"))


def names_of_ids(path: Path, ids: Collection[str]) -> set[str]:
    """The ids, aliases and addresses of a roster, as they are written, that make one of these ids.

    Args:
        path: of `roster.csv`; it need not exist, and is not checked here.
        ids: in small letters.
    """
    found: set[str] = set()
    with contextlib.suppress(ValueError):
        for _, row in _rows(path, ("student",)):
            names = [row["student"], *row.get("alias", "").split(";"), row.get("email", "")]
            found |= {name for name in map(str.strip, names) if name and student_id(name).casefold() in ids}
    return found


class Roster:
    """Who is in the course; without a file everyone is.

    Args:
        given: whether there is a file.
    """

    def __init__(self, given: bool = False) -> None:
        self.given = given
        self.people: dict[str, Person] = {}
        self._by_key: dict[str, str] = {}  # what a submission may be called -> student

    def add(self, person: Person) -> tuple[str, str] | None:
        """Add a row.

        Returns:
            None; or, where one of its names is another student's already, that name and the student.
        """
        for key in set(person.keys()):
            if key in self._by_key:
                return key, self._by_key[key]
            self._by_key[key] = person.student
        self.people[person.student] = person
        return None

    def find(self, *keys: str) -> Person | None:
        """The first person whom one of the keys names."""
        found = (self._by_key.get(key) for key in keys)
        return next((self.people[student] for student in found if student), None)


@dataclass(frozen=True, slots=True)
class Change:
    """One row of `manual.csv`.

    Attributes:
        exercise: its name, or "" for the whole lab.
        points: to replace with, or to add; None for a comment alone.
        adds: True where the points had a sign.
        comment: for the student.
        line: of the file.
    """

    exercise: str
    points: Decimal | None
    adds: bool
    comment: str
    line: int

    @property
    def words(self) -> str:
        """`+1`, `3`, or "" for a comment alone."""
        return "" if self.points is None else f"{self.points:+f}" if self.adds else f"{self.points:f}"


@dataclass
class Tables:
    """What the instructor wrote beside the records.

    Attributes:
        roster: of the course.
        changes: (lab, key or name of the student) -> rows of `manual.csv`.
        submitted: (lab or "", key or name of the student, attempt) -> (line, text of the time).
    """

    roster: Roster = field(default_factory=Roster)
    changes: dict[tuple[str, str], list[Change]] = field(default_factory=dict)
    submitted: dict[tuple[str, str, int], tuple[int, str]] = field(default_factory=dict)


def read_tables(out: Path, labs: list[str]) -> Tables:
    """Read `roster.csv`, `manual.csv` and `submitted.csv` of an output folder, where they are.

    Args:
        out: the instructor's `--out`.
        labs: those that have records.

    Returns:
        What they say.

    Raises:
        ValueError: names the file, the line, what was given and what is expected.
    """
    tables = Tables(_roster(out / "roster.csv"))
    _manual(out / "manual.csv", labs, tables)
    _submitted(out / "submitted.csv", labs, tables)
    return tables


def wrong(path: Path, line: int, given: str, expected: str) -> ValueError:
    """The error of a wrong file: where, what was given, what is expected."""
    return ValueError(f"{path}, line {line}: {given}; expected {expected}")


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a CSV, separated by commas or, as some spreadsheets do, by semicolons; nothing without a file."""
    if not path.is_file():
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
            names = [(name or "").strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in needed if name not in names]
            if missing or len({*filter(None, names)}) < len([*filter(None, names)]):
                what = f"the columns are {', '.join(names) or 'none'}"
                raise wrong(path, 1, what, f"each once, {', '.join(needed)} among them")
            reader.fieldnames = names
            for row in reader:
                if any(row.pop(None, ())):
                    raise wrong(path, reader.line_num, f"more than {len(names)} cells", "a cell a column")
                yield reader.line_num, {name: (value or "").strip() for name, value in row.items()}
    except UnicodeDecodeError as error:
        raise wrong(path, 1, f"byte {error.start} is not UTF-8", "the file saved as CSV UTF-8") from None
    except csv.Error as error:
        raise wrong(path, reader.line_num, f"not CSV ({error})", "cells in matching quotes") from None


def _roster(path: Path) -> Roster:
    roster = Roster(path.is_file())
    for line, row in _rows(path, ("student",)):
        if not row["student"]:
            if any(row.values()):
                raise wrong(path, line, "student is empty", "an id in every row")
            continue
        ids = tuple((name, value) for name, value in row.items() if name.endswith("_id") and value)
        texts = {name: row.get(name, "") for name in PERSON_COLUMNS}
        person = Person(**texts | {"section": sys.intern(texts["section"])}, ids=ids)
        clash = roster.add(person)
        if clash:
            first = next(number for number, other in _rows(path, ()) if other["student"] == clash[1])
            what = f"{clash[0]!r} names {person.student!r}, and on line {first} someone else"
            raise wrong(path, line, what, "ids, aliases and addresses that name one student each")
    return roster


def _manual(path: Path, labs: list[str], tables: Tables) -> None:
    for line, row in _rows(path, ("lab", "student", "exercise", "points", "comment")):
        if not any(row.values()):
            continue
        if row["lab"] not in labs:
            raise wrong(path, line, f"lab is {row['lab']!r}", f"one with records: {', '.join(labs)}")
        if not row["student"]:
            raise wrong(path, line, "student is empty", "an id")
        points, adds = _points(path, line, row["points"])
        if points is None and not row["comment"]:
            raise wrong(path, line, "neither points nor a comment", "one of them, or no row")
        rows = tables.changes.setdefault((row["lab"], key_of(tables.roster, row["student"])), [])
        twice = [one for one in rows if one.exercise == row["exercise"] and one.points is not None and not one.adds]
        if twice and points is not None and not adds:
            what = f"points of {row['student']} that line {twice[0].line} replaces already"
            raise wrong(path, line, what, "one row that replaces; points with a sign are added")
        rows.append(Change(row["exercise"], points, adds, row["comment"], line))


def _points(path: Path, line: int, text: str) -> tuple[Decimal | None, bool]:
    text = text.removeprefix("'").replace("\u2212", "-")
    if not text:
        return None, False
    if re.fullmatch(r"[+-]?(?:\d{1,6}(?:[.,]\d{1,6})?|[.,]\d{1,6})", text):
        try:
            return Decimal(text.replace(",", ".")), text[0] in "+-"
        except InvalidOperation:
            pass
    raise wrong(path, line, f"points is {text!r}", "a number such as 3, 2.5, +1 or -0.5, or nothing")


def _submitted(path: Path, labs: list[str], tables: Tables) -> None:
    for line, row in _rows(path, ("student", "attempt", "submitted")):
        if not any(row.values()):
            continue
        lab = row.get("lab", "")
        if lab not in labs and (lab or len(labs) > 1):
            given = f"lab is {lab!r}" if "lab" in row else f"no column lab, and there are {len(labs)} labs"
            raise wrong(path, line, given, f"a column lab with one of {', '.join(labs)}")
        if not row["student"] or not row["submitted"]:
            raise wrong(path, line, "student or submitted is empty", "an id and a time, such as 2026-10-01 23:59")
        if not re.fullmatch(r"[1-9]\d{0,3}|", row["attempt"]):
            raise wrong(path, line, f"attempt is {row['attempt']!r}", "1, 2, ..., or nothing for 1")
        lab, attempt = lab or (labs[0] if labs else ""), int(row["attempt"] or 1)
        key = (lab, key_of(tables.roster, row["student"]), attempt)
        if key in tables.submitted:
            what = f"attempt {attempt} of {row['student']} again, after line {tables.submitted[key][0]}"
            raise wrong(path, line, what, "one row an attempt")
        tables.submitted[key] = (line, row["submitted"])


def key_of(roster: Roster, student: str) -> str:
    """The name under which a student's things are kept: the id on the roster, else as it was written.

    Args:
        roster: of the course.
        student: as somebody wrote it.
    """
    person = roster.find(student_id(student).casefold())
    return person.student if person else student.casefold()
