"""Read archives in a child process with limits, because a few bytes of an archive may cost gigabytes or hours.

Python's zipfile and tarfile trust their input: one call may unpack without end, copy the same headers into every entry,
or take a time that grows with the square of a length. The checks in `archive` reject the known attacks. An unknown one
affects its own submission only, because a child process with limits on CPU time and memory reads the archive.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from segedu.grading.submissions.archive import SubmissionError, notebooks_in

CPU_SECONDS = 10  # for all archives of one submission; an honest archive needs a few hundredths of a second
WALL_SECONDS = 120.0  # a longer time means that the machine is overloaded
MEMORY = 1 << 30  # address space; the largest archive within the limits of `archive` needs 0.5 GiB
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = f"import sys; sys.path.insert(0, {_ROOT!r}); "
_CODE += "from segedu.grading.submissions import archive_process; archive_process.main()"


def read_archive(name: str, data: bytes, seconds: float = CPU_SECONDS) -> tuple[list[tuple[str, bytes]], float]:
    """Read the notebooks of an archive in a child process, see `notebooks_in`.

    Args:
        name: name of the archive, for messages.
        data: bytes of the archive.
        seconds: limit on CPU time.

    Returns:
        `(path in the archive, bytes)` of each notebook, and the CPU time in seconds.

    Raises:
        SubmissionError: if the archive is refused, or cannot be read within the limits.
    """
    if seconds <= 0:
        raise _too_long(name)
    request = json.dumps({"name": name, "seconds": seconds}).encode() + b"\n"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CODE], input=request + data, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={}, timeout=WALL_SECONDS, start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        problem = f"{name} was not read within {WALL_SECONDS:g} s: the machine is overloaded; grade it again"
        raise SubmissionError(problem) from None
    head, _, rest = done.stdout.partition(b"\n")
    if done.returncode or not head:
        raise _ended(name, done.returncode)
    answer = json.loads(head)
    if answer["problem"]:
        raise SubmissionError(answer["problem"])
    notebooks = []
    for path, size in answer["notebooks"]:
        notebooks.append((path, rest[:size]))
        rest = rest[size:]
    return notebooks, answer["seconds"]


def _too_long(name: str) -> SubmissionError:
    return SubmissionError(f"{name} is refused: reading it takes more than {CPU_SECONDS} s, the limit")


def _ended(name: str, code: int) -> SubmissionError:
    """The error of a child that ended without an answer."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return _too_long(name)
    return SubmissionError(f"{name} is refused: the process that reads it ended with exit status {code}")


def main() -> None:
    """The child: read one archive from standard input, write its notebooks to standard output."""
    request = json.loads(sys.stdin.buffer.readline())
    _limit(request["seconds"])
    answer: dict = {"problem": "", "notebooks": [], "seconds": 0.0}
    notebooks: list[tuple[str, bytes]] = []
    began = time.process_time()
    try:
        notebooks = notebooks_in(request["name"], sys.stdin.buffer.read())
        answer["notebooks"] = [(path, len(content)) for path, content in notebooks]
    except SubmissionError as error:
        answer["problem"] = str(error)
    except MemoryError:
        limit = f"{MEMORY >> 30} GiB of memory, the limit"
        answer["problem"] = f"{request['name']} is refused: reading it takes more than {limit}"
    answer["seconds"] = time.process_time() - began
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for _, content in notebooks:
        sys.stdout.buffer.write(content)


def _limit(seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows has only the limit on wall time
        return
    limits = {resource.RLIMIT_CPU: int(seconds) + 1, resource.RLIMIT_AS: MEMORY, resource.RLIMIT_CORE: 0}
    for limit, soft in limits.items():
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
