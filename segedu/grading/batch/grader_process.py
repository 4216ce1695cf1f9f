"""Graders in a child process.

The graders import torch and read files of students, so their process may grow or die. The parent process, which alone
writes records, stays small, starts another child and continues.
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
from segedu.grading.submissions.submission import RawSubmission

END_SECONDS = 30.0
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = f"import sys; sys.path.insert(0, {_ROOT!r}); "
_CODE += "from segedu.grading.batch import grader_process; grader_process.main(int(sys.argv[1]))"


@contextlib.contextmanager
def pool_in_process(assignment: Assignment, count: int) -> Iterator[GraderPool]:
    """Open a pool of `count` graders in a child process, which is replaced if it dies.

    Raises:
        SandboxError: if the child process does not start, also from `submit` when it is replaced.
        ValueError: if the lab's notebook and its exercises differ.
        PermissionError: if no sandbox of level 2 or 3 works, and `trust` is not set.
    """
    graders = _Graders(assignment, count)
    try:

        def submit(raw: RawSubmission) -> Future:
            nonlocal graders
            if graders.ended:
                graders.close()  # otherwise a child that dies often would use up the file descriptors
                graders = _Graders(assignment, count)
            return graders.submit(raw)

        yield GraderPool(graders.sandbox, graders.count, submit)
    finally:
        graders.close()


class _Graders:
    """The parent's side of one child process: it sends numbered submissions and receives records in any order."""

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
        self.socket, child = socket.socketpair()
        stack.enter_context(self.socket)
        folder = stack.enter_context(clean_environment.empty_folder())
        with child:
            self.connection = stack.enter_context(Connection(os.dup(self.socket.fileno())))
            self.process = subprocess.Popen(
                clean_environment.python(_CODE, str(child.fileno())), pass_fds=[child.fileno()], cwd=folder,
                env=clean_environment.environment(folder, **ONE_THREAD),
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _first_answer(self, assignment: Assignment, count: int) -> tuple[tuple[int, str], int]:
        """The sandbox and the number of graders once they are ready; raises the error that kept them from starting."""
        try:
            self.connection.send((assignment, count))
            answer = self.connection.recv()
        except (EOFError, OSError):
            advice = "a message above may say why, and `segedu grade --doctor` says what works here"
            raise _not_started(f"their process {self._how_it_ended()}; {advice}") from None
        except BaseException:  # Ctrl-C: while the child loads torch it does not read the connection
            self.process.terminate()
            self._end()
            raise
        if isinstance(answer, Exception):
            self._end()
            raise _not_started(answer) if isinstance(answer, OSError) and answer.errno else answer
        return answer

    def close(self) -> None:
        """End the child process and close the connection; a second call does nothing."""
        with self.opened:
            self._end()
            self.reader.join()

    def submit(self, raw: RawSubmission) -> Future:
        """Send a submission, and return the future of its record as JSON."""
        future, number = Future(), next(self.numbers)
        with self.lock:
            ended = self.ended
            if not ended:
                self.waiting[number] = future
        if ended:
            future.set_exception(self._lost())
            return future
        with contextlib.suppress(OSError):  # the child has just died: `_read` sets the exception of the future
            self.connection.send((number, raw))  # without the lock, which `_read` needs, to avoid a deadlock
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
        problem = f"the process of the graders {self._how_it_ended()} while it graded this submission"
        return SandboxError(f"{problem}; run the same command again, and read this submission if it happens again")

    def _how_it_ended(self) -> str:
        self._end()
        code = self.process.returncode
        memory = " (memory may have run out: fewer --jobs need less)" if code == -signal.SIGKILL else ""
        return f"was ended by signal {-code}{memory}" if code < 0 else f"ended with exit status {code}"

    def _end(self) -> None:
        """Close the sending side. The child then ends its kernels and itself."""
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
    """Run the child process: grade until the connection with descriptor `fd` is closed, then exit at once."""
    os.set_inheritable(fd, False)  # kernels must not inherit the connection
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # removes folders and ends kernels on exit
    # if jsonschema can import this, it compiles a grammar for 4 s that no notebook needs
    sys.modules.setdefault("rfc3987_syntax", None)
    try:
        with contextlib.suppress(EOFError, OSError, SystemExit):  # the parent has closed the connection
            connection = Connection(fd)
            _serve(connection, *connection.recv())
    finally:
        clean_environment.leave()
    os._exit(0)  # without waiting for threads whose records nobody would receive


def _serve(connection: Connection, assignment: Assignment, count: int) -> None:
    lock = threading.Lock()

    def answer(number: int, future: Future) -> None:
        try:
            record: bytes | str = json.dumps(future.result()).encode()
        except BaseException as error:  # without an answer the parent would wait forever
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
            number, raw = connection.recv()
            grader_pool.submit(raw).add_done_callback(partial(answer, number))
