"""Compute one result per student and lab from the records of all attempts and the instructor's files.

    final points = autograded points of the attempt that counts x late factor + manual changes, rounded once

The late factor applies to autograded points only. Points that an instructor adds manually are not multiplied, and an
exercise whose points were replaced manually counts with the new points. The sum is never below 0, and a bonus may raise
it above the maximum. With attempts = "best", the attempt with the most points after its factor counts, and the earliest
of several equal ones. With "last", the last attempt that could be graded counts. An attempt without a known time is
treated as handed in at the latest known time of its student, because students choose the names that number their
attempts. If no time of a student is known, there is no penalty, and the gradebook says so.

Points are decimal fractions, so 0.1 + 0.2 is 0.3, and are rounded to two decimals at the very end.
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
from segedu.grading.gradebook.roster import Change, Tables, entry_error, key_of, read_tables, submission_keys
from segedu.grading.gradebook.student_result import (
    NOTHING,
    ZERO,
    Attempt,
    ExerciseResult,
    StudentResult,
    apply_changes,
    as_decimal,
    choose_attempt,
    notes_on,
)
from segedu.grading.judging.records import LAB_NAME, RecordStore, clean
from segedu.grading.submissions.find_submissions import moodle_numbers, student_id

__all__ = ["LabBook", "InstructorFiles", "StudentResult", "labs_of", "read_instructor_files", "student_results"]
CENT = Decimal("0.01")


def labs_of(out: Path) -> list[str]:
    """Sorted names of the labs that have records in an output folder."""
    names = (path.parent.name for path in out.glob("*/records") if path.is_dir())
    return sorted(name for name in names if re.fullmatch(LAB_NAME, name))


@dataclass(frozen=True)
class InstructorFiles:
    """The instructor's files of an output folder, and the names of the labs with records in it."""

    out: Path
    labs: list[str]
    policy: PolicyFile
    tables: Tables


def read_instructor_files(out: Path) -> InstructorFiles:
    """Read the instructor's files, which `late` and `roster` describe; the ValueError of a wrong file says where."""
    labs = labs_of(out)
    return InstructorFiles(out, labs, PolicyFile(out / "policy.toml"), read_tables(out, labs))


