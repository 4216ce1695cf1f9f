"""Graders in a process of their own: it may die, and the batch goes on; the parent holds no torch."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection, wait

import psutil
import pytest
from rich.console import Console

from segedu.grading.batch import command, grader_process
from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.sandbox.restrictions import SandboxError
from segedu.grading.submissions.find_submissions import find_entries
from segedu.grading.submissions.submission import collect

# on the other side: a pool that runs steps there, and a judge that one submission kills
FRAGILE = """
import contextlib, os, time
import conftest
from segedu.grading.batch import grader_threads

@contextlib.contextmanager
def pools(assignment, hides, count):
    yield [conftest.InProcessPool() for _ in range(count)]

grader_threads.sandboxed_pools = pools
grade = grader_threads.SubmissionGrader.grade

def fragile(self, handed):
    if handed.entry.student == "bomb":
        os._exit(7)
    if handed.entry.student.startswith("slow"):
        time.sleep(60)
    if handed.entry.student == "odd":
        return {"points": {"a set": "is no JSON"}.keys()}
    return grade(self, handed)

grader_threads.SubmissionGrader.grade = fragile
"""


@pytest.fixture
def job(course, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "subs"
    folder.mkdir()
    for i in range(6):
        (folder / f"s{i}.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)) + " " * i)
    monkeypatch.setattr(grader_process, "_CODE", tiny.other_side(course, FRAGILE))
    return Job(folder, tiny.LAB, tmp_path / "out", course, jobs=2, seed=4)


def graders() -> list[psutil.Process]:
    """The processes of graders that this one has; a child may end while it is looked at."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # also a zombie
            if "grader_process.main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def timeless(batch) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "measured"} for record in batch.records]


def test_the_same_records_as_in_this_process(job, open_grader_pool, tmp_path):
    there = grade_batch(job)
    here = grade_batch(replace(job, out=tmp_path / "here"), open_grader_pool=open_grader_pool)
    assert timeless(there) == timeless(here) and {record["points"] for record in there.records} == {9}
    assert there.sandbox == here.sandbox


def test_one_that_kills_the_judge_each_time_harms_no_other(job, tmp_path):
    (job.submissions / "bomb.ipynb").write_text((job.submissions / "s0.ipynb").read_text())
    records = {record["student"]: record for record in grade_batch(job).records}
    assert records["bomb"]["status"] == "failed"
    assert records["bomb"]["problem"] == (
        "the grader failed: SandboxError: the process of the graders ended with exit status 7 while it graded "
        "this submission; run the same command again, and read this submission if it happens again"
    )
    assert [records[f"s{i}"]["points"] for i in range(6)] == [9] * 6


def test_a_judge_that_is_killed_in_the_middle_loses_nothing(job):
    killed = []

    def follow(done, total, student):
        if done in (1, 4):  # at the second time those killed before may not have been replaced yet
            for child in graders():
                killed.append(child.pid)
                child.kill()

    batch = grade_batch(job, follow)
    assert killed and batch.graded == 6 and [record["points"] for record in batch.records] == [9] * 6


def test_what_keeps_the_graders_from_starting_is_raised_here(job, monkeypatch):
    with pytest.raises(ValueError, match="and its exercises differ in box_area"):
        notebook = job.course / "labs" / f"{job.lab}.ipynb"
        before = notebook.read_text()
        notebook.write_text(before.replace('"box_area"', '"box_volume"'))
        try:
            grade_batch(job)
        finally:
            notebook.write_text(before)


NO_ROOM = """
import contextlib, errno
from segedu.grading.batch import grader_threads

@contextlib.contextmanager
def pools(assignment, hides, count):
    raise OSError(errno.ENOSPC, "No space left on device", "/stage")
    yield

grader_threads.sandboxed_pools = pools
"""


