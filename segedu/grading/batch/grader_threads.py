"""Graders in the threads of this process, each with its own kernels."""

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
from segedu.grading.submissions.submission import RawSubmission, Submission, parse_submission


def make_grading_setup(assignment: Assignment) -> GradingSetup:
    """Everything that grading a lab needs besides kernels: hidden cases, limits, hidden and forbidden names.

    Raises:
        ValueError: if the lab's notebook and its exercises differ.
    """
    lab = assignment.lab
    module = importlib.import_module("segedu.teaching.exercises").load(lab.name)
    exercises = {exercise.name: exercise for exercise in module.exercises}
    differences = set(exercises) ^ set(lab.exercises)
    if differences:
        names = ", ".join(sorted(differences))
        raise ValueError(f"labs/{lab.name}.ipynb and its exercises differ in {names}; run `make labs`")
    to_grade = [exercises[assignment.exercise]] if assignment.exercise else exercises.values()
    cases_by_name = {exercise.name: make_exercise_cases(exercise, lab.name, assignment.seed) for exercise in to_grade}
    limits = Limits(cell_seconds=assignment.cell_seconds, total_seconds=assignment.total_seconds)
    hides = list(dict.fromkeys(name for exercise in exercises.values() for name in exercise.hides))
    forbidden = getattr(module, "FORBIDDEN", ())
    return GradingSetup(lab, cases_by_name, None, limits, assignment.cell_seconds, hides=hides, forbidden=forbidden)


class SubmissionGrader:
    """Grades submissions; at most as many threads as it has pools of kernels may share it.

    Args:
        assignment: the assignment of the batch.
        grading_setup: from `make_grading_setup`.
        pools: pools of kernels, each for one submission at a time. Without pools, only `failed` works.
    """

    def __init__(self, assignment: Assignment, grading_setup: GradingSetup, pools: Iterable[Any] = ()) -> None:
        self.assignment, self.grading_setup = assignment, grading_setup
        self.free: queue.SimpleQueue = queue.SimpleQueue()
        for pool in pools:
            self.free.put(pool)

    def grade(self, raw: RawSubmission) -> dict:
        """Grade one submission and return its record. Any error but a MemoryError becomes part of the record.

        Raises:
            MemoryError: if this process reaches its memory limit. Another submission may be the cause, so the caller
                must grade this one again alone.
        """
        submission = parse_submission(raw, self.assignment.lab.name)
        pool = self.free.get()
        try:
            return examine(submission, replace(self.grading_setup, pool=pool), self.assignment.key(raw.digest))
        except MemoryError:
            raise
        except Exception as error:
            return self.failed(submission, error)
        finally:
            self.free.put(pool)

    def failed(self, submission: Submission, error: BaseException) -> dict:
        """The record of a submission on which the grader failed; the next run grades it again."""
        problem = f"the grader failed: {type(error).__name__}: {error}"
        without_cells = replace(submission, cells=(), problem=problem)
        record = examine(without_cells, self.grading_setup, self.assignment.key(submission.digest))
        return record | {"status": "failed", "trace": "".join(traceback.format_exception(error))[-4000:]}


@contextlib.contextmanager
def pool_of_threads(
    assignment: Assignment, count: int, open_pools: Callable[..., Any] | None = None
) -> Iterator[GraderPool]:
    """Open a pool of graders in threads of this process. After an exception in the block, kernels end at once.

    Args:
        assignment: the assignment of the batch.
        count: number of threads, each with a pool of kernels.
        open_pools: `(assignment, hides, count)` -> context manager of kernel pools; by default `sandboxed_pools`.
    """
    grading_setup = make_grading_setup(assignment)
    with (open_pools or sandboxed_pools)(assignment, grading_setup.hides, count) as pools:
        grader = SubmissionGrader(assignment, grading_setup, pools)
        workers = ThreadPoolExecutor(len(pools), thread_name_prefix="grade")
        try:
            sandbox = (pools[0].isolation.level, pools[0].isolation.reason)
            yield GraderPool(sandbox, len(pools), lambda raw: workers.submit(grader.grade, raw))
        except BaseException:  # Ctrl-C, or the parent has ended: the next run grades the remaining submissions
            workers.shutdown(wait=False, cancel_futures=True)
            raise
        workers.shutdown()


@contextlib.contextmanager
def sandboxed_pools(assignment: Assignment, hides: list[str], count: int) -> Iterator[list[KernelPool]]:
    """Open `count` kernel pools that share one copy of the library, in which the modules in `hides` are stubs.

    Raises:
        PermissionError: if the best sandbox is below level 2, and `trust` is not set.
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
