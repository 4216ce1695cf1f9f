"""What the grader runs for one submission: a list of steps. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

WORK = "@WORK@"  # in setup, probe and canary steps: stands for the absolute path of the folder with files_in


@dataclass(frozen=True)
class Step:
    """One cell to run. Setup, helper and solution steps are run again after a restart.

    Attributes:
        kind: setup, helper, solution, canary or probe.
        name: unique among the steps of its kind.
        source: of the cell.
        timeout: in seconds.
        only_after: "error": run only if the previous step stopped with an error; "loss": only if it lost its kernel.
            A step that does not run has no result.
    """

    kind: str
    name: str
    source: str
    timeout: float = 30.0
    only_after: str = ""
