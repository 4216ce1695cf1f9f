"""Graders in a process of their own: it may die, and the batch goes on; the parent holds no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from segedu.grading import apart
from segedu.grading.batch import Job, grade_batch

# on the other side: a pool that runs steps there, and a judge that one submission kills
FRAGILE = """
import contextlib, os, time
import conftest
from segedu.grading import examiner

@contextlib.contextmanager
def pools(assignment, hides, count):
    yield [conftest.InProcessPool() for _ in range(count)]

examiner.sandboxed_pools = pools
grade = examiner.Examiner.grade

def fragile(self, handed):
    if handed.entry.student == "bomb":
        os._exit(7)
    if handed.entry.student.startswith("slow"):
        time.sleep(60)
    return grade(self, handed)

examiner.Examiner.grade = fragile
"""


@pytest.fixture
def job(course, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "subs"
    folder.mkdir()
    for i in range(6):
        (folder / f"s{i}.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)) + " " * i)
    monkeypatch.setattr(apart, "_CODE", tiny.other_side(course, FRAGILE))
    return Job(folder, tiny.LAB, tmp_path / "out", course, jobs=2, seed=4)


def timeless(batch) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "measured"} for record in batch.records]


def test_the_same_records_as_in_this_process(job, crew, tmp_path):
    there = grade_batch(job)
    here = grade_batch(replace(job, out=tmp_path / "here"), crew=crew)
    assert timeless(there) == timeless(here) and {record["points"] for record in there.records} == {9}
    assert there.sandbox == here.sandbox


def test_one_that_kills_the_judge_each_time_harms_no_other(job, tmp_path):
    (job.submissions / "bomb.ipynb").write_text((job.submissions / "s0.ipynb").read_text())
    records = {record["student"]: record for record in grade_batch(job).records}
    assert records["bomb"]["status"] == "failed"
    assert records["bomb"]["problem"] == "the grader failed: RuntimeError: the process of the graders ended with 7"
    assert [records[f"s{i}"]["points"] for i in range(6)] == [9] * 6


def test_a_judge_that_is_killed_in_the_middle_loses_nothing(job):
    def follow(done, total, student):
        if done in (1, 4):
            child = next(c for c in psutil.Process().children() if "apart.main" in " ".join(c.cmdline()))
            child.kill()

    batch = grade_batch(job, follow)
    assert batch.graded == 6 and [record["points"] for record in batch.records] == [9] * 6


def test_what_keeps_the_graders_from_starting_is_raised_here(job, monkeypatch):
    with pytest.raises(ValueError, match="and its exercises differ in box_area"):
        notebook = job.course / "labs" / f"{job.lab}.ipynb"
        before = notebook.read_text()
        notebook.write_text(before.replace('"box_area"', '"box_volume"'))
        try:
            grade_batch(job)
        finally:
            notebook.write_text(before)
    monkeypatch.setattr(apart, "_CODE", "import os; os._exit(3)")
    with pytest.raises(RuntimeError, match="the process of the graders ended with 3"):
        grade_batch(job)


def test_they_end_with_their_parent(job, monkeypatch):
    for i in range(6):
        (job.submissions / f"s{i}.ipynb").rename(job.submissions / f"slow{i}.ipynb")
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(code=apart._CODE), *map(str, (job.course, job.submissions, job.out))],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "graders at work\n"
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs([child], timeout=30)
    assert alive == []


PARENT = """
import sys
from pathlib import Path
from segedu.grading import apart
from segedu.grading.batch import Job, grade_batch
apart._CODE = {code!r}
course, subs, out = map(Path, sys.argv[1:])
job = Job(subs, "00_tiny", out, course, jobs=2, seed=4)
grade_batch(job, on_sandbox=lambda level, reason: print("graders at work", flush=True))
"""


def test_the_parent_imports_neither_torch_nor_a_kernels_client():
    code = "import segedu.grading.command, sys; print(*{'torch', 'numpy', 'nbformat', 'pytest'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
