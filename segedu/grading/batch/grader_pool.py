"""Distribute submissions to graders, which are threads, a child process, or workers of a cluster.

Nothing here imports torch or a kernel client, so the process that writes records and reports stays small.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from segedu.grading.judging.lab_source import Lab
from segedu.grading.judging.records import record_key, sources_of
from segedu.grading.submissions.submission import RawSubmission

SAFE_LEVEL = 2
QUEUED_PER_GRADER = 2  # submissions in memory per grader; the others stay on the disk
MAX_ALONE = 2  # times that one student's work, of all attempts, is graded again alone, which delays everyone else
MAX_TRIES = 3  # for a submission whose worker was lost: once beside others, then alone


@dataclass(frozen=True)
class Assignment:
    """What a grader needs to know about a batch; it can be sent to another machine.

    Attributes:
        lab: the lab of the course.
        seed: seed of the hidden cases.
        settings: other settings that are part of a record's key.
        exercise: the only exercise to grade, or "" for all.
        level: sandbox level; None is the best that works here.
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
        return record_key(digest, sources_of(self.lab), self.seed, self.settings)


@dataclass(frozen=True)
class GraderPool:
    """Running graders.

    Attributes:
        sandbox: (level, reason).
        count: number of submissions graded in parallel.
        submit: starts grading and returns the future of the record, which is a dict, or JSON from another process.
    """

    sandbox: tuple[int, str]
    count: int
    submit: Callable[[RawSubmission], Future]


@dataclass
class _Running:
    """A submission that is being graded: its number of tries, and whether others were graded at the same time."""

    submission: RawSubmission
    tries: int = 1
    beside_others: bool = False


def records_of(
    grader_pool: GraderPool,
    todo: Iterable[RawSubmission],
    failure_record: Callable[[RawSubmission, Exception], dict],
    student_of: Callable[[RawSubmission], str] = lambda submission: submission.entry.student,
) -> Iterator[dict]:
    """Grade submissions and yield their records as they are ready; only a few submissions are in memory at a time.

    If a worker is lost, any of its submissions may be the cause: each is graded again alone, so that the others are not
    affected. A submission that ran out of time beside others is also graded again alone, once, because the others may
    have used up CPU, memory or disk. For one student this happens at most `MAX_ALONE` times, so that twenty attempts
    with endless loops do not stop the batch twenty times.

    Args:
        grader_pool: the graders.
        todo: read from the disk when a grader needs work.
        failure_record: makes the record of a submission whose workers were lost `MAX_TRIES` times.
        student_of: the student of a submission.
    """
    queue = _SubmissionQueue(grader_pool, iter(todo))
    regraded_alone: Counter[str] = Counter()  # student -> number of attempts graded again alone
    queue.refill()
    while queue.running:
        for future in wait(queue.running, return_when=FIRST_COMPLETED).done:
            running = queue.running.pop(future)
            try:
                record = future.result()
                record = json.loads(record) if isinstance(record, bytes) else record
            except Exception as error:
                if running.tries < MAX_TRIES:
                    queue.suspects.append((running.submission, running.tries + 1))
                    continue
                record = failure_record(running.submission, error)
            student = student_of(running.submission)
            if running.beside_others and disturbed(record) and regraded_alone[student] < MAX_ALONE:
                regraded_alone[student] += 1
                queue.to_regrade.append(running.submission)
                continue
            yield record
        queue.refill()


class _SubmissionQueue:
    """The queue of submissions. One that must be graded alone waits until no other is running."""

    def __init__(self, grader_pool: GraderPool, waiting: Iterator[RawSubmission]) -> None:
        self.grader_pool, self.waiting = grader_pool, waiting
        self.running: dict[Future, _Running] = {}
        self.suspects: list[tuple[RawSubmission, int]] = []
        self.to_regrade: list[RawSubmission] = []
        self.exclusive = False

    def refill(self) -> None:
        """Submit as many as there is room for."""
        if self.suspects and not self.running:
            self._submit(*self.suspects.pop())
        if self.suspects or any(running.tries > 1 for running in self.running.values()):
            return
        self.exclusive = bool(self.to_regrade) and (self.exclusive or len(self.to_regrade) >= self.grader_pool.count)
        capacity = QUEUED_PER_GRADER * self.grader_pool.count
        while not self.exclusive and len(self.running) + len(self.to_regrade) < capacity:
            submission = next(self.waiting, None)
            if submission is None:
                self.exclusive = bool(self.to_regrade)
                break
            self._submit(submission)
        if self.exclusive and not self.running:
            self._submit(self.to_regrade.pop(0), tries=MAX_TRIES - 1)

    def _submit(self, submission: RawSubmission, tries: int = 1) -> None:
        self.running[self.grader_pool.submit(submission)] = _Running(submission, tries)
        if len(self.running) > 1 and self.grader_pool.count > 1:
            for running in self.running.values():
                running.beside_others = True


def disturbed(record: dict) -> bool:
    """Whether other submissions may have caused the result: a timeout, an unexplained kill, or a failed grader."""
    return record.get("status") == "failed" or bool(record.get("measured", {}).get("cut_short"))
