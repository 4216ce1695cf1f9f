"""What the generic tests of the exercises cannot know about lab 4."""

from __future__ import annotations

import pytest
import torch

from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import load

EXERCISES = {exercise.name: exercise for exercise in load("04_metrics").exercises}


def verdict_of(name: str, function) -> object:
    exercise = EXERCISES[name]
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_points_add_up_to_twenty():
    assert [e.points for e in EXERCISES.values()] == [4, 3, 4, 4, 3, 2]


def test_homework_numbers():
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 4.0]])
    assert EXERCISES["box_iou"].reference(a, b).item() == pytest.approx(1 / 9, abs=1e-7)
    assert EXERCISES["giou"].reference(a, b).item() == pytest.approx(-5 / 36, abs=1e-7)
    for name in ("box_iou", "giou"):
        (case,) = [c for _, _, c in draw(EXERCISES[name], 3) if c["name"] == "the boxes of the homework"]
        assert torch.equal(case["args"][0], a) and torch.equal(case["args"][1], b)


def test_a_half_right_answer_earns_its_group():
    def no_empty_case(preds, target):
        inter, union = int((preds & target).sum()), int((preds | target).sum())
        return inter / union, 2 * inter / (inter + union)

    verdict = verdict_of("iou_dice", no_empty_case)
    assert verdict.points == 2 and verdict.named[0].name == "empty raises"


def test_changing_the_target_in_place_is_refused():
    def careless(preds, target, num_classes, ignore_index=None):
        if ignore_index is not None:
            target[target == ignore_index] = num_classes
        pairs = (num_classes * target + preds).flatten()
        return torch.bincount(pairs, minlength=num_classes**2)[: num_classes**2].reshape(num_classes, -1)

    verdict = verdict_of("confusion_matrix", careless)
    assert verdict.points == 3 and "overwrite the ignored pixels in the argument `target`" in verdict.first_line


def test_seeds_draw_different_cases():
    for exercise in EXERCISES.values():
        first, second = (outcomes_of(exercise, exercise.reference, draw(exercise, seed)) for seed in (1, 2))
        assert str(first) != str(second), exercise.name
