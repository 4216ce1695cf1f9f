"""Show a failed check in a notebook or a terminal: message, picture, failing call, hint, points and traceback."""

from __future__ import annotations

import html
import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any

from segedu.teaching.checks.card import card_html, points_text
from segedu.teaching.checks.drawing import draw_difference
from segedu.teaching.checks.exercise import Case, Exercise
from segedu.teaching.checks.judge import DrawnCases, Verdict, outcomes_of
from segedu.teaching.checks.outcomes import Difference
from segedu.teaching.checks.probes import copy_value

MAX_CALL = 80  # characters of a failing call that is printed


@dataclass(frozen=True)
class FailedCase:
    """The first case that failed.

    Attributes:
        case: the case as it was drawn.
        expected_outcome: the reference's outcome.
        outcome: the student's outcome, empty if the function was stopped.
    """

    case: Case
    expected_outcome: dict
    outcome: dict

    @property
    def inputs(self) -> list:
        """A fresh copy of the arguments of the call."""
        return copy_value(self.case["args"])

    @property
    def expected(self) -> Any:
        """The reference's result, or the name of the exception that it raises."""
        return self.expected_outcome.get("value", self.expected_outcome.get("raises"))

    @property
    def yours(self) -> Any:
        """The student's result, or the name of the exception that the function raised."""
        return self.outcome.get("value", self.outcome.get("raises"))


def failed_case(exercise: Exercise, drawn: DrawnCases, got: list, verdict: Verdict) -> FailedCase:
    """Collect the first failed case of a verdict."""
    index = verdict.failed_case
    expected = outcomes_of(exercise, exercise.reference, [drawn[index]])[0]
    return FailedCase(drawn[index][2], expected, got[index] if index < len(got) else {})


def show_failure(exercise: Exercise, verdict: Verdict, failed: FailedCase) -> None:
    """Show the first line, the picture, the hint and the tally; the traceback comes last and folded."""
    outcome = failed.outcome
    if outcome.get("_stub"):
        print(verdict.first_line)
        return
    print(verdict.first_line if verdict.named else verdict.detail.replace("\n", " "))
    if outcome:
        _show_picture(exercise, failed, verdict.difference)
    if verdict.named:
        print(verdict.detail)
    if verdict.hint:
        _show_hint(verdict.hint)
    show_points(verdict, f"{exercise.name}: {verdict.tally}; grading draws new inputs.\n{points_text(verdict)}")
    if call := short_call(exercise, failed.case):
        print(f"The call: {call}")
    print(f"`case = check({exercise.name})` keeps case.inputs, case.expected and case.yours.")
    if trace := outcome.get("_traceback"):
        fold("Traceback", trace)


def show_points(verdict: Verdict, text: str) -> None:
    """Show the card in a student's notebook; elsewhere, and under nbval and nbgrader, print the text."""
    if not _in_notebook() or raises_on_failure():
        print(text)
        return
    from IPython.display import display

    card = card_html(verdict, "Grading draws new inputs.")
    display({"text/html": card, "text/plain": text}, raw=True)


def raises_on_failure() -> bool:
    """Whether a failed check raises: under nbval and nbgrader, so that the cell fails, but not for a person's Run All.

    `SEGEDU_CHECK=raise` or `print` decides if it is set, otherwise the variables that pytest and nbgrader set.
    """
    choice = os.environ.get("SEGEDU_CHECK")
    if choice in ("raise", "print"):
        return choice == "raise"
    return "PYTEST_CURRENT_TEST" in os.environ or "NBGRADER_EXECUTION" in os.environ


def short_call(exercise: Exercise, case: Case) -> str:
    """Write the failing call if it is short and holds only numbers and strings, otherwise "".

    For example `conv_out(45, 3, 1, 0, 1)`.
    """
    if "inputs" in case or not all(_is_short(argument) for argument in case["args"]):
        return ""
    call = f"{exercise.name}({', '.join(map(repr, case['args']))})"
    return call if len(call) <= MAX_CALL else ""


def _is_short(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_short(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _show_picture(exercise: Exercise, failed: FailedCase, difference: Difference | None) -> None:
    """Draw the difference. A picture that cannot be drawn must not hide the message."""
    if not _in_notebook():
        return
    try:
        outcomes, names = (
            (failed.expected_outcome, failed.outcome),
            list(inspect.signature(exercise.reference).parameters),
        )
        picture = draw_difference(exercise.kind, failed.case, *outcomes, difference, exercise.tolerance, names)
    except Exception as error:
        print(f"(The picture could not be drawn: {type(error).__name__}.)")
        return
    if picture:
        from segedu.viz import show

        show(*picture)


def _in_notebook() -> bool:
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _show_hint(hint: str) -> None:
    if _in_notebook():
        fold("Hint", hint, plain_text=f"Hint: {hint}")
    else:
        print(f"Hint: {hint}")


def fold(title: str, text: str, plain_text: str = "") -> None:
    """Display text folded below its title in a notebook, and print it elsewhere.

    Args:
        title: the line that stays visible.
        text: shown when the student opens it.
        plain_text: for front ends without HTML; the last line of the text by default.
    """
    if not _in_notebook():
        print(text if title == "Traceback" else f"{title}:\n{text}")
        return
    from IPython.display import display

    block = f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'
    folded = f"<details><summary>{html.escape(title)}</summary>{block}</details>"
    display({"text/html": folded, "text/plain": plain_text or text.strip().splitlines()[-1]}, raw=True)
