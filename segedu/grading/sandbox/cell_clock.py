"""The clock of one cell: time in which its kernel was ready to run and other work had the processor does not count.

A neighbour that keeps every processor busy would otherwise use up the limits of the others. For a cell that computes,
this is processor time; a cell that sleeps, or waits for something that never comes, is still stopped at its limit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 4.0  # so many times its limit a cell may take by the clock on the wall


class Clock:
    """Counts from now on.

    Args:
        seconds: The limit.
        waited: How long the kernel has waited for a processor since it started.
    """

    def __init__(self, seconds: float, waited: Callable[[], float] = lambda: 0.0) -> None:
        began = time.monotonic()
        self.until, self.latest = began + seconds, began + PATIENCE * seconds
        self.waited, self.before = waited, waited()
        self.granted = 0.0

    def left(self) -> float:
        """Seconds until the limit; what was spent waiting is added once they are over."""
        left = self.until - time.monotonic()
        if left > 0:
            return left
        waited = self.waited()
        extra = min(waited - self.before, self.latest - self.until)
        if extra <= 0:
            return left
        self.before = waited
        self.until += extra
        self.granted += extra
        return self.until - time.monotonic()


def waited_for_processor(pid: int) -> float:
    """Seconds for which the first thread of a process was ready and did not run; 0 where that is not told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def process_of(pidfd: int) -> int:
    """The number by which this process knows another one, or 0."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        return max(0, int(next(line for line in lines if line.startswith("Pid:")).split()[1]))
    return 0
