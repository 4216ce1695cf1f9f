"""One submission becomes one record: points, words, canaries, and what the instructor alone may read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segedu.grading.judging import examine as examine_module
from segedu.grading.judging.compare import make_exercise_cases
from segedu.grading.judging.examine import GradingSetup, examine
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.records import clean
from segedu.grading.sandbox.kernel_pool import Limits, StepResult
from segedu.grading.submissions.notebook import parse_notebook
from segedu.grading.submissions.submission import Submission


@pytest.fixture
def grading_setup(course, tiny, pool):
    import segedu.teaching.exercises

    cases_by_name = {
        e.name: make_exercise_cases(e, tiny.LAB, 5) for e in segedu.teaching.exercises.load(tiny.LAB).exercises
    }
    return GradingSetup(read_lab(course, tiny.LAB), cases_by_name, pool, Limits(), 2.0)


@pytest.fixture
def grade(grading_setup, tiny):
    def run(cells):
        return examine(
            Submission("anna", "anna.ipynb", "d", tuple(parse_notebook(tiny.notebook(cells).encode()))),
            grading_setup,
            "k",
        )

    return run


def by_name(record):
    return {exercise["name"]: exercise for exercise in record["exercises"]}


def test_perfect_partial_and_blank(grade, tiny, pool):
    assert grade(tiny.answered(**tiny.RIGHT))["points"] == 9
    record = grade(tiny.answered(**tiny.RIGHT | {"double": "def double(x):\n    return x + 2"}))
    double = by_name(record)["double"]
    assert record["points"] == 6 and record["max_points"] == 9
    assert double["named"] == [{"name": "adds two", "message": "You add 2 instead of doubling.", "hint": "Try x = 5."}]
    assert (double["first_line"], double["hint"]) == ("You add 2 instead of doubling.", "Try x = 5.")
    runs = pool.runs
    blank = grade(tiny.lab_cells())
    assert (blank["points"], blank["sandbox"], pool.runs) == (0, None, runs)
    assert by_name(blank)["total"]["first_line"] == "total is not written yet."


def test_a_group_that_passed_counts_though_another_failed(grade, tiny):
    code = "def total(v):\n    return float(np.sum(v)) if len(v) > 1 else -1.0"
    total = by_name(grade(tiny.answered(total=code)))["total"]
    assert (total["points"], total["status"]) == (2, "partly")
    assert total["groups"]["edge"] == {"passed": 0, "total": 1, "points": 0, "max": 1}


def test_an_error_is_named_but_its_message_stays_with_the_instructor(grade, tiny):
    record = grade(
        tiny.answered(
            total="def total(v):\n    return 1\nraise ValueError('secret input')", double=tiny.RIGHT["double"]
        )
    )
    total = by_name(record)["total"]
    assert total["notes"] == ["the cell of total stopped with ValueError"]
    assert total["error"] == "ValueError: secret input"
    told = grade(tiny.answered(double="def double(x):\n    raise ValueError(f'the input was {x}')"))
    assert "raises ValueError" in by_name(told)["double"]["first_line"] and "the input was" not in str(told)


def test_a_failing_helper_costs_nothing(grade, tiny):
    cells = tiny.answered(**tiny.RIGHT)
    cells.insert(3, tiny.cell("mine", "1 / 0"))
    record = grade(cells)
    assert record["points"] == 9 and record["notes"] == ["one cell of the notebook did not run to completion"]
    assert record["instructor_notes"] == ["the cell at position 4 stopped with ZeroDivisionError"]


def test_an_error_that_the_sandbox_causes_comes_with_a_way_out(grade, tiny):
    inside = "def double(x):\n    import boxes_of_mine\n    return 2 * x"
    shared = "def total(values):\n    raise PermissionError(13, '/dev/shm')"
    record = grade(tiny.answered(**(tiny.RIGHT | {"double": inside, "total": shared})))
    notes = {name: " ".join(one["notes"]) for name, one in by_name(record).items()}
    assert "paste the code of your own modules into a cell" in notes["double"] and not notes["box_area"]
    assert ("num_workers=0" in notes["total"]) == (record["sandbox"]["level"] == 2)
    assert all("raised" not in exercise for exercise in record["exercises"])
    helper = tiny.cell("mine", "from boxes_of_mine import *")
    record = grade([helper, *tiny.answered(**tiny.RIGHT)])
    assert record["points"] == record["max_points"] and "paste the code" in record["notes"][-1]
    assert examine_module._sandbox_advice({"PermissionError"}, {"level": 2, "reason": ""}) == [
        examine_module._SHARED_MEMORY_ADVICE
    ]
    assert examine_module._sandbox_advice({"PermissionError"}, {"level": 3, "reason": ""}) == []
    assert examine_module._sandbox_advice({"PermissionError"}, None) == []


def test_a_missing_name_earns_nothing_and_says_so(grade, tiny):
    double = by_name(grade(tiny.answered(double="x = 3")))["double"]
    assert double["points"] == 0 and "raises NameError" in double["first_line"]


@pytest.mark.parametrize(
    ("change", "tampered"),
    [
        ({"status": "ok"}, True),
        ({"evalue": "another word"}, True),
        ({"ename": "RuntimeError"}, True),
        ({"status": "died"}, False),
        ({"status": "skipped"}, False),
        ({"traceback": ""}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_canaries(grade, tiny, pool, monkeypatch, change, tampered, when):
    step = pool._step

    def bent(this, namespace, work):
        result = step(this, namespace, work)
        return StepResult(**{**vars(result), **change}) if this.name == f"double {when}" else result

    monkeypatch.setattr(pool, "_step", bent, raising=False)
    record = grade(tiny.answered(double=tiny.RIGHT["double"], total=tiny.RIGHT["total"]))
    double, total = by_name(record)["double"], by_name(record)["total"]
    assert (double["tampered"], double["points"]) == (tampered, 0 if tampered else 3)
    assert (total["tampered"], total["points"]) == (False, 3)
    assert bool(double["notes"]) == tampered
    assert ("errors are not shown" in str(record["notes"])) == (change == {"traceback": ""})


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("timeout", "the check of double was stopped at the limit of 2 s"),
        ("died", "the check of double ended the kernel"),
        ("flood", "the check of double printed too much and was stopped"),
        ("memory", "the check of double was stopped at the memory limit"),
        ("skipped", "the check of double was not run, the time for it was used up"),
    ],
)
def test_a_probe_that_was_lost(grade, tiny, pool, monkeypatch, status, words):
    step = pool._step

    def lost(this, namespace, work):
        return (
            StepResult(this.name, this.kind, status)
            if (this.kind, this.name) == ("probe", "double")
            else step(this, namespace, work)
        )

    monkeypatch.setattr(pool, "_step", lost, raising=False)
    record = grade(tiny.answered(**tiny.RIGHT))
    double = by_name(record)["double"]
    assert (double["points"], double["status"], double["notes"], record["points"]) == (0, status, [words], 6)


def test_what_breaks_the_judge_costs_that_exercise_only(grade, tiny, grading_setup, monkeypatch):
    def accept(case, expected, got, tolerance):
        raise TypeError("odd")

    exercise_cases = grading_setup.cases_by_name["double"]
    grading_setup.cases_by_name["double"] = replace(
        exercise_cases, exercise=replace(exercise_cases.exercise, accept=accept)
    )
    record = grade(tiny.answered(**tiny.RIGHT))
    assert record["points"] == 6 and record["status"] == "graded"
    assert by_name(record)["double"]["notes"] == ["what double returned could not be compared (TypeError)"]


def test_a_problem_becomes_a_record(grading_setup):
    record = examine(Submission("anna", "a.ipynb", "d", problem="it is\x1b[31m broken\n"), grading_setup, "k")
    assert (record["status"], record["problem"], record["points"], record["max_points"]) == (
        "unreadable",
        "it is broken",
        0,
        9,
    )
    assert [exercise["status"] for exercise in record["exercises"]] == ["not graded"] * 3


def test_everything_but_the_measured_is_the_same_twice(grade, tiny):
    first, second = grade(tiny.answered(**tiny.RIGHT)), grade(tiny.answered(**tiny.RIGHT))
    del first["measured"], second["measured"]
    assert first == second


def test_text_from_outside_is_one_clean_line():
    assert clean("a\x00b\n\x1b[1mc\u202e", 300) == "a b c"
    assert clean("x" * 999, 10) == "x" * 10
