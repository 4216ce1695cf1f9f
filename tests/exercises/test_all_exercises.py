"""What every exercise of every lab must fulfil."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from segedu.teaching import exercises
from segedu.teaching.checks import codec, probes
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of
from segedu.teaching.checks.outcomes import NotPlain, first_difference, same_outcome
from segedu.teaching.checks.recording import outcome_of
from segedu.teaching.checks.remote import PROBES
from segedu.teaching.mutants.wrong_answers import load_alternatives

COURSE = Path(__file__).parents[2]
ALL = [(lab, e) for lab in exercises.names() for e in exercises.load(lab).exercises]
IDS = [f"{lab}-{e.name}" for lab, e in ALL]
each = pytest.mark.parametrize("lab, exercise", ALL, ids=IDS)


@pytest.mark.parametrize("lab", exercises.with_notebook())
def test_a_lab_has_six_exercises_and_twenty_points(lab):
    found = exercises.load(lab).exercises
    assert len(found) == 6 and sum(e.points for e in found) == 20
    assert len({e.name for e in found}) == 6


def test_only_labs_that_are_said_to_have_no_notebook_have_none():
    sources = {path.stem for path in (COURSE / "solutions").glob("[0-9]*.py")}
    assert set(exercises.with_notebook()) == sources & set(exercises.names())
    assert not sources & set(exercises.WITHOUT_NOTEBOOK)


@each
def test_definition(lab, exercise):
    groups = exercise.cases(np.random.default_rng(0))
    assert sum(points for points, _ in groups.values()) == exercise.points
    assert all(points > 0 and cases for points, cases in groups.values())
    assert len(exercise.wrong) >= 4 and len({w.name for w in exercise.wrong}) == len(exercise.wrong)
    assert len({w.message for w in exercise.wrong}) == len(exercise.wrong)
    assert exercise.probe in PROBES.values() and exercise.probe.__module__ == probes.__name__
    assert len(load_alternatives(COURSE, lab).get(exercise.name, [])) >= 2
    assert all(w.message and w.hint and "nan" not in w.message for w in exercise.wrong)


@each
def test_no_two_wrong_answers_have_equal_outcomes(lab, exercise):
    drawn = draw(exercise, 5)
    outcomes = {w.name: outcomes_of(exercise, w.function, drawn) for w in exercise.wrong}
    for (one, a), (two, b) in itertools.combinations(outcomes.items(), 2):
        equal = all(
            same_outcome(case, x, y, exercise.tolerance) for (_, _, case), x, y in zip(drawn, a, b, strict=True)
        )
        assert not equal, (one, two)


@each
def test_wrong_answers_are_far_from_right(lab, exercise):
    """Never near the tolerance: each part that a wrong answer loses has a case on which it is 100 tolerances away.

    Points are given for a whole part, so no point hangs on a case that is refused by less.
    """
    for seed in range(3):
        drawn = draw(exercise, seed)
        expected = outcomes_of(exercise, exercise.reference, drawn)
        for wrong in exercise.wrong:
            farthest: dict[str, float] = {}
            for (part, _, case), want, got in zip(
                drawn, expected, outcomes_of(exercise, wrong.function, drawn), strict=True
            ):
                if not exercise.accept(case, want, got, exercise.tolerance):
                    difference = first_difference(want, got, exercise.tolerance)
                    distance = difference.distance if difference else np.inf
                    farthest[part] = max(distance, farthest.get(part, 0.0))
            for part, distance in farthest.items():
                assert distance >= 100 * exercise.tolerance, (wrong.name, part, seed)


@each
def test_a_stub_is_not_taken_for_a_known_mistake(lab, exercise):
    """As long as the student's function is the stub, the check says that it is not written yet."""

    def stub(*args):
        raise NotImplementedError("the steps")

    drawn = draw(exercise, 0)
    verdict = judge(exercise, drawn, outcomes_of(exercise, stub, drawn))
    assert verdict.points == 0 and verdict.first_line == f"{exercise.name} is not written yet."


