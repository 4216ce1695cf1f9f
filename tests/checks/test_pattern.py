"""The pattern of an exercise, tested on one small exercise of each kind: values, exceptions, gradients,
modules, answers that are not unique, callables as arguments.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.teaching.checks import codec
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.fixtures import ValidFilter
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.checks.outcomes import NotPlain, plain, same_outcome
from segedu.teaching.checks.probes import call_grad, module


def verdict(exercise, function, seed=0):
    drawn = draw(exercise, seed)
    got = outcomes_of(exercise, function, drawn)
    # every outcome and every case survives the way through bytes, as in grading
    got = [codec.unpack(codec.pack(outcome).get) for outcome in got]
    drawn = [(g, i, codec.unpack(codec.pack(case).get, ours=True)) for g, i, case in drawn]
    return judge(exercise, drawn, got)


def exactly(exercise, right, points=4):
    """Correct answers get all points; each wrong one is refused, and is the only one named."""
    for function in [exercise.reference, *right]:
        assert verdict(exercise, function).points == points, function
    for wrong in exercise.wrong:
        v = verdict(exercise, wrong.function)
        assert v.points < points and [w.name for w in v.named] == [wrong.name]
        assert v.first_line == wrong.message


def test_values():
    def mean(values):
        return float(np.mean(values))

    exercise = Exercise(
        "mean", 4, lambda rng: {"core": (3, [{"args": [rng.random(5)]}]), "edge": (1, [{"args": [rng.random(1)]}])},
        mean, [Wrong("sum", lambda v: float(np.sum(v)), "You sum."), Wrong("squares", lambda v: float((v**2).mean()), "Sq.")],
    )  # fmt: skip
    right = [lambda v: torch.as_tensor(v).mean(), lambda v: np.array(v.mean()), lambda v: sum(v) / len(v)]
    exactly(exercise, right)
    v = verdict(exercise, lambda values: float(np.sum(values)))
    assert v.points == 1 and v.tally == "core 0 of 1, edge 1 of 1" and v.named[0].name == "sum"
    v = verdict(exercise, lambda values: 0.25)
    assert v.points == 0 and not v.named
    assert "expected" not in v.first_line and "expected" in v.detail


def test_exceptions():
    class TooSmall(ValueError):
        pass

    def half(n):
        if n % 2:
            raise ValueError("n is odd")
        return n // 2

    def half_by_subclass(n):
        if n % 2:
            raise TooSmall("odd")
        return n // 2

    exercise = Exercise(
        "half", 4, lambda rng: {"core": (3, [{"args": [int(rng.integers(1, 9)) * 2]}]), "edge": (1, [{"args": [7]}])},
        half, [Wrong("no error", lambda n: n // 2, "You accept an odd number.")],
    )  # fmt: skip
    exactly(exercise, [half_by_subclass])
    assert verdict(exercise, lambda n: 1 / 0).points == 0
    assert "ZeroDivisionError" in verdict(exercise, lambda n: 1 / 0).first_line

    def not_yet(n):
        raise NotImplementedError("write it")

    assert verdict(exercise, not_yet).first_line == "half is not written yet."


def test_gradients():
    exercise = Exercise(
        "square", 4, lambda rng: {"core": (4, [{"args": [torch.as_tensor(rng.random(3))], "grad": [0]}])},
        lambda x: x * x, [Wrong("detached", lambda x: (x * x).detach(), "No gradient flows back.")], probe=call_grad,
    )  # fmt: skip
    exactly(exercise, [lambda x: x.pow(2), lambda x: torch.einsum("i,i->i", x, x)])
    assert verdict(exercise, lambda x: x.detach() * x).points == 0  # right value, half the gradient


def test_modules_do_not_depend_on_construction_order():
    from torch import nn

    class Block(nn.Module):
        def __init__(self, reverse):
            super().__init__()
            for name in ("second", "first") if reverse else ("first", "second"):
                setattr(self, name, nn.Conv2d(1 if name == "first" else 2, 2, 3))
            self.act = nn.ReLU()

        def forward(self, x):
            return self.second(self.act(self.first(x)))

    exercise = Exercise(
        "block", 4, lambda rng: {"core": (4, [{"args": [], "inputs": [torch.rand(1, 1, 9, 11)], "seed": 3}])},
        lambda: Block(False),
        [Wrong("no activation", lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)), "The ReLU is missing.")],
        probe=module,
    )  # fmt: skip
    exactly(exercise, [lambda: Block(True), lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))])
    assert "Module" in verdict(exercise, lambda: 3).first_line


def test_answers_that_are_not_unique():
    def root(square):
        return float(np.sqrt(square))

    def accept(case, expected, got, tolerance):
        return isinstance(got.get("value"), float) and abs(got["value"] ** 2 - case["args"][0]) < tolerance

    exercise = Exercise(
        "root", 4, lambda rng: {"core": (4, [{"args": [float(rng.integers(2, 90))]}])}, root,
        [Wrong("half", lambda s: s / 2 + 0.01, "You halve.")], accept=accept,
    )  # fmt: skip
    exactly(exercise, [lambda s: -float(np.sqrt(s))])


def test_callables_travel_by_name():
    image = torch.rand(1, 3, 9, 9)
    case = {"args": [ValidFilter(margin=1, num_classes=2, seed=5), image]}
    back = codec.unpack(codec.pack(case).get, ours=True)["args"]
    assert torch.equal(back[0](back[1]), case["args"][0](image)) and back[0](image).shape == (1, 2, 7, 7)
    with pytest.raises(ValueError, match="expected more than 2 pixels"):
        back[0](torch.rand(1, 1, 2, 2))


def test_a_changed_argument_is_seen():
    exercise = Exercise(
        "plus", 1, lambda rng: {"core": (1, [{"args": [rng.random(3)]}])}, lambda x: x + 1,
        [Wrong("minus", lambda x: x - 1, "minus")],
    )  # fmt: skip

    def in_place(x):
        x += 1
        return x

    v = verdict(exercise, in_place)
    assert v.points == 0 and "changed its argument `x`" in v.first_line


def test_nothing_that_can_lie_is_a_value():
    class Always(float):
        def __eq__(self, other):
            return True

    for value in (Always(1.0), object(), np.array([object()]), {1: 2}, lambda: 1, type("Array", (np.ndarray,), {})):
        with pytest.raises(NotPlain):
            plain(value)


@pytest.mark.parametrize(
    "expected, got, equal",
    [
        (1.0, 1, True),
        (1, 1.0, False),
        (True, 1, False),
        (float("nan"), np.float32("nan"), True),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e300, False),
        ([1.0, 2.0], np.array([1.0, 2.0]), True),
        ((1, 2), [1, 2], True),
        (np.zeros((0, 4)), torch.zeros(0, 4), True),
        (np.zeros((0, 4)), np.zeros((0,)), False),
        (np.arange(3), np.arange(3).astype(np.uint8), True),
        (np.arange(3), np.arange(3.0), False),
        ("a", "a", True),
        (None, 0, False),
        ({"a": 1}, {"b": 1}, False),
        (2**40, 2**40 + 1, False),
    ],
)
def test_equality(expected, got, equal):
    assert same_outcome({}, {"value": plain(expected)}, {"value": plain(got)}, 1e-6) is equal
