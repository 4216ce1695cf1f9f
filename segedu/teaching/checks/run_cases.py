"""Run a student's function on the visible cases, with a time limit per case, and collect what it prints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import DrawnCases, Verdict, case_name, judge, outcomes_of
from segedu.teaching.checks.time_limit import LimitReached, time_limit

SECONDS = 20  # per case, in the main thread on Linux and macOS; other threads and Windows have no limit
MAX_PRINTED = 4000  # characters


class _Printed(io.StringIO):
    """Text up to a maximal length: an endless loop may print without end."""

    def write(self, text: str) -> int:
        room = MAX_PRINTED - self.tell()
        super().write(text[: max(0, room)])
        if room > 0 and len(text) > room:
            super().write("\n... (the rest is left out)")
        return len(text)


@dataclass
class CaseRun:
    """Outcomes of the cases that ran, what the function printed, and the case that reached the limit, if any."""

    exercise: Exercise
    drawn: DrawnCases
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    stopped: bool = False

    def verdict(self) -> Verdict:
        """The judge's verdict; if a case reached the limit, the message names this case."""
        index = len(self.outcomes)
        verdict = judge(self.exercise, self.drawn, [*self.outcomes, *[None] * (len(self.drawn) - index)])
        if not self.stopped:
            return verdict
        stop = f"your function was stopped after {SECONDS:g} seconds. Perhaps a loop never ends"
        line = f"On {case_name(self.drawn[index])}: {stop}."
        return replace(verdict, first_line=line, detail=line, hint="", named=[], failed_case=index)


def run_cases(exercise: Exercise, function: Callable, drawn: DrawnCases) -> CaseRun:
    """Run the function on each case.

    Raises:
        KeyboardInterrupt: if the student interrupts it, after one line that names the case.
    """
    import torch  # noqa: F401  # before the limit starts: an import that is stopped half-way cannot be repeated

    run, printed = CaseRun(exercise, drawn), _Printed()
    try:
        for case in drawn:
            with contextlib.redirect_stdout(printed), time_limit(SECONDS):
                run.outcomes += outcomes_of(exercise, function, [case])
    except LimitReached:
        run.stopped = True
    except KeyboardInterrupt:
        print(f"{exercise.name}: interrupted on {case_name(drawn[len(run.outcomes)])}.")
        raise
    run.printed = printed.getvalue()
    return run
