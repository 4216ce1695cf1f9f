"""Who grades: a process beside this one, threads of this one, or workers of a cluster; one task a submission.

Nothing here imports torch or a kernel's client: the process that reads, records and reports stays small.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from segedu.grading.judging.lab_source import Lab
from segedu.grading.judging.records import record_key, sources_of
from segedu.grading.submissions.submission import Handed

SAFE_LEVEL = 2
AHEAD = 2  # submissions that are read for each one that is graded; the rest stay on the disk
MAX_ALONE = 2  # times that one student's work is graded again alone, over all attempts: nobody else is graded meanwhile
MAX_TRIES = 3  # of one whose worker was lost: the first in company, the others alone


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
        return record_key(digest, sources_of(self.lab), self.seed, self.settings)


@dataclass(frozen=True)
class GraderPool:
    """Graders at work.

    Attributes:
        sandbox: `(level, reason)`.
        count: submissions at a time.
        submit: hands one over and gives the future of its record, as a dict or, from another machine, as JSON.
    """

    sandbox: tuple[int, str]
    count: int
    submit: Callable[[Handed], Future]


@dataclass
class _Running:
    """One submission at work: how often it was handed over, and whether another one was at work at any time of it."""

    handed: Handed
    tries: int = 1
    beside: bool = False


def records_of(
    grader_pool: GraderPool,
    todo: Iterable[Handed],
    failed: Callable[[Handed, Exception], dict],
    student_of: Callable[[Handed], str] = lambda handed: handed.entry.student,
) -> Iterator[dict]:
    """The records as they are made; only a few submissions are in memory at a time.

    A worker may be lost through one of the submissions that it had: each of them is tried again alone, so that the
    others' records do not suffer. What ran out of time beside others is graded again alone too, once: they may have
    taken the processors, the memory or the disk. For one student this happens `MAX_ALONE` times at most, so that twenty
    attempts of endless loops do not stop the batch twenty times.

    Args:
        grader_pool: open.
        todo: read from the disk as there is room.
        failed: makes the record of one whose workers were lost `MAX_TRIES` times.
        student_of: whose a submission is.

    Yields:
        A record a submission, in the order in which they are done.
    """
    queue = _SubmissionQueue(grader_pool, iter(todo))
    alone: Counter[str] = Counter()  # student -> how many attempts were graded again alone
    queue.refill()
    while queue.running:
        for future in wait(queue.running, return_when=FIRST_COMPLETED).done:
            turn = queue.running.pop(future)
            try:
                record = future.result()
                record = json.loads(record) if isinstance(record, bytes) else record
            except Exception as error:
                if turn.tries < MAX_TRIES:
                    queue.suspects.append((turn.handed, turn.tries + 1))
                    continue
                record = failed(turn.handed, error)
            student = student_of(turn.handed)
            if turn.beside and disturbed(record) and alone[student] < MAX_ALONE:
                alone[student] += 1
                queue.again.append(turn.handed)
                continue
            yield record
        queue.refill()


class _SubmissionQueue:
    """The queue of submissions. One that is to be graded alone runs while no other does."""

    def __init__(self, grader_pool: GraderPool, waiting: Iterator[Handed]) -> None:
        self.grader_pool, self.waiting = grader_pool, waiting
        self.running: dict[Future, _Running] = {}
        self.suspects: list[tuple[Handed, int]] = []
        self.again: list[Handed] = []
        self.alone = False

    def refill(self) -> None:
        """Submit as many as there is room for."""
        if self.suspects and not self.running:
            self._hand_over(*self.suspects.pop())
        if self.suspects or any(turn.tries > 1 for turn in self.running.values()):
            return
        self.alone = bool(self.again) and (self.alone or len(self.again) >= self.grader_pool.count)
        while not self.alone and len(self.running) + len(self.again) < AHEAD * self.grader_pool.count:
            handed = next(self.waiting, None)
            if handed is None:
                self.alone = bool(self.again)
                break
            self._hand_over(handed)
        if self.alone and not self.running:
            self._hand_over(self.again.pop(0), tries=MAX_TRIES - 1)

    def _hand_over(self, handed: Handed, tries: int = 1) -> None:
        self.running[self.grader_pool.submit(handed)] = _Running(handed, tries)
        if len(self.running) > 1 and self.grader_pool.count > 1:
            for turn in self.running.values():
                turn.beside = True


def disturbed(record: dict) -> bool:
    """Whether others may be to blame: steps that ran out of time or were killed by nobody known, or a grader's failure.

    Args:
        record: of one submission.
    """
    return record.get("status") == "failed" or bool(record.get("measured", {}).get("cut_short"))
