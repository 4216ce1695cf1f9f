"""A Dask cluster as the graders: each worker starts graders beside it, each submission is one task, records are JSON.

Dask's messages are pickles, so scheduler and workers must be reachable by the instructor's machines alone; a sandbox
has no network and reaches neither. A worker that dies loses nothing: its submissions go to another one. The graders
of a worker are a process of their own, so that neither its working directory nor its memory is theirs.
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
from segedu.grading.submissions.submission import Handed

CONNECT_SECONDS = 30


@contextlib.contextmanager
def pool_on_cluster(address: str, assignment: Assignment) -> Iterator[GraderPool]:
    """The workers of a cluster as a grader pool.

    Args:
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.
        assignment: of the batch.

    Yields:
        The grader pool; `count` is the number of the workers' threads at the start.

    Raises:
        ValueError: if nothing answers, there are no workers, or one has another segedu.
        PermissionError: if a worker has no sandbox worth its name, and `trust` is not set.
    """
    from segedu.grading.batch.grader_threads import make_grading_setup

    make_grading_setup(assignment)  # a wrong lab fails here, not on each worker
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"--dask is {address}, where no scheduler answers ({why}); start one: dask scheduler"
        ) from None
    with client, _quiet():
        known = client.scheduler_info(n_workers=-1)["workers"]
        if not known:
            raise ValueError(f"--dask is {address}, a scheduler without workers; start some: dask worker {address}")
        name = f"segedu-{assignment.key('')[:16]}"
        try:
            ready = client.register_plugin(Graders(assignment), name=name)
            _raise_refusals(ready)
            sandbox = min(client.run(_sandbox, name).values())
            executor = client.get_executor(pure=False)

            def submit(handed: Handed) -> Future:
                return executor.submit(_grade, name, handed)

            yield GraderPool(tuple(sandbox), sum(worker["nthreads"] for worker in known.values()), submit)
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.unregister_worker_plugin(name)


def _raise_refusals(answers: dict[str, Any]) -> None:
    for answer in answers.values():
        if isinstance(answer, dict) and answer.get("status") == "error":
            raise answer["exception"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A lost worker is nothing to read twenty lines about: its submissions are tried again."""
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
    """What each worker has, also one that joins later: the kernels, and the seed.

    Args:
        assignment: of the batch.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment, self.tool = assignment, tool_version(assignment.lab.name)
        self.stack: contextlib.ExitStack | None = None
        self.problem: Exception | None = None
        self.turn: threading.Lock | None = None

    def setup(self, worker: Worker) -> None:
        """On the worker: opens the kernel pools, one a thread."""
        try:
            self._open(worker)
        except Exception as error:  # Dask keeps a worker that joined late all the same: its tasks shall say why
            self.problem = error
            raise

    def _open(self, worker: Worker) -> None:
        mine = tool_version(self.assignment.lab.name)
        if mine != self.tool:
            theirs = f"the worker {worker.address} has segedu {mine}, this machine has {self.tool}"
            raise ValueError(f"{theirs}; install the same on both")
        self.turn, self.stack = threading.Lock(), contextlib.ExitStack()
        self.grader_pool = self.stack.enter_context(pool_in_process(self.assignment, worker.state.nthreads))
        self.sandbox = self.grader_pool.sandbox

    def grade(self, handed: Handed) -> bytes:
        """One submission; called by the worker's threads.

        Args:
            handed: the submission.

        Returns:
            The record, as JSON.
        """
        with self.turn:  # one at a time is handed over, and only one starts graders in the place of others
            future = self.grader_pool.submit(handed)
        return future.result()

    def teardown(self, worker: Worker) -> None:
        """On the worker: closes them."""
        if self.stack is not None:
            self.stack.close()


def _sandbox(name: str, dask_worker: Worker) -> tuple[int, str]:
    return dask_worker.plugins[name].sandbox


def _grade(name: str, handed: Handed) -> bytes:
    """The task: one submission; runs on a worker."""
    graders = get_worker().plugins[name]
    if graders.problem:
        raise graders.problem
    return graders.grade(handed)
