"""Stop code that runs too long, such as an endless loop in a student's function."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LimitReached(BaseException):
    """Raised in a function that runs too long. A probe records each `Exception`, so this is not one."""


def can_be_limited() -> bool:
    """Whether this thread can be stopped: only the main thread receives signals, and Windows has no such timer."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `LimitReached` in the block after so many seconds. Without a timer, the block runs without a limit.

    Afterwards the former handler and the former timer are in place again.
    """
    if not can_be_limited():
        yield
        return
    running = True

    def stop(*_: Any) -> None:
        if running:
            raise LimitReached

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    # again each second, because an exception that is raised in a destructor or a callback is lost
    delay, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, delay - (time.monotonic() - start)), interval)
