"""Diagnosis of a wrong answer: which of the known mistakes its outcomes show, and how certain that is.

The stages are tried in this order, and the first one that finds a mistake decides.

1. A known mistake has the student's outcome on every case. It is named as a fact.
2. A known mistake has the student's outcome on every case that the student fails, and fails further cases itself. It is
   named as a fact only if it is the only one and the agreement cannot be a coincidence, and as a possibility otherwise.
3. Two known mistakes, made together, have the student's outcome on every case. Both are named as a possibility.
4. A known mistake has the student's outcome on at least half of the failed cases, and on at least two. It is named as a
   possibility, because another mistake must be present as well.

Only our own code runs here: wrong answers, and pairs of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from segedu.teaching.checks.exercise import Case, Wrong

if TYPE_CHECKING:
    from segedu.teaching.checks.judge import Answers

MAX_NAMED = 2
SEARCH_SECONDS = 1.0  # for all pairs of one diagnosis; a search usually takes a tenth of this
CALL_SECONDS = 0.3  # for one pair on one case
MANY = 4  # agreeing values that are no coincidence if each can be guessed, such as those of a mask
RARELY = 0.25  # of the cases that a mistake fails: if the student fails fewer of them, the mistake is another one
COMMON_NUMBERS = (-1.0, 0.0, 0.5, 1.0, 2.0)
POSSIBLY = "Perhaps this is the mistake: "
PARTLY = "On some inputs your results show this mistake: "
TOGETHER = "It looks as if two mistakes meet: "


@dataclass(frozen=True)
class Diagnosis:
    """The mistakes that an answer shows.

    Attributes:
        named: at most two wrong answers.
        hedged: whether they are only possible, so that the line says "perhaps".
        line: what the student reads, or "" if nothing was found.
        stage: which of the four stages found them, or 0.
    """

    named: list[Wrong] = field(default_factory=list)
    hedged: bool = False
    line: str = ""
    stage: int = 0


def diagnose(answers: Answers, got: Sequence[dict | None], accepted: Sequence[bool]) -> Diagnosis:
    """Find the mistakes that a student's outcomes show.

    Args:
        answers: our outcomes on the same cases.
        got: the student's outcomes, one per case, None if there is none.
        accepted: whether each of these outcomes is accepted.
    """
    evidence = _Evidence(answers, got, accepted)
    for stage in (_same_everywhere, _same_where_it_fails, _two_together, _same_on_half):
        if found := stage(evidence):
            return found
    return Diagnosis()


class _Evidence:
    """A student's outcomes beside those of the known mistakes."""

    def __init__(self, answers: Answers, got: Sequence[dict | None], accepted: Sequence[bool]) -> None:
        self.answers, self.exercise, self.got = answers, answers.exercise, got
        self.failed = [i for i, ok in enumerate(accepted) if not ok]
        self.mistakes = [wrong for wrong in self.exercise.wrong if answers.fails(wrong)]
        self.agreed = {wrong.name: self._agreement(answers.wrong(wrong)) for wrong in self.mistakes}

    def _agreement(self, outcomes: Sequence[dict | None]) -> list[bool]:
        return [self.alike(i, outcome) for i, outcome in enumerate(outcomes)]

    def case(self, index: int) -> Case:
        return self.answers.drawn[index][2]

    def alike(self, index: int, ours: dict | None) -> bool:
        """Whether the student's outcome is like ours on a case; outcomes that cannot be compared are not."""
        theirs = self.got[index]
        if ours is None or theirs is None:
            return False
        try:
            return bool(self.exercise.alike(self.case(index), ours, theirs, self.exercise.tolerance))
        except Exception:  # a comparison of unforeseen structures must not end the check
            return False

    def agreeing(self, wrong: Wrong) -> list[int]:
        """Failed cases on which the mistake fails in the same way, and not only by the same class of exception."""
        agreed, fails = self.agreed[wrong.name], self.answers.fails(wrong)
        return [i for i in self.failed if agreed[i] and i in fails and "raises" not in (self.got[i] or {})]

    def weight(self, index: int) -> float:
        """How much an agreement on a case proves, up to 1: the outcome can hardly have come about in another way."""
        expected, got = self.answers.reference[index], self.got[index] or {}
        if "value" not in got or "value" not in expected:
            return 0.0
        return min(1.0, sum(_information(expected.get(key), got[key]) for key in ("value", "grads") if key in got))


