"""A batch: every submission of a folder, several at a time, none able to stop the others, each done once."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from segedu.grading.batch.grader_pool import SAFE_LEVEL, Assignment, GraderPool, records_of
from segedu.grading.batch.grader_process import pool_in_process
from segedu.grading.gradebook.roster import names_of_ids
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.records import LAB_NAME, Records, RecordStore, batch_seed, clean, output_folder_lock
from segedu.grading.submissions.find_submissions import Entry, find_entries, record_name
from segedu.grading.submissions.submission import Handed, collect, fingerprint, look_into

__all__ = ["SAFE_LEVEL", "Batch", "Job", "grade_batch"]


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
        exercise: grade only this one anew and keep the others' points; all where "".
        dask: address of a Dask scheduler whose workers grade; "" for this machine.
        layout: of the folder of submissions, one of `LAYOUTS`.
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
        """What else decides a record."""
        return f"cell_seconds={self.cell_seconds:g} total_seconds={self.total_seconds:g} level={self.level}"

    def assignment(self, seed: int) -> Assignment:
        """What the graders must know.

        Args:
            seed: of the hidden cases.
        """
        limits = (self.level, self.trust, self.cell_seconds, self.total_seconds)
        return Assignment(read_lab(self.course, self.lab), seed, self.settings, self.exercise, *limits)


@dataclass
class Batch:
    """What came of it.

    Attributes:
        lab: name.
        records: one a submission, sorted by student; each is read from the disk when it is asked for.
        graded: how many were graded now.
        kept: how many had their record already.
        not_due: how many were left because one exercise alone was asked for, and they are not graded as they are now.
        left_out: files in the folder that are no submissions.
        seconds: of the whole batch.
        sandbox: `(level, reason)`, or None where nothing had to run.
    """

    lab: str
    records: Records
    graded: int = 0
    kept: int = 0
    not_due: int = 0
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sandbox: tuple[int, str] | None = None


def grade_batch(
    job: Job,
    on_progress: Callable[[int, int, str], None] = lambda done, total, student: None,
    on_sandbox: Callable[[int, str], None] = lambda level, reason: None,
    open_grader_pool: Callable[[Assignment, int], AbstractContextManager[GraderPool]] = pool_in_process,
) -> Batch:
    """Grade a folder of submissions; go on where an earlier run stopped.

    Args:
        job: what to grade and how.
        on_progress: told `(done, total, student)`.
        on_sandbox: told the level and what holds it, before anything runs.
        open_grader_pool: opens the graders here, given the assignment and how many work at a time.

    Returns:
        The batch, with all records.

    Raises:
        ValueError: if a path, the lab or the seed is wrong; the message says what to do.
        PermissionError: if the only sandbox here is none, and `trust` is not set.
        OSError: if a record cannot be written; those written before are kept.
    """
    started = time.monotonic()
    _check_out(job)
    exact = partial(names_of_ids, job.out / "roster.csv")
    entries, left_out = find_entries(job.submissions, job.layout, job.out.resolve(), exact)
    _check_names(job)
    _make_folder(job.out)
    with output_folder_lock(job.out):
        store = RecordStore(job.out, job.lab)
        batch = Batch(job.lab, Records(store, [entry.name for entry in entries]), left_out=left_out)
        assignment = job.assignment(batch_seed(job.out, job.seed))
        states = [_state(entry, store, assignment) for entry in entries]
        todo = [entry for entry, state in zip(entries, states, strict=True) if state == "due"]
        batch.kept, batch.not_due = states.count("kept"), states.count("not due")
        if todo:
            on_progress(0, len(todo), "")
            count = max(1, min(job.jobs, len(todo)))
            opened = _cluster(job, assignment) if job.dask else open_grader_pool(assignment, count)
            with opened as graders:
                batch.sandbox = graders.sandbox
                on_sandbox(*graders.sandbox)
                for record in _grade(job, assignment, todo, graders):
                    store.write(_merged(record, store, assignment))
                    batch.graded += 1
                    on_progress(batch.graded, len(todo), record["student"])
    batch.seconds = time.monotonic() - started
    return batch


def _check_out(job: Job) -> None:
    """Where students' folders lie, the instructor's own files must not: a student can hand in a folder of any name.

    A folder `graded` with a seed, records and points by hand, or a folder `records`, would be taken for the grader's.
    """
    folder, out = job.submissions.resolve(), job.out.resolve()
    if not folder.is_dir():
        return
    advice = "give a folder beside the submissions, such as --out ../graded"
    if out.is_relative_to(folder):
        where = (
            "is the folder of the submissions" if out == folder else f"lies in the folder of the submissions, {folder}"
        )
        why = "a student could have handed in a folder of that name, with records and a seed"
        raise ValueError(f"--out is {job.out}, which {where}: {why}; {advice}")
    lab = folder.relative_to(out).parts[0] if folder.is_relative_to(out) else ""
    if re.fullmatch(LAB_NAME, lab):
        why = f"records of the lab {lab} would lie among the submissions in {out / lab}"
        raise ValueError(f"--out is {job.out}: {why}; give another folder, such as --out {job.out / 'graded'}")


def _check_names(job: Job) -> None:
    """Before anything is written: a wrong name must not leave a folder behind."""
    if job.course.resolve() == job.submissions.resolve():  # a student may have handed in a folder named labs
        raise ValueError(f"--course is {job.course}, the folder of the submissions; give the checkout of the course")
    there = read_lab(job.course, job.lab).exercises
    if job.exercise and job.exercise not in there:
        raise ValueError(f"--exercise is {job.exercise}, which {job.lab} does not have; it has {', '.join(there)}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        why = error.strerror
        raise ValueError(f"--out is {out}, which cannot be written ({why}); give a folder of yours") from None


def _state(entry: Entry, store: RecordStore, assignment: Assignment) -> str:
    """ "kept" where there is a finished record of just this work; only where there is any is the work read."""
    record = store.read(entry.name)
    if record is None:
        return "not due" if assignment.exercise else "due"
    digest = fingerprint(entry, assignment.lab.name)
    if record["key"] == assignment.key(digest) and _is_read_alike(record, entry):
        return "kept"
    fits = record["status"] == "graded" and record["digest"] == digest
    return "not due" if assignment.exercise and not fits else "due"


def _is_read_alike(record: dict, entry: Entry) -> bool:
    """Whether what the name and the folder say of it is still what the record says."""
    same_notes = not entry.clash or clean(entry.clash) in record["notes"]
    return same_notes and (record.get("layout"), record.get("clash")) == (entry.layout, bool(entry.clash))


def _cluster(job: Job, assignment: Assignment) -> AbstractContextManager[GraderPool]:
    try:
        from segedu.grading.batch.dask_cluster import pool_on_cluster
    except ImportError:
        raise ValueError("--dask needs Dask; install it with: pip install 'segedu[cluster]'") from None
    return pool_on_cluster(job.dask, assignment)


def _grade(job: Job, assignment: Assignment, todo: list[Entry], grader_pool: GraderPool) -> Iterator[dict]:
    handed = (collect(entry, job.lab, job.submissions) for entry in todo)

    def failed(work: Handed, error: Exception) -> dict:
        from segedu.grading.batch.grader_threads import SubmissionGrader, make_grading_setup

        return SubmissionGrader(assignment, make_grading_setup(assignment)).failed(look_into(work, job.lab), error)

    with contextlib.closing(records_of(grader_pool, handed, failed)) as records:
        yield from records


def _merged(record: dict, store: RecordStore, assignment: Assignment) -> dict:
    """Of one exercise graded anew: put into the record of the others."""
    old = store.read(record_name(record["student"], record["attempt"])) if assignment.exercise else None
    if old is None or record["status"] != "graded":
        return record
    anew = {exercise["name"]: exercise for exercise in record["exercises"]}
    exercises = [anew.get(exercise["name"], exercise) for exercise in old["exercises"]]
    points = {"points": sum(one["points"] for one in exercises), "max_points": sum(one["max"] for one in exercises)}
    kept = {"exercises": [one["name"] for one in exercises if one["name"] not in anew], "tool": old["tool"]}
    notes = list(dict.fromkeys([*old["notes"], *record["notes"]]))
    return record | points | {"exercises": exercises, "notes": notes, "kept": kept}
