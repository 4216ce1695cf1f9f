"""The judge: compares outcomes with the reference's, group by group, and names the misconception.

It never runs a student's code: it takes outcomes that came from elsewhere. The reference and the wrong
answers are ours and run here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import Difference, first_difference, same_outcome
from segedu.teaching.checks.probes import copy_value
from segedu.teaching.checks.recording import outcome_of

Drawn = list[tuple[str, int, Case]]


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one exercise.

    Attributes:
        name: of the exercise.
        points: earned.
        max_points: to be had.
        groups: name -> `{"passed", "total", "points", "max"}`, cases and points.
        named: the misconceptions whose outcomes equal the student's; at most two.
        first_line: what a student reads first; holds no expected value.
        detail: the same for visible cases, with the expected value.
        hint: where to look next, or "".
        difference: the first one, with its drawn case, or None.
        failed_case: index into the drawn cases of the first failure, or None.
    """

    name: str
    points: float
    max_points: int
    groups: dict[str, dict]
    named: list[Wrong] = field(default_factory=list)
    first_line: str = ""
    detail: str = ""
    hint: str = ""
    difference: Difference | None = None
    failed_case: int | None = None

    @property
    def passed(self) -> bool:
        """True where every case of every group passed."""
        return all(group["passed"] == group["total"] for group in self.groups.values())

    @property
    def tally(self) -> str:
        """For example `core 3 of 3, edge 0 of 1`."""
        return ", ".join(f"{name} {g['passed']} of {g['total']}" for name, g in self.groups.items())


def draw(exercise: Exercise, seed: int) -> Drawn:
    """Draw the cases of an exercise.

    Args:
        exercise: whose `cases` are called.
        seed: the visible check uses a fixed one, grading a secret one.

    Returns:
        `(group, index in the group, case)`, in order.
    """
    rng = np.random.default_rng(seed)
    groups = exercise.cases(rng)
    drawn = [(name, i, case) for name, (_, cases) in groups.items() for i, case in enumerate(cases)]
    return [(name, i, _with_cotangent(case, rng) if "grad" in case else case) for name, i, case in drawn]


def _with_cotangent(case: Case, rng: np.random.Generator) -> Case:
    """A result that is not a scalar is differentiated as a weighted sum, with weights of this seed."""
    return {**case, "cotangent": int(rng.integers(2**31))}


