"""Divide a submission's time so that each exercise has its own share.

Half of the time is reserved for the exercises, in equal shares. A student's own cells, and exercises that need more
than their share, use the other half; unused shares of finished exercises are added to it. When that half is used up,
the student's own cells still run, for a second each, so that their definitions exist. Whatever a cell or an exercise
costs, the other exercises therefore keep their share, and the sum stays within the submission's limit. Time in which
a cell was ready to run but other work had the processor is given back, up to half of the limit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

RESERVED = 0.5  # fraction of the total time that is reserved for the exercises
GRACE = 0.1  # fraction of the total time for short cells of the student when the rest is used up
SHORT = 1.0  # seconds per such cell
LOSSES = 10  # kernels that own cells may lose; then they run for a second each, and after twice as many not at all


class Budget:
    """The time of one submission, starting now.

    Args:
        steps: `(kind, name)` of each, in the order in which they will run.
        total: seconds for all of them.
        clock: returns the current time in seconds.
    """

    def __init__(
        self, steps: Sequence[tuple[str, str]], total: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock, self.deadline = clock, clock() + total
        self.latest_deadline = self.deadline + total / 2
        exercises = {name for kind, name in steps if kind == "probe"}
        self.owners = [self._owner(kind, name, exercises) for kind, name in steps]
        self.last_step = {owner: number for number, owner in enumerate(self.owners) if owner}
        self.share = RESERVED * total / max(1, len(self.last_step))
        self.grace = GRACE * total if self.last_step else 0.0
        self.used: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()

    @staticmethod
    def _owner(kind: str, name: str, exercises: set[str]) -> str:
        """The exercise that a step belongs to, or "" for the student's own cells."""
        exercise = name.split(" ")[0]
        return exercise if kind in ("solution", "canary", "probe") and exercise in exercises else ""

    def seconds(self, number: int) -> tuple[float, float]:
        """Return the seconds for a step including a new kernel and its replay, and those for the step's own cell.

        Both are 0 if the step must not run.
        """
        owner = self.owners[number]
        unfinished = [name for name, last in self.last_step.items() if last >= number and name != owner]
        available = max(0.0, self.deadline - self.clock() - self.share * len(unfinished))
        if owner:
            available = max(available, self.share - self.used[owner])
            return available, available
        if self.losses[""] >= 2 * LOSSES:
            return 0.0, 0.0
        is_short_of_time = available <= self.grace or self.losses[""] >= LOSSES
        return available, min(SHORT, available) if is_short_of_time else available - self.grace

    def spend(self, number: int, seconds: float, waited: float, lost: bool) -> None:
        """Record what a step has used; waiting time is given back, up to half of the total.

        Args:
            number: index of the step.
            seconds: wall-clock time.
            waited: the part of it in which other work on the machine had the processor.
            lost: whether the step lost its kernel.
        """
        refund = min(waited, seconds, self.latest_deadline - self.deadline)
        self.deadline += refund
        self.used[self.owners[number]] += seconds - refund
        self.losses[self.owners[number]] += lost


def worth_repeating(seconds: Sequence[float], left: float) -> list[bool]:
    """Decide for each earlier cell whether to repeat it in a new kernel: all, or only short ones if time is scarce.

    Args:
        seconds: seconds that each cell took.
        left: seconds that are left for the repeated cells and everything after them.
    """
    fit_in_time = sum(seconds) <= left / 2
    return [fit_in_time or duration <= SHORT for duration in seconds]
