"""Graders in a process beside this one.

The judge compares tensors, so it holds torch, and it reads what strangers wrote. In a process of its own it may grow
or die: the parent, which alone writes records, stays small, starts another one and goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from segedu.grading.crew import Assignment, Crew
from segedu.grading.sandbox import ONE_THREAD
from segedu.grading.submission import Handed

END_SECONDS = 30.0
_ROOT = str(Path(__file__).resolve().parents[2])
# the folder that this was started in may hold submissions: nothing is imported from there
_CODE = f"import sys; sys.path[0] = {_ROOT!r}; from segedu.grading import apart; apart.main(int(sys.argv[1]))"


@contextlib.contextmanager
def apart(assignment: Assignment, count: int) -> Iterator[Crew]:
    """Graders in a process of their own; a new one takes its place when it dies.

    Args:
        assignment: of the batch.
        count: of submissions at a time.

    Yields:
        The crew.

    Raises:
        Exception: what kept the graders from starting, as `examiner.threads` raises it.
    """
    with contextlib.ExitStack() as stack:
        graders = stack.enter_context(_Graders(assignment, count))

        def submit(handed: Handed) -> Future:
            nonlocal graders
            if graders.ended:
                graders = stack.enter_context(_Graders(assignment, count))
            return graders.submit(handed)

        yield Crew(graders.sandbox, graders.count, submit)


class _Graders:
    """One process, seen from the parent: numbered submissions go in, records come out in any order."""

    def __init__(self, assignment: Assignment, count: int) -> None:
        self.ended = False
        self.waiting: dict[int, Future] = {}
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.socket, theirs = socket.socketpair()
        self.connection = Connection(os.dup(self.socket.fileno()))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env=os.environ | ONE_THREAD, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            self.connection.send((assignment, count))
            answer = self.connection.recv()
        except (EOFError, OSError):
            answer = self._lost()
        except BaseException:
            self._end()
            raise
        if isinstance(answer, Exception):
            self._end()
            raise answer
        self.sandbox, self.count = answer
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> _Graders:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self.reader.join()
        self.connection.close()

    def submit(self, handed: Handed) -> Future:
        """The future of the record, as JSON."""
        future, number = Future(), next(self.numbers)
        with self.lock:
            if not self.ended:
                self.waiting[number] = future
                with contextlib.suppress(OSError):  # it has just died: the reader says so
                    self.connection.send((number, handed))
                return future
        future.set_exception(self._lost())
        return future

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, record = self.connection.recv()
                with self.lock:
                    future = self.waiting.pop(number)
                if record is None:
                    future.set_exception(RuntimeError("a grader's thread was ended"))
                else:
                    future.set_result(record)
        with self.lock:
            self.ended = True
            waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            future.set_exception(self._lost())

    def _lost(self) -> RuntimeError:
        self._end()
        return RuntimeError(f"the process of the graders ended with {self.process.returncode}")

    def _end(self) -> None:
        """The other side ends when it reads no more; it then ends its kernels."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main(fd: int) -> None:
    """The other side: grades until the connection ends, then ends at once.

    Args:
        fd: of the connection.
    """
    os.set_inheritable(fd, False)  # no kernel may hold it
    # jsonschema compiles a grammar of internationalised addresses, for 4 s, where it finds this; no notebook has one
    sys.modules.setdefault("rfc3987_syntax", None)
    connection = Connection(fd)
    assignment, count = connection.recv()
    with contextlib.suppress(EOFError):
        try:
            _serve(connection, assignment, count)
        except (ValueError, OSError, RuntimeError) as error:
            connection.send(error)
    os._exit(0)  # threads that still wait for a kernel have nobody to report to


def _serve(connection: Connection, assignment: Assignment, count: int) -> None:
    from segedu.grading.examiner import threads

    lock = threading.Lock()

    def answer(number: int, future: Future) -> None:
        failed = future.cancelled() or future.exception() is not None
        with lock, contextlib.suppress(OSError):
            connection.send((number, None if failed else json.dumps(future.result()).encode()))

    with threads(assignment, count) as crew:
        connection.send((crew.sandbox, crew.count))
        while True:
            number, handed = connection.recv()
            crew.submit(handed).add_done_callback(partial(answer, number))
