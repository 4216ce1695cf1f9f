"""A grader grades one submission at a time; threads of this process share one, each with its own kernels."""

from __future__ import annotations

import contextlib
import importlib
import queue
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from segedu.grading.batch.grader_pool import SAFE_LEVEL, Assignment, GraderPool
from segedu.grading.judging.compare import make_exercise_cases
from segedu.grading.judging.examine import GradingSetup, examine
from segedu.grading.sandbox.isolation_levels import best_level
from segedu.grading.sandbox.kernel_pool import KernelPool, Limits
from segedu.grading.sandbox.staged_library import build_stage
from segedu.grading.submissions.submission import Handed, Submission, look_into


def make_grading_setup(assignment: Assignment) -> GradingSetup:
    """What grading one lab needs, still without kernels.

    Args:
        assignment: of the batch.

    Raises:
        ValueError: if the lab's notebook and its exercises differ.
    """
    lab = assignment.lab
    module = importlib.import_module("segedu.teaching.exercises").load(lab.name)
    every = {exercise.name: exercise for exercise in module.exercises}
    missing = set(every) ^ set(lab.exercises)
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"labs/{lab.name}.ipynb and its exercises differ in {names}; run `make labs`")
    wanted = [every[assignment.exercise]] if assignment.exercise else every.values()
    cases_by_name = {exercise.name: make_exercise_cases(exercise, lab.name, assignment.seed) for exercise in wanted}
    limits = Limits(cell_seconds=assignment.cell_seconds, total_seconds=assignment.total_seconds)
    hides = list(dict.fromkeys(name for exercise in every.values() for name in exercise.hides))
    forbidden = getattr(module, "FORBIDDEN", ())
    return GradingSetup(lab, cases_by_name, None, limits, assignment.cell_seconds, hides=hides, forbidden=forbidden)


class SubmissionGrader:
    """Grades one submission after the other; as many threads may share it as it has pools.

    Args:
        assignment: of the batch.
        grading_setup: made from the assignment.
        pools: of kernels; each serves one submission at a time. None: it can only write down what went wrong.
    """

    def __init__(self, assignment: Assignment, grading_setup: GradingSetup, pools: Iterable[Any] = ()) -> None:
        self.assignment, self.grading_setup = assignment, grading_setup
        self.free: queue.SimpleQueue = queue.SimpleQueue()
        for pool in pools:
            self.free.put(pool)

    def grade(self, handed: Handed) -> dict:
        """One submission from bytes to record; whatever goes wrong is this submission's alone.

        Raises:
            MemoryError: if this process may use no more. Another submission may be the cause, so whoever handed this
                one over tries it again alone.
        """
        submission = look_into(handed, self.assignment.lab.name)
        pool = self.free.get()
        try:
            return examine(submission, replace(self.grading_setup, pool=pool), self.assignment.key(handed.digest))
        except MemoryError:
            raise
        except Exception as error:
            return self.failed(submission, error)
        finally:
            self.free.put(pool)

    def failed(self, submission: Submission, error: BaseException) -> dict:
        """The record of a failure that is ours; it is tried again at the next run."""
        why = f"the grader failed: {type(error).__name__}: {error}"
        problem = replace(submission, cells=(), problem=why)
        record = examine(problem, self.grading_setup, self.assignment.key(submission.digest))
        return record | {"status": "failed", "trace": "".join(traceback.format_exception(error))[-4000:]}


@contextlib.contextmanager
def pool_of_threads(
    assignment: Assignment, count: int, open_pools: Callable[..., Any] | None = None
) -> Iterator[GraderPool]:
    """Graders of this process.

    Args:
        assignment: of the batch.
        count: of threads, each with a kernel pool.
        open_pools: `(assignment, hides, count)` -> context manager of pools; the sandboxed ones where None.

    Yields:
        The grader pool. Where it is left by an exception, kernels end at once and what runs is given up.
    """
    grading_setup = make_grading_setup(assignment)
    with (open_pools or sandboxed_pools)(assignment, grading_setup.hides, count) as pools:
        grader = SubmissionGrader(assignment, grading_setup, pools)
        workers = ThreadPoolExecutor(len(pools), thread_name_prefix="grade")
        try:
            sandbox = (pools[0].isolation.level, pools[0].isolation.reason)
            yield GraderPool(sandbox, len(pools), lambda handed: workers.submit(grader.grade, handed))
        except BaseException:  # Ctrl-C, or the parent is gone: the rest stays for the next run
            workers.shutdown(wait=False, cancel_futures=True)
            raise
        workers.shutdown()


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
    isolation = best_level(assignment.level)
    if isolation.level < SAFE_LEVEL and not assignment.trust:
        raise PermissionError(
            f"the best sandbox here is level {isolation.level} ({isolation.reason}); `segedu grade --doctor` says why. "
            "If you trust the authors of these submissions, add --i-trust-these-submissions"
        )
    with tempfile.TemporaryDirectory(prefix="segedu-stage-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o711)
        stage = build_stage(hides, Path(folder, "stage"))
        yield [stack.enter_context(KernelPool(stage, assignment.level)) for _ in range(count)]
