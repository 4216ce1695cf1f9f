"""What a lab's cells call: `setup()` in the first, `check(f)` after each exercise, `use(f)` in later cells."""

from __future__ import annotations

import builtins
import html
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

from segedu.teaching.checks.drawing import draw_difference
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.hidden import without
from segedu.teaching.checks.judge import Verdict, draw, judge, outcomes_of

VISIBLE_SEED = 0


class CheckFailed(AssertionError):
    """A check that failed, raised under nbval and nbgrader only; its text is the first line that the student sees."""


def setup() -> None:
    """Print one line: versions and device. Seeds are the cells' own business, so that each can be run again."""
    import torch

    import segedu

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    versions = f"segedu {segedu.__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    print(f"\x1b[32mReady: {versions}, on {device}\x1b[0m")


def raises_on_failure() -> bool:
    """Should a failed check raise? Under nbval and nbgrader, so that its cell fails; for a person Run All goes on.

    Returns:
        `SEGEDU_CHECK=raise` or `print` decides; else whether pytest's or nbgrader's variable is in the environment.
    """
    choice = os.environ.get("SEGEDU_CHECK")
    if choice in ("raise", "print"):
        return choice == "raise"
    return "PYTEST_CURRENT_TEST" in os.environ or "NBGRADER_EXECUTION" in os.environ


def lab_tools(lab: str, exercises: Sequence[Exercise], forbidden: Sequence[str] = ()) -> tuple[Callable, Callable]:
    """Make the two functions that a lab's notebook imports.

    Args:
        lab: its name, `04_metrics`.
        exercises: of the lab.
        forbidden: functions of other libraries that answers may not call, such as `torchvision.ops.box_iou`.

    Returns:
        `check` and `use`.
    """
    by_name = {exercise.name: exercise for exercise in exercises}
    hidden = hidden_names(exercises, forbidden)
    passed: dict[str, Callable] = {}

    def check(function: Callable) -> None:
        """Check your function on a few inputs; grading draws new ones.

        Args:
            function: the one that this lab asks for.

        Raises:
            CheckFailed: under nbval and nbgrader only.
            ValueError: for a function that this lab does not ask for.
        """
        exercise = _find(by_name, function, lab, sys._getframe(1).f_globals)
        passed.pop(exercise.name, None)
        verdict = _judge_visibly(exercise, function, hidden)
        if verdict.passed:
            passed[exercise.name] = function
        elif raises_on_failure():
            raise CheckFailed(verdict.first_line)

    def use(function: Callable) -> Callable:
        """Your function if its check has passed, else the library's, so that the lab goes on either way.

        Args:
            function: one that this lab asks for.

        Returns:
            A function of the same signature.
        """
        exercise = _find(by_name, function, lab, sys._getframe(1).f_globals)
        if exercise.name not in passed:
            print(f"({exercise.name} has not passed its check yet: this cell uses the library's.)")
        return passed.get(exercise.name, exercise.reference)

    return check, use


def hidden_names(exercises: Sequence[Exercise], forbidden: Sequence[str]) -> list[str]:
    """All that a lab hides from its answers: modules of the course's library, functions of other libraries.

    Args:
        exercises: of the lab.
        forbidden: the lab's `FORBIDDEN`.

    Returns:
        Dotted names, each once.
    """
    return list(dict.fromkeys([name for exercise in exercises for name in exercise.hides] + list(forbidden)))


def _find(by_name: dict[str, Exercise], function: Callable, lab: str, notebook: dict[str, Any]) -> Exercise:
    """The exercise of a function, by its own name, or by the name that the notebook gives it, as in grading.

    A lambda, a partial, an object with `__call__` and a decorated function have another name or none.
    """
    given = getattr(function, "__name__", None)
    name = given if given in by_name else next((name for name in by_name if notebook.get(name) is function), None)
    if name is None:
        given = given or type(function).__name__
        raise ValueError(f"check was given {given}, expected one of the functions of lab {lab}: {', '.join(by_name)}")
    return by_name[name]


def _judge_visibly(exercise: Exercise, function: Callable, hidden: Sequence[str]) -> Verdict:
    drawn = draw(exercise, VISIBLE_SEED)
    with without(hidden, function):  # so that an answer that passes here does not fail in grading
        got = outcomes_of(exercise, function, drawn)
    verdict = judge(exercise, drawn, got)
    origin = getattr(function, "__module__", None) or ""
    if origin.partition(".")[0] == "segedu":
        line = f"{exercise.name} is the library's own, from {origin}. Grading hides it: write it yourself."
        verdict = Verdict(exercise.name, 0.0, exercise.points, _nothing(verdict.groups), first_line=line)
        print(line)
        return verdict
    if verdict.passed:
        print(f"\x1b[32m{exercise.name}: {verdict.tally}.\x1b[0m Grading draws new inputs.")
    else:
        _show_failure(exercise, verdict, drawn, got)
        if replaced := replaced_builtins(function):
            print(
                f"In this notebook {', '.join(replaced)} are not Python's own: an `import *` has replaced them. "
                "Import the names that you need instead."
            )
    return verdict


def replaced_builtins(function: Callable) -> list[str]:
    """The names of Python's own functions that a function uses and that mean something else in its notebook.

    Args:
        function: the student's.

    Returns:
        Names such as `float`, where a library's `import *` has replaced them; sorted.
    """
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    used = set(code.co_names) if code else set()
    library = ("torch", "numpy")
    modules = {name: type(names[name]).__module__ for name in used & set(names) & set(dir(builtins))}
    modules |= {name: getattr(names[name], "__module__", None) or modules[name] for name in modules}
    return sorted(name for name, module in modules.items() if module.partition(".")[0].lstrip("_") in library)


def _nothing(groups: dict[str, dict]) -> dict[str, dict]:
    return {name: {**group, "passed": 0, "points": 0} for name, group in groups.items()}


def _show_failure(exercise: Exercise, verdict: Verdict, drawn: list, got: list) -> None:
    """First line, picture, hint, tally; the traceback last and folded."""
    case = drawn[verdict.failed_case][2]
    outcome = got[verdict.failed_case]
    if outcome.get("raises") == "NotImplementedError":
        print(verdict.first_line)
        return
    print(verdict.first_line if verdict.named else verdict.detail.replace("\n", " "))
    expected = outcomes_of(exercise, exercise.reference, [drawn[verdict.failed_case]])[0]
    _show_picture(exercise.kind, case, expected, outcome)
    if verdict.named:
        print(verdict.detail)
    if verdict.hint:
        print(f"Hint: {verdict.hint}")
    print(f"{exercise.name}: {verdict.tally}; grading draws new inputs.")
    if trace := outcome.get("_traceback"):
        _fold("Where it happened", trace)


def _show_picture(kind: str, case: dict, expected: dict, got: dict) -> None:
    """A picture helps; that one cannot be drawn must not hide the message."""
    if not _in_notebook():
        return
    try:
        picture = draw_difference(kind, case, expected, got)
    except Exception as error:
        print(f"(no picture: {type(error).__name__})")
        return
    if picture:
        from segedu.viz import show

        show(*picture)


def _in_notebook() -> bool:
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _fold(title: str, text: str) -> None:
    if not _in_notebook():
        print(text)
        return
    from IPython.display import display

    folded = f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
    display({"text/html": folded, "text/plain": text.strip().splitlines()[-1]}, raw=True)
