"""Plans are made in a process beside the grader, because a student's code may be expensive merely to read.

Python's parser holds the interpreter while it works, its time can grow with the square of a cell's length, and a bug of
its own may end the process. In the grader itself that would stop every other submission. So a small child process reads
the code, within limits of processor time and memory, and sends the plan back as JSON. It runs nothing of the student's.
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
RETIRE = 256 << 20  # a child that has needed more memory than this makes room for a new one
_SIZE = struct.Struct("!I")
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from segedu.grading.judging import plan_process; plan_process.main()"
)


def plan_of(lab: Lab, cells: Sequence[StudentCell], hides: Sequence[str] = (), cell_seconds: float = 30.0) -> Plan:
    """Plan the run of one submission as `rebuild` does, within limits.

    Args:
        lab: as the course has it.
        cells: as the student left them.
        hides: modules that the lab hides.
        cell_seconds: limit of each step.

    Returns:
        The plan.

    Raises:
        SubmissionError: if the code cannot be read within the limits; the message names the limit.
        RuntimeError: if the machine or the grader failed.
    """
    answer = _ask(lab, cells, {"hides": list(hides), "cell_seconds": cell_seconds})
    steps, notes = [Step(**step) for step in answer["steps"]], defaultdict(list, answer["notes"])
    return Plan(**answer | {"steps": steps, "notes": notes})


def answers_of(lab: Lab, cells: Sequence[StudentCell]) -> dict[str, str]:
    """The student's answers alone as `solutions` finds them, within the same limits.

    Args:
        lab: as the course has it.
        cells: as the student left them.

    Returns:
        Exercise -> source of the cell that counts.

    Raises:
        SubmissionError: if the code cannot be read within the limits.
        RuntimeError: if the machine or the grader failed.
    """
    return _ask(lab, cells, {"answers": True})


def _ask(lab: Lab, cells: Sequence[StudentCell], request: dict) -> dict:
    child = _idle.get_nowait() if not _idle.empty() else None
    with contextlib.ExitStack() as stack:
        if child is None:
            child = _Child()
        stack.callback(child.close)
        try:
            answer = child.ask(request | {"lab": asdict(lab), "cells": [asdict(cell) for cell in cells]})
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
    """One reading process, seen from the grader; it ends when its input does."""

    def __init__(self) -> None:
        self.late = False
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={}, start_new_session=True,
        )  # fmt: skip

    def ask(self, request: dict) -> dict:
        """Send one request and wait for its answer."""
        timer = threading.Timer(WALL_SECONDS, self._stop)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # how it ended is found below
                _write(self.process.stdin, request)
            answer = _read(self.process.stdout)
        finally:
            timer.cancel()
        if answer is None:
            raise self._ended()
        if answer["problem"]:
            raise SubmissionError(answer["problem"])
        if answer["error"]:
            raise RuntimeError(f"the code could not be read:\n{answer['error']}")
        return answer

    def _stop(self) -> None:
        self.late = True
        self.process.kill()

    def _ended(self) -> Exception:
        code = self.process.wait()
        if self.late:
            return RuntimeError(f"the code was not read within {WALL_SECONDS:g} s: the machine has too much to do")
        if code == -getattr(signal, "SIGXCPU", 0):
            return SubmissionError(f"reading its code takes more than {CPU_SECONDS} s, the limit")
        if code in (-signal.SIGSEGV, -signal.SIGABRT, -getattr(signal, "SIGBUS", signal.SIGSEGV)):
            return SubmissionError("Python's own parser ended while reading its code")
        return RuntimeError(f"the process that reads code ended with exit status {code}")

    def close(self) -> None:
        """End the process; a second time does nothing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


_idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()  # as many as submissions were read at one time


@atexit.register
def _close_idle() -> None:
    while not _idle.empty():
        _idle.get().close()


def _write(stream: BinaryIO, message: dict) -> None:
    data = json.dumps(message).encode()
    stream.write(_SIZE.pack(len(data)) + data)
    stream.flush()


def _read(stream: BinaryIO) -> dict | None:
    """One message, or None where the other side has ended."""
    head = stream.read(_SIZE.size)
    data = stream.read(_SIZE.unpack(head)[0]) if len(head) == _SIZE.size else b""
    return json.loads(data) if data and len(data) == _SIZE.unpack(head)[0] else None


def main() -> None:
    """The child: answer requests until the input ends."""
    gc.disable()  # trees hold no cycles, and the collector would walk millions of nodes again and again
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while (request := _read(requests)) is not None:
        used = _limit()
        answer: dict[str, Any] = {"result": None, "problem": "", "error": ""}
        try:
            answer["result"] = _answer(request)
        except RecursionError:
            answer["problem"] = "its code is nested too deep to be read"
        except MemoryError:
            answer["problem"] = f"reading its code takes more than {MEMORY >> 30} GiB of memory, the limit"
        except Exception:
            answer["error"] = traceback.format_exc()[-4000:]
        _write(replies, answer | {"large": used() > RETIRE})


def _answer(request: dict) -> dict:
    lab = Lab(**request["lab"] | {"cells": tuple(LabCell(**cell) for cell in request["lab"]["cells"])})
    cells = [StudentCell(**cell | {"ids": tuple(cell["ids"])}) for cell in request["cells"]]
    if request.get("answers"):
        return solutions(lab, cells)
    plan = rebuild(lab, cells, request["hides"], request["cell_seconds"])
    return vars(plan) | {"steps": [vars(step) for step in plan.steps]}


def _limit() -> Any:
    """Give the next request its processor time, and bound the memory; what tells the memory used so far."""
    try:
        import resource
    except ImportError:  # Windows: only the limit by the clock
        return lambda: 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    limits = {resource.RLIMIT_CPU: spent + 1 + CPU_SECONDS, resource.RLIMIT_AS: MEMORY, resource.RLIMIT_CORE: 0}
    for kind, soft in limits.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    return _most_memory


def _most_memory() -> int:
    """The most memory of this program so far. On Linux, `ru_maxrss` would begin with that of the large parent."""
    import resource

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
