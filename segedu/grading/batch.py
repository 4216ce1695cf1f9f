"""A batch: every submission of a folder, several at a time, none able to stop the others, each done once."""

from __future__ import annotations

import contextlib
import importlib
import queue
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segedu.grading.compare import make_paper
from segedu.grading.examine import Desk, examine
from segedu.grading.kernel import KernelPool, Limits
from segedu.grading.lab import Lab, read_lab
from segedu.grading.ladder import best_rung
from segedu.grading.records import RecordStore, batch_seed, only_one, record_key
from segedu.grading.stage import build_stage
from segedu.grading.submission import Entry, find_entries, fingerprint, read_submission

SAFE_LEVEL = 2


@dataclass(frozen=True)
class Job:
    """What the instructor asked for.

    Attributes:
        submissions: a folder, a notebook or an archive.
        lab: `04_metrics`.
        out: where records and reports go.
        course: the checkout with `labs/`.
        jobs: submissions at a time.
        seed: of the hidden cases; drawn once a folder where None.
        level: of the sandbox; the best that works here where None.
        trust: grade although there is no sandbox worth its name.
        cell_seconds: limit of each cell.
        total_seconds: limit of each submission.
    """

    submissions: Path
    lab: str
    out: Path
    course: Path
    jobs: int = 1
    seed: int | None = None
    level: int | None = None
    trust: bool = False
    cell_seconds: float = 30.0
    total_seconds: float = 300.0

    @property
    def settings(self) -> str:
        """What else decides a record."""
        return f"cell_seconds={self.cell_seconds:g} total_seconds={self.total_seconds:g} level={self.level}"


@dataclass
class Batch:
    """What came of it.

    Attributes:
        lab: name.
        records: one a submission, sorted by student.
        graded: how many were graded now.
        kept: how many had their record already.
        left_out: files in the folder that are no submissions.
        seconds: of the whole batch.
        sandbox: `(level, reason)`, or None where nothing had to run.
    """

    lab: str
    records: list[dict] = field(default_factory=list)
    graded: int = 0
    kept: int = 0
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sandbox: tuple[int, str] | None = None


def grade_batch(
    job: Job,
    on_progress: Callable[[int, int, str], None] = lambda done, total, student: None,
    on_sandbox: Callable[[int, str], None] = lambda level, reason: None,
    open_pools: Callable[..., Any] | None = None,
) -> Batch:
    """Grade a folder of submissions; go on where an earlier run stopped.

    Args:
        job: what to grade and how.
        on_progress: told `(done, total, student)`.
        on_sandbox: told the level and what holds it, before anything runs.
        open_pools: `(job, hides, count)` -> context manager of kernel pools; the sandboxed ones where None.

    Returns:
        The batch, with all records.

    Raises:
        ValueError: if a path, the lab or the seed is wrong; the message says what to do.
        PermissionError: if the only sandbox here is none, and `trust` is not set.
    """
    started = time.monotonic()
    lab = read_lab(job.course, job.lab)
    entries, left_out = find_entries(job.submissions)
    out = job.out.resolve()
    ours = [entry for entry in entries if entry.path.resolve() in (out, *out.parents)]  # --out inside SUBMISSIONS
    entries = [entry for entry in entries if entry not in ours]
    left_out += [entry.path.name for entry in ours]
    _make_folder(job.out)
    with only_one(job.out):
        batch = Batch(job.lab, left_out=left_out)
        seed = batch_seed(job.out, job.seed)
        store = RecordStore(job.out, job.lab)
        keys = Keys(job, lab, seed)
        todo = [entry for entry in entries if store.read(entry.student, keys.of(fingerprint(entry, job.lab))) is None]
        batch.kept = len(entries) - len(todo)
        done: dict[str, dict] = {}
        if todo:
            desk = _desk(job, lab, seed)
            on_progress(0, len(todo), "")
            with (open_pools or sandboxed_pools)(job, desk.hides, max(1, min(job.jobs, len(todo)))) as pools:
                batch.sandbox = (pools[0].rung.level, pools[0].rung.reason)
                on_sandbox(*batch.sandbox)
                for record in _grade(todo, pools, lambda entry, pool: _one(entry, job, replace(desk, pool=pool), keys)):
                    store.write(record)
                    done[record["student"]] = record
                    on_progress(len(done), len(todo), record["student"])
        records = (done.get(entry.student) or store.read(entry.student) for entry in entries)
        batch.records = [record for record in records if record]
    batch.graded, batch.seconds = len(todo), time.monotonic() - started
    return batch


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        why = error.strerror
        raise ValueError(f"--out is {out}, which cannot be written ({why}); give a folder of yours") from None


@dataclass(frozen=True)
class Keys:
    """Makes the keys of a batch's records."""

    job: Job
    lab: Lab
    seed: int

    def of(self, digest: str) -> str:
        """The key of a submission with this digest."""
        return record_key(digest, self.lab.digest, self.seed, self.job.settings)


def _grade(todo: list[Entry], pools: list, one: Callable[[Entry, Any], dict]) -> Iterator[dict]:
    """The records as they are made; a pool serves one submission at a time."""
    free: queue.SimpleQueue = queue.SimpleQueue()
    for pool in pools:
        free.put(pool)

    def work(entry: Entry) -> dict:
        pool = free.get()
        try:
            return one(entry, pool)
        finally:
            free.put(pool)

    with ThreadPoolExecutor(len(pools), thread_name_prefix="grade") as workers:
        waiting = [workers.submit(work, entry) for entry in todo]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:  # Ctrl-C: those that run now end, the rest stay for the next run
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _desk(job: Job, lab: Lab, seed: int) -> Desk:
    module = importlib.import_module("segedu.exercises").load(job.lab)
    papers = {exercise.name: make_paper(exercise, job.lab, seed) for exercise in module.exercises}
    missing = set(papers) ^ set(lab.exercises)
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"labs/{job.lab}.ipynb and its exercises differ in {names}; run `make labs`")
    limits = Limits(cell_seconds=job.cell_seconds, total_seconds=job.total_seconds)
    return Desk(lab, papers, None, limits, job.cell_seconds)


def _one(entry: Entry, job: Job, desk: Desk, keys: Keys) -> dict:
    """One submission from file to record; whatever goes wrong is this submission's alone."""
    submission = read_submission(entry, job.lab, job.submissions)
    key = keys.of(submission.digest)
    try:
        return examine(submission, desk, key)
    except Exception as error:
        problem = replace(submission, cells=(), problem=f"the grader failed: {type(error).__name__}: {error}")
        return examine(problem, desk, key) | {"status": "failed", "trace": traceback.format_exc()[-4000:]}


@contextlib.contextmanager
def sandboxed_pools(job: Job, hides: list[str], count: int) -> Iterator[list[KernelPool]]:
    """One kernel pool a worker, on one staged package without what the lab hides.

    Args:
        job: level and trust.
        hides: modules that become stubs.
        count: of pools.

    Yields:
        The pools.

    Raises:
        PermissionError: below level 2 without `trust`.
    """
    rung = best_rung(job.level)
    if rung.level < SAFE_LEVEL and not job.trust:
        raise PermissionError(
            f"the best sandbox here is level {rung.level} ({rung.reason}); `segedu grade --doctor` says why. "
            "If you trust the authors of these submissions, add --i-trust-these-submissions"
        )
    with tempfile.TemporaryDirectory(prefix="segedu-stage-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o711)
        stage = build_stage(hides, Path(folder, "stage"))
        yield [stack.enter_context(KernelPool(stage, job.level)) for _ in range(count)]
