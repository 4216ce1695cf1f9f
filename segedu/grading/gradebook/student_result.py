"""One student in one lab: the attempts, the one that counts, what was changed by hand, and the points that result."""

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
    """One record of a student.

    Attributes:
        number: 1, 2, ...
        record: as the grader wrote it.
        submitted: aware, or None where nobody knows.
        lateness: what that costs.
        time: "assumed" where `submitted` is the latest time of the student's other attempts; "missing" where other
            students have times and this one has none; else "".
    """

    number: int
    record: dict
    submitted: datetime | None
    lateness: Lateness
    time: str = ""

    @cached_property
    def raw(self) -> Decimal:
        """Autograded points."""
        return sum((exact(exercise["points"]) for exercise in self.record["exercises"]), ZERO)

    @property
    def counted(self) -> Decimal:
        """Autograded points after the late factor."""
        return self.raw * self.lateness.factor


@dataclass(frozen=True)
class Line:
    """One exercise of a student's result.

    Attributes:
        name: of the exercise.
        auto: autograded points, before the factor.
        max: to be had.
        status: as in the record.
        misconceptions: names of those that were recognised.
        changes: by hand.
        points: after the factor and the changes, not rounded.
        record: the exercise's part of the record; {} where nothing was handed in.
    """

    name: str
    auto: Decimal
    max: Decimal
    status: str
    misconceptions: tuple[str, ...]
    changes: tuple[Change, ...]
    points: Decimal
    record: dict = field(repr=False)


@dataclass(frozen=True)
class StudentResult:
    """What counts for one student in one lab.

    Attributes:
        lab: `04_metrics`.
        student: the id on the roster, else that of the submission.
        person: the row of the roster, or None.
        stranger: True where there is a roster and it does not know this submission.
        attempts: all, in order.
        chosen: the one that counts, or None where nothing was handed in.
        lines: one an exercise.
        changes: by hand, of the whole lab.
        max: points to be had.
        final: what counts, two decimals.
        notes: of this page's making, for the instructor.
        doubtful: True where another submission's name holds this student's number, or this one's holds another's.
    """

    lab: str
    student: str
    person: Person | None
    stranger: bool
    attempts: tuple[Attempt, ...]
    chosen: Attempt | None
    lines: tuple[Line, ...]
    changes: tuple[Change, ...]
    max: Decimal
    final: Decimal
    notes: tuple[str, ...] = ()
    doubtful: bool = False

    @property
    def file(self) -> str:
        """The id as a file name, without suffix; that of a submission is one already."""
        return student_id(self.student) if self.person else self.student

    @property
    def status(self) -> str:
        """graded, unreadable, failed, or nothing handed in."""
        return self.chosen.record["status"] if self.chosen else NOTHING

    @property
    def raw(self) -> Decimal:
        """Autograded points of the attempt that counts."""
        return self.chosen.raw if self.chosen else ZERO

    @property
    def factor(self) -> Decimal:
        """Of the attempt that counts."""
        return self.chosen.lateness.factor if self.chosen else ONE

    @property
    def late(self) -> Decimal | None:
        """Hours; None where they are not known."""
        return self.chosen.lateness.hours if self.chosen else None

    @property
    def words(self) -> str:
        """Why the factor is what it is: `26 h late: x 0.5`; or ""."""
        return self.chosen.lateness.words if self.chosen else ""

    @property
    def by_hand(self) -> Decimal:
        """What changes by hand made of it: final points = raw x factor + this."""
        return self.final - self.raw * self.factor

    @property
    def all_changes(self) -> list[Change]:
        """Of the exercises, then of the whole lab."""
        return [change for line in self.lines for change in line.changes] + list(self.changes)

    @property
    def flags(self) -> list[str]:
        """What an instructor should look at, in words."""
        status = [self.status] * (self.status != "graded")
        tampered = ["tampered"] * any(line.record.get("tampered") for line in self.lines)
        late = ["late"] * (self.factor < 1)
        clashes = self.doubtful or any(attempt.record.get("clash") for attempt in self.attempts)
        status += ["name clash"] * bool(clashes) + ["several names"] * bool(_different_names(self.attempts))
        status += ["time unknown"] * bool(self.chosen and self.chosen.time)
        return tampered + status + late + ["by hand"] * bool(self.all_changes) + ["not on roster"] * self.stranger


def exact(points: float) -> Decimal:
    """A number of a record as the decimal fraction that it is written as."""
    return Decimal(str(points))


def choose(attempts: list[Attempt], how: str) -> Attempt | None:
    """The attempt that counts.

    Args:
        attempts: of one student, in order.
        how: "best" or "last".

    Returns:
        One that could be graded, if any could; None if there is none at all.
    """
    fit = [attempt for attempt in attempts if attempt.record["status"] == "graded"] or attempts
    if not fit:
        return None
    return fit[-1] if how == "last" else max(fit, key=lambda attempt: attempt.counted)


def changed(points: Decimal, changes: tuple[Change, ...]) -> Decimal:
    """Points after changes by hand: replaced first, then what is added.

    Args:
        points: before.
        changes: those of one exercise, or of the whole lab.
    """
    given = [change for change in changes if change.points is not None]
    replaced = [change.points for change in given if not change.adds]
    return sum((change.points for change in given if change.adds), replaced[-1] if replaced else points)


def _different_names(attempts: Sequence[Attempt]) -> list[str]:
    """The names under which one student's work came in; none where a platform wrote the same number into each."""
    names = sorted({attempt.record["student"] for attempt in attempts})
    numbers = {tuple(record_keys(attempt.record)[1:]) for attempt in attempts}
    same_number = len(numbers) == 1 and numbers != {()}
    return [] if len(names) < 2 or same_number else names


def remarks_on(attempts: list[Attempt], chosen: Attempt | None) -> list[str]:
    """What is odd about a student's attempts, for the instructor."""
    names = sorted({attempt.record["student"] for attempt in attempts})
    notes = [f"handed in under {len(names)} names: {', '.join(names)}"] if len(names) > 1 else []
    notes += [
        f"the time of attempt {attempt.number} is not known: it counts with the latest known time of this student"
        for attempt in attempts
        if attempt.time == "assumed" and attempt.record["status"] == "graded"
    ]
    later = [attempt for attempt in attempts if chosen and attempt.number > chosen.number]
    bad = [attempt.number for attempt in later if attempt.record["status"] != "graded"]
    return notes + [f"attempt {number} could not be graded; attempt {chosen.number} counts" for number in bad]
