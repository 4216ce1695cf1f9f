"""The clock of a cell: time that others had the processor does not count, within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from queue import Empty

import pytest

from segedu.grading.sandbox import cell_clock as clock_module
from segedu.grading.sandbox.cell_clock import PATIENCE, Clock, process_of, waited_for_processor
from segedu.grading.sandbox.nbval_items import KernelLost, SegKernel
from segedu.grading.sandbox.restrictions import LINUX


class Time:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now, self.waited = 100.0, 7.0

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, seconds: float, waiting: float = 0.0) -> None:
        self.now += seconds
        self.waited += waiting


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock_module, "time", time)
    return time


def test_a_cell_that_runs_or_sleeps_has_its_limit(time):
    clock = Clock(10, lambda: time.waited)
    time.pass_by(9)
    assert clock.left() == 1
    time.pass_by(1)
    assert clock.left() == 0 and clock.extension == 0


def test_what_others_took_is_given_back(time):
    clock = Clock(10, lambda: time.waited)
    time.pass_by(10, waiting=8)
    assert clock.left() == 8 == clock.extension
    time.pass_by(8, waiting=6)
    assert clock.left() == 6
    time.pass_by(6)
    assert clock.left() == 0 and clock.extension == 14


def test_patience_has_an_end(time):
    clock = Clock(10, lambda: time.waited)
    total = 0
    while (left := clock.left()) > 0 and total < 1000:
        total += left
        time.pass_by(left, waiting=0.999 * left)
    assert total == pytest.approx(10 * PATIENCE) and clock.extension == pytest.approx(10 * (PATIENCE - 1))


def test_where_nothing_is_told_the_wall_counts(time):
    clock = Clock(10)
    time.pass_by(10.5)
    assert clock.left() == -0.5 and waited_for_processor(1 << 30) == 0 == process_of(1 << 20)


@pytest.mark.skipif(not LINUX, reason="asks /proc")
def test_a_process_that_stands_back_has_waited():
    """Two that compute on one processor: together they wait as long as one of them runs."""
    code = "import time\nbegan = time.process_time()\nwhile time.process_time() < began + 0.5: pass\nprint(1, flush=True); input()"
    one = {min(os.sched_getaffinity(0))}
    pair = [
        subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         preexec_fn=lambda: os.sched_setaffinity(0, one))
        for _ in range(2)
    ]  # fmt: skip
    try:
        for process in pair:
            assert process.stdout.readline() == b"1\n"
        numbers = []
        for process in pair:
            pidfd = os.pidfd_open(process.pid)
            numbers.append(process_of(pidfd))
            os.close(pidfd)
        assert numbers == [process.pid for process in pair]
        assert sum(map(waited_for_processor, numbers)) > 0.2
    finally:
        for process in pair:
            process.communicate(b"\n")


class _Clock:
    """A clock whose limit is extended when it is asked the second time, as beside a busy neighbour."""

    def __init__(self, *left: float) -> None:
        self.answers = list(left)

    def left(self) -> float:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_limit_that_is_extended_at_the_last_moment_interrupts_nobody() -> None:
    """`Empty` would make nbval interrupt the cell, although its time is not up; the reply arrives afterwards."""
    kernel = SegKernel.__new__(SegKernel)
    kernel.queued, kernel.replied, kernel.clock = {"shell": deque()}, False, _Clock(-0.1, 0.5)
    polls = iter([0, 1])

    def poll(seconds: float) -> int:
        if received := next(polls):
            kernel.queued["shell"].append({"reply": 1})
        return received

    kernel._poll = poll
    assert kernel.get_message("shell") == {"reply": 1}
    kernel.clock, polls = _Clock(-0.1), iter([0])
    with pytest.raises(KernelLost, match="the time limit was reached"):
        kernel.get_message("shell")
    kernel.clock, polls = _Clock(9.0), iter([0])
    with pytest.raises(Empty):
        kernel.get_message("shell", timeout=0.0)
