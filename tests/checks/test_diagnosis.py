"""Which mistakes a wrong answer is said to have: one stage of the diagnosis after the other, on tiny exercises."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from segedu.teaching.checks import diagnosis
from segedu.teaching.checks.diagnosis import PARTLY, POSSIBLY, TOGETHER, TimeIsUp, time_limit
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of
from segedu.teaching.checks.outcomes import same_outcome
from segedu.teaching.checks.variants import Variants, both, case


def scale(values, factor, shift):
    """The right answer of these tests, for a list of numbers."""
    return (np.asarray(values) * factor + shift).tolist()


right = Variants(scale)
DOUBLED = Wrong("doubled", right.given(factor=lambda a: 2 * a.factor), "You double the factor.", "See factor.")
BACKWARDS = Wrong("backwards", right.then(lambda out, a: out[::-1]), "You reverse the list.", "See the order.")
NO_SHIFT = Wrong("no shift", right.given(shift=lambda a: 0), "You do not add the shift.")
ONLY_SUM = Wrong("sum", right.then(lambda out, a: sum(out)), "You return the sum.")
FAILS_EMPTY = Wrong(
    "empty fails", right.then(lambda out, a: out if out[0] else out), "Your function fails without values."
)
THREE = [
    ("three values", [1.5, 2.5, 4.0], 3, 0.25),
    ("two values", [0.125, 7.0], 5, 0.75),
    ("no shift", [2.0, 3.5], 3, 0),
]
KNOWN = [DOUBLED, BACKWARDS, NO_SHIFT, ONLY_SUM, FAILS_EMPTY]


def make(wrong=KNOWN, cases=THREE, reference=scale, **more):
    drawn = [case(*each) for each in cases]
    return Exercise("scale", 1, lambda rng: {"core": (1, drawn)}, reference, wrong, **more)


def verdict(function, exercise=None):
    exercise = exercise or make()
    drawn = draw(exercise, 0)
    return judge(exercise, drawn, outcomes_of(exercise, function, drawn))


def names(found):
    return [wrong.name for wrong in found.named]


def test_equal_on_all_cases_is_a_fact():
    found = verdict(lambda values, factor, shift: [2 * factor * v + shift for v in values])
    assert names(found) == ["doubled"] and not found.hedged
    assert found.first_line == DOUBLED.message and found.hint == DOUBLED.hint
    assert found.detail.startswith("On three values: the result") and "expected" in found.detail


def test_at_most_two_that_are_equal_on_all_cases():
    twins = [Wrong(f"twin {i}", DOUBLED.function, f"You {i}.") for i in range(3)]
    found = verdict(DOUBLED.function, make([*twins]))
    assert names(found) == ["twin 0", "twin 1"] and found.first_line == "You 0. Or: You 1."


def test_equal_where_it_fails_is_a_fact_only_with_two_distinctive_cases():
    def unless(number):  # right on the last `number` cases
        def answer(values, factor, shift):
            special = [each[1] for each in THREE[len(THREE) - number :]]
            return (scale if values in special else DOUBLED.function)(values, factor, shift)

        return answer

    found = verdict(unless(1))
    assert names(found) == ["doubled"] and not found.hedged and found.first_line == DOUBLED.message
    found = verdict(unless(2))
    assert names(found) == ["doubled"] and found.hedged
    assert found.first_line == POSSIBLY + DOUBLED.message and found.hint == DOUBLED.hint


def test_a_mistake_that_would_fail_many_more_cases_is_not_named():
    cases = [(f"case {i}", [1.5 + i, 2.5], 3, 0.25) for i in range(5)]

    def unless(number):  # right on the last `number` cases
        def answer(values, factor, shift):
            return (scale if values[0] > 5.5 - number else DOUBLED.function)(values, factor, shift)

        return answer

    assert names(verdict(unless(3), make([DOUBLED], cases))) == ["doubled"]
    assert not verdict(unless(4), make([DOUBLED], cases)).named


def test_of_a_list_of_indices_only_the_differing_ones_are_evidence():
    expected = np.array([5, 2, 7, 1])
    assert diagnosis._information(expected, np.array([5, 2, 7, 1, 4])) == 1 / diagnosis.MANY
    assert diagnosis._information(expected, np.array([2, 7])) == 2 / diagnosis.MANY
    assert diagnosis._information(expected, np.array([5, 7, 2, 1])) == 2 / diagnosis.MANY


@pytest.mark.parametrize("value", [True, None, 1, 0.0, float("nan"), float("inf")])
def test_one_case_with_a_common_value_proves_nothing(value):
    always = Wrong("always", lambda n: value, "You always return this.")
    exercise = make([always], [("one", 1), ("two", 2), ("three", 3)], reference=lambda n: 0.375 * n)
    assert names(verdict(lambda n: value, exercise)) == ["always"]  # on every case
    assert not verdict(lambda n: value if n == 2 else 0.375 * n, exercise).named


def test_the_same_class_of_exception_proves_nothing():
    def fails(n):
        raise ValueError

    exercise = make([Wrong("fails", fails, "Your function fails.")], [("one", 1), ("two", 2)], reference=lambda n: n)
    found = verdict(lambda n: fails(n) if n == 1 else n, exercise)
    assert not found.named and found.first_line.startswith("On one: your function raises ValueError")


def test_two_candidates_are_both_possible_and_three_are_not_named():
    twins = [Wrong(f"twin {i}", DOUBLED.function, f"You {i}.") for i in range(3)]

    def sometimes(values, factor, shift):
        return (scale if shift == 0 else DOUBLED.function)(values, factor, shift)

    found = verdict(sometimes, make(twins[:2]))
    assert names(found) == ["twin 0", "twin 1"] and found.hedged and found.first_line == f"{POSSIBLY}You 0. Or: You 1."
    assert not verdict(sometimes, make(twins)).named


def test_two_mistakes_at_once():
    def answer(values, factor, shift):
        return [2 * factor * v + shift for v in values][::-1]

    found = verdict(answer)
    assert names(found) == ["doubled", "backwards"] and found.hedged
    assert found.first_line == f"{TOGETHER}{DOUBLED.message} And: {BACKWARDS.message}"
    assert found.hint == "See factor. See the order."


def test_pairs_that_fit_equally_well_are_not_named():
    twin = Wrong("twin", DOUBLED.function, "You also double the factor.")
    found = verdict(both(DOUBLED.function, BACKWARDS.function, scale), make([DOUBLED, BACKWARDS, twin]))
    assert not found.named


def test_a_single_mistake_goes_before_a_pair():
    pair = Wrong("pair", both(DOUBLED.function, BACKWARDS.function, scale), "You double and reverse.")
    found = verdict(pair.function, make([DOUBLED, BACKWARDS, pair]))
    assert names(found) == ["pair"] and not found.hedged


def test_exceptions_of_pairs_are_outcomes():
    def as_text(out, a):
        return {"text": out}

    text = Wrong("text", right.then(as_text), "You return a dict.")
    exercise = make([text, ONLY_SUM, BACKWARDS, DOUBLED, NO_SHIFT])  # the sum of a dict of lists is a TypeError
    found = verdict(lambda values, factor, shift: ["x", *values], exercise)
    assert not found.named and found.first_line.startswith("On three values")

    def summed_dict(values, factor, shift):
        raise TypeError

    assert names(verdict(summed_dict, exercise)) == []


def test_a_comparison_that_raises_is_no_agreement():
    def alike(case, ours, theirs, tolerance):
        return same_outcome(case, ours, theirs, tolerance) or bool(np.array(theirs["value"]) > 0)  # ambiguous

    found = verdict(lambda values, factor, shift: [1, 2, 3, 4], make(alike=alike))
    assert not found.named


def test_equal_on_half_of_the_failed_cases():
    def answer(values, factor, shift):
        return [0.1] if shift == 0.25 else DOUBLED.function(values, factor, shift)

    found = verdict(answer)
    assert names(found) == ["doubled"] and found.hedged and found.first_line == PARTLY + DOUBLED.message


def test_equal_on_one_of_several_failed_cases_is_not_named():
    def answer(values, factor, shift):
        return DOUBLED.function(values, factor, shift) if shift == 0.25 else [0.1]

    assert not verdict(answer).named


def test_an_endless_pair_ends():
    def wait(out, a):
        if a.factor == 6:  # only if the factor is doubled around it
            while True:
                time.monotonic()
        return out[:1]

    endless = Wrong("endless", right.then(wait), "You wait.")
    began = time.monotonic()
    found = verdict(lambda values, factor, shift: [v / 3 for v in values], make([DOUBLED, endless, BACKWARDS]))
    assert not found.named and time.monotonic() - began < 2


def test_slow_pairs_end_and_are_not_named(monkeypatch):
    monkeypatch.setattr(diagnosis, "SEARCH_SECONDS", 0.2)
    calls = []

    def slow(out, a):
        calls.append(1)
        time.sleep(0.05)
        return [*out, len(out)]

    known = [Wrong(f"slow {i}", right.then(slow), "You are slow.") for i in range(9)]
    answers = Answers(make(known), draw(make(known), 0))
    got = outcomes_of(answers.exercise, lambda values, factor, shift: [v / 3 for v in values], answers.drawn)
    [answers.wrong(wrong) for wrong in known]
    calls.clear()
    began = time.monotonic()
    assert not judge(answers.exercise, answers.drawn, got, answers).named
    assert time.monotonic() - began < 1 and len(calls) < 20


def test_outcomes_of_pairs_are_computed_once():
    calls = []

    def count(out, a):
        calls.append(1)
        return [*out, 0.3]

    known = [DOUBLED, Wrong("longer", right.then(count), "You append a value.")]
    answers = Answers(make(known), draw(make(known), 0))
    got = outcomes_of(answers.exercise, lambda values, factor, shift: [v / 3 for v in values], answers.drawn)
    judge(answers.exercise, answers.drawn, got, answers)
    before = len(calls)
    judge(answers.exercise, answers.drawn, got, answers)
    assert len(calls) == before > 0


def test_the_time_limit_stops_a_thread_and_restores_the_profile():
    stopped = []

    def run():
        try:
            with time_limit(0.1):
                while True:
                    time.monotonic()
        except TimeIsUp:
            stopped.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert stopped == [True]


def test_no_outcome_is_no_diagnosis():
    exercise = make()
    drawn = draw(exercise, 0)
    assert not judge(exercise, drawn, [None] * len(drawn)).named
    got = [*outcomes_of(exercise, DOUBLED.function, drawn)[:2], None]  # stopped before the last case
    found = judge(exercise, drawn, got)
    assert names(found) == ["doubled"] and found.hedged


def combined(first, second):
    function = both(first, second, scale)
    return function and function([1.0, 2.0], 3, shift=0.5)


@pytest.mark.parametrize("first, second, expected", [
    (DOUBLED, NO_SHIFT, [6.0, 12.0]),
    (NO_SHIFT, DOUBLED, [6.0, 12.0]),
    (DOUBLED, DOUBLED, [12.5, 24.5]),
    (DOUBLED, BACKWARDS, [12.5, 6.5]),
    (BACKWARDS, DOUBLED, [12.5, 6.5]),
    (BACKWARDS, ONLY_SUM, 10.0),
    (Wrong("any function", lambda values, factor, shift: [factor, shift], ""), DOUBLED, [6, 0.5]),
    (DOUBLED, Wrong("any function", lambda values, factor, shift: [factor, shift], ""), None),
    (DOUBLED, Wrong("of another", Variants(sorted).then(lambda out, a: out), ""), None),
    (DOUBLED, Wrong("instead", right.instead(lambda a: a.factor), ""), None),
    (Wrong("instead", right.instead(lambda a: [a.factor]), ""), DOUBLED, [6]),
])  # fmt: skip
def test_which_changes_can_be_combined(first, second, expected):
    assert combined(first.function, second.function) == expected


def test_parts_of_one_computation_can_be_combined():
    def compute(a, times=2, plus=1):
        return [v * times + plus for v in a.values]

    def other(a, plus=1):
        return plus

    times, plus = right.instead(compute, times=5), right.instead(compute, plus=7)
    assert times([1.0], 0, 0) == [6.0] and plus([1.0], 0, 0) == [9.0]
    assert combined(times, plus) == combined(plus, times) == [12.0, 17.0]
    assert combined(times, right.instead(compute, times=3)) is None  # the same part
    assert combined(times, right.instead(compute)) is None
    assert combined(times, right.instead(other, plus=7)) is None
