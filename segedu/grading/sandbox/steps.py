"""What the grader runs for one submission: a list of steps. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

WORK = "@WORK@"  # in setup, probe and canary steps: the absolute path of the folder that files_in land in


@dataclass(frozen=True)
class Step:
    """One cell to run. Setup, helper and solution steps are run again after a restart."""

    kind: str
    name: str
    source: str
    timeout: float = 30.0
