"""What an exercise is: cases, a reference, and the wrong answers that people really give."""

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
        name: short, as in the table of wrong answers: "inclusive pixels".
        function: answers as somebody with the misconception would.
        message: the first line that the student reads; names the misconception, not the solution.
        hint: where to look next.
    """

    name: str
    function: Callable
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Exercise:
    """One exercise, defined once; check cells, grading, the table of wrong answers and the site read it.

    Attributes:
        name: of the function that the student writes.
        points: of the exercise; the groups of `cases` share them out.
        cases: rng -> `{"core": (3, [case, ...]), "edge": (1, [case, ...])}`, points and cases of each group.
            A group counts only if all its cases pass.
        reference: the right answer.
        wrong: at least four misconceptions.
        tolerance: of numbers, absolute plus relative.
        kind: picks the picture of expected and got, see `segedu.teaching.checks.drawing`.
        probe: a function of `segedu.teaching.checks.probes`.
        accept: `(case, expected, got, tolerance) -> bool`, where right answers are many.
        alike: `(case, ours, theirs, tolerance) -> bool`, whether a student's outcome shows the same mistake as a
            wrong answer's; where right answers are many, so are those of one misconception.
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
