"""Checks of the labs' exercises: they compare a student's function with a reference and name the misconception.

Vocabulary of this package:

- An exercise has a reference function, wrong answers that students often give, and a generator of cases.
- A case holds the arguments of one call, and further entries for the probe, such as the gradients to compute.
- A probe calls a function on a case and makes a recording: the result or the exception, the arguments after the call,
  gradients.
- An outcome is derived from a recording. It holds only plain values, which can be compared, sent and stored.
- The judge compares the student's outcomes with those of the reference and of the wrong answers, and returns a verdict.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Give `setup` without importing the rest early: the grader's kernels import parts of this package only."""
    if name in ("setup", "CheckFailed"):
        from segedu.teaching.checks import cell

        return getattr(cell, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
