"""A probe records, and the judge's side derives what changed, what depends on what, and how many parameters there are."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from segedu.teaching.checks import codec, probes
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.fixtures import ValidFilter
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.checks.probes import copy_value
from segedu.teaching.checks.recording import BadRecording, outcome_of
from segedu.teaching.exercises import load

NONE = [Wrong("zero", lambda *_: 0, "You return 0.")]


def points(exercise: Exercise, function) -> float:
    """Points, at most 1, of recordings that are packed and unpacked as in grading."""
    drawn = draw(exercise, 3)
    recordings = [exercise.probe(function, copy_value(case)) for _, _, case in drawn]
    back = [codec.unpack(codec.pack(recording).get) for recording in recordings]
    return judge(exercise, drawn, [outcome_of(case, one) for (_, _, case), one in zip(drawn, back, strict=True)]).points


def of_one_case(reference, probe, **case) -> Exercise:
    return Exercise("one", 1, lambda rng: {"core": (1, [case])}, reference, NONE, probe=probe)


def loss(logits, target):
    return ((logits - target) ** 2).mean()


def overwrites_its_logits(logits, target):
    value = loss(logits, target)
    with torch.no_grad():
        logits.zero_()
    return value


def overwrites_its_target(logits, target):
    target -= logits.detach()
    return ((logits - (target + logits.detach())) ** 2).mean()


def test_a_probe_decides_nothing():
    assert "value_difference" not in inspect.getsource(probes) and not hasattr(probes, "_changed")
    case = {"args": [np.arange(3.0)]}
    recording = probes.call(lambda x: float(x.sum()), copy_value(case))
    assert set(recording) == {"value", "arguments"}
    assert outcome_of(case, recording) == {"value": 3.0, "mutated": []}


@pytest.mark.parametrize("wrong", [overwrites_its_logits, overwrites_its_target])
def test_a_loss_that_overwrites_an_argument_is_refused(wrong):
    rng = np.random.default_rng(0)
    args = [torch.from_numpy(rng.random(5)), torch.from_numpy(rng.random(5))]
    exercise = of_one_case(loss, probes.call_grad, args=args, grad=[0])
    assert points(exercise, loss) == 1
    drawn = draw(exercise, 0)
    verdict = judge(exercise, drawn, outcomes_of(exercise, wrong, drawn))
    assert verdict.points == 0 and "changed its argument" in verdict.first_line


@pytest.mark.parametrize("lab", ["05_fcn", "07_losses", "14_top_down", "16_promptable"])
def test_no_loss_of_a_lab_may_overwrite_its_logits(lab):
    for exercise in load(lab).exercises:
        if exercise.probe is not probes.call_grad:
            continue

        def spoils(*args, reference=exercise.reference):
            value = reference(*args)
            with torch.no_grad():
                args[0].add_(1)
            return value

        drawn = draw(exercise, 1)
        verdict = judge(exercise, drawn, outcomes_of(exercise, spoils, drawn))
        assert verdict.points == 0, exercise.name


def test_a_gradient_is_taken_with_weights_of_the_draw():
    """Softmax values sum to 1, so the gradient of their plain sum is 0, and an answer without a gradient would pass."""
    exercise = Exercise(
        "softmax", 1, lambda rng: {"core": (1, [{"args": [torch.from_numpy(rng.random(5))], "grad": [0]}])},
        lambda x: x.softmax(0), NONE, probe=probes.call_grad,
    )  # fmt: skip
    assert points(exercise, lambda x: x.exp() / x.exp().sum()) == 1
    assert points(exercise, lambda x: x.detach().softmax(0) + 0 * x) == 0
    assert draw(exercise, 1)[0][2]["cotangent"] != draw(exercise, 2)[0][2]["cotangent"]


class Extra(nn.Sequential):
    """A correct network with an unused parameter."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3), nn.Tanh())
        self.unused = nn.Parameter(torch.zeros(3))


@pytest.fixture
def block() -> Exercise:
    images = torch.rand(1, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    return of_one_case(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh()), probes.module, args=[], inputs=[images], seed=4
    )


def test_parameters_and_dependence_of_a_module_are_counted_here(block):
    drawn = draw(block, 0)
    (outcome,) = outcomes_of(block, block.reference, drawn)
    assert outcome["n_params"] == 2 * 9 + 2 and outcome["depends"] == [9] and outcome["mutated"] == []
    assert points(block, block.reference) == 1 and points(block, Extra) == 0
    recording = block.probe(block.reference, copy_value(drawn[0][2]))
    assert "n_params" not in recording and recording["parameters"] == [[2, 1, 3, 3], [2]]


def test_a_forged_dependence_needs_the_gradient(block):
    case = draw(block, 0)[0][2]
    right = block.probe(block.reference, copy_value(case))
    forged = right | {"grads": [(right["grads"][0] != 0).astype(float)], "depends": [9], "n_params": 20}
    got = outcome_of(case, forged)
    assert got["depends"] == [9] and judge(block, draw(block, 0), [got]).points == 0


def test_a_module_that_overwrites_its_input_is_refused(block):
    class Spoils(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            with torch.no_grad():
                x.zero_()
            return y

    assert points(block, lambda: Spoils(nn.Conv2d(1, 2, 3), nn.Tanh())) == 0


def test_a_fixture_counts_as_unchanged_and_a_list_that_was_filled_with_objects_as_changed():
    case = {"args": [ValidFilter(), [1, 2]]}
    recording = probes.call(lambda model, numbers: 0, copy_value(case))
    assert outcome_of(case, recording)["mutated"] == []

    def fills(model, numbers):
        numbers.append(object())
        return 0

    assert outcome_of(case, probes.call(fills, copy_value(case)))["mutated"] == [1]


@pytest.mark.parametrize(
    ("more", "recording", "message"),
    [
        ({}, {"value": 1}, "does not hold the arguments"),
        ({}, {"value": 1, "arguments": [1, 2]}, "does not hold the arguments"),
        ({"grad": [0]}, {"value": 1, "arguments": [1]}, "grads is not a list"),
        ({"inputs": [1]}, {"value": 1, "arguments": [1]}, "parameters is not a list"),
        ({"inputs": [1]}, {"value": 1, "arguments": [1], "parameters": [[-3]], "grads": []}, "not shapes"),
        ({"inputs": [1]}, {"value": 1, "arguments": [1], "parameters": [[2.0]], "grads": []}, "not shapes"),
        ({"inputs": [1]}, {"value": 1, "arguments": [1], "parameters": [[2] * 9], "grads": []}, "not shapes"),
        ({"inputs": [1]}, {"value": 1, "arguments": [1], "parameters": [], "grads": ["x"]}, "not arrays"),
    ],
)
def test_a_recording_that_no_probe_makes_is_refused(more, recording, message):
    with pytest.raises(BadRecording, match=message):
        outcome_of({"args": [1], **more}, recording)
