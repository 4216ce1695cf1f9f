"""The definition of an exercise: cases, a reference, and wrong answers that students often give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segedu.teaching.checks.outcomes import same_outcome
from segedu.teaching.checks.probes import call

Case = dict[str, Any]


@dataclass(frozen=True)
class Wrong:
    """One misconception as a runnable function.

    Attributes:
        name: short name in the table of wrong answers, such as "inclusive pixels".
        function: computes what a student with the misconception would compute.
        message: the first line that the student reads; it names the misconception, not the solution.
        hint: where to look next.
    """

    name: str
    function: Callable
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise, defined once for check cells, grading, the table of wrong answers and the site.

    Attributes:
        name: name of the function that the student writes.
        points: points of the exercise; the groups of `cases` add up to them.
        cases: rng -> `{"core": (3, [case, ...]), "edge": (1, [case, ...])}`, the points and cases of each group.
            A group earns its points only if all its cases pass.
        reference: the correct function.
        wrong: at least four misconceptions.
        tolerance: largest difference between values, relative to 1 + |expected|.
        kind: chooses the picture of a failed case, see `segedu.teaching.checks.drawing`.
        probe: a function of `segedu.teaching.checks.probes`.
        accept: `(case, expected, got, tolerance) -> bool`, for exercises with many correct answers.
        alike: `(case, ours, theirs, tolerance) -> bool`, whether a student's outcome shows the same mistake as a wrong
            answer's outcome, for exercises with many correct answers.
        hides: modules that grading replaces by stubs.
    """

    name: str
    points: int
    cases: Callable[[Any], dict[str, tuple[int, list[Case]]]]
    reference: Callable
    wrong: Sequence[Wrong]
    tolerance: float = 1e-6
    kind: str = "numbers"
    probe: Callable = call
    accept: Callable[[Case, dict, dict, float], bool] = same_outcome
    alike: Callable[[Case, dict, dict, float], bool] = same_outcome
    hides: Sequence[str] = ()
