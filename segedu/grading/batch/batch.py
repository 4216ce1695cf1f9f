"""Grade every submission of a folder once, several in parallel. No submission can stop the others."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from segedu.grading.batch.grader_pool import SAFE_LEVEL, Assignment, GraderPool, records_of
from segedu.grading.batch.grader_process import pool_in_process
from segedu.grading.gradebook.roster import names_of_ids
from segedu.grading.judging.lab_source import check_course, read_lab
from segedu.grading.judging.records import LAB_NAME, Records, RecordStore, batch_seed, clean, output_folder_lock
from segedu.grading.submissions.find_submissions import Entry, find_entries, record_name
from segedu.grading.submissions.submission import RawSubmission, collect, fingerprint, parse_submission

__all__ = ["SAFE_LEVEL", "Batch", "Job", "grade_batch"]


@dataclass(frozen=True)
class Job:
    """The options of `segedu grade`, whose help explains them.

    Attributes:
        seed: seed of the hidden cases; None uses the seed stored in `out`, or draws one.
        level: sandbox level; None is the best that works here.
        exercise: the only exercise to grade again, or "" for all.
        dask: address of a Dask scheduler, or "" to grade on this machine.
        layout: one of `folder_layout.LAYOUTS`.
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
    exercise: str = ""
    dask: str = ""
    layout: str = "auto"

    @property
    def settings(self) -> str:
        """Options that are part of a record's key."""
        return f"cell_seconds={self.cell_seconds:g} total_seconds={self.total_seconds:g} level={self.level}"

    def assignment(self, seed: int) -> Assignment:
        """What the graders need to know, with the seed of the hidden cases."""
        limits = (self.level, self.trust, self.cell_seconds, self.total_seconds)
        return Assignment(read_lab(self.course, self.lab), seed, self.settings, self.exercise, *limits)


@dataclass
class Batch:
    """The result of grading a batch.

    Attributes:
        lab: name of the lab.
        records: one record per submission, sorted by student and read lazily.
        graded: number of submissions graded in this run.
        kept: number of submissions that had a valid record already.
        skipped: number of submissions that cannot be graded for a single exercise, because they have no record yet.
        ignored_files: files in the folder that are not submissions.
        seconds: wall time of the batch.
        sandbox: (level, reason), or None if no submission had to run.
    """

    lab: str
    records: Records
    graded: int = 0
    kept: int = 0
    skipped: int = 0
    ignored_files: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sandbox: tuple[int, str] | None = None


def grade_batch(
    job: Job,
    on_progress: Callable[[int, int, str], None] = lambda done, total, student: None,
    on_sandbox: Callable[[int, str], None] = lambda level, reason: None,
    open_grader_pool: Callable[[Assignment, int], AbstractContextManager[GraderPool]] = pool_in_process,
) -> Batch:
    """Grade a folder of submissions, or continue where an earlier run stopped.

    Args:
        job: the options.
        on_progress: called with (done, total, student).
        on_sandbox: called with the level of the sandbox and the reason for it, before a submission runs.
        open_grader_pool: opens graders on this machine, for an assignment and a number of submissions in parallel.

    Raises:
        ValueError: if a path, the lab or the seed is wrong.
        PermissionError: if no sandbox of level 2 or 3 works, and `trust` is not set.
        OSError: if a record cannot be written; earlier records are kept.
    """
    started = time.monotonic()
    _check_out(job)
    roster_names = partial(names_of_ids, job.out / "roster.csv")
    entries, ignored_files = find_entries(job.submissions, job.layout, job.out.resolve(), roster_names)
    _check_names(job)
    _make_folder(job.out)
    with output_folder_lock(job.out):
        store = RecordStore(job.out, job.lab)
        batch = Batch(job.lab, Records(store, [entry.name for entry in entries]), ignored_files=ignored_files)
        assignment = job.assignment(batch_seed(job.out, job.seed))
        states = [_state(entry, store, assignment) for entry in entries]
        todo = [entry for entry, state in zip(entries, states, strict=True) if state == "to grade"]
        batch.kept, batch.skipped = states.count("kept"), states.count("skipped")
        if todo:
            on_progress(0, len(todo), "")
            count = max(1, min(job.jobs, len(todo)))
            opened = _cluster(job, assignment) if job.dask else open_grader_pool(assignment, count)
            with opened as grader_pool:
                batch.sandbox = grader_pool.sandbox
                on_sandbox(*grader_pool.sandbox)
                for record in _grade(job, assignment, todo, grader_pool):
                    store.write(_merged(record, store, assignment))
                    batch.graded += 1
                    on_progress(batch.graded, len(todo), record["student"])
    batch.seconds = time.monotonic() - started
    return batch