def outcomes_of(exercise: Exercise, function: Callable, drawn: Drawn, threads: int = 1) -> list[dict]:
    """Probe a function on fresh copies of the cases, in this process.

    Args:
        exercise: whose probe is used.
        function: reference, wrong answer or student.
        drawn: from `draw`.
        threads: of torch.

    Returns:
        One outcome per case.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [outcome_of(case, exercise.probe(function, copy_value(case))) for _, _, case in drawn]
    finally:
        torch.set_num_threads(before)


class Answers:
    """Our own outcomes on drawn cases, each computed when first asked for and kept for the next student.

    Args:
        exercise: whose reference and wrong answers are run.
        drawn: the cases.
    """

    def __init__(self, exercise: Exercise, drawn: Drawn) -> None:
        self.exercise, self.drawn = exercise, drawn
        self._wrong: dict[str, list[dict]] = {}

    @cached_property
    def reference(self) -> list[dict]:
        """Outcomes of the reference, one a case."""
        return outcomes_of(self.exercise, self.exercise.reference, self.drawn)

    def wrong(self, wrong: Wrong) -> list[dict]:
        """Outcomes of a wrong answer, one a case."""
        if wrong.name not in self._wrong:
            self._wrong[wrong.name] = outcomes_of(self.exercise, wrong.function, self.drawn)
        return self._wrong[wrong.name]


def judge(exercise: Exercise, drawn: Drawn, got: Sequence[dict | None], answers: Answers | None = None) -> Verdict:
    """Compare a student's outcomes with the reference's.

    Args:
        exercise: the one that was probed.
        drawn: the cases, in the order of `got`.
        got: one outcome a case; None where none came back.
        answers: ours on the same cases, to be shared where many students are judged on them.

    Returns:
        The verdict, with points by group and the misconception by name where one fits.

    Raises:
        ValueError: if `got` and `drawn` differ in length.
    """
    if len(got) != len(drawn):
        raise ValueError(f"got has {len(got)} outcomes, expected {len(drawn)}, one for each drawn case")
    answers = answers or Answers(exercise, drawn)
    expected = answers.reference
    right = [
        outcome is not None and exercise.accept(case, want, outcome, exercise.tolerance)
        for (_, _, case), want, outcome in zip(drawn, expected, got, strict=True)
    ]
    groups = _groups(exercise, drawn, right)
    points = float(sum(group["points"] for group in groups.values()))
    if all(right):
        return Verdict(exercise.name, points, exercise.points, groups)
    first = right.index(False)
    return _explain(answers, got, first, (points, groups))


def _groups(exercise: Exercise, drawn: Drawn, right: Sequence[bool]) -> dict[str, dict]:
    # a fixed seed: only names and points are read here, the cases are the drawn ones
    points = {name: worth for name, (worth, _) in exercise.cases(np.random.default_rng(0)).items()}
    groups = {name: {"passed": 0, "total": 0, "points": 0, "max": worth} for name, worth in points.items()}
    for (name, _, _), ok in zip(drawn, right, strict=True):
        groups[name]["total"] += 1
        groups[name]["passed"] += bool(ok)
    for group in groups.values():
        group["points"] = group["max"] if group["total"] and group["passed"] == group["total"] else 0
    return groups


def _explain(answers: Answers, got: Sequence, first: int, score: tuple) -> Verdict:
    exercise, drawn, expected = answers.exercise, answers.drawn, answers.reference
    points, groups = score
    outcome = got[first]
    named = [] if outcome is None else diagnose(answers, got)
    if outcome is None:
        difference = Difference(
            "the result", *2 * ("it gave no result: the cell was stopped before it returned",), np.inf
        )
    else:
        difference = first_difference(expected[first], outcome, exercise.tolerance)
        # Where right answers are many, the reference's is only one of them: it is no yardstick for a value.
        by_property = exercise.accept is not same_outcome and "value" in outcome and "value" in expected[first]
        if difference is None or (by_property and difference.where != "arguments"):
            text = "the answer does not have the property that is asked for"
            difference = Difference("the result", text, text, np.inf)
    line = " Or: ".join(wrong.message for wrong in named)
    if not line and outcome is not None and outcome.get("raises") == "NotImplementedError":
        line = f"{exercise.name} is not written yet."
    return Verdict(
        exercise.name, points, exercise.points, groups, named,
        first_line=line or f"On {_case_name(drawn[first])}: {difference.safe}.",
        detail=f"On {_case_name(drawn[first])}: {difference.text}.",
        hint=" ".join(dict.fromkeys(wrong.hint for wrong in named if wrong.hint)),
        difference=difference, failed_case=first,
    )  # fmt: skip


def _case_name(drawn: tuple[str, int, Case]) -> str:
    group, index, case = drawn
    return case.get("name") or f"case {index + 1} of {group}"


def diagnose(answers: Answers, got: Sequence[dict | None]) -> list[Wrong]:
    """Find the wrong answers whose outcomes are like the student's (equal, by default) on every case.

    Args:
        answers: ours on the same cases.
        got: outcomes of the student.

    Returns:
        At most two, each differing from the reference somewhere.
    """
    found = []
    exercise, drawn, expected = answers.exercise, answers.drawn, answers.reference
    for wrong in exercise.wrong:
        outcomes = answers.wrong(wrong)
        triples = list(zip(drawn, outcomes, got, strict=True))
        equal = all(
            theirs is not None and exercise.alike(case, ours, theirs, exercise.tolerance)
            for (_, _, case), ours, theirs in triples
        )
        if equal and _differs(exercise, drawn, expected, outcomes):
            found.append(wrong)
    return found[:2]


def _differs(exercise: Exercise, drawn: Drawn, expected: list[dict], outcomes: list[dict]) -> bool:
    pairs: Any = zip(drawn, expected, outcomes, strict=True)
    return any(not exercise.accept(case, want, outcome, exercise.tolerance) for (_, _, case), want, outcome in pairs)
