"""Who grades: a process beside this one, threads of this one, or workers of a cluster; one task a submission.

Nothing here imports torch or a kernel's client: the process that reads, records and reports stays small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from segedu.grading.lab import Lab
from segedu.grading.records import record_key
from segedu.grading.submission import Handed

SAFE_LEVEL = 2
AHEAD = 2  # submissions that are read for each one that is graded; the rest stay on the disk
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
        return record_key(digest, self.lab.digest, self.seed, self.settings)


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


def records_of(crew: Crew, todo: Iterable[Handed], failed: Callable[[Handed, Exception], dict]) -> Iterator[dict]:
    """The records as they are made; only a few submissions are in memory at a time.

    A worker may be lost through one of the submissions that it had: each of them is tried again alone, so that the
    others' records do not suffer.

    Args:
        crew: at work.
        todo: read from the disk as there is room.
        failed: makes the record of one whose workers were lost `MAX_TRIES` times.

    Yields:
        A record a submission, in the order in which they are done.
    """
    waiting = iter(todo)
    running: dict[Future, tuple[Handed, int]] = {}
    suspects: list[tuple[Handed, int]] = []

    def hand_over(handed: Handed, tries: int = 1) -> None:
        running[crew.submit(handed)] = (handed, tries)

    def refill() -> None:
        if suspects and not running:
            hand_over(*suspects.pop())
        if suspects or any(tries > 1 for _, tries in running.values()):
            return
        while len(running) < AHEAD * crew.count and (handed := next(waiting, None)) is not None:
            hand_over(handed)

    refill()
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            handed, tries = running.pop(future)
            try:
                record = future.result()
                record = json.loads(record) if isinstance(record, bytes) else record
            except Exception as error:
                if tries < MAX_TRIES:
                    suspects.append((handed, tries + 1))
                    continue
                record = failed(handed, error)
            yield record
        refill()
