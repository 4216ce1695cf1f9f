"""Archives are read in a process beside the grader, because a few bytes of one may cost gigabytes or hours.

The readers of zip and tar that come with Python trust what they read: one step of theirs may unpack without end, copy
the same headers into every entry, or search them in a time that grows with the square of their length. The checks in
`archive` refuse what is known. Whatever is not known yet costs its own submission only, because a child process reads,
within limits of processor time and memory, and sends the notebooks back.
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

CPU_SECONDS = 10  # for all archives of one submission; an honest one needs a few hundredths of a second
WALL_SECONDS = 120.0  # beyond this the machine is at fault, not the submission
MEMORY = 1 << 30  # address space; the largest archive within the limits of `archive` needs 0.5 GiB
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = f"import sys; sys.path.insert(0, {_ROOT!r}); "
_CODE += "from segedu.grading.submissions import archive_process; archive_process.main()"


def read_archive(name: str, data: bytes, seconds: float = CPU_SECONDS) -> tuple[list[tuple[str, bytes]], float]:
    """Read the notebooks of an archive as `notebooks_in` does, within limits.

    Args:
        name: of the archive, for messages.
        data: its bytes.
        seconds: of processor time that may be used.

    Returns:
        `(path in the archive, bytes)` of each notebook, and the seconds of processor time that were used.

    Raises:
        SubmissionError: if the archive is refused, or cannot be read within the limits; the message says why.
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
        why = f"{name} was not read within {WALL_SECONDS:g} s: the machine has too much to do; grade it again"
        raise SubmissionError(why) from None
    head, _, rest = done.stdout.partition(b"\n")
    if done.returncode or not head:
        raise _ended(name, done.returncode)
    answer = json.loads(head)
    if answer["problem"]:
        raise SubmissionError(answer["problem"])
    found = []
    for path, size in answer["notebooks"]:
        found.append((path, rest[:size]))
        rest = rest[size:]
    return found, answer["seconds"]


def _too_long(name: str) -> SubmissionError:
    return SubmissionError(f"{name} is refused: reading it takes more than {CPU_SECONDS} s, the limit")


def _ended(name: str, code: int) -> SubmissionError:
    """Of a child that ended without an answer."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return _too_long(name)
    return SubmissionError(f"{name} is refused: the process that reads it ended with exit status {code}")


def main() -> None:
    """The child: read one archive from standard input, write its notebooks to standard output."""
    request = json.loads(sys.stdin.buffer.readline())
    _limit(request["seconds"])
    answer: dict = {"problem": "", "notebooks": [], "seconds": 0.0}
    found: list[tuple[str, bytes]] = []
    began = time.process_time()
    try:
        found = notebooks_in(request["name"], sys.stdin.buffer.read())
        answer["notebooks"] = [(path, len(content)) for path, content in found]
    except SubmissionError as error:
        answer["problem"] = str(error)
    except MemoryError:
        limit = f"{MEMORY >> 30} GiB of memory, the limit"
        answer["problem"] = f"{request['name']} is refused: reading it takes more than {limit}"
    answer["seconds"] = time.process_time() - began
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for _, content in found:
        sys.stdout.buffer.write(content)


def _limit(seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows: only the limit by the clock
        return
    limits = {resource.RLIMIT_CPU: int(seconds) + 1, resource.RLIMIT_AS: MEMORY, resource.RLIMIT_CORE: 0}
    for kind, soft in limits.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
