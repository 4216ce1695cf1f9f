"""Graders in a process beside this one.

The judge compares tensors, so it holds torch, and it reads what strangers wrote. In a process of its own it may grow
or die: the parent, which alone writes records, stays small, starts another one and goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from segedu.grading.batch.grader_pool import Assignment, GraderPool
from segedu.grading.sandbox import clean_environment
from segedu.grading.sandbox.restrictions import ONE_THREAD, SandboxError
from segedu.grading.submissions.submission import Handed

END_SECONDS = 30.0
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = f"import sys; sys.path.insert(0, {_ROOT!r}); "
_CODE += "from segedu.grading.batch import grader_process; grader_process.main(int(sys.argv[1]))"


@contextlib.contextmanager
def pool_in_process(assignment: Assignment, count: int) -> Iterator[GraderPool]:
    """Graders in a process of their own; a new one takes its place when it dies.

    Args:
        assignment: of the batch.
        count: of submissions at a time.

    Yields:
        The grader pool.

    Raises:
        SandboxError: if the graders do not start, here or later in place of others; the message says why.
        ValueError: if the lab's notebook and its exercises differ.
        PermissionError: below level 2 without `trust`.
    """
    graders = _Graders(assignment, count)
    try:

        def submit(handed: Handed) -> Future:
            nonlocal graders
            if graders.ended:
                graders.close()  # one that dies often must not use up this process's descriptors
                graders = _Graders(assignment, count)
            return graders.submit(handed)

        yield GraderPool(graders.sandbox, graders.count, submit)
    finally:
        graders.close()


class _Graders:
    """One process, seen from the parent: numbered submissions go in, records come out in any order."""

    def __init__(self, assignment: Assignment, count: int) -> None:
        self.ended = False
        self.waiting: dict[int, Future] = {}
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        with contextlib.ExitStack() as stack:
            try:
                self._open(stack)
            except OSError as error:
                raise _not_started(error) from error
            self.sandbox, self.count = self._first_answer(assignment, count)
            self.reader = threading.Thread(target=self._read, daemon=True)
            self.reader.start()
            self.opened = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack) -> None:
        self.socket, theirs = socket.socketpair()
        stack.enter_context(self.socket)
        folder = stack.enter_context(clean_environment.empty_folder())
        with theirs:
            self.connection = stack.enter_context(Connection(os.dup(self.socket.fileno())))
            self.process = subprocess.Popen(
                clean_environment.python(_CODE, str(theirs.fileno())), pass_fds=[theirs.fileno()], cwd=folder,
                env=clean_environment.environment(folder, **ONE_THREAD),
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _first_answer(self, assignment: Assignment, count: int) -> tuple[tuple[int, str], int]:
        """The sandbox and the number of threads, once they wait for work; else what kept them from it is raised."""
        try:
            self.connection.send((assignment, count))
            answer = self.connection.recv()
        except (EOFError, OSError):
            why = "a message above may say why, `segedu grade --doctor` says what works here"
            raise _not_started(f"their process {self._how_it_ended()}; {why}") from None
        except BaseException:  # Ctrl-C: it may be loading torch and would not look at the connection for seconds
            self.process.terminate()
            self._end()
            raise
        if isinstance(answer, Exception):
            self._end()
            raise _not_started(answer) if isinstance(answer, OSError) and answer.errno else answer
        return answer

    def close(self) -> None:
        """Ends the process and closes the connection; a second time does nothing."""
        with self.opened:
            self._end()
            self.reader.join()

    def submit(self, handed: Handed) -> Future:
        """The future of the record, as JSON."""
        future, number = Future(), next(self.numbers)
        with self.lock:
            ended = self.ended
            if not ended:
                self.waiting[number] = future
        if ended:
            future.set_exception(self._lost())
            return future
        with contextlib.suppress(OSError):  # it has just died: the reader says so
            self.connection.send((number, handed))  # without the lock: the reader must go on, or both sides may wait
        return future

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, record = self.connection.recv()
                with self.lock:
                    future = self.waiting.pop(number)
                if isinstance(record, str):
                    future.set_exception(SandboxError(f"a grader's thread was ended by {record}"))
                else:
                    future.set_result(record)
        with self.lock:
            self.ended = True
            waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            future.set_exception(self._lost())

    def _lost(self) -> SandboxError:
        advice = "run the same command again, and look at this submission if it happens again"
        return SandboxError(f"the process of the graders {self._how_it_ended()} while it had this submission; {advice}")

    def _how_it_ended(self) -> str:
        self._end()
        code = self.process.returncode
        memory = " (memory may have run out: fewer --jobs need less)" if code == -signal.SIGKILL else ""
        return f"was ended by signal {-code}{memory}" if code < 0 else f"ended with exit status {code}"

    def _end(self) -> None:
        """The other side ends when it reads no more; it then ends its kernels."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _not_started(why: object) -> SandboxError:
    return SandboxError(f"the graders did not start: {why}")


def main(fd: int) -> None:
    """The other side: grades until the connection ends, then ends at once.

    Args:
        fd: of the connection.
    """
    os.set_inheritable(fd, False)  # no kernel may hold it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # folders and kernels are tidied away on the way out
    # jsonschema compiles a grammar of internationalised addresses, for 4 s, where it finds this; no notebook has one
    sys.modules.setdefault("rfc3987_syntax", None)
    try:
        with contextlib.suppress(EOFError, OSError, SystemExit):  # the parent is gone, also with answers still unread
            connection = Connection(fd)
            _serve(connection, *connection.recv())
    finally:
        clean_environment.leave()
    os._exit(0)  # threads that still wait for a kernel have nobody to report to


def _serve(connection: Connection, assignment: Assignment, count: int) -> None:
    lock = threading.Lock()

    def answer(number: int, future: Future) -> None:
        try:
            record: bytes | str = json.dumps(future.result()).encode()
        except BaseException as error:  # without an answer the parent would wait for ever
            record = f"{type(error).__name__}: {error}"
        with lock, contextlib.suppress(OSError):
            connection.send((number, record))

    with contextlib.ExitStack() as stack:
        try:
            from segedu.grading.batch.grader_threads import pool_of_threads

            grader_pool = stack.enter_context(pool_of_threads(assignment, count))
        except (ValueError, OSError, RuntimeError) as error:
            connection.send(error)
            return
        clean_environment.limit_memory(grader_pool.count)  # now that the lab and torch are loaded
        connection.send((grader_pool.sandbox, grader_pool.count))
        while True:
            number, handed = connection.recv()
            grader_pool.submit(handed).add_done_callback(partial(answer, number))