def _check_out(job: Job) -> None:
    """Raise an error if the output folder lies among the submissions.

    A student can hand in a folder of any name: a folder `graded` with a seed, records and manual points, or a folder
    `records`, would be mistaken for the grader's.
    """
    folder, out = job.submissions.resolve(), job.out.resolve()
    if not folder.is_dir():
        return
    advice = "give a folder beside the submissions, such as --out ../graded"
    if out.is_relative_to(folder):
        problem = "is the folder of the submissions"
        if out != folder:
            problem = f"lies in the folder of the submissions, {folder}"
        reason = "a student could have handed in a folder of that name, with records and a seed"
        raise ValueError(f"--out is {job.out}, which {problem}: {reason}; {advice}")
    lab = folder.relative_to(out).parts[0] if folder.is_relative_to(out) else ""
    if re.fullmatch(LAB_NAME, lab):
        reason = f"records of the lab {lab} would lie among the submissions in {out / lab}"
        raise ValueError(f"--out is {job.out}: {reason}; give another folder, such as --out {job.out / 'graded'}")


def _check_names(job: Job) -> None:
    """Check course, lab and exercise before anything is written, so that a wrong name leaves no folder behind."""
    check_course(job.course, job.submissions)
    exercises = read_lab(job.course, job.lab).exercises
    if job.exercise and job.exercise not in exercises:
        raise ValueError(f"--exercise is {job.exercise}, which {job.lab} does not have; it has {', '.join(exercises)}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        problem = f"--out is {out}, which cannot be written ({error.strerror})"
        raise ValueError(f"{problem}; give a folder that you can write") from None


def _state(entry: Entry, store: RecordStore, assignment: Assignment) -> str:
    """ "kept" if there is a valid record of the submission, "skipped" (see `Batch`), or "to grade"."""
    record = store.read(entry.name)
    if record is None:
        return "skipped" if assignment.exercise else "to grade"
    digest = fingerprint(entry, assignment.lab.name)
    if record["key"] == assignment.key(digest) and _has_same_origin(record, entry):
        return "kept"
    has_other_points = record["status"] == "graded" and record["digest"] == digest
    return "skipped" if assignment.exercise and not has_other_points else "to grade"


def _has_same_origin(record: dict, entry: Entry) -> bool:
    """Whether layout and name clash of the submission are still those of the record."""
    same_notes = not entry.clash or clean(entry.clash) in record["notes"]
    return same_notes and (record.get("layout"), record.get("clash")) == (entry.layout, bool(entry.clash))


def _cluster(job: Job, assignment: Assignment) -> AbstractContextManager[GraderPool]:
    try:
        from segedu.grading.batch.dask_cluster import pool_on_cluster
    except ImportError:
        raise ValueError("--dask needs Dask; install it with: pip install 'segedu[cluster]'") from None
    return pool_on_cluster(job.dask, assignment)


def _grade(job: Job, assignment: Assignment, todo: list[Entry], grader_pool: GraderPool) -> Iterator[dict]:
    submissions = (collect(entry, job.lab, job.submissions) for entry in todo)

    def failed(raw: RawSubmission, error: Exception) -> dict:
        from segedu.grading.batch.grader_threads import SubmissionGrader, make_grading_setup

        grader = SubmissionGrader(assignment, make_grading_setup(assignment))
        try:
            submission = parse_submission(raw, job.lab)
        except MemoryError:  # here too: the record needs only whose submission it is
            submission = parse_submission(replace(raw, problem="it needs too much memory"), job.lab)
        return grader.failed(submission, error)

    with contextlib.closing(records_of(grader_pool, submissions, failed)) as records:
        yield from records


def _merged(record: dict, store: RecordStore, assignment: Assignment) -> dict:
    """If only one exercise was graded again, put it into the old record with the other exercises."""
    old = store.read(record_name(record["student"], record["attempt"])) if assignment.exercise else None
    if old is None or record["status"] != "graded":
        return record
    new = {exercise["name"]: exercise for exercise in record["exercises"]}
    exercises = [new.get(exercise["name"], exercise) for exercise in old["exercises"]]
    points = {"points": sum(one["points"] for one in exercises), "max_points": sum(one["max"] for one in exercises)}
    kept = {"exercises": [one["name"] for one in exercises if one["name"] not in new], "tool": old["tool"]}
    notes = list(dict.fromkeys([*old["notes"], *record["notes"]]))
    return record | points | {"exercises": exercises, "notes": notes, "kept": kept}
