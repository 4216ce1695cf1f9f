"""A batch: nothing stops it, nothing is graded twice, a kill loses nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from segedu.grading.batch import batch as batch_module
from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.judging.records import RecordStore
from segedu.grading.sandbox.kernel_pool import RunResult, Step, probe_levels
from segedu.grading.sandbox.restrictions import SandboxError


def write_submissions(folder: Path, tiny) -> Path:
    folder.mkdir()
    wrong = {"double": "def double(x):\n    return x + 2"}
    for name, cells in {
        "perfect": tiny.answered(**tiny.RIGHT),
        "partial": tiny.answered(**tiny.RIGHT | wrong),
        "blank": tiny.lab_cells(),
        "lone": tiny.answered(total=tiny.RIGHT["total"]),
    }.items():
        (folder / f"{name}.ipynb").write_text(tiny.notebook(cells))
    (folder / "broken.ipynb").write_text('{"cells": [')
    return folder


@pytest.fixture
def job(course, tiny, tmp_path):
    return Job(write_submissions(tmp_path / "subs", tiny), tiny.LAB, tmp_path / "out", course)


def points(batch):
    return {record["student"]: (record["status"], record["points"]) for record in batch.records}


EXPECTED = {
    "blank": ("graded", 0),
    "broken": ("unreadable", 0),
    "lone": ("graded", 3),
    "partial": ("graded", 6),
    "perfect": ("graded", 9),
}


def test_each_is_graded_once_and_a_second_run_grades_nothing(job, pool, open_grader_pool):
    seen = []
    batch = grade_batch(job, lambda done, total, student: seen.append((done, total)), open_grader_pool=open_grader_pool)
    assert points(batch) == EXPECTED and (batch.graded, batch.kept) == (5, 0)
    assert seen == [(i, 5) for i in range(6)] and batch.sandbox[0] == 3
    runs = pool.runs
    again = grade_batch(job, open_grader_pool=open_grader_pool)
    assert (again.graded, again.kept, pool.runs) == (0, 5, runs) and list(again.records) == list(batch.records)


def test_a_changed_submission_alone_is_graded_again(job, pool, open_grader_pool, tiny):
    grade_batch(job, open_grader_pool=open_grader_pool)
    (job.submissions / "blank.ipynb").write_text(tiny.notebook(tiny.answered(double=tiny.RIGHT["double"])))
    (job.submissions / "new.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    assert (batch.graded, batch.kept) == (2, 4) and points(batch)["blank"] == ("graded", 3)


def test_attempts_are_graded_each(job, open_grader_pool, tiny):
    folder = job.submissions / "Zoe"
    folder.mkdir()
    (folder / "attempt-2.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))
    (folder / "Attempt 1").mkdir()
    (folder / "Attempt 1" / "lab.ipynb").write_text(tiny.notebook(tiny.lab_cells()))
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    zoe = [(r["attempt"], r["points"], r["submitted"]) for r in batch.records if r["student"] == "Zoe"]
    assert zoe == [(1, 0, None), (2, 9, None)] and len(batch.records) == 7
    assert grade_batch(job, open_grader_pool=open_grader_pool).kept == 7


def test_one_exercise_is_graded_anew_and_the_others_keep_their_points(job, pool, open_grader_pool, monkeypatch):
    first = {record["student"]: record for record in grade_batch(job, open_grader_pool=open_grader_pool).records}
    from segedu.teaching.exercises import load

    double = next(exercise for exercise in load(job.lab).exercises if exercise.name == "double")
    monkeypatch.setattr("segedu.grading.judging.records.decisive_hashes", lambda _: {"judge": "changed"})
    monkeypatch.setattr("segedu.grading.judging.examine.tool_version", lambda _: "0.2+changed")
    monkeypatch.setattr(
        "segedu.teaching.checks.judge.Answers.reference", [{"value": 0.0, "mutated": []}] * 4
    )  # nobody is right
    probed = []
    real = pool.run
    monkeypatch.setattr(pool, "run", lambda steps, *rest: probed.append(steps) or real(steps, *rest))
    (job.submissions / "new.ipynb").write_bytes((job.submissions / "perfect.ipynb").read_bytes())
    batch = grade_batch(replace(job, exercise=double.name), open_grader_pool=open_grader_pool)
    assert (batch.graded, batch.kept, batch.skipped) == (4, 0, 2)  # the broken one and the new one wait
    assert {step.name.split()[0] for steps in probed for step in steps if step.kind == "probe"} == {"double"}
    got = {record["student"]: record for record in batch.records}
    assert "new" not in got and got["broken"] == first["broken"]
    assert (got["perfect"]["points"], got["partial"]["points"], got["lone"]["points"]) == (6, 6, 3)
    assert got["perfect"]["exercises"][1:] == first["perfect"]["exercises"][1:] and got["perfect"]["max_points"] == 9
    assert got["perfect"]["kept"] == {"exercises": ["total", "box_area"], "tool": first["perfect"]["tool"]}
    again = grade_batch(job, open_grader_pool=open_grader_pool)  # what was graded anew counts as graded with this tool
    assert (again.graded, again.kept) == (2, 4)


def test_an_exercise_that_the_lab_does_not_have(job, open_grader_pool):
    grade_batch(job, open_grader_pool=open_grader_pool)
    with pytest.raises(ValueError, match="--exercise is dubble, .* it has double, total, box_area"):
        grade_batch(replace(job, exercise="dubble"), open_grader_pool=open_grader_pool)


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(job, open_grader_pool, monkeypatch):
    real, calls = RecordStore.write, []

    def write(store, record):
        calls.append(record["student"])
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(store.folder))
        real(store, record)

    monkeypatch.setattr(RecordStore, "write", write)
    with pytest.raises(OSError, match="No space left"):
        grade_batch(job, open_grader_pool=open_grader_pool)
    monkeypatch.setattr(RecordStore, "write", real)
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    assert (batch.graded, batch.kept) == (3, 2) and points(batch) == EXPECTED


def test_few_submissions_are_in_memory_at_a_time(job, open_grader_pool, tiny, monkeypatch):
    """Work is read from the disk as there is room, and of a record nothing stays."""
    for i in range(40):
        (job.submissions / f"s{i}.ipynb").write_text(tiny.notebook(tiny.lab_cells()) + " " * i)
    alive, most = weakref.WeakSet(), []
    real = batch_module.collect

    def collected(*arguments):
        handed = real(*arguments)
        alive.add(handed)
        most.append(len(alive))
        return handed

    monkeypatch.setattr(batch_module, "collect", collected)
    batch = grade_batch(replace(job, jobs=2), open_grader_pool=open_grader_pool)
    assert len(batch.records) == 45 == len(most) and max(most) <= 8


def test_one_that_makes_the_grader_fail_stops_nobody_and_is_tried_again(job, pool, open_grader_pool, monkeypatch):
    real = pool.run

    def run(steps: list[Step], *rest) -> RunResult:
        if any("x + 2" in step.source for step in steps):
            raise SandboxError("no kernel")
        return real(steps, *rest)

    monkeypatch.setattr(pool, "run", run)
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    assert points(batch) == EXPECTED | {"partial": ("failed", 0)}
    failed = next(record for record in batch.records if record["student"] == "partial")
    assert failed["problem"] == "the grader failed: SandboxError: no kernel" and "Traceback" in failed["trace"]
    monkeypatch.setattr(pool, "run", real)
    batch = grade_batch(job, open_grader_pool=open_grader_pool)
    assert points(batch) == EXPECTED and batch.graded == 1


def test_several_at_a_time_give_the_same(job, open_grader_pool, tmp_path):
    batch = grade_batch(replace(job, jobs=3), open_grader_pool=open_grader_pool)
    assert points(batch) == EXPECTED


def test_a_folder_that_cannot_be_written_is_said_first(job, tmp_path, open_grader_pool):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="--out is .*, which cannot be written .*; give a folder that you can write"):
        grade_batch(replace(job, out=file / "out"), open_grader_pool=open_grader_pool)


@pytest.mark.parametrize("out", ["graded/now", "graded", "."])
def test_reports_do_not_lie_where_a_student_could_have_put_them(job, open_grader_pool, out):
    inside = replace(job, out=job.submissions / out)
    with pytest.raises(ValueError, match="a student could have handed in a folder of that name"):
        grade_batch(inside, open_grader_pool=open_grader_pool)
    assert not (job.submissions / "graded").exists()


def test_the_folder_above_the_submissions_may_hold_the_reports_unless_it_takes_them_for_a_lab(job, open_grader_pool):
    assert points(grade_batch(replace(job, out=job.submissions.parent), open_grader_pool=open_grader_pool)) == EXPECTED
    named = job.submissions.rename(job.submissions.with_name("06_unet"))
    with pytest.raises(ValueError, match="records of the lab 06_unet would lie among the submissions"):
        grade_batch(replace(job, submissions=named, out=named.parent), open_grader_pool=open_grader_pool)


def test_the_labs_notebook_and_its_exercises_must_agree(job, open_grader_pool, tiny, tmp_path):
    course = tmp_path / "course"
    (course / "labs").mkdir(parents=True)
    cells = [cell for cell in tiny.lab_cells() if "total" not in cell["id"]]
    (course / "labs" / "00_tiny.ipynb").write_text(tiny.notebook(cells))
    with pytest.raises(ValueError, match="differ in total; run `make labs`"):
        grade_batch(replace(job, course=course), open_grader_pool=open_grader_pool)


# the pretence of conftest.py, but slow, so that a kill comes in the middle
SLOW = """
import importlib.util, sys, time, random
sys.path.insert(0, {here!r})
import conftest, tiny
from pathlib import Path
import contextlib, functools
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.batch.batch import Job, grade_batch

