"""Who grades: threads of this process here, workers of a cluster in `cluster`; the same task, one a submission."""

from __future__ import annotations

import contextlib
import importlib
import json
import queue
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segedu.grading.compare import make_paper
from segedu.grading.examine import Desk, examine
from segedu.grading.kernel import KernelPool, Limits
from segedu.grading.lab import Lab
from segedu.grading.ladder import best_rung
from segedu.grading.records import record_key
from segedu.grading.stage import build_stage
from segedu.grading.submission import Handed, Submission, look_into

SAFE_LEVEL = 2
AHEAD = 2  # submissions that are read for each one that is graded; the rest stay on the disk
MAX_TRIES = 4  # of one whose worker was lost


@dataclass(frozen=True)
class Assignment:
    """All that a grader must know of a batch; it can be sent to another machine.

    Attributes:
        lab: as the course has it.
        seed: of the hidden cases.
        settings: what else decides a record, as text.
        exercise: the only one to grade, or "" for all.
        level: of the sandbox; the best that works where None.
        trust: grade although there is no sandbox worth its name.
        cell_seconds: limit of each cell.
        total_seconds: limit of each submission.
    """

    lab: Lab
    seed: int
    settings: str = ""
    exercise: str = ""
    level: int | None = None
    trust: bool = False
    cell_seconds: float = 30.0
    total_seconds: float = 300.0

    def key(self, digest: str) -> str:
        """The key of the record of a submission with this digest."""
        return record_key(digest, self.lab.digest, self.seed, self.settings)

    def desk(self) -> Desk:
        """The desk without kernels.

        Raises:
            ValueError: if the lab's notebook and its exercises differ.
        """
        module = importlib.import_module("segedu.exercises").load(self.lab.name)
        every = {exercise.name: exercise for exercise in module.exercises}
        missing = set(every) ^ set(self.lab.exercises)
        if missing:
            names = ", ".join(sorted(missing))
            raise ValueError(f"labs/{self.lab.name}.ipynb and its exercises differ in {names}; run `make labs`")
        wanted = [every[self.exercise]] if self.exercise else every.values()
        papers = {exercise.name: make_paper(exercise, self.lab.name, self.seed) for exercise in wanted}
        limits = Limits(cell_seconds=self.cell_seconds, total_seconds=self.total_seconds)
        hides = list(dict.fromkeys(name for exercise in every.values() for name in exercise.hides))
        return Desk(self.lab, papers, None, limits, self.cell_seconds, hides=hides)


class Examiner:
    """Grades one submission after the other; as many threads may share it as it has pools.

    Args:
        assignment: of the batch.
        desk: made from it.
        pools: of kernels; each serves one submission at a time. None: it can only write down what went wrong.
    """

    def __init__(self, assignment: Assignment, desk: Desk, pools: Iterable[Any] = ()) -> None:
        self.assignment, self.desk = assignment, desk
        self.free: queue.SimpleQueue = queue.SimpleQueue()
        for pool in pools:
            self.free.put(pool)

    def grade(self, handed: Handed) -> dict:
        """One submission from bytes to record; whatever goes wrong is this submission's alone."""
        submission = look_into(handed, self.assignment.lab.name)
        pool = self.free.get()
        try:
            return examine(submission, replace(self.desk, pool=pool), self.assignment.key(handed.digest))
        except Exception as error:
            return self.failed(submission, error)
        finally:
            self.free.put(pool)

    def failed(self, submission: Submission, error: BaseException) -> dict:
        """The record of a failure that is ours; it is tried again at the next run."""
        why = f"the grader failed: {type(error).__name__}: {error}"
        problem = replace(submission, cells=(), problem=why)
        record = examine(problem, self.desk, self.assignment.key(submission.digest))
        return record | {"status": "failed", "trace": "".join(traceback.format_exception(error))[-4000:]}


@dataclass(frozen=True)
class Crew:
    """Graders at work.

    Attributes:
        sandbox: `(level, reason)`.
        count: submissions at a time.
        submit: hands one over and gives the future of its record, as a dict or, from another machine, as JSON.
    """

    sandbox: tuple[int, str]
    count: int
    submit: Callable[[Handed], Future]


@contextlib.contextmanager
def threads(assignment: Assignment, count: int, open_pools: Callable[..., Any] | None = None) -> Iterator[Crew]:
    """Graders of this process.

    Args:
        assignment: of the batch.
        count: of threads, each with a kernel pool.
        open_pools: `(assignment, hides, count)` -> context manager of pools; the sandboxed ones where None.

    Yields:
        The crew.
    """
    desk = assignment.desk()
    with (open_pools or sandboxed_pools)(assignment, desk.hides, count) as pools:
        examiner = Examiner(assignment, desk, pools)
        with ThreadPoolExecutor(len(pools), thread_name_prefix="grade") as workers:
            try:
                sandbox = (pools[0].rung.level, pools[0].rung.reason)
                yield Crew(sandbox, len(pools), lambda handed: workers.submit(examiner.grade, handed))
            except BaseException:  # Ctrl-C: those that run now end, the rest stay for the next run
                workers.shutdown(wait=False, cancel_futures=True)
                raise


def records_of(crew: Crew, todo: Iterable[Handed], failed: Callable[[Handed, Exception], dict]) -> Iterator[dict]:
    """The records as they are made; only a few submissions are in memory at a time.

    Args:
        crew: at work.
        todo: read from the disk as there is room.
        failed: makes the record of one whose workers were lost `MAX_TRIES` times.

    Yields:
        A record a submission, in the order in which they are done.
    """
    waiting = iter(todo)
    running: dict[Future, tuple[Handed, int]] = {}

    def refill() -> None:
        while len(running) < AHEAD * crew.count:
            handed = next(waiting, None)
            if handed is None:
                return
            running[crew.submit(handed)] = (handed, 1)

    refill()
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            handed, tries = running.pop(future)
            try:
                record = future.result()
                record = json.loads(record) if isinstance(record, bytes) else record
            except Exception as error:
                if tries < MAX_TRIES:
                    running[crew.submit(handed)] = (handed, tries + 1)
                    continue
                record = failed(handed, error)
            yield record
        refill()


@contextlib.contextmanager
def sandboxed_pools(assignment: Assignment, hides: list[str], count: int) -> Iterator[list[KernelPool]]:
    """One kernel pool a worker, on one staged package without what the lab hides.

    Args:
        assignment: level and trust.
        hides: modules that become stubs.
        count: of pools.

    Yields:
        The pools.

    Raises:
        PermissionError: below level 2 without `trust`.
    """
    rung = best_rung(assignment.level)
    if rung.level < SAFE_LEVEL and not assignment.trust:
        raise PermissionError(
            f"the best sandbox here is level {rung.level} ({rung.reason}); `segedu grade --doctor` says why. "
            "If you trust the authors of these submissions, add --i-trust-these-submissions"
        )
    with tempfile.TemporaryDirectory(prefix="segedu-stage-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o711)
        stage = build_stage(hides, Path(folder, "stage"))
        yield [stack.enter_context(KernelPool(stage, assignment.level)) for _ in range(count)]
