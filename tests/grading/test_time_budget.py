"""The time of a submission: each exercise has its share, whatever the cells around it cost."""

from __future__ import annotations

import pytest

from segedu.grading.sandbox.time_budget import LOSSES, SHORT, Budget, worth_repeating


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


EXERCISES = [step for name in "abcdef" for step in (("solution", name), ("canary", f"{name} before"), ("probe", name))]


def spend(budget: Budget, clock: Clock, number: int, cost: float, lost: bool = True) -> float:
    """Run a step that would take `cost` seconds; what it took."""
    used = min(cost, budget.seconds(number)[1])
    clock.now += used
    budget.spend(number, used, 0.0, lost)
    return used


@pytest.mark.parametrize("slow", [11, 40])
def test_slow_cells_leave_each_exercise_its_share(slow):
    clock = Clock()
    steps = [("helper", f"cell {i}") for i in range(slow)] + EXERCISES
    budget = Budget(steps, 300.0, clock)
    used = [spend(budget, clock, number, 30.0) for number in range(slow)]
    assert used[:4] == [30.0] * 4 and used[4] == pytest.approx(30.0, abs=30) and used[5:11] == [SHORT] * 6
    assert sum(used) <= 150 and used[2 * LOSSES :] == [0.0] * len(used[2 * LOSSES :])
    for number in range(slow, len(steps)):
        assert budget.seconds(number)[1] >= 25.0 or steps[number][0] != "solution"


def test_slow_exercises_leave_the_others_their_share_and_the_sum_is_bounded():
    clock = Clock()
    budget = Budget([("helper", "cell 1"), *EXERCISES], 300.0, clock)
    spend(budget, clock, 0, 30.0)
    for number in range(1, len(EXERCISES) + 1):
        whole, own = budget.seconds(number)
        assert own == whole
        if EXERCISES[number - 1][0] == "solution":
            assert own >= 25.0
        spend(budget, clock, number, 1000.0)
    assert clock.now <= 400.0


def test_what_an_exercise_does_not_need_is_free_for_the_cells_behind_it():
    clock = Clock()
    steps = [*EXERCISES, ("helper", "cell 40")]
    budget = Budget(steps, 300.0, clock)
    for number in range(len(EXERCISES)):
        spend(budget, clock, number, 0.1, lost=False)
    assert budget.seconds(len(EXERCISES))[1] > 260


def test_a_step_of_an_exercise_that_is_not_graded_is_an_own_cell():
    budget = Budget([("solution", "a"), ("solution", "b"), ("probe", "b")], 100.0, Clock())
    assert budget.owners == ["", "b", "b"] and budget.share == 50.0


def test_without_exercises_all_time_is_for_the_cells():
    clock = Clock()
    budget = Budget([("helper", "cell 1"), ("helper", "cell 2")], 3.0, clock)
    assert budget.seconds(0) == (3.0, 3.0)
    spend(budget, clock, 0, 60.0)
    assert budget.seconds(1) == (0.0, 0.0)


def test_long_cells_run_again_only_where_there_is_time():
    assert worth_repeating([5.0, 0.1, 20.0], 60.0) == [True, True, True]
    assert worth_repeating([5.0, 0.1, 20.0], 25.0) == [False, True, False]
    assert worth_repeating([], 0.0) == []


def test_time_that_other_work_took_is_given_back_up_to_half_of_the_total():
    clock = Clock()
    budget = Budget([("helper", "cell 1"), ("helper", "cell 2"), ("helper", "cell 3"), *EXERCISES], 300.0, clock)
    before = budget.seconds(1)[1]
    clock.now += 100.0
    budget.spend(0, 100.0, 90.0, False)  # it computed for 10 s
    assert budget.seconds(1)[1] == pytest.approx(before - 10)
    clock.now += 500.0
    budget.spend(1, 500.0, 500.0, False)
    assert budget.deadline == 100.0 + 300.0 + 150.0
