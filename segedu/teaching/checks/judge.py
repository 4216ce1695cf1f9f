"""The judge: compare a student's outcomes with the reference's, group by group, and name the misconception.

It never runs a student's code: the student's outcomes come from elsewhere. It does run the reference and the wrong
answers, which are our own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from segedu.teaching.checks.diagnosis import CALL_SECONDS, Diagnosis, TimeIsUp, diagnose, time_limit
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.outcomes import Difference, first_difference, same_outcome
from segedu.teaching.checks.probes import copy_value
from segedu.teaching.checks.recording import outcome_of
from segedu.teaching.checks.variants import both

DrawnCases = list[tuple[str, int, Case]]


@dataclass(frozen=True)
class Verdict:
    """The result of judging one exercise.

    Attributes:
        name: name of the exercise.
        points: points earned.
        max_points: points of the exercise.
        groups: name -> `{"passed", "total", "points", "max"}`: cases passed, cases, points earned, points.
        named: at most two misconceptions, see `segedu.teaching.checks.diagnosis`.
        hedged: whether they are only possible, so that the first line says "perhaps".
        first_line: what a student reads first; contains no expected value.
        detail: the same message with the expected value; it is shown for visible cases only.
        hint: what the student should examine next, or "".
        difference: the first difference, or None.
        failed_case: index of the first failed case among the drawn ones, or None.
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
    hedged: bool = False

    @property
    def passed(self) -> bool:
        """True if every case of every group passed."""
        return all(group["passed"] == group["total"] for group in self.groups.values())

    @property
    def tally(self) -> str:
        """Passed cases per group as text, for example `core 3 of 3, edge 0 of 1`."""
        return ", ".join(f"{name} {g['passed']} of {g['total']}" for name, g in self.groups.items())


def draw(exercise: Exercise, seed: int) -> DrawnCases:
    """Draw the cases of an exercise, in order, with a seed: fixed for the visible check, secret in grading."""
    rng = np.random.default_rng(seed)
    groups = exercise.cases(rng)
    drawn = [(name, i, case) for name, (_, cases) in groups.items() for i, case in enumerate(cases)]
    return [(name, i, _with_cotangent(case, rng) if "grad" in case else case) for name, i, case in drawn]


def _with_cotangent(case: Case, rng: np.random.Generator) -> Case:
    """Add the seed of the weights for the weighted sum by which a result that is not a scalar is differentiated."""
    return {**case, "cotangent": int(rng.integers(2**31))}


def outcomes_of(exercise: Exercise, function: Callable, drawn: DrawnCases, threads: int = 1) -> list[dict]:
    """Probe a function on fresh copies of the drawn cases, in this process with `threads` torch threads."""
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [outcome_of(case, exercise.probe(function, copy_value(case))) for _, _, case in drawn]
    finally:
        torch.set_num_threads(threads_before)


class Answers:
    """Outcomes of the reference and of the wrong answers on drawn cases, computed on first use and then kept."""

    def __init__(self, exercise: Exercise, drawn: DrawnCases) -> None:
        self.exercise, self.drawn = exercise, drawn
        self._wrong: dict[str, list[dict]] = {}
        self._fails: dict[str, frozenset[int]] = {}
        self._pairs: dict[tuple[str, str], Callable | None] = {}
        self._pair_outcomes: dict[tuple[str, str, int], dict | None] = {}

    @cached_property
    def reference(self) -> list[dict]:
        """Outcomes of the reference, one per case."""
        return outcomes_of(self.exercise, self.exercise.reference, self.drawn)

    def wrong(self, wrong: Wrong) -> list[dict]:
        """Outcomes of a wrong answer, one per case."""
        if wrong.name not in self._wrong:
            self._wrong[wrong.name] = outcomes_of(self.exercise, wrong.function, self.drawn)
        return self._wrong[wrong.name]

    def fails(self, wrong: Wrong) -> frozenset[int]:
        """Indices of the cases on which a wrong answer is not accepted."""
        if wrong.name not in self._fails:
            tolerance = self.exercise.tolerance
            triples: Any = enumerate(zip(self.drawn, self.reference, self.wrong(wrong), strict=True))
            self._fails[wrong.name] = frozenset(
                i
                for i, ((_, _, case), expected, ours) in triples
                if not self.exercise.accept(case, expected, ours, tolerance)
            )
        return self._fails[wrong.name]

    def pair(self, first: Wrong, second: Wrong, index: int) -> dict | None:
        """Outcome of two wrong answers made together, on one case.

        Args:
            first: a wrong answer.
            second: another one, which changes the arguments or the result of the first.
            index: of the case.

        Returns:
            The outcome; None if the two cannot be combined, or if their function runs too long.
        """
        key = (first.name, second.name)
        if key not in self._pairs:
            self._pairs[key] = both(first.function, second.function, self.exercise.reference)
        function = self._pairs[key]
        if function is None:
            return None
        if (*key, index) not in self._pair_outcomes:
            self._pair_outcomes[(*key, index)] = None  # remains if the function is stopped
            try:
                with time_limit(CALL_SECONDS):
                    (outcome,) = outcomes_of(self.exercise, function, self.drawn[index : index + 1])
                self._pair_outcomes[(*key, index)] = outcome
            except (Exception, TimeIsUp):
                self._pairs[key] = None
        return self._pair_outcomes[(*key, index)]


