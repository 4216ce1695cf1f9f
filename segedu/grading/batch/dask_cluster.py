"""Grade on a Dask cluster. Each worker starts a process of graders, each submission is one task, records are JSON.

Dask's messages are pickles, so only the instructor's machines may be able to reach scheduler and workers; a sandbox has
no network. If a worker dies, its submissions go to another one. The graders run in a process of their own and do not
share the worker's memory and working directory.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from distributed import Client, Worker, WorkerPlugin, get_worker

from segedu.grading.batch.grader_pool import Assignment, GraderPool
from segedu.grading.batch.grader_process import pool_in_process
from segedu.grading.judging.decisive_sources import tool_version
from segedu.grading.submissions.submission import RawSubmission

CONNECT_SECONDS = 30


@contextlib.contextmanager
def pool_on_cluster(address: str, assignment: Assignment) -> Iterator[GraderPool]:
    """Open a grader pool on the workers of a scheduler, such as `tcp://10.0.0.1:8786`.

    `count` of the pool is the number of all workers' threads at the start.

    Raises:
        ValueError: if the scheduler does not answer, has no workers, or a worker has another version of segedu.
        PermissionError: if no sandbox of level 2 or 3 works on a worker, and `trust` is not set.
    """
    from segedu.grading.batch.grader_threads import make_grading_setup

    make_grading_setup(assignment)  # a wrong lab raises its error here, not on each worker
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        problem = f"--dask is {address}, where no scheduler answers ({str(error).splitlines()[0]})"
        raise ValueError(f"{problem}; start one: dask scheduler") from None
    with client, _quiet():
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise ValueError(f"--dask is {address}, a scheduler without workers; start some: dask worker {address}")
        name = f"segedu-{assignment.key('')[:16]}"
        try:
            _raise_errors(client.register_plugin(Graders(assignment), name=name))
            sandbox = min(client.run(_sandbox, name).values())
            executor = client.get_executor(pure=False)

            def submit(raw: RawSubmission) -> Future:
                return executor.submit(_grade, name, raw)

            yield GraderPool(tuple(sandbox), sum(worker["nthreads"] for worker in workers.values()), submit)
        finally:
            with contextlib.suppress(Exception):  # the scheduler may have ended
                client.unregister_worker_plugin(name)


def _raise_errors(answers: dict[str, Any]) -> None:
    for answer in answers.values():
        if isinstance(answer, dict) and answer.get("status") == "error":
            raise answer["exception"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Dask's long messages about lost workers, whose submissions are graded again."""
    loggers = [logging.getLogger(f"distributed{part}") for part in ("", ".client", ".core", ".comm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Graders(WorkerPlugin):
    """The graders of each worker, including workers that join later."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment, self.tool = assignment, tool_version(assignment.lab.name)
        self.stack: contextlib.ExitStack | None = None
        self.problem: Exception | None = None
        self.lock: threading.Lock | None = None

    def setup(self, worker: Worker) -> None:
        """Start the graders on a worker, one per thread."""
        try:
            self._open(worker)
        except Exception as error:  # Dask keeps a worker that joins late after an error: its tasks raise the error
            self.problem = error
            raise

    def _open(self, worker: Worker) -> None:
        version = tool_version(self.assignment.lab.name)
        if version != self.tool:
            problem = f"the worker {worker.address} has segedu {version}, this machine has {self.tool}"
            raise ValueError(f"{problem}; install the same on both")
        self.lock, self.stack = threading.Lock(), contextlib.ExitStack()
        self.grader_pool = self.stack.enter_context(pool_in_process(self.assignment, worker.state.nthreads))
        self.sandbox = self.grader_pool.sandbox

    def grade(self, raw: RawSubmission) -> bytes:
        """Grade one submission and return its record as JSON; the threads of the worker call this."""
        with self.lock:  # only one thread at a time submits, because this may start new graders
            future = self.grader_pool.submit(raw)
        return future.result()

    def teardown(self, worker: Worker) -> None:
        """End the graders of a worker."""
        if self.stack is not None:
            self.stack.close()


def _sandbox(name: str, dask_worker: Worker) -> tuple[int, str]:
    return dask_worker.plugins[name].sandbox


def _grade(name: str, raw: RawSubmission) -> bytes:
    """The Dask task: grade one submission on a worker."""
    graders = get_worker().plugins[name]
    if graders.problem:
        raise graders.problem
    return graders.grade(raw)
