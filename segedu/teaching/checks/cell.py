"""The functions that a lab's cells call: `setup()` first, `check(f)` after each exercise, `use(f)` in later cells."""

from __future__ import annotations

import builtins
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.hidden import without
from segedu.teaching.checks.judge import Verdict, draw
from segedu.teaching.checks.run_cases import run_cases
from segedu.teaching.checks.show_failure import (
    FailedCase,
    failed_case,
    fold,
    raises_on_failure,
    show_failure,
    show_points,
)

VISIBLE_SEED = 0


class CheckFailed(AssertionError):
    """A check failed. Raised under nbval and nbgrader only; the text is the first line that the student sees."""


class CheckResult:
    """What `check` returns: `inputs`, `expected` and `yours` of the first failed case, or None if the check passed."""

    def __init__(self, verdict: Verdict, failed: FailedCase | None) -> None:
        self.passed = verdict.passed
        self.inputs = failed and failed.inputs
        self.expected = failed and failed.expected
        self.yours = failed and failed.yours

    def _ipython_display_(self) -> None:
        """Display nothing: the check has already printed its verdict."""


def setup() -> None:
    """Print one line with versions and the device. It does not set seeds: each cell sets its own."""
    import torch

    import segedu

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    versions = f"segedu {segedu.__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    print(f"\x1b[32mReady: {versions}, on {device}\x1b[0m")


def lab_tools(lab: str, exercises: Sequence[Exercise], forbidden: Sequence[str] = ()) -> tuple[Callable, Callable]:
    """Make the two functions that a lab's notebook imports.

    Args:
        lab: such as `04_metrics`.
        exercises: the exercises of the lab.
        forbidden: functions of other libraries that answers may not call, such as `torchvision.ops.box_iou`.

    Returns:
        `check` and `use`.
    """
    by_name = {exercise.name: exercise for exercise in exercises}
    hidden = hidden_names(exercises, forbidden)
    passed: dict[str, Callable] = {}
    noted: dict[str, object] = {}  # exercise -> the cell that has printed that it uses the library's version

    def check(function: Callable) -> CheckResult:
        """Check your function on a few inputs; grading draws new ones.

        Args:
            function: one of this lab's exercises.

        Raises:
            CheckFailed: under nbval and nbgrader only.
            ValueError: if the function is not one of this lab's exercises.
        """
        exercise = _find(by_name, function, lab, sys._getframe(1).f_globals)
        passed.pop(exercise.name, None)
        verdict, failed = _judge_visibly(exercise, function, hidden)
        if verdict.passed:
            passed[exercise.name] = function
        elif raises_on_failure():
            raise CheckFailed(verdict.first_line)
        return CheckResult(verdict, failed)

    def use(function: Callable) -> Callable:
        """Return your function if its check has passed, otherwise the library's, so that the lab continues either way.

        Args:
            function: one of this lab's exercises.
        """
        exercise = _find(by_name, function, lab, sys._getframe(1).f_globals)
        checked = passed.get(exercise.name)
        if checked is not None and _same_code(checked, function):
            return function
        if noted.get(exercise.name) != (cell := _running_cell()):
            noted[exercise.name] = cell
            print(_library_note(exercise.name, changed=checked is not None))
        return exercise.reference

    return check, use


def _library_note(name: str, changed: bool) -> str:
    if changed:
        return f"(You changed {name} after its check, so this cell uses the library's version. Run the check again.)"
    return f"({name} has not passed its check yet, so this cell uses the library's version.)"


def _same_code(checked: Callable, function: Callable) -> bool:
    """Whether a function is the checked one, or the same source defined again, as by running its cell twice."""
    if checked is function:
        return True
    parts = ("__code__", "__defaults__", "__kwdefaults__")
    is_plain = hasattr(checked, "__code__") and not checked.__closure__ and not getattr(function, "__closure__", True)
    return is_plain and all(getattr(checked, part) == getattr(function, part) for part in parts)


def _running_cell() -> object:
    """Identify the cell that runs; outside a notebook, every call counts as a new cell."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    return object() if shell is None else shell.execution_count


def hidden_names(exercises: Sequence[Exercise], forbidden: Sequence[str]) -> list[str]:
    """List what a lab hides from its answers: modules of segedu and functions of other libraries, dotted names."""
    return list(dict.fromkeys([name for exercise in exercises for name in exercise.hides] + list(forbidden)))


def _find(by_name: dict[str, Exercise], function: Callable, lab: str, notebook: dict[str, Any]) -> Exercise:
    """Find the exercise of a function by its own name, or by the name that the notebook gives it, as grading does.

    A lambda, a partial, an object with `__call__` and a decorated function may have a different name or none.
    """
    own_name = getattr(function, "__name__", None)
    name = own_name if own_name in by_name else next((name for name in by_name if notebook.get(name) is function), None)
    if name is None:
        shown = own_name or type(function).__name__
        raise ValueError(f"function is {shown}, expected one of the functions of lab {lab}: {', '.join(by_name)}")
    return by_name[name]


def _judge_visibly(exercise: Exercise, function: Callable, hidden: Sequence[str]) -> tuple[Verdict, FailedCase | None]:
    drawn = draw(exercise, VISIBLE_SEED)
    with without(hidden, function) as called:  # an answer that passes here must not fail in grading
        run = run_cases(exercise, called, drawn)
    origin = getattr(function, "__module__", None) or ""
    verdict = run.verdict()
    if origin.partition(".")[0] == "segedu":
        line = f"Your {exercise.name} is the library's own function, of {origin}. Grading hides it: write it yourself."
        verdict = Verdict(exercise.name, 0.0, exercise.points, _without_points(verdict.groups), first_line=line)
        print(line)
        return verdict, None
    failed = None
    if verdict.passed:
        points = f"{verdict.points:g} of {verdict.max_points} points."
        show_points(verdict, f"\x1b[32m{exercise.name}: {verdict.tally}.\x1b[0m {points} Grading draws new inputs.")
    else:
        failed = failed_case(exercise, drawn, run.outcomes, verdict)
        show_failure(exercise, verdict, failed)
        if replaced := replaced_builtins(function):
            print(
                f"In this notebook {', '.join(replaced)} are not Python's own, because an `import *` replaced them. "
                "Import only the names that you need."
            )
    if run.printed:
        fold("Printed by your function", run.printed, plain_text=f"Printed by your function:\n{run.printed}")
    return verdict, failed


def replaced_builtins(function: Callable) -> list[str]:
    """List Python's built-ins that a student's function uses and that an `import *` of torch or NumPy has replaced."""
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    used = set(code.co_names) if code else set()
    library = ("torch", "numpy")
    modules = {name: type(names[name]).__module__ for name in used & set(names) & set(dir(builtins))}
    modules |= {name: getattr(names[name], "__module__", None) or modules[name] for name in modules}
    return sorted(name for name, module in modules.items() if module.partition(".")[0].lstrip("_") in library)


def _without_points(groups: dict[str, dict]) -> dict[str, dict]:
    return {name: {**group, "passed": 0, "points": 0} for name, group in groups.items()}