def test_graders_that_cannot_start_say_why_in_one_sentence(job, course, tiny, monkeypatch):
    def said() -> str:
        with pytest.raises(SandboxError) as caught:
            grade_batch(job)
        console = Console(file=io.StringIO(), width=80)
        assert command.grade(job, console=console) == 2
        assert str(caught.value) in console.file.getvalue() and "Traceback" not in console.file.getvalue()
        return str(caught.value)

    monkeypatch.setattr(grader_process, "_CODE", "import os; os._exit(3)")
    assert said() == (
        "the graders did not start: their process ended with exit status 3; "
        "a message above may say why, and `segedu grade --doctor` says what works here"
    )
    monkeypatch.setattr(grader_process, "_CODE", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "was ended by signal 9 (memory may have run out: fewer --jobs need less)" in said()
    monkeypatch.setattr(grader_process, "_CODE", tiny.other_side(course, NO_ROOM))
    assert said() == "the graders did not start: [Errno 28] No space left on device: '/stage'"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert said() == "the graders did not start: [Errno 2] No such file or directory: '/nowhere/python'"


def test_graders_that_cannot_be_replaced_keep_what_was_graded(job, monkeypatch):
    def follow(done, total, student):
        if done == 2:
            monkeypatch.setattr(grader_process, "_CODE", "import os; os._exit(3)")
            (child,) = graders()
            child.kill()

    code = grader_process._CODE
    with pytest.raises(SandboxError, match="the graders did not start: their process ended with exit status 3"):
        grade_batch(job, follow)
    monkeypatch.setattr(grader_process, "_CODE", code)
    batch = grade_batch(job)
    assert batch.kept >= 2 and [record["points"] for record in batch.records] == [9] * 6


def test_no_descriptor_stays_open(job, monkeypatch):
    count = psutil.Process().num_fds
    grade_batch(job)  # what Python opens once and keeps is open now
    (job.submissions / "bomb.ipynb").write_text((job.submissions / "s0.ipynb").read_text())
    before, at_work = count(), []
    grade_batch(replace(job, seed=None), lambda *_: at_work.append(count()))  # only the bomb is left
    assert count() == before
    grade_batch(replace(job, out=job.out / "again"), lambda *_: at_work.append(count()))
    assert count() == before and len(set(at_work[1:2] + at_work[3:])) == 1, at_work
    for code in ("import os; os._exit(3)", "import sys; sys.path.clear()"):
        monkeypatch.setattr(grader_process, "_CODE", code)
        with pytest.raises(SandboxError) as caught:
            grade_batch(job)
        assert count() == before, caught.value  # which is still held here, and with it all frames
    monkeypatch.setattr(grader_process, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(Connection, "recv", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt) as stopped:
        grade_batch(job)
    assert count() == before, stopped.value
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError) as nowhere:
        grade_batch(job)
    assert count() == before, nowhere.value


@pytest.mark.parametrize("gone", ["before the order", "before the answer", "with records unread"])
def test_a_parent_that_is_gone_leaves_no_traceback(job, gone):
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", grader_process._CODE, str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    with Connection(ours.detach()) as connection:
        if gone != "before the order":
            connection.send((job.assignment(4), 2))
        if gone == "with records unread":
            assert connection.recv()[1] == 2
            for number, entry in enumerate(find_entries(job.submissions)[0]):
                connection.send((number, collect(entry, job.lab, job.submissions)))
            assert wait([connection], timeout=60)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_a_record_that_cannot_be_sent_is_a_failure_of_its_own(job):
    (job.submissions / "odd.ipynb").write_text((job.submissions / "s0.ipynb").read_text())
    records = {record["student"]: record for record in grade_batch(job).records}
    problem = "the grader failed: SandboxError: a grader's thread was ended by TypeError: Object of type dict_keys"
    assert records["odd"]["status"] == "failed" and records["odd"]["problem"].startswith(problem)
    assert [records[f"s{i}"]["points"] for i in range(6)] == [9] * 6


# answers at once, in the thread that reads, with records that no socket holds at a time
HUGE = """
import contextlib
from concurrent.futures import Future
from segedu.grading.batch import grader_threads
from segedu.grading.batch.grader_pool import GraderPool

@contextlib.contextmanager
def pool_of_threads(assignment, count):
    def submit(handed):
        future = Future()
        future.set_result({"student": handed.entry.student, "text": "x" * (1 << 20)})
        return future
    yield GraderPool((3, "a pretence"), count, submit)

grader_threads.pool_of_threads = pool_of_threads
"""


def test_neither_side_waits_for_the_other_however_much_there_is_to_say(job, course, tiny, monkeypatch):
    monkeypatch.setattr(grader_process, "_CODE", tiny.other_side(course, HUGE))
    handed = collect(find_entries(job.submissions)[0][0], job.lab, job.submissions)
    handed = replace(handed, notebooks=(("s0.ipynb", bytes(1 << 20)),))
    futures = []
    with grader_process.pool_in_process(job.assignment(4), 2) as grader_pool:
        hand_over = threading.Thread(
            target=lambda: futures.extend(grader_pool.submit(handed) for _ in range(30)), daemon=True
        )
        hand_over.start()
        hand_over.join(30)
        if hand_over.is_alive():
            for child in graders():
                child.kill()
        assert not hand_over.is_alive()
        assert {len(future.result(30)) > 1 << 20 for future in futures} == {True}


SLOW_START = """
import contextlib, sys, time
from segedu.grading.batch import grader_threads

@contextlib.contextmanager
def pools(assignment, hides, count):
    try:  # the parent may end this process as soon as it reads the first line
        print("starting", flush=True)
        time.sleep(60)
        yield []
    finally:
        print("tidied", flush=True)

grader_threads.sandboxed_pools = pools
"""


def test_ctrl_c_is_heard_while_they_start(job, course, tiny):
    heard = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background is deaf
    )
    code = heard + PARENT.format(code=tiny.other_side(course, SLOW_START))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (job.course, job.submissions, job.out))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "starting\n"
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert said == "tidied\n" and errors.count("Traceback") == 1 == errors.count("KeyboardInterrupt")


def test_they_end_with_their_parent(job, still_running):
    for i in range(6):
        (job.submissions / f"s{i}.ipynb").rename(job.submissions / f"slow{i}.ipynb")
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(code=grader_process._CODE), *map(str, (job.course, job.submissions, job.out))],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "graders at work\n"
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert still_running([child]) == []


PARENT = """
import sys
from pathlib import Path
from segedu.grading.batch import grader_process
from segedu.grading.batch.batch import Job, grade_batch
grader_process._CODE = {code!r}
course, subs, out = map(Path, sys.argv[1:])
job = Job(subs, "00_tiny", out, course, jobs=2, seed=4)
grade_batch(job, on_sandbox=lambda level, reason: print("graders at work", flush=True))
"""


def test_the_parent_imports_neither_torch_nor_a_kernels_client():
    code = (
        "import segedu.grading.batch.command, sys; print(*{'torch', 'numpy', 'nbformat', 'pytest'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
