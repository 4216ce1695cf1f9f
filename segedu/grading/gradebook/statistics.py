"""Statistics of one lab. Only sums and counts are kept, so memory does not grow with the number of students."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from segedu.grading.gradebook import charts
from segedu.grading.gradebook.student_result import ZERO, StudentResult

NOT_TRIED = ("blank", "missing", "not graded")
EXAMPLES = 20


@dataclass
class ExerciseStatistics:
    """Statistics of one exercise over the graded submissions.

    Attributes:
        max_points: maximum points of the exercise.
        graded: number of graded answers, including blank ones.
        attempted: number of answers that are neither blank nor missing.
        solved: number of answers with the maximum points.
        points: sum of autograded points.
        bins: histogram of autograded points, see `charts.bin_index`.
        misconceptions: number of students per misconception.
    """

    max_points: Decimal
    graded: int = 0
    attempted: int = 0
    solved: int = 0
    points: Decimal = ZERO
    bins: list[int] = field(default_factory=list)
    misconceptions: Counter = field(default_factory=Counter)

    @property
    def mean_fraction(self) -> Decimal:
        """Mean fraction of the points."""
        return self.points / (self.max_points * self.graded) if self.graded and self.max_points else ZERO


class LabStatistics:
    """The statistics of one lab, whose exercises are given as pairs of name and maximum points."""

    def __init__(self, lab: str, exercises: list[tuple[str, Decimal]]) -> None:
        self.lab, self.max_points = lab, sum((worth for _, worth in exercises), ZERO)
        self.exercises = {name: ExerciseStatistics(worth) for name, worth in exercises}
        for statistics in self.exercises.values():
            statistics.bins = [0] * (charts.bins_for(statistics.max_points) + 1)
        self.bins = [0] * (charts.bins_for(self.max_points) + 1)
        self.students = self.handed = 0
        self.finals: Counter = Counter()  # final points -> number of students who handed something in
        self.messages: dict[tuple[str, str], str] = {}
        self.flags: Counter = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = {}  # flag -> (id, file) of its first students

    def add(self, student_result: StudentResult) -> None:
        """Add one student."""
        self.students += 1
        for flag in student_result.flags:
            self.flags[flag] += 1
            if self.flags[flag] <= EXAMPLES:
                self.examples.setdefault(flag, []).append((student_result.student, student_result.file))
        if student_result.chosen is None:
            return
        self.handed += 1
        self.finals[student_result.final] += 1
        self.bins[charts.bin_index(student_result.final, self.max_points, len(self.bins) - 1)] += 1
        if student_result.status == "graded":
            for exercise in student_result.exercises:
                record = exercise.record
                named = [] if record.get("hedged") else record.get("named", [])
                self._add_exercise(exercise.name, exercise.autograded_points, exercise.status, named)

    def _add_exercise(self, name: str, points: Decimal, status: str, named: list[dict]) -> None:
        statistics = self.exercises.get(name)
        if statistics is None:  # the record is of an older version of the lab
            return
        statistics.graded += 1
        statistics.attempted += status not in NOT_TRIED
        statistics.solved += points >= statistics.max_points
        statistics.points += points
        statistics.bins[charts.bin_index(points, statistics.max_points, len(statistics.bins) - 1)] += 1
        for wrong in named:
            statistics.misconceptions[wrong["name"]] += 1
            self.messages[name, wrong["name"]] = wrong["message"]

    @property
    def mean(self) -> Decimal:
        """Mean of final points over the students who handed something in."""
        total = sum((points * count for points, count in self.finals.items()), ZERO)
        return total / self.handed if self.handed else ZERO

    @property
    def median(self) -> Decimal:
        """Lower median of final points over the students who handed something in."""
        count = 0
        for points in sorted(self.finals):
            count += self.finals[points]
            if 2 * count >= self.handed:
                return points
        return ZERO

    @property
    def full(self) -> int:
        """Number of students with the maximum points or more."""
        return self.bins[-1]

    def misconceptions(self, limit: int = 20) -> list[tuple[int, str, str, str]]:
        """The most frequent misconceptions, as (students, exercise, name, message)."""
        counted = [
            (count, exercise, name, self.messages[exercise, name])
            for exercise, statistics in self.exercises.items()
            for name, count in statistics.misconceptions.items()
        ]
        return sorted(counted, key=lambda one: (-one[0], one[1], one[2]))[:limit]

    def hardest(self) -> list[tuple[str, ExerciseStatistics]]:
        """Exercises sorted by their mean fraction of points, the lowest first."""
        return sorted(self.exercises.items(), key=lambda pair: pair[1].mean_fraction)
