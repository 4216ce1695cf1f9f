"""What counts: from the records of all attempts and the instructor's files to one result per student.

    final points = autograded points of the attempt that counts x late factor + changes by hand, rounded once

The factor applies to autograded points only: points by hand come after it, as they are. An exercise whose points were
replaced by hand counts with those, whatever the factor. The sum is never below 0; a bonus may bring it above the
maximum. With attempts = "best", the attempt counts that gives most after its factor, the earlier of equals; with
"last", the last one that could be graded. An attempt whose time is not known counts with the latest time that is known
of its student, because the student chose the name that says which attempt it is. Where no time of a student is known,
there is no penalty, and a note.

Numbers are decimal fractions from the record on, so 0.1 + 0.2 is 0.3, and are rounded to two places at the very end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from segedu.grading.gradebook.late import ONE, YEARS, LabPolicy, PolicyFile, lateness
from segedu.grading.gradebook.roster import Change, Tables, key_of, read_tables, submission_keys, wrong
from segedu.grading.gradebook.student_result import (
    NOTHING,
    ZERO,
    Attempt,
    Line,
    StudentResult,
    changed,
    choose,
    exact,
    remarks_on,
)
from segedu.grading.judging.records import LAB_NAME, RecordStore, clean
from segedu.grading.submissions.find_submissions import moodle_numbers, student_id

__all__ = ["LabBook", "InstructorFiles", "StudentResult", "labs_of", "read_instructor_files", "student_results"]
CENT = Decimal("0.01")


def labs_of(out: Path) -> list[str]:
    """Labs with records in an output folder, sorted."""
    found = (path.parent.name for path in out.glob("*/records") if path.is_dir())
    return sorted(name for name in found if re.fullmatch(LAB_NAME, name))


@dataclass(frozen=True)
class InstructorFiles:
    """The instructor's files of an output folder.

    Attributes:
        out: the folder.
        labs: those with records.
        policy: due times and what lateness costs.
        tables: roster, changes by hand, times.
    """

    out: Path
    labs: list[str]
    policy: PolicyFile
    tables: Tables


def read_instructor_files(out: Path) -> InstructorFiles:
    """Read the instructor's files; `late` and `roster` say what they hold.

    Args:
        out: the instructor's `--out`.

    Raises:
        ValueError: names the file, the line, what was given and what is expected.
    """
    labs = labs_of(out)
    return InstructorFiles(out, labs, PolicyFile(out / "policy.toml"), read_tables(out, labs))


class LabBook:
    """The results of one lab's students; iterating reads the records, one student at a time.

    Args:
        instructor_files: what the instructor wrote.
        lab: `04_metrics`.

    Raises:
        ValueError: if the instructor's files name a student, an exercise or a time that cannot be.
    """

    def __init__(self, instructor_files: InstructorFiles, lab: str) -> None:
        self.instructor_files, self.lab, self.roster = instructor_files, lab, instructor_files.tables.roster
        self.policy: LabPolicy = instructor_files.policy.lab(lab)
        self.store = RecordStore(instructor_files.out, lab)
        self.names: dict[str, list[str]] = defaultdict(list)  # key of the student -> names of records
        self.doubts: dict[str, list[str]] = defaultdict(list)  # key of the student -> what is odd about a name
        for name in self.store.names():
            self.names[self._owner(name)].append(name)
        self.keys = sorted({*self.names, *self.roster.people}, key=str.casefold)
        self.exercises = self._exercises()
        self.changes: dict[str, list[Change]] = defaultdict(list)
        for (where, student), rows in instructor_files.tables.changes.items():
            if where == lab:
                self.changes[self._key(student)] += rows
        self.extensions = self._extensions()
        self.times = self._times()
        self.latest: dict[str, datetime] = {}  # key of the student -> the latest time that submitted.csv gives
        for (key, _), time in self.times.items():
            self.latest[key] = max(time, self.latest.get(key, time), key=_instant)
        self.remarks = self._remarks()
        self._check_changes()

    def __len__(self) -> int:
        return len(self.keys)

    def _owner(self, name: str) -> str:
        """The key of the student whose record this is; a number in its name counts where a platform wrote it."""
        student = name.partition("~")[0]
        plain, *numbers = submission_keys(student)
        person = self.roster.find(plain)
        if person is None:
            self._doubt_two_numbers(plain, student)
        if person is None and (other := self.roster.find(*numbers)):
            believed = submission_keys(student, (self.store.load(name) or {}).get("layout"))
            person = self.roster.find(*believed)
            if person is None:
                belief = "which is believed only in a platform's own download (segedu grade --layout moodle or canvas)"
                self.doubts[plain].append(f"its name holds the number of {other.student}, {belief}")
                self.doubts[other.student].append(f"the name of {student} holds this student's number, {belief}")
        return person.student if person else plain

    def _doubt_two_numbers(self, plain: str, student: str) -> None:
        """A name with two numbers of Moodle is nobody's; all whom it could mean are told."""
        numbers = moodle_numbers(student)
        named = [self.roster.find(f"moodle_id:{number}") for number in numbers] if len(numbers) > 1 else []
        for person in filter(None, named):
            self.doubts[plain].append(
                f"its name holds several numbers, one of them of {person.student}: none is believed"
            )
            self.doubts[person.student].append(
                f"the name of {student} holds several numbers, one of them this student's: none is believed"
            )

    def __iter__(self) -> Iterator[StudentResult]:
        return map(self._result_of, self.keys)

    @property
    def max(self) -> Decimal:
        """Points to be had in the lab."""
        return sum((worth for _, worth in self.exercises), ZERO)

    def _key(self, student: str) -> str:
        """The key of a student whom one of the instructor's files names, as a record has it or as people write it."""
        known = student in self.names or student in self.roster.people
        return student if known else student_id(student).casefold()

    def _exercises(self) -> list[tuple[str, Decimal]]:
        for names in self.names.values():
            for name in names:
                record = self.store.load(name)
                if record and record["exercises"]:
                    return [(exercise["name"], exact(exercise["max"])) for exercise in record["exercises"]]
        return []

    def _extensions(self) -> dict:
        found = {}
        for student, extension in self.policy.extensions.items():
            key = self._key(key_of(self.roster, student))
            if self.roster.given and key not in self.roster.people and key not in self.names:
                what = f"{student!r} is neither on the roster nor handed anything in"
                raise self.instructor_files.policy.wrong(f"extensions.{student}", what, "the id of a student")
            found[key] = extension
        return found

    def _times(self) -> dict[tuple[str, int], datetime]:
        found = {}
        for (lab, key, attempt), (line, text) in self.instructor_files.tables.submitted.items():
            if lab == self.lab:
                try:
                    found[self._key(key), attempt] = self.instructor_files.policy.time(text, "submitted")
                except ValueError as error:
                    given = str(error).partition("submitted: ")[2].partition("; expected ")
                    what = f"submitted is {text!r}: {given[0]}"
                    raise wrong(self.instructor_files.out / "submitted.csv", line, what, given[2]) from None
        return found

    def _remarks(self) -> list[str]:
        """What is odd in the instructor's files, but may be meant."""
        remarks = []
        rows = self.instructor_files.tables.submitted.items()
        lost = [line for (lab, key, _), (line, _) in rows if lab == self.lab and self._key(key) not in self.names]
        if lost:
            lines = ", ".join(map(str, lost[:10])) + ", ..." * (len(lost) > 10)
            remarks.append(f"submitted.csv has times of students who handed in nothing (line {lines})")
        if absent := self._lines_of_absent_attempts():
            lines = ", ".join(map(str, absent[:10])) + ", ..." * (len(absent) > 10)
            what = "other attempts of these students that have no time count with the latest one"
            remarks.append(f"submitted.csv has times of attempts that do not exist (line {lines}): {what}")
        if self.instructor_files.policy.given and self.policy.due is None:
            remarks.append(f"policy.toml has no due time for {self.lab}: nothing is late")
        return remarks

    def _lines_of_absent_attempts(self) -> list[int]:
        lines = []
        for (lab, student, attempt), (line, _) in self.instructor_files.tables.submitted.items():
            names = self.names.get(self._key(student), ()) if lab == self.lab else ()
            if names and attempt not in map(_attempt_number, names):
                lines.append(line)
        return lines

    def _check_changes(self) -> None:
        worth, path = dict(self.exercises), self.instructor_files.out / "manual.csv"
        for key, changes in self.changes.items():
            for change in changes:
                if key not in self.names and key not in self.roster.people:
                    what = f"{key!r} has no submission and is not on the roster"
                    raise wrong(path, change.line, what, "the id of a student")
                if change.exercise and change.exercise not in worth:
                    raise wrong(path, change.line, f"exercise is {change.exercise!r}", f"one of {', '.join(worth)}")
                most = worth.get(change.exercise, self.max)
                if change.points is not None and not change.adds and change.points > most:
                    what = f"points is {change.words}, and there are {most} to be had"
                    raise wrong(path, change.line, what, "at most these; a bonus is added with a sign, such as +1")

    def _result_of(self, key: str) -> StudentResult:
        person = self.roster.people.get(key)
        attempts = sorted(
            self._timed(key, [self._attempt(key, name) for name in self.names.get(key, ())]),
            key=lambda one: (one.number, one.submitted.timestamp() if one.submitted else 0, one.record["student"]),
        )
        chosen = choose(attempts, self.policy.attempts)
        changes = self.changes.get(key, [])
        lines = self._lines(chosen, changes)
        whole = tuple(change for change in changes if not change.exercise)
        final = changed(sum((line.points for line in lines), ZERO), whole)
        student = person.student if person else attempts[0].record["student"]
        return StudentResult(
            self.lab, student, person, self.roster.given and person is None, tuple(attempts), chosen, lines, whole,
            sum((line.max for line in lines), ZERO), max(ZERO, final).quantize(CENT, ROUND_HALF_UP),
            (*dict.fromkeys(self.doubts.get(key, ())), *remarks_on(attempts, chosen)), key in self.doubts,
        )  # fmt: skip

    def _attempt(self, key: str, name: str) -> Attempt:
        student = name.partition("~")[0]  # the file's name is who it is: a copied file must not be two
        record = (self.store.load(name) or self._damaged(name)) | {"student": student}
        number = _attempt_number(name)
        submitted = self.times.get((key, number)) or self._time(record.get("submitted"))
        return Attempt(number, record, submitted, lateness(self.policy, submitted, self.extensions.get(key)))

    def _timed(self, key: str, attempts: list[Attempt]) -> list[Attempt]:
        """Give attempts without a time the latest that is known of their student."""
        extension = self.extensions.get(key)
        matters = self.policy.due_of(extension) is not None
        known = [attempt.submitted for attempt in attempts if attempt.submitted]
        known += [self.latest[key]] if key in self.latest else []
        if not known:
            word = "missing" if matters and self.times else ""
            return [replace(attempt, time=word) for attempt in attempts]
        latest, word = max(known, key=_instant), "assumed" if matters else ""
        late = lateness(self.policy, latest, extension)
        return [
            attempt if attempt.submitted else replace(attempt, submitted=latest, lateness=late, time=word)
            for attempt in attempts
        ]

    def _time(self, text: str | None) -> datetime | None:
        try:
            time = datetime.fromisoformat(text) if text else None
        except ValueError:
            return None
        if time and time.year not in YEARS:
            return None
        return time.replace(tzinfo=self.policy.zone) if time and not time.tzinfo else time

    def _damaged(self, name: str) -> dict:
        why = clean(self.store.damage(name))
        return {
            "status": "failed", "lab": self.lab, "notes": [],
            "problem": f"its record is damaged; grade it again ({why})", "points": 0, "max_points": self.max,
            "sandbox": None, "source": "", "tool": "", "measured": {"seconds": 0.0}, "exercises": [],
        }  # fmt: skip

    def _lines(self, chosen: Attempt | None, changes: list[Change]) -> tuple[Line, ...]:
        parts = {exercise["name"]: exercise for exercise in (chosen.record["exercises"] if chosen else ())}
        factor = chosen.lateness.factor if chosen else ONE
        worth = {name: exact(part["max"]) for name, part in parts.items()} or dict(self.exercises)
        lines = []
        for name, most in worth.items():
            part = parts.get(name, {})
            auto = exact(part.get("points", 0))
            mine = tuple(change for change in changes if change.exercise == name)
            named = tuple(wrong_answer["name"] for wrong_answer in part.get("named", ()))
            status = part.get("status", NOTHING if chosen is None else "not graded")
            lines.append(Line(name, auto, most, status, named, mine, changed(auto * factor, mine), part))
        return tuple(lines)


def _instant(time: datetime) -> datetime:
    return time.astimezone(UTC)  # two times of one zone are compared by their hands, which the change of clocks moves


def _attempt_number(name: str) -> int:
    """Of the attempt whose record has this name: 2 of `anna~2`."""
    after = name.partition("~")[2]
    return int(after) if after.isdecimal() else 1


def student_results(out: Path, lab: str) -> Iterator[StudentResult]:
    """What counts for each student: those who handed something in and those on the roster, sorted by id.

    Args:
        out: the instructor's `--out`.
        lab: `04_metrics`.

    Returns:
        One result per student; each is read from the disk when it is needed.

    Raises:
        ValueError: if the lab has no records, or one of the instructor's files is wrong.
    """
    instructor_files = read_instructor_files(out)
    if lab not in instructor_files.labs:
        there = (
            f"one of {', '.join(instructor_files.labs)}"
            if instructor_files.labs
            else "that `segedu grade` ran with this --out before"
        )
        raise ValueError(f"lab is {lab!r}, which {out} has no records of; expected {there}")
    return iter(LabBook(instructor_files, lab))