class Slow(conftest.InProcessPool):
    def run(self, *arguments):
        time.sleep(0.15)
        return super().run(*arguments)

@contextlib.contextmanager
def pools(job, hides, count):
    yield [Slow() for _ in range(count)]

course, subs, out = map(Path, sys.argv[1:])
tiny.install(course)
job = Job(subs, tiny.LAB, out, course, jobs=2, seed=11)
report = lambda done, total, student: print("done", student, flush=True)
print("end", grade_batch(job, report, open_grader_pool=functools.partial(pool_of_threads, open_pools=pools)).graded, flush=True)
"""


def timeless(out: Path) -> dict[str, dict]:
    found = {}
    for path in sorted((out / "00_tiny" / "records").glob("*.json")):
        record = json.loads(path.read_text())
        del record["measured"]
        found[path.name] = record
    return found


def test_a_run_that_is_killed_three_times_ends_with_the_same_records(course, tiny, tmp_path, open_grader_pool):
    subs = write_submissions(tmp_path / "subs", tiny)
    for i in range(12):
        (subs / f"s{i:02}.ipynb").write_text(
            tiny.notebook(tiny.answered(double=tiny.RIGHT["double"], total=f"total = {i}"))
        )
    code = SLOW.format(here=str(Path(__file__).parent))

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", code, str(course), str(subs), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    rng, counts = random.Random(4), []
    for _ in range(3):
        process = start(tmp_path / "killed")
        for _ in range(1 + rng.randrange(1, 4)):  # the first line comes before anything is graded
            assert process.stdout.readline().startswith("done")
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(len(timeless(tmp_path / "killed")))
    assert counts == sorted(counts) and 0 < counts[0] and counts[-1] < 17
    last, _ = start(tmp_path / "killed").communicate()
    assert last.splitlines()[-1] == f"end {17 - counts[-1]}"
    grade_batch(Job(subs, tiny.LAB, tmp_path / "whole", course, seed=11), open_grader_pool=open_grader_pool)
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")
    assert len(timeless(tmp_path / "whole")) == 17


@pytest.mark.skipif(
    not any(ok and level >= 2 for level, ok, _ in probe_levels()), reason="this machine offers no sandbox"
)
def test_the_tiny_course_in_real_sandboxes(course, tiny, tmp_path, server):
    subs = write_submissions(tmp_path / "subs", tiny)
    stolen = tiny.answered(**tiny.RIGHT | {"box_area": "from segedu.ops.boxes import box_area"})
    (subs / "stolen.ipynb").write_text(tiny.notebook(stolen))
    exits = tiny.answered(**tiny.RIGHT | {"total": "import os\ndef total(v):\n    os._exit(0)"})
    (subs / "exits.ipynb").write_text(tiny.notebook(exits))
    batch = grade_batch(Job(subs, tiny.LAB, tmp_path / "out", course, seed=3), open_grader_pool=pool_of_threads)
    assert points(batch) == EXPECTED | {"stolen": ("graded", 6), "exits": ("graded", 6)}
    levels = {record["sandbox"]["level"] for record in batch.records if record["sandbox"]}
    assert levels == {batch.sandbox[0]} and levels <= {2, 3}
    record = next(record for record in batch.records if record["student"] == "stolen")
    assert record["exercises"][2]["notes"] == ["the cell at position 9 imports segedu.ops.boxes, which this lab hides"]


def test_without_a_sandbox_it_asks_first(course, tiny, tmp_path, pool, monkeypatch):
    job = Job(write_submissions(tmp_path / "subs", tiny), tiny.LAB, tmp_path / "out", course, level=1)
    with pytest.raises(PermissionError, match="level 1 .*--doctor.*add --i-trust-these-submissions"):
        grade_batch(job, open_grader_pool=pool_of_threads)
    monkeypatch.setattr(
        "segedu.grading.batch.grader_threads.KernelPool", lambda stage, level: contextlib.nullcontext(pool)
    )
    assert points(grade_batch(replace(job, trust=True), open_grader_pool=pool_of_threads)) == EXPECTED


def test_a_lab_that_a_student_handed_in_is_not_the_course(job):
    """Where grading is started in the inbox, the folder of the course is that one unless another is given."""
    (job.submissions / "labs").mkdir()
    (job.submissions / "labs" / f"{job.lab}.ipynb").write_text((job.course / "labs" / f"{job.lab}.ipynb").read_text())
    with pytest.raises(ValueError, match="the folder of the submissions; give the checkout of the course"):
        grade_batch(replace(job, course=job.submissions))
    (job.submissions / "anna").mkdir(exist_ok=True)
    (job.submissions / "labs").rename(job.submissions / "anna" / "labs")
    with pytest.raises(ValueError, match="anna, which lies in .* of the submissions; give the checkout of the course"):
        grade_batch(replace(job, course=job.submissions / "anna"))
    assert not job.out.exists()