class LabBook:
    """The results of one lab's students. Iterating reads the records of one student at a time.

    Raises:
        ValueError: if the instructor's files name an unknown student or exercise, or a time that does not exist.
    """

    def __init__(self, instructor_files: InstructorFiles, lab: str) -> None:
        self.instructor_files, self.lab, self.roster = instructor_files, lab, instructor_files.tables.roster
        self.policy: LabPolicy = instructor_files.policy.lab(lab)
        self.store = RecordStore(instructor_files.out, lab)
        self.names: dict[str, list[str]] = defaultdict(list)  # key of the student -> names of records
        self.name_notes: dict[str, list[str]] = defaultdict(list)  # key of the student -> notes on name clashes
        for name in self.store.names():
            self.names[self._owner(name)].append(name)
        self.keys = sorted({*self.names, *self.roster.people}, key=str.casefold)
        self.exercises = self._exercises()
        self.changes: dict[str, list[Change]] = defaultdict(list)
        for (changed_lab, student), rows in instructor_files.tables.changes.items():
            if changed_lab == lab:
                self.changes[self._key(student)] += rows
        self.extensions = self._extensions()
        self.times = self._times()
        self.latest: dict[str, datetime] = {}  # key of the student -> latest time in submitted.csv
        for (key, _), time in self.times.items():
            self.latest[key] = max(time, self.latest.get(key, time), key=_instant)
        self.remarks = self._remarks()
        self._check_changes()

    def __len__(self) -> int:
        return len(self.keys)

    def _owner(self, name: str) -> str:
        """The key of a record's student. A number in the name counts only if a platform wrote the name."""
        student = name.partition("~")[0]
        name_key, *number_keys = submission_keys(student)
        person = self.roster.find(name_key)
        if person is None:
            self._note_two_numbers(name_key, student)
        if person is None and (other := self.roster.find(*number_keys)):
            trusted_keys = submission_keys(student, (self.store.load(name) or {}).get("layout"))
            person = self.roster.find(*trusted_keys)
            if person is None:
                rule = "which counts only in a platform's own download (segedu grade --layout moodle or canvas)"
                self.name_notes[name_key].append(f"its name holds the number of {other.student}, {rule}")
                self.name_notes[other.student].append(f"the name of {student} holds this student's number, {rule}")
        return person.student if person else name_key

    def _note_two_numbers(self, name_key: str, student: str) -> None:
        """Note a name that holds two Moodle numbers: it belongs to none of the students with these numbers."""
        numbers = moodle_numbers(student)
        people = [self.roster.find(f"moodle_id:{number}") for number in numbers] if len(numbers) > 1 else []
        for person in filter(None, people):
            self.name_notes[name_key].append(
                f"its name holds several numbers, one of them of {person.student}: none of them counts"
            )
            self.name_notes[person.student].append(
                f"the name of {student} holds several numbers, one of them this student's: none of them counts"
            )

    def __iter__(self) -> Iterator[StudentResult]:
        return map(self._result_of, self.keys)

    @property
    def max_points(self) -> Decimal:
        """Full points of the lab."""
        return sum((worth for _, worth in self.exercises), ZERO)

    def _key(self, student: str) -> str:
        """The key of a student whom one of the instructor's files names, exactly or in another spelling."""
        known = student in self.names or student in self.roster.people
        return student if known else student_id(student).casefold()

    def _exercises(self) -> list[tuple[str, Decimal]]:
        for names in self.names.values():
            for name in names:
                record = self.store.load(name)
                if record and record["exercises"]:
                    return [(exercise["name"], as_decimal(exercise["max"])) for exercise in record["exercises"]]
        return []

    def _extensions(self) -> dict:
        extensions = {}
        for student, extension in self.policy.extensions.items():
            key = self._key(key_of(self.roster, student))
            if self.roster.exists and key not in self.roster.people and key not in self.names:
                problem = f"{student!r} is not on the roster and handed in nothing"
                raise self.instructor_files.policy.entry_error(f"extensions.{student}", problem, "the id of a student")
            extensions[key] = extension
        return extensions

    def _times(self) -> dict[tuple[str, int], datetime]:
        times = {}
        for (lab, key, attempt), (line, text) in self.instructor_files.tables.submitted.items():
            if lab == self.lab:
                try:
                    times[self._key(key), attempt] = self.instructor_files.policy.time(text, "submitted")
                except ValueError as error:
                    problem, _, expected = str(error).partition("submitted: ")[2].partition("; expected ")
                    path = self.instructor_files.out / "submitted.csv"
                    raise entry_error(path, line, f"submitted is {text!r}: {problem}", expected) from None
        return times

    def _remarks(self) -> list[str]:
        """Remarks on entries of the instructor's files that may be mistakes."""
        remarks = []
        rows = self.instructor_files.tables.submitted.items()
        idle = [line for (lab, key, _), (line, _) in rows if lab == self.lab and self._key(key) not in self.names]
        if idle:
            remarks.append(f"submitted.csv has times of students who handed in nothing (line {_first_ten(idle)})")
        if absent := self._lines_of_absent_attempts():
            effect = "other attempts of these students that have no time count with the latest one"
            lines = _first_ten(absent)
            remarks.append(f"submitted.csv has times of attempts that do not exist (line {lines}): {effect}")
        if self.instructor_files.policy.exists and self.policy.due is None:
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
        full_points, path = dict(self.exercises), self.instructor_files.out / "manual.csv"
        for key, changes in self.changes.items():
            for change in changes:
                if key not in self.names and key not in self.roster.people:
                    problem = f"{key!r} has no submission and is not on the roster"
                    raise entry_error(path, change.line, problem, "the id of a student")
                if change.exercise and change.exercise not in full_points:
                    expected = f"one of {', '.join(full_points)}"
                    raise entry_error(path, change.line, f"exercise is {change.exercise!r}", expected)
                limit = full_points.get(change.exercise, self.max_points)
                if change.points is not None and not change.is_addition and change.points > limit:
                    expected = f"at most {limit}; a bonus is added with a sign, such as +1"
                    raise entry_error(path, change.line, f"points is {change.signed_points}", expected)

    def _result_of(self, key: str) -> StudentResult:
        person = self.roster.people.get(key)
        attempts = sorted(
            self._timed(key, [self._attempt(key, name) for name in self.names.get(key, ())]),
            key=lambda one: (one.number, one.submitted.timestamp() if one.submitted else 0, one.record["student"]),
        )
        chosen = choose_attempt(attempts, self.policy.attempts)
        changes = self.changes.get(key, [])
        exercises = self._exercise_results(chosen, changes)
        lab_changes = tuple(change for change in changes if not change.exercise)
        final = apply_changes(sum((exercise.points for exercise in exercises), ZERO), lab_changes)
        student = person.student if person else attempts[0].record["student"]
        max_points = sum((one.max_points for one in exercises), ZERO)
        return StudentResult(
            self.lab, student, person, self.roster.exists and person is None, tuple(attempts), chosen, exercises,
            lab_changes, max_points, max(ZERO, final).quantize(CENT, ROUND_HALF_UP),
            (*dict.fromkeys(self.name_notes.get(key, ())), *notes_on(attempts, chosen)), key in self.name_notes,
        )  # fmt: skip

    def _attempt(self, key: str, name: str) -> Attempt:
        student = name.partition("~")[0]  # the file's name identifies the student: a copied file must not count twice
        record = (self.store.load(name) or self._damaged(name)) | {"student": student}
        number = _attempt_number(name)
        submitted = self.times.get((key, number)) or self._time(record.get("submitted"))
        return Attempt(number, record, submitted, lateness(self.policy, submitted, self.extensions.get(key)))

    def _timed(self, key: str, attempts: list[Attempt]) -> list[Attempt]:
        """Give attempts without a time the latest known time of their student."""
        extension = self.extensions.get(key)
        has_due_time = self.policy.due_of(extension) is not None
        known = [attempt.submitted for attempt in attempts if attempt.submitted]
        known += [self.latest[key]] if key in self.latest else []
        if not known:
            status = "missing" if has_due_time and self.times else ""
            return [replace(attempt, time_status=status) for attempt in attempts]
        latest, status = max(known, key=_instant), "assumed" if has_due_time else ""
        late = lateness(self.policy, latest, extension)
        return [
            attempt if attempt.submitted else replace(attempt, submitted=latest, lateness=late, time_status=status)
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
        reason = clean(self.store.damage(name))
        return {
            "status": "failed", "lab": self.lab, "notes": [],
            "problem": f"its record is damaged; grade it again ({reason})", "points": 0, "max_points": self.max_points,
            "sandbox": None, "source": "", "tool": "", "measured": {"seconds": 0.0}, "exercises": [],
        }  # fmt: skip

    def _exercise_results(self, chosen: Attempt | None, changes: list[Change]) -> tuple[ExerciseResult, ...]:
        records = {exercise["name"]: exercise for exercise in (chosen.record["exercises"] if chosen else ())}
        factor = chosen.lateness.factor if chosen else ONE
        full_points = {name: as_decimal(record["max"]) for name, record in records.items()} or dict(self.exercises)
        results = []
        for name, maximum in full_points.items():
            record = records.get(name, {})
            autograded = as_decimal(record.get("points", 0))
            own_changes = tuple(change for change in changes if change.exercise == name)
            named = () if record.get("hedged") else record.get("named", ())  # a possible mistake is no result
            misconceptions = tuple(wrong_answer["name"] for wrong_answer in named)
            status = record.get("status", NOTHING if chosen is None else "not graded")
            points = apply_changes(autograded * factor, own_changes)
            results.append(
                ExerciseResult(name, autograded, maximum, status, misconceptions, own_changes, points, record)
            )
        return tuple(results)


def _first_ten(lines: list[int]) -> str:
    return ", ".join(map(str, lines[:10])) + ", ..." * (len(lines) > 10)


def _instant(time: datetime) -> datetime:
    return time.astimezone(UTC)  # times of one zone are compared by wall clock, which is wrong when clocks change


def _attempt_number(name: str) -> int:
    """The attempt in the name of a record: 2 for `anna~2`."""
    number = name.partition("~")[2]
    return int(number) if number.isdecimal() else 1


def student_results(out: Path, lab: str) -> Iterator[StudentResult]:
    """The results of all students on the roster or with a submission, sorted by id and read lazily.

    Raises:
        ValueError: if the lab has no records, or one of the instructor's files is wrong.
    """
    instructor_files = read_instructor_files(out)
    labs = instructor_files.labs
    if lab not in labs:
        expected = f"one of {', '.join(labs)}" if labs else "that `segedu grade` ran with this --out before"
        raise ValueError(f"lab is {lab!r}, which {out} has no records of; expected {expected}")
    return iter(LabBook(instructor_files, lab))
