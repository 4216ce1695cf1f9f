"""What the grader runs for one submission: a list of steps. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

WORK = "@WORK@"  # in setup, probe and canary steps: stands for the absolute path of the folder with files_in


@dataclass(frozen=True)
class Step:
    """One cell to run. Setup, helper and solution steps are run again after a restart.

    Attributes:
        kind: "setup" prepares the kernel; "helper" and "solution" run the student's code; "probe" runs the cases of an
            exercise; "canary" must fail with a known message, which shows that cells run as they are written.
        name: unique among the steps of its kind.
        source: source of the cell.
        timeout: limit in seconds.
        only_after: "error": run only if the previous step stopped with an error; "loss": only if it lost its kernel.
            A step that does not run has no result.
    """

    kind: str
    name: str
    source: str
    timeout: float = 30.0
    only_after: str = ""
