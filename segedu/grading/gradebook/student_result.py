"""The result of one student in one lab: all attempts, the attempt that counts, manual changes, and points.

The late factor is the number between 0 and 1 by which the points of a late submission are multiplied (`late`). Manual
changes are the rows of the instructor's `manual.csv` (`roster`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property

from segedu.grading.gradebook.late import ONE, Lateness
from segedu.grading.gradebook.roster import Change, Person, record_keys
from segedu.grading.submissions.find_submissions import student_id

ZERO = Decimal(0)
NOTHING = "nothing handed in"


@dataclass(frozen=True)
class Attempt:
    """One attempt of a student, read from its record.

    Attributes:
        number: number of the attempt: 1, 2, ...
        record: the record that the grader wrote for this attempt.
        submitted: submission time with a time zone; None if it is not known.
        lateness: how late the attempt was, and the resulting late factor.
        time_status: "" if the lab has no due time. "assumed" if `submitted` is the latest time of the student's other
            attempts; "missing" if `submitted.csv` contains times of other students but no time of this student;
            otherwise "".
    """

    number: int
    record: dict
    submitted: datetime | None
    lateness: Lateness
    time_status: str = ""

    @cached_property
    def autograded_points(self) -> Decimal:
        """Autograded points, before the late factor."""
        return sum((as_decimal(exercise["points"]) for exercise in self.record["exercises"]), ZERO)

    @property
    def points_after_lateness(self) -> Decimal:
        """Autograded points after the late factor."""
        return self.autograded_points * self.lateness.factor


@dataclass(frozen=True)
class ExerciseResult:
    """The result of one student in one exercise.

    Attributes:
        autograded_points: autograded points, before the late factor.
        max_points: maximum points.
        status: status of the exercise in the record.
        misconceptions: names of the recognised misconceptions.
        changes: manual changes of this exercise.
        points: points after the late factor and the manual changes, not rounded.
        record: the part of the attempt's record about this exercise; {} if nothing was handed in.
    """

    name: str
    autograded_points: Decimal
    max_points: Decimal
    status: str
    misconceptions: tuple[str, ...]
    changes: tuple[Change, ...]
    points: Decimal
    record: dict = field(repr=False)


@dataclass(frozen=True)
class StudentResult:
    """The result of one student in one lab.

    Attributes:
        lab: name of the lab, such as `04_metrics`.
        student: id of the student on the roster; if the student is not on the roster, the id of the submission.
        person: the student's row on the roster, or None.
        not_on_roster: True if a roster exists and no row of it belongs to this submission.
        attempts: all attempts, in order.
        chosen: the attempt that counts, or None if nothing was handed in.
        exercises: one result per exercise.
        changes: manual changes of the lab as a whole.
        max_points: maximum points of the lab.
        final: final points, with two decimals.
        notes: remarks for the instructor.
        name_clash: True if the name of another submission holds this student's platform number, or the name of this
            submission holds another student's number.
    """

    lab: str
    student: str
    person: Person | None
    not_on_roster: bool
    attempts: tuple[Attempt, ...]
    chosen: Attempt | None
    exercises: tuple[ExerciseResult, ...]
    changes: tuple[Change, ...]
    max_points: Decimal
    final: Decimal
    notes: tuple[str, ...] = ()
    name_clash: bool = False

    @property
    def file(self) -> str:
        """File name of the feedback page, without its suffix."""
        return student_id(self.student) if self.person else self.student

    @property
    def status(self) -> str:
        """One of "graded", "unreadable", "failed" and "nothing handed in"."""
        return self.chosen.record["status"] if self.chosen else NOTHING

    @property
    def autograded_points(self) -> Decimal:
        """Autograded points of the attempt that counts."""
        return self.chosen.autograded_points if self.chosen else ZERO

    @property
    def factor(self) -> Decimal:
        """Late factor of the attempt that counts."""
        return self.chosen.lateness.factor if self.chosen else ONE

    @property
    def late_hours(self) -> Decimal | None:
        """Lateness of the attempt that counts, in hours; None if it is not known."""
        return self.chosen.lateness.hours if self.chosen else None

    @property
    def late_explanation(self) -> str:
        """Reason for the late factor, such as `26 h late: x 0.5`, or ""."""
        return self.chosen.lateness.explanation if self.chosen else ""

    @property
    def manual_points(self) -> Decimal:
        """Points that manual changes added: final points = autograded points x late factor + manual points."""
        return self.final - self.autograded_points * self.factor

    @property
    def all_changes(self) -> list[Change]:
        """Manual changes of the exercises, followed by those of the whole lab."""
        return [change for exercise in self.exercises for change in exercise.changes] + list(self.changes)

    @property
    def flags(self) -> list[str]:
        """Short descriptions of everything that an instructor should check."""
        status = [self.status] * (self.status != "graded")
        tampered = ["tampered"] * any(exercise.record.get("tampered") for exercise in self.exercises)
        late = ["late"] * (self.factor < 1)
        clashes = self.name_clash or any(attempt.record.get("clash") for attempt in self.attempts)
        status += ["name clash"] * bool(clashes) + ["several names"] * bool(_different_names(self.attempts))
        status += ["time unknown"] * bool(self.chosen and self.chosen.time_status)
        return (
            tampered
            + status
            + late
            + ["manual change"] * bool(self.all_changes)
            + ["not on roster"] * self.not_on_roster
        )


def as_decimal(points: float) -> Decimal:
    """Convert points from a record to an exact decimal fraction: 0.1 becomes Decimal("0.1")."""
    return Decimal(str(points))


def choose_attempt(attempts: list[Attempt], rule: str) -> Attempt | None:
    """Choose the attempt that counts by the rule "best" or "last". Other attempts count only if none is graded."""
    candidates = [attempt for attempt in attempts if attempt.record["status"] == "graded"] or attempts
    if not candidates:
        return None
    return candidates[-1] if rule == "last" else max(candidates, key=lambda attempt: attempt.points_after_lateness)


def apply_changes(points: Decimal, changes: tuple[Change, ...]) -> Decimal:
    """Apply manual changes to points: the last replacement of the points first, then all additions."""
    with_points = [change for change in changes if change.points is not None]
    replacements = [change.points for change in with_points if not change.is_addition]
    return sum(
        (change.points for change in with_points if change.is_addition), replacements[-1] if replacements else points
    )


def _different_names(attempts: Sequence[Attempt]) -> list[str]:
    """The different names of a student's submissions; none if all contain the same platform number."""
    names = sorted({attempt.record["student"] for attempt in attempts})
    numbers = {tuple(record_keys(attempt.record)[1:]) for attempt in attempts}
    same_number = len(numbers) == 1 and numbers != {()}
    return [] if len(names) < 2 or same_number else names


def notes_on(attempts: list[Attempt], chosen: Attempt | None) -> list[str]:
    """Notes for the instructor about unusual attempts of one student."""
    names = sorted({attempt.record["student"] for attempt in attempts})
    notes = [f"handed in under {len(names)} names: {', '.join(names)}"] if len(names) > 1 else []
    notes += [
        f"the time of attempt {attempt.number} is not known: it counts with the latest known time of this student"
        for attempt in attempts
        if attempt.time_status == "assumed" and attempt.record["status"] == "graded"
    ]
    later = [attempt for attempt in attempts if chosen and attempt.number > chosen.number]
    not_graded = [attempt.number for attempt in later if attempt.record["status"] != "graded"]
    return notes + [f"attempt {number} could not be graded; attempt {chosen.number} counts" for number in not_graded]