def judge(exercise: Exercise, drawn: DrawnCases, got: Sequence[dict | None], answers: Answers | None = None) -> Verdict:
    """Compare a student's outcomes, one per drawn case or None if there is none, with the reference's.

    `answers` are our outcomes on the same cases, shared when many students are judged on them.

    Returns:
        The verdict, with points by group and the misconception by name if one matches.
    """
    if len(got) != len(drawn):
        raise ValueError(f"got has {len(got)} outcomes, expected {len(drawn)}, one for each drawn case")
    answers = answers or Answers(exercise, drawn)
    expected = answers.reference
    accepted = [
        outcome is not None and exercise.accept(case, expected_outcome, outcome, exercise.tolerance)
        for (_, _, case), expected_outcome, outcome in zip(drawn, expected, got, strict=True)
    ]
    groups = _groups(exercise, drawn, accepted)
    points = float(sum(group["points"] for group in groups.values()))
    if all(accepted):
        return Verdict(exercise.name, points, exercise.points, groups)
    return _explain(answers, got, accepted, (points, groups))


def _groups(exercise: Exercise, drawn: DrawnCases, accepted: Sequence[bool]) -> dict[str, dict]:
    # the names and points of the groups do not depend on the seed
    points = {name: max_points for name, (max_points, _) in exercise.cases(np.random.default_rng(0)).items()}
    groups = {name: {"passed": 0, "total": 0, "points": 0, "max": max_points} for name, max_points in points.items()}
    for (name, _, _), ok in zip(drawn, accepted, strict=True):
        groups[name]["total"] += 1
        groups[name]["passed"] += bool(ok)
    for group in groups.values():
        group["points"] = group["max"] if group["total"] and group["passed"] == group["total"] else 0
    return groups


def _explain(answers: Answers, got: Sequence, accepted: Sequence[bool], score: tuple) -> Verdict:
    exercise, drawn, expected = answers.exercise, answers.drawn, answers.reference
    points, groups = score
    failed_case = accepted.index(False)
    outcome = got[failed_case]
    found = Diagnosis() if outcome is None else diagnose(answers, got, accepted)
    if outcome is None:
        difference = Difference(
            "the result", *2 * ("your function returned no result, because its cell was stopped first",), np.inf
        )
    else:
        difference = first_difference(expected[failed_case], outcome, exercise.tolerance)
        # The reference's value is only one of many correct ones: do not print it as the expected value.
        by_property = exercise.accept is not same_outcome and "value" in outcome and "value" in expected[failed_case]
        if difference is None or (by_property and difference.where not in ("arguments", "return")):
            text = "the result does not have the property that the exercise requires"
            difference = Difference("the result", text, text, np.inf)
        elif difference.where == "arguments":
            difference = _name_argument(exercise, drawn[failed_case][2], outcome["mutated"][0], difference)
    line = found.line
    if not line and outcome is not None and outcome.get("_stub"):
        line = f"{exercise.name} is not written yet."
    return Verdict(
        exercise.name, points, exercise.points, groups, found.named,
        first_line=line or f"On {case_name(drawn[failed_case])}: {difference.safe}.",
        detail=f"On {case_name(drawn[failed_case])}: {difference.text}.",
        hint=" ".join(dict.fromkeys(wrong.hint for wrong in found.named if wrong.hint)),
        difference=difference, failed_case=failed_case, hedged=found.hedged,
    )  # fmt: skip


def _name_argument(exercise: Exercise, case: Case, position: int, difference: Difference) -> Difference:
    """Name the argument that the student's function changed in place, if the case holds the function's arguments."""
    names = list(inspect.signature(exercise.reference).parameters)
    if "inputs" in case or position >= len(names):
        return difference
    text = f"your function changed its argument `{names[position]}`; copy it first"
    return replace(difference, text=text, safe=text)


def case_name(drawn: tuple[str, int, Case]) -> str:
    """Name a drawn case, as messages do."""
    group, index, case = drawn
    return case.get("name") or f"case {index + 1} of {group}"
