"""What a student sees: the first line, the picture, the hint; and when a check raises."""

from __future__ import annotations

import functools
import types

import numpy as np
import pytest
import torch

from segedu.teaching import exercises
from segedu.teaching.checks import cell, run_cases
from segedu.teaching.checks.cell import CheckFailed, lab_tools
from segedu.teaching.checks.drawing import KINDS, draw_difference
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.judge import draw, outcomes_of
from segedu.teaching.checks.show_failure import short_call


def mean(values):
    return float(np.mean(values))


EXERCISE = Exercise(
    "mean", 20, lambda rng: {"core": (15, [{"args": [rng.random((2, 3))]}]), "edge": (5, [{"args": [np.ones((1, 2))]}])},
    mean, [Wrong("sum", lambda v: float(np.sum(v)), "You add up and never divide.", "How many values are there?")],
    kind="mask",
)  # fmt: skip


def written(body):
    """A student's function, named as the exercise and defined in a notebook."""
    function = types.FunctionType(body.__code__, body.__globals__, "mean", body.__defaults__)
    function.__module__ = "__main__"
    return function


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.setenv("SEGEDU_CHECK", "print")
    return lab_tools("00_tiny", [EXERCISE])


def test_a_misconception_is_named_first_then_the_difference_then_the_hint(tools, capsys):
    check, use = tools
    check(written(lambda values: float(np.sum(values))))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "You add up and never divide."
    assert "expected" in lines[1] and lines[2] == "Hint: How many values are there?"
    assert lines[3].startswith("mean: core 0 of 1, edge 0 of 1")


def test_an_unknown_mistake_shows_the_difference_and_a_crash_its_traceback(tools, capsys):
    check, _ = tools
    check(written(lambda values: float(np.median(values)) + 7))
    assert "expected" in capsys.readouterr().out.splitlines()[0]
    check(written(lambda values: 1 / 0))
    out = capsys.readouterr().out
    assert "ZeroDivisionError" in out.splitlines()[0] and "Traceback" in out and "probes.py" not in out


def test_use_prints_its_note_once_per_cell(tools, capsys, monkeypatch):
    (_, use), shell = tools, types.SimpleNamespace(execution_count=3)
    wrong = written(lambda values: 3.0)
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    for _ in range(3):
        use(wrong)
    assert capsys.readouterr().out.count("uses the library's version") == 1
    shell.execution_count = 4
    use(wrong)
    assert capsys.readouterr().out.count("uses the library's version") == 1, "the next cell has its own note"


def test_use_gives_the_library_until_the_check_has_passed(tools, capsys):
    check, use = tools
    wrong, right = written(lambda values: 3.0), written(lambda values: values.mean())
    assert use(wrong) is mean and "library's" in capsys.readouterr().out
    check(right)
    out = capsys.readouterr().out
    assert "core 1 of 1, edge 1 of 1" in out and "passed" not in out
    assert use(right) is right
    check(wrong)
    assert use(wrong) is mean, "a function that stopped passing is no longer used"


def test_a_library_function_is_no_answer(tools, capsys):
    check, use = tools
    copy = written(lambda values: float(np.mean(values)))
    copy.__module__ = "segedu.metrics.semantic"
    check(copy)
    assert "write it yourself" in capsys.readouterr().out and use(copy) is mean


@pytest.mark.parametrize("thing", [3, lambda: 0, print, None])
def test_anything_else_is_refused_by_name(tools, thing):
    with pytest.raises(ValueError, match="expected one of the functions of lab 00_tiny: mean"):
        tools[0](thing)


def test_an_endless_loop_is_stopped_and_named(tools, capsys, monkeypatch):
    monkeypatch.setattr(run_cases, "SECONDS", 0.3)

    def endless(values):
        while True:
            pass

    tools[0](written(endless))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("On case 1 of core: your function was stopped after 0.3 seconds")
    assert any("core 0 of 1, edge 0 of 1" in line for line in rest)


def test_an_interruption_names_the_case_and_forgets_the_pass(tools, capsys):
    def interrupted(values):
        raise KeyboardInterrupt

    check, use = tools
    right = written(lambda values: values.mean())
    check(right)
    with pytest.raises(KeyboardInterrupt):
        check(written(interrupted))
    assert "mean: interrupted on case 1 of core." in capsys.readouterr().out
    assert use(right) is mean


def test_printed_output_comes_after_the_verdict_and_is_capped(tools, capsys):
    def noisy(values):
        print("x" * 9000)
        return float(np.mean(values))

    tools[0](written(noisy))
    out = capsys.readouterr().out
    assert out.index("core 1 of 1") < out.index("Printed by your function") < out.index("xxx")
    assert len(out) < 5000 and "left out" in out


