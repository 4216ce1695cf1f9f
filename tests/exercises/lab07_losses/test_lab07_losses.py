"""What the generic tests of the exercises cannot know about lab 7."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops as oracle

from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.exercises import load

EXERCISES = {exercise.name: exercise for exercise in load("07_losses").exercises}


def verdict_of(name: str, function) -> object:
    exercise = EXERCISES[name]
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_points_add_up_to_twenty():
    assert [e.points for e in EXERCISES.values()] == [3, 3, 4, 4, 2, 4]


def test_references_agree_with_torchvision():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, dtype=torch.float64), torch.randint(2, (3, 5))
    theirs = oracle.sigmoid_focal_loss(logits, target.double(), alpha=0.3, gamma=1.5, reduction="mean")
    assert EXERCISES["focal"].reference(logits, target, 0.3, 1.5).item() == pytest.approx(theirs.item(), abs=1e-12)
    (case,) = [c for _, _, c in draw(EXERCISES["giou_loss"], 3) if c["name"] == "3 pairs"]
    theirs = oracle.generalized_box_iou_loss(*case["args"], reduction="mean", eps=1e-15)
    assert EXERCISES["giou_loss"].reference(*case["args"]).item() == pytest.approx(theirs.item(), abs=1e-12)


def test_numbers_of_the_lab():
    """Those that the notebook works out by hand."""
    one_pixel = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1)  # p = 3/4 and 1/4
    ce = EXERCISES["ce_from_logits"].reference
    assert ce(one_pixel, torch.zeros(1, 1, 1).long()).item() == pytest.approx(0.2877, abs=1e-4)
    assert ce(one_pixel, torch.ones(1, 1, 1).long()).item() == pytest.approx(1.3863, abs=1e-4)
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 4.0]])
    assert EXERCISES["giou_loss"].reference(a, b).item() == pytest.approx(1 + 5 / 36, abs=1e-6)
    grad, zero = EXERCISES["iou_grad_zero"].reference(a, b)
    assert grad[0].tolist() == pytest.approx([2 / 81, 2 / 81, 8 / 81, 8 / 81], abs=1e-6) and not zero.any()


def test_a_right_value_with_a_wrong_gradient_is_refused():
    def no_gradient(logits, target, smooth):
        return EXERCISES["soft_dice"].reference(logits.detach(), target, smooth)

    verdict = verdict_of("soft_dice", no_gradient)
    assert verdict.points == 0 and "gradient" in verdict.first_line


def test_a_half_right_answer_earns_its_groups():
    def hard_targets_only(logits, target):
        return torch.logsumexp(logits, 1).mean() - logits.gather(1, target[:, None]).mean()

    verdict = verdict_of("ce_from_logits", hard_targets_only)
    assert verdict.points == 2 and verdict.named[0].name == "soft target refused"

    def no_empty_batch(boxes, target):
        return oracle.generalized_box_iou_loss(boxes, target, eps=1e-12).sum() / len(boxes)

    assert verdict_of("giou_loss", no_empty_batch).points == 3


@pytest.mark.parametrize("name", EXERCISES)
def test_float32_alternative_is_not_punished(name):
    """A student who converts to float32 loses digits, not points."""

    def single(*args):
        value = EXERCISES[name].reference(*(a.float() if getattr(a, "dtype", 0) == torch.float64 else a for a in args))
        return value

    assert verdict_of(name, single).points == EXERCISES[name].points


def test_seeds_draw_different_cases():
    for exercise in EXERCISES.values():
        first, second = (outcomes_of(exercise, exercise.reference, draw(exercise, seed)) for seed in (1, 2))
        assert str(first) != str(second), exercise.name
