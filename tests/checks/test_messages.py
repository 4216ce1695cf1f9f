"""Messages about a missing `return`, an argument changed in place, a stub, and a NotImplementedError of torch."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segedu.teaching import exercises
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import draw, judge, outcomes_of
from segedu.teaching.checks.time_limit import LimitReached, time_limit


def double(values):
    return values * 2


EXERCISE = Exercise("double", 3, lambda rng: {"core": (3, [{"args": [np.ones(3)]}])}, double, [])


def verdict(function, exercise=EXERCISE):
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def test_only_the_stub_counts_as_not_written():
    def stub(values):
        raise NotImplementedError("double the values")

    def by_torch(values):
        return F.interpolate(torch.ones(1, 1, 4, 4, dtype=torch.int64), scale_factor=2, mode="nearest")

    assert verdict(stub).first_line == "double is not written yet."
    line = verdict(by_torch).first_line
    assert "not written" not in line and "NotImplementedError" in line and "not implemented for" in line


@pytest.mark.parametrize("lab", [lab for lab in exercises.names() if lab[:2] in ("05", "06")])
def test_integers_in_interpolate_show_the_message_of_torch(lab):
    for exercise in exercises.load(lab).exercises:
        if exercise.name == "joint_augment":

            def wrong(*args):
                mask = next(a for a in args if torch.is_tensor(a) and not a.is_floating_point())
                return F.interpolate(mask.long()[None, None], size=(4, 4), mode="nearest")

            assert "not implemented for" in verdict(wrong, exercise).first_line


def test_none_and_a_changed_argument_are_named():
    def no_return(values):
        values * 2

    def in_place(values):
        values *= 2
        return values

    assert "a `return` may be missing" in verdict(no_return).first_line
    assert "changed its argument `values`; copy it first" in verdict(in_place).first_line


def test_the_limit_stops_a_loop_and_is_absent_in_other_threads():
    with pytest.raises(LimitReached), time_limit(0.2):
        while True:
            pass
    ran = []

    def run():
        with time_limit(0.05):
            time.sleep(0.1)
            ran.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran == [True]