def _information(expected: Any, got: Any) -> float:
    """How much an agreement with `got` proves where `expected` is right: 1 for a number that nobody guesses."""
    if isinstance(got, dict) and isinstance(expected, dict):
        return sum(_information(expected.get(key), value) for key, value in got.items())
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple) and len(got) == len(expected):
        return sum(_information(a, b) for a, b in zip(expected, got, strict=True))
    if got is None or isinstance(got, str):
        return 1 / MANY
    try:
        correct, values = np.asarray(expected), np.asarray(got)
    except ValueError:
        return 0.0
    if values.dtype.kind not in "biuf":
        return 0.0
    differing = values.ravel()
    if correct.shape == values.shape and correct.dtype.kind in "biuf":
        differing = values[~np.isclose(correct, values, rtol=1e-6, atol=1e-9, equal_nan=True)]
    elif values.ndim == correct.ndim == 1 and values.dtype.kind == correct.dtype.kind == "i":
        differing = values[~np.isin(values, correct)]  # of a list of indices, only those that should not be there
        differing = np.concatenate([differing, correct[~np.isin(correct, values)]])
    if values.dtype.kind != "f":
        return differing.size / MANY
    common = ~np.isfinite(differing) | np.isin(differing, COMMON_NUMBERS)
    return common.sum() / MANY + (~common).sum()


def _same_everywhere(evidence: _Evidence) -> Diagnosis | None:
    named = [wrong for wrong in evidence.mistakes if all(evidence.agreed[wrong.name])][:MAX_NAMED]
    return Diagnosis(named, False, " Or: ".join(wrong.message for wrong in named), 1) if named else None


def _same_where_it_fails(evidence: _Evidence) -> Diagnosis | None:
    if len(evidence.failed) == 1 and evidence.weight(evidence.failed[0]) < 1:
        return None
    candidates = [
        wrong
        for wrong in evidence.mistakes
        if all(evidence.agreed[wrong.name][i] for i in evidence.failed) and evidence.agreeing(wrong)
    ]
    best = _most_alike(evidence, candidates)
    if not 1 <= len(best) <= MAX_NAMED:
        return None
    if any(len(evidence.failed) < RARELY * len(evidence.answers.fails(wrong)) for wrong in best):
        return None
    if len(candidates) == 1 and _is_certain(evidence, candidates[0]):
        return Diagnosis(best, False, best[0].message, 2)
    return Diagnosis(best, True, POSSIBLY + " Or: ".join(wrong.message for wrong in best), 2)


def _most_alike(evidence: _Evidence, candidates: list[Wrong]) -> list[Wrong]:
    """The candidates that agree with the student on the largest number of all cases."""
    counts = [sum(evidence.agreed[wrong.name]) for wrong in candidates]
    return [wrong for wrong, count in zip(candidates, counts, strict=True) if count == max(counts)]


def _is_certain(evidence: _Evidence, wrong: Wrong) -> bool:
    """Whether a mistake that agrees on all failed cases is a fact, although it fails further cases."""
    agreeing = evidence.agreeing(wrong)
    return len(agreeing) >= 2 and sum(map(evidence.weight, agreeing)) >= 2


def _two_together(evidence: _Evidence) -> Diagnosis | None:
    pairs = _matching_pairs(evidence)
    if pairs is None or len(pairs) != 1:
        return None
    (pair,) = pairs
    named = [wrong for wrong in evidence.mistakes if wrong.name in pair]
    return Diagnosis(named, True, f"{TOGETHER}{named[0].message} And: {named[1].message}", 3)


def _matching_pairs(evidence: _Evidence) -> set[frozenset[str]] | None:
    """Pairs of mistakes that together have the student's outcomes; None if the time did not suffice for all pairs."""
    if sum(map(evidence.weight, evidence.failed)) < 1:
        return set()  # two mistakes out of many agree with a small value by chance
    order = sorted(range(len(evidence.got)), key=lambda i: (i not in evidence.failed, -evidence.weight(i)))
    pairs = set()
    end = time.monotonic() + SEARCH_SECONDS
    for first, second in permutations(evidence.mistakes, 2):
        if time.monotonic() > end:
            return None
        outcomes = (evidence.answers.pair(first, second, i) for i in order)
        if all(evidence.alike(i, outcome) for i, outcome in zip(order, outcomes, strict=True)):
            pairs.add(frozenset((first.name, second.name)))
    return pairs


def _same_on_half(evidence: _Evidence) -> Diagnosis | None:
    counts = {wrong.name: len(evidence.agreeing(wrong)) for wrong in evidence.mistakes}
    most = max(counts.values(), default=0)
    best = [wrong for wrong in evidence.mistakes if counts[wrong.name] == most]
    if most < 2 or 2 * most < len(evidence.failed) or len(best) > 1:
        return None
    if sum(map(evidence.weight, evidence.agreeing(best[0]))) < 2:
        return None
    return Diagnosis(best, True, PARTLY + best[0].message, 4)


class TimeIsUp(BaseException):
    """Raised in our own code that runs too long. A probe records each `Exception`, so this is none."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the code inside by `TimeIsUp`, in any thread, at the first call of a function after this time."""
    end = time.monotonic() + seconds

    def look(*_: Any) -> None:
        if time.monotonic() > end:
            raise TimeIsUp

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
