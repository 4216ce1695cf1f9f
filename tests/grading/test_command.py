"""`segedu grade` from the outside: what it prints, its exit status, and errors that say what to do."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.batch import command
from segedu.grading.batch.batch import Job, grade_batch


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=160)


@pytest.fixture
def job(course, tiny, tmp_path):
    folder = tmp_path / "subs"
    folder.mkdir()
    (folder / "anna.ipynb").write_text(tiny.notebook(tiny.answered(**tiny.RIGHT)))
    (folder / "bert.ipynb").write_text("{")
    return Job(folder, tiny.LAB, tmp_path / "out", course, seed=1)


@pytest.fixture(autouse=True)
def _here(monkeypatch, open_grader_pool):
    monkeypatch.setattr(command, "grade_batch", functools.partial(grade_batch, open_grader_pool=open_grader_pool))


def test_it_prints_the_table_and_writes_reports(job, console):
    assert command.grade(job, console=console) == 0
    text = console.file.getvalue()
    assert f"Lab 00_tiny from {job.course}" in text and "9/9" in text and "bad file" in text
    assert "2 graded now" in text and text.count("Sandbox level 3") == 1
    assert (job.out / "00_tiny" / "junit.xml").is_file() and (job.out / "gradebook.sqlite").is_file()
    console.file.truncate(0)
    assert command.grade(job, console=console) == 0
    text = console.file.getvalue()
    assert "0 graded now, 2 had a record already" in text and text.count("Sandbox level 3") == 1


def test_expected_points_decide_the_exit_status(job, console, tmp_path):
    expect = tmp_path / "expected.csv"
    expect.write_text("student,points,status,note\nanna,9,graded,\nbert,0,unreadable,not valid JSON\n")
    assert command.grade(job, expect, console) == 0
    assert "All 2 submissions have exactly the expected points" in console.file.getvalue()
    expect.write_text("student,points\nanna,8\nbert,0\n")
    assert command.grade(job, expect, console) == 1
    assert "anna: points is 9, expected 8" in console.file.getvalue()


def test_where_nothing_could_be_graded_it_says_why(job, console):
    (job.submissions / "anna.ipynb").unlink()
    for i in range(25):
        (job.submissions / f"c{i:02}.ipynb").write_text("{")
    for _ in range(2):  # now, and when the records are there already
        assert command.grade(job, console=console) == 1
        text = console.file.getvalue()
        assert "bert was not graded: bert.ipynb is not valid JSON" in text and "c18 was not graded" in text
        assert "c19 was not graded" not in text and "6 more were not graded: see" in text
        console.file.truncate(0)


def test_a_wrong_name_is_answered_by_one_sentence(job, console):
    assert command.grade(replace(job, lab="00_tyni"), console=console) == 2
    said = console.file.getvalue().strip()
    assert said == f"lab is '00_tyni', which {job.course} does not have; expected one of 00_tiny"
    assert not job.out.exists()


@pytest.mark.parametrize("content", [None, "", "name,points\n"])
def test_a_bad_file_of_expected_points(job, console, tmp_path, content):
    path = tmp_path / "expected.csv"
    if content is not None:
        path.write_text(content)
    assert command.grade(job, path, console) == 2
    assert f"--expect is {path}" in console.file.getvalue()


def test_ctrl_c_says_how_to_go_on(job, console, monkeypatch):
    monkeypatch.setattr(command, "grade_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command.grade(job, console=console) == 130
    assert "the same command continues from there" in console.file.getvalue()


def test_a_full_disk_says_what_is_kept(job, console, monkeypatch):
    full = OSError(28, "No space left on device", "/graded/x.json")
    monkeypatch.setattr(command, "grade_batch", lambda *_: (_ for _ in ()).throw(full))
    assert command.grade(job, console=console) == 1
    text = console.file.getvalue()
    assert "could not be written: /graded/x.json: No space left on device" in text and "Free some disk space" in text
    monkeypatch.undo()


def run(*arguments):
    result = CliRunner().invoke(app, ["grade", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, " ".join(result.output.split())


def test_the_command_line_says_what_is_wrong(job, tmp_path):
    subs, course = job.submissions, ("--course", job.course)
    assert run()[0] == 2 and "give SUBMISSIONS and --lab" in run()[1]
    assert "contains neither labs/ nor solutions/" in run(subs, "--lab", "00_tiny", "--course", tmp_path)[1]
    code, text = run(subs, "--lab", "77_none", "--out", tmp_path / "o", *course)
    assert code == 2 and "expected one of 00_tiny" in text
    code, text = run(tmp_path / "nowhere", "--lab", "00_tiny", "--out", tmp_path / "o", *course)
    assert code == 2 and "does not exist; give a folder" in text
    empty = tmp_path / "empty"
    empty.mkdir()
    code, text = run(empty, "--lab", "00_tiny", "--out", tmp_path / "o", *course)
    assert code == 2 and "holds no notebook" in text
    (tmp_path / "a_file").write_text("")
    code, text = run(subs, "--lab", "00_tiny", "--out", tmp_path / "a_file" / "o", *course)
    assert code == 2 and "cannot be written" in text
    code, text = run(subs, "--lab", "00_tiny", "--out", subs / "o", *course)
    assert code == 2 and "lies in the folder of the submissions" in " ".join(text.split())
    assert run(subs, "--lab", "00_tiny", "--out", tmp_path / "o", "--seed", 1, *course)[0] == 0
    code, text = run(subs, "--lab", "00_tiny", "--out", tmp_path / "o", "--seed", 2, *course)
    assert code == 2 and "graded with another seed" in text


def test_a_link_in_the_folder_of_submissions_cannot_write_to_the_terminal(job, console, monkeypatch):
    wrong = OSError(36, "File name too long", "/subs/\x1b[2J\x1b[31mAll graded.ipynb")
    monkeypatch.setattr(command, "grade_batch", lambda *_: (_ for _ in ()).throw(wrong))
    assert command.grade(job, console=console) == 1
    text = console.file.getvalue()
    assert "could not be read or written: /subs/All graded.ipynb: File name too long" in text
    assert "\x1b" not in text and "Free some" not in text


def test_a_terminal_without_the_letters_of_a_name_ends_nothing(job, tmp_path):
    for name in ("안나.ipynb", "\udcff.ipynb"):
        (job.submissions / "bert.ipynb").rename(job.submissions / name)
        (job.submissions / "bert.ipynb").write_text("{")
    (job.submissions / "anna.ipynb").unlink()
    words = [
        sys.executable,
        Path(__file__).with_name("tiny.py"),
        job.course,
        "grade",
        job.submissions,
        "--lab",
        "00_tiny",
        "--out",
        job.out,
    ]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "COLUMNS": "200"}
    done = subprocess.run(
        [*map(str, words), "--course", str(job.course)], env=environment, capture_output=True, cwd=tmp_path
    )
    text = (done.stdout + done.stderr).decode("latin-1")
    assert done.returncode == 1 and "Traceback" not in text, text  # none of these can be read
    assert "?? was not graded" in text and "Written: " in text and "3 graded now" in text
