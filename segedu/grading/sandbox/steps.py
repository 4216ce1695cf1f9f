"""What the grader runs for one submission: a list of steps. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

WORK = "@WORK@"  # in setup, probe and canary steps: the absolute path of the folder that files_in land in


@dataclass(frozen=True)
class Step:
    """One cell to run. Setup, helper and solution steps are run again after a restart.

    Attributes:
        kind: of the step: setup, helper, solution, canary or probe.
        name: tells it from others of its kind.
        source: of the cell.
        timeout: in seconds.
        only_after: "error" if it runs only where the step that ran before it stopped with an error, "loss" if only
            where that step lost its kernel. Such a step has no result where it does not run.
    """

    kind: str
    name: str
    source: str
    timeout: float = 30.0
    only_after: str = ""
