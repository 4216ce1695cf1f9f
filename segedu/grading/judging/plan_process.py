"""Plan submissions in a child process, because merely parsing a student's code may be expensive.

Python's parser holds the interpreter lock, its time can grow with the square of a cell's length, and a bug in it may
end the process. In the grader itself that would stop every other submission. A small child process therefore parses the
code, within limits of processor time and memory, and returns the plan as JSON. It never runs student code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from segedu.grading.judging.lab_source import Lab, LabCell
from segedu.grading.judging.rebuild import Plan, rebuild, solutions
from segedu.grading.sandbox.steps import Step
from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.notebook import StudentCell

CPU_SECONDS = 10  # for one submission; an honest notebook needs a few hundredths of a second
WALL_SECONDS = 120.0  # beyond this the machine is at fault, not the submission
MEMORY = 2 << 30  # address space; one megabyte of dense code needs 0.6 GiB
MAX_IDLE_MEMORY = 256 << 20  # bytes; a child whose peak memory was larger is not reused
_SIZE = struct.Struct("!I")
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from segedu.grading.judging import plan_process; plan_process.main()"
)


def plan_of(lab: Lab, cells: Sequence[StudentCell], hides: Sequence[str] = (), cell_seconds: float = 30.0) -> Plan:
    """Plan the run of one submission as `rebuild` does, within limits.

    Raises:
        SubmissionError: if the code cannot be parsed within the limits; the message names the limit.
        RuntimeError: if the machine or the grader failed.
    """
    answer = _request(lab, cells, {"hides": list(hides), "cell_seconds": cell_seconds})
    steps, notes = [Step(**step) for step in answer["steps"]], defaultdict(list, answer["notes"])
    return Plan(**answer | {"steps": steps, "notes": notes})


def answers_of(lab: Lab, cells: Sequence[StudentCell]) -> dict[str, str]:
    """Return each exercise's answer as `solutions` does, within the limits and with the errors of `plan_of`."""
    return _request(lab, cells, {"answers": True})


def _request(lab: Lab, cells: Sequence[StudentCell], request: dict) -> dict:
    child = _idle.get_nowait() if not _idle.empty() else None
    with contextlib.ExitStack() as stack:
        if child is None:
            child = _Child()
        stack.callback(child.close)
        try:
            answer = child.send_request(request | {"lab": asdict(lab), "cells": [asdict(cell) for cell in cells]})
        except SubmissionError as error:
            raise SubmissionError(f"{error}; {_longest(cells)}") from None
        if not answer["large"]:
            stack.pop_all()
            _idle.put(child)
    return answer["result"]


def _longest(cells: Sequence[StudentCell]) -> str:
    cell = max(cells, key=lambda one: len(one.source))
    return f"its longest code cell, at position {cell.position}, has {len(cell.source)} characters: shorten it"


class _Child:
    """The grader's side of one planning process, which ends when its input is closed."""

    def __init__(self) -> None:
        self.timed_out = False
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={}, start_new_session=True,
        )  # fmt: skip

    def send_request(self, request: dict) -> dict:
        """Send one request and wait for its answer."""
        timer = threading.Timer(WALL_SECONDS, self._stop)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # `_exit_error` says how the process ended
                _write(self.process.stdin, request)
            answer = _read(self.process.stdout)
        finally:
            timer.cancel()
        if answer is None:
            raise self._exit_error()
        if answer["problem"]:
            raise SubmissionError(answer["problem"])
        if answer["error"]:
            raise RuntimeError(f"the code could not be read:\n{answer['error']}")
        return answer

    def _stop(self) -> None:
        self.timed_out = True
        self.process.kill()

    def _exit_error(self) -> Exception:
        code = self.process.wait()
        if self.timed_out:
            return RuntimeError(f"the code was not read within {WALL_SECONDS:g} s: the machine is overloaded")
        if code == -getattr(signal, "SIGXCPU", 0):
            return SubmissionError(f"reading its code takes more than {CPU_SECONDS} s, the limit")
        if code in (-signal.SIGSEGV, -signal.SIGABRT, -getattr(signal, "SIGBUS", signal.SIGSEGV)):
            return SubmissionError("Python's own parser ended while reading its code")
        return RuntimeError(f"the process that reads code ended with exit status {code}")

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


_idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()  # at most as many as submissions were planned at the same time


@atexit.register
def _close_idle() -> None:
    while not _idle.empty():
        _idle.get().close()


def _write(stream: BinaryIO, message: dict) -> None:
    data = json.dumps(message).encode()
    stream.write(_SIZE.pack(len(data)) + data)
    stream.flush()


def _read(stream: BinaryIO) -> dict | None:
    """Read one message; None if the other side has ended."""
    head = stream.read(_SIZE.size)
    data = stream.read(_SIZE.unpack(head)[0]) if len(head) == _SIZE.size else b""
    return json.loads(data) if data and len(data) == _SIZE.unpack(head)[0] else None


def main() -> None:
    """Run the child process: answer requests until the input ends."""
    gc.disable()  # syntax trees have no cycles, and the collector would repeatedly walk millions of nodes
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(requests)) is not None:
        peak_memory = _set_limits()
        answer: dict[str, Any] = {"result": None, "problem": "", "error": ""}
        try:
            answer["result"] = _answer(request)
        except RecursionError:
            answer["problem"] = "its code is nested too deep to be read"
        except MemoryError:
            answer["problem"] = f"reading its code takes more than {MEMORY >> 30} GiB of memory, the limit"
        except Exception:
            answer["error"] = traceback.format_exc()[-4000:]
        _write(replies, answer | {"large": peak_memory() > MAX_IDLE_MEMORY})


def _answer(request: dict) -> dict:
    lab = Lab(**request["lab"] | {"cells": tuple(LabCell(**cell) for cell in request["lab"]["cells"])})
    cells = [StudentCell(**cell | {"ids": tuple(cell["ids"])}) for cell in request["cells"]]
    if request.get("answers"):
        return solutions(lab, cells)
    plan = rebuild(lab, cells, request["hides"], request["cell_seconds"])
    return vars(plan) | {"steps": [vars(step) for step in plan.steps]}


def _set_limits() -> Any:
    """Set the processor-time limit of the next request and the memory limit; return a function for the peak memory."""
    try:
        import resource
    except ImportError:  # Windows: only the wall-clock limit applies
        return lambda: 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds_used = int(usage.ru_utime + usage.ru_stime)
    limits = {resource.RLIMIT_CPU: seconds_used + 1 + CPU_SECONDS, resource.RLIMIT_AS: MEMORY, resource.RLIMIT_CORE: 0}
    for kind, soft in limits.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    return _peak_memory


def _peak_memory() -> int:
    """Peak memory of this program in bytes; on Linux, `ru_maxrss` would include that of the large parent."""
    import resource

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