@each
def test_constants_and_copies_earn_nothing(lab, exercise):
    """In no group are all cases so plain that a stub which ignores its task gets the points."""
    drawn = draw(exercise, 0)
    spoofs = [lambda *a: 0, lambda *a: 1, lambda *a: 0.0, lambda *a: 1.0, lambda *a: None, lambda *a: a[0]]
    spoofs += [lambda *a: np.zeros_like(np.asarray(a[0], dtype=float)), lambda *a: 1 / 0, lambda *a: (0.0, 0.0)]
    spoofs += [lambda *a: (1.0, 1.0), lambda *a: float("nan"), _always_value_error]
    answers = Answers(exercise, drawn)
    for spoof in spoofs:
        assert judge(exercise, drawn, outcomes_of(exercise, spoof, drawn), answers).points == 0


def _always_value_error(*args):
    raise ValueError("no")


@each
def test_a_right_answer_that_overwrites_its_arguments_earns_nothing(lab, exercise):
    """Unless the arguments are numbers only, which cannot be overwritten."""

    def overwrites(*args):
        copies = probes.copy_value(list(args))
        with torch.no_grad():
            changed = any([spoil(arg) for arg in args])
        touched.append(changed)
        return exercise.reference(*copies)

    touched: list[bool] = []
    drawn = draw(exercise, 0)
    verdict = judge(exercise, drawn, outcomes_of(exercise, overwrites, drawn))
    assert verdict.points == 0 or not all(touched)


def spoil(value) -> bool:
    """Change an argument in place; whether that is possible."""
    if isinstance(value, tuple):
        return any([spoil(item) for item in value])
    if isinstance(value, np.ndarray | torch.Tensor) and len(value.shape) and value.shape[0]:
        value += 1 if value.dtype not in (bool, torch.bool) else True
        return True
    if isinstance(value, list):
        value.append(0)
    return isinstance(value, list)


@each
def test_cases_and_outcomes_survive_the_journey(lab, exercise):
    drawn = draw(exercise, 7)
    back = [codec.unpack(codec.pack(case).get, ours=True) for _, _, case in drawn]
    recordings = [codec.unpack(codec.pack(exercise.probe(exercise.reference, case)).get) for case in back]
    got = [outcome_of(case, recording) for (_, _, case), recording in zip(drawn, recordings, strict=True)]
    assert judge(exercise, drawn, got).points == exercise.points


def in_lists(value, depth: int):
    """Arrays and tensors as lists of their rows, or for a depth of 8 as nested lists of values without an axis."""
    if isinstance(value, tuple | list):
        return type(value)(in_lists(item, depth) for item in value)
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim and depth:
        return [in_lists(row, depth - 1) for row in value]
    return value


@pytest.mark.parametrize("depth", [1, 8])
@each
def test_a_result_in_lists_has_the_same_points_in_the_notebook_and_in_grading(lab, exercise, depth):
    def answer(*args):
        return in_lists(exercise.reference(*args), depth)

    def graded(case):
        try:
            return outcome_of(case, codec.unpack(codec.pack(exercise.probe(answer, case)).get))
        except NotPlain:
            return None

    drawn = draw(exercise, 3)
    answers = Answers(exercise, drawn)
    in_notebook = judge(exercise, drawn, outcomes_of(exercise, answer, drawn), answers)
    in_grading = judge(exercise, drawn, [graded(case) for _, _, case in drawn], answers)
    assert in_grading.points == in_notebook.points


@each
def test_a_missing_outcome_costs_its_group_only(lab, exercise):
    drawn = draw(exercise, 0)
    got = outcomes_of(exercise, exercise.reference, drawn)
    lost = drawn[-1][0]
    verdict = judge(exercise, drawn, [*got[:-1], None])
    assert verdict.points == exercise.points - verdict.groups[lost]["max"] and verdict.first_line


@each
def test_draws_differ_by_seed_and_repeat_by_seed(lab, exercise):
    packed = [[codec.pack(case) for _, _, case in draw(exercise, seed)] for seed in (1, 1, 2)]
    assert packed[0] == packed[1]
    assert packed[0] != packed[2]


@each
def test_the_page_of_wrong_answers_is_of_today(lab, exercise):
    """`segedu mutants --write` writes it; here only that its sentences are those of the exercises."""
    page = (COURSE / "course" / "wrong-answers.md").read_text()
    for wrong in exercise.wrong:
        message = wrong.message.replace("|", "\\|")
        assert f"| `{exercise.name}` | {wrong.name} | {message} | yes | yes |" in page
