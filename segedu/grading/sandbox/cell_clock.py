"""The clock of one cell, which excludes time in which its kernel was ready to run but other work had the processor.

Otherwise a neighbour that keeps every processor busy would use up the limits of the others. For a cell that computes,
the clock measures processor time; a cell that sleeps or waits forever is still stopped at its limit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 4.0  # a cell may take at most this many times its limit in wall-clock time


class Clock:
    """A clock that starts now.

    Args:
        seconds: the limit.
        waited: returns the seconds that the kernel has waited for a processor since it started.
    """

    def __init__(self, seconds: float, waited: Callable[[], float] = lambda: 0.0) -> None:
        start = time.monotonic()
        self.deadline, self.latest_deadline = start + seconds, start + PATIENCE * seconds
        self.waited, self.credited_wait = waited, waited()
        self.extension = 0.0

    def left(self) -> float:
        """Seconds until the limit, which is first extended by waiting time if it has been reached."""
        left = self.deadline - time.monotonic()
        if left > 0:
            return left
        waited = self.waited()
        extra = min(waited - self.credited_wait, self.latest_deadline - self.deadline)
        if extra <= 0:
            return left
        self.credited_wait = waited
        self.deadline += extra
        self.extension += extra
        return self.deadline - time.monotonic()


def waited_for_processor(pid: int) -> float:
    """Seconds for which a process's first thread was ready but did not run; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def process_of(pidfd: int) -> int:
    """Process id behind a pidfd, or 0."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        return max(0, int(next(line for line in lines if line.startswith("Pid:")).split()[1]))
    return 0
