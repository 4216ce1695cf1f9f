"""Who may use how much of a submission's time: each exercise has a separate share.

Half of the time is kept for the exercises, in equal shares. A student's own cells, and exercises that need more than
their share, use the other half; shares of exercises that are done flow back into it. When that half is used up, the
student's own cells still run, for a second each, so that what they define is there. So whatever a cell or an exercise
costs, the other exercises have their share, and the sum stays within the limit of the submission. Time in which a cell
was ready to run and other work had the processor is given back, up to half of the limit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

KEPT = 0.5  # of the total, for the exercises
GRACE = 0.1  # of the total, for own cells that are short, when the rest is used up
SHORT = 1.0  # seconds of such a cell
LOSSES = 10  # kernels that own cells may lose; beyond this they run for a second each, and beyond twice this not at all


class Budget:
    """The time of one submission, from now on.

    Args:
        steps: `(kind, name)` of each, in the order in which they will run.
        total: seconds for all of them.
        clock: tells seconds.
    """

    def __init__(
        self, steps: Sequence[tuple[str, str]], total: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock, self.until = clock, clock() + total
        self.latest = self.until + total / 2
        exercises = {name for kind, name in steps if kind == "probe"}
        self.owners = [self._owner(kind, name, exercises) for kind, name in steps]
        self.last = {owner: number for number, owner in enumerate(self.owners) if owner}
        self.share = KEPT * total / max(1, len(self.last))
        self.grace = GRACE * total if self.last else 0.0
        self.used: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()

    @staticmethod
    def _owner(kind: str, name: str, exercises: set[str]) -> str:
        """The exercise that a step belongs to, or "" for the student's own cells."""
        exercise = name.split(" ")[0]
        return exercise if kind in ("solution", "canary", "probe") and exercise in exercises else ""

    def seconds(self, number: int) -> tuple[float, float]:
        """What a step may use now.

        Args:
            number: of the step.

        Returns:
            Seconds for the step together with a new kernel and the cells that run again in it, and the part of them
            that the step's own cell may use; zeros where the step must not run.
        """
        owner = self.owners[number]
        waiting = [name for name, last in self.last.items() if last >= number and name != owner]
        free = max(0.0, self.until - self.clock() - self.share * len(waiting))
        if owner:
            free = max(free, self.share - self.used[owner])
            return free, free
        if self.losses[""] >= 2 * LOSSES:
            return 0.0, 0.0
        hurry = free <= self.grace or self.losses[""] >= LOSSES
        return free, min(SHORT, free) if hurry else free - self.grace

    def spend(self, number: int, seconds: float, waited: float, lost: bool) -> None:
        """Note what a step has used. Time in which it waited for a processor is given back, up to half of the total.

        Args:
            number: of the step.
            seconds: by the clock.
            waited: the part of them in which other work on the machine had the processor.
            lost: whether it lost its kernel.
        """
        given_back = min(waited, seconds, self.latest - self.until)
        self.until += given_back
        self.used[self.owners[number]] += seconds - given_back
        self.losses[self.owners[number]] += lost


def worth_repeating(seconds: Sequence[float], left: float) -> list[bool]:
    """Which of the earlier cells run again in a new kernel: all, or only the short ones where all would take too long.

    Args:
        seconds: that each took.
        left: for them and for what comes after them.

    Returns:
        One answer per cell.
    """
    fits = sum(seconds) <= left / 2
    return [fits or one <= SHORT for one in seconds]