def test_an_edited_function_is_not_used_until_it_is_checked(tools, capsys):
    check, use = tools
    sources = ["def mean(values):\n    return float(values.mean())", "def mean(values):\n    return 7.0"]
    first, again, edited = {"np": np}, {"np": np}, {"np": np}
    for notebook, source in ((first, sources[0]), (again, sources[0]), (edited, sources[1])):
        exec(source, notebook)
    check(first["mean"])
    capsys.readouterr()
    assert use(again["mean"]) is again["mean"] and not capsys.readouterr().out, "the same source, run again"
    assert use(edited["mean"]) is mean
    assert "You changed mean after its check" in capsys.readouterr().out


def test_the_result_keeps_the_failing_call(tools, capsys):
    check, _ = tools
    case = check(written(lambda values: 7.0))
    assert "`case = check(mean)` keeps case.inputs, case.expected and case.yours." in capsys.readouterr().out
    assert case.yours == 7.0 and mean(*case.inputs) == case.expected and not case.passed
    assert check(written(mean)).inputs is None


def test_a_short_call_is_written_out():
    exercise = Exercise("add", 1, lambda rng: {"core": (1, [])}, lambda a, b: a + b, [])
    assert short_call(exercise, {"args": [45, (3, 1)]}) == "add(45, (3, 1))"
    assert short_call(exercise, {"args": [np.ones(2), 3]}) == ""
    assert short_call(exercise, {"args": ["x" * 200]}) == ""


def test_raises_under_nbval_and_nbgrader_only(monkeypatch):
    check, _ = lab_tools("00_tiny", [EXERCISE])
    monkeypatch.delenv("SEGEDU_CHECK", raising=False)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "lab.ipynb::Cell 3")
    with pytest.raises(CheckFailed, match="You add up"):
        check(written(lambda values: float(np.sum(values))))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    check(written(lambda values: float(np.sum(values))))
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(CheckFailed):
        check(written(lambda values: 0.0))
    monkeypatch.setenv("SEGEDU_CHECK", "print")
    check(written(lambda values: 0.0))
    monkeypatch.delenv("NBGRADER_EXECUTION")
    monkeypatch.setenv("SEGEDU_CHECK", "raise")
    with pytest.raises(CheckFailed):
        check(written(lambda values: 0.0))


def test_setup_prints_one_green_line(capsys):
    cell.setup()
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.startswith("\x1b[32m") and torch.__version__ in out


ALL = [(lab, e) for lab in exercises.names() for e in exercises.load(lab).exercises]


@pytest.mark.parametrize("lab, exercise", ALL, ids=[f"{lab}-{e.name}" for lab, e in ALL])
def test_every_kind_of_failure_can_be_drawn(lab, exercise):
    """A number, a wrong shape, None and an exception can be drawn, with alternative text."""
    (_, _, case), *_ = drawn = draw(exercise, 0)
    expected = outcomes_of(exercise, exercise.reference, drawn[:1])[0]
    for got in (
        {"value": 0.5},
        {"value": None},
        {"value": np.zeros((2, 2))},
        {"value": np.zeros(0)},
        {"raises": "ValueError"},
    ):
        picture = draw_difference(exercise.kind, case, expected, got)
        assert exercise.kind in KINDS
        if picture:
            fig, alt = picture
            fig.canvas.draw()
            assert len(alt) > 20 and fig.get_axes()


@pytest.mark.parametrize(
    ("line", "replaced"),
    [
        ("from torch import *", ["float", "max", "sum"]),
        ("from numpy import *", ["max", "sum"]),
        ("import numpy as np", []),
        ("sum = 3", []),
    ],
)
def test_a_star_import_that_replaced_what_the_function_uses_is_named(tools, capsys, line, replaced):
    check, _ = tools
    notebook = {"__name__": "__main__"}
    exec(f"{line}\ndef mean(values): return float(sum(values)) + max(1, 2) + len(values)", notebook)
    assert cell.replaced_builtins(notebook["mean"]) == replaced
    check(notebook["mean"])
    out = capsys.readouterr().out
    assert ("are not Python's own" in out) == bool(replaced) and ", ".join(replaced) in out


class Mean:
    def __call__(self, values):
        return float(np.mean(values))


def unwrapped(function):
    return lambda *values: function(*values)


@pytest.mark.parametrize(
    "function",
    [
        lambda values: float(np.mean(values)),
        functools.partial(lambda factor, values: factor * float(np.mean(values)), 1),
        Mean(),
        unwrapped(mean),
    ],
    ids=["lambda", "partial", "object", "decorated"],
)
def test_a_function_without_the_name_is_found_by_the_one_that_the_notebook_gives_it(tools, capsys, function):
    """Grading looks it up by that name too."""
    check, use = tools
    notebook = {"mean": function, "check": check, "use": use, "__name__": "__main__"}
    exec("check(mean)\nfound = use(mean)", notebook)
    assert "mean: core 1 of 1" in capsys.readouterr().out
    assert notebook["found"] is function
    with pytest.raises(ValueError, match="expected one of the functions of lab 00_tiny: mean"):
        exec("del mean\ncheck(found)", notebook)
