"""What the generic tests of the exercises cannot know about lab 13."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.metrics.average_precision import average_precision_area
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import load
from segedu.teaching.exercises.lab13_metrics.ap_interp import trapezoid
from segedu.teaching.exercises.lab13_metrics.pq import homework

EXERCISES = {exercise.name: exercise for exercise in load("13_metrics").exercises}


def verdict_of(name: str, function) -> object:
    exercise = EXERCISES[name]
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_points_add_up_to_twenty():
    assert [e.points for e in EXERCISES.values()] == [4, 3, 4, 3, 4, 2]


def test_homework_by_hand():
    """Road 16/20; one car 6/8, one missed at exactly 1/2 and one invented there."""
    pq, sq, rq = EXERCISES["pq"].reference(*homework())
    assert (pq, sq, rq) == pytest.approx(((4 / 5 + 3 / 8) / 2, (4 / 5 + 3 / 4) / 2, (1 + 1 / 2) / 2))
    assert pq != pytest.approx(sq * rq)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (lambda t: (np.ones((3, 3)) > 0, np.ones((2, 3, 3)) > 0, [4, 4, 4]), "overlap at any threshold"),
        (
            lambda t: ([[1, 1, 1, 1]], [[[1, 1, 1, 0]], [[0, 0, 0, 1]]], [1, 1, 1]) if t < 0.5 else None,
            "one too small",
        ),
        (lambda t: ([[1, 1]], [[[1, 1]], [[0, 0]]], [2, 2, 2]) if t < 0.5 else None, "an empty segment"),
        (lambda t: ([[1, 1]], [[[1, 0]], [[0, 1]]], [2, 3, 2]) if t < 0.5 else None, "another class"),
    ],
)
def test_another_example_with_the_same_fault_is_named_as_well(answer, name):
    verdict = verdict_of("pq_unique", answer)
    assert [wrong.name for wrong in verdict.named] == [name] and verdict.points < 2


@pytest.mark.parametrize(
    "answer",
    [lambda t: ([[1, 1]], [[[1, 0]], [[0, 1]]]), lambda t: 7, lambda t: ("a", "b", "c"), lambda t: [[], [], []]],
)
def test_an_example_of_another_form_is_refused_without_the_reference_as_yardstick(answer):
    verdict = verdict_of("pq_unique", answer)
    assert verdict.points == 0 and {wrong.name for wrong in verdict.named} <= {"another form"}
    assert "property" in verdict.detail and "shape" not in verdict.detail
    verdict = verdict_of("pq_unique", lambda t: answer(t) if t < 0.5 else None)
    assert verdict.points == 0 and [wrong.name for wrong in verdict.named] == ["another form"]


def test_a_right_example_at_low_thresholds_only_earns_nothing_but_is_no_crash():
    assert verdict_of("pq_unique", lambda t: ([[1] * 3], [[[1, 0, 0]], [[0, 1, 0]]], [0, 0, 0])).points == 0


def test_trapezoids_over_the_envelope_are_rectangles():
    """Recall rises at hits only, and there precision does not fall: quiz of page 13.2."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        hits = rng.random(12) < 0.5
        found = np.cumsum(hits)
        precision, recall = found / np.arange(1, 13), found / max(1, found[-1])
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        r, p = np.append(0, recall), np.append(envelope[0], envelope)
        area = np.sum(np.diff(r) * (p[1:] + p[:-1]) / 2)
        assert average_precision_area(precision, recall) == pytest.approx(area, abs=1e-12)
    hits = torch.tensor([1.0, 0, 1])
    curve = hits.cumsum(0) / torch.arange(1, 4), hits.cumsum(0) / 2
    assert trapezoid(*curve, "area") != pytest.approx(average_precision_area(*curve))


def test_seeds_draw_different_cases():
    for exercise in EXERCISES.values():
        first, second = (str(draw(exercise, seed)) for seed in (1, 2))
        assert first != second, exercise.name
