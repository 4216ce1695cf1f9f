"""A disk that really is full, a folder that really is read-only, two graders at once: a clear word, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.py")


def mounts_work() -> bool:
    """Whether this user may mount a disk of its own."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", *own, "--mount", "sh", "-c", "mount -t tmpfs -o size=16k tmpfs /mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not mounts_work(), reason="no disk can be mounted here")


@pytest.fixture
def folder(course, tiny, tmp_path):
    for name in ("subs", "out"):
        (tmp_path / name).mkdir()
    for number in range(40):  # broken ones need no kernel, and their records take room too
        (tmp_path / "subs" / f"s{number:02}.ipynb").write_text("{" + " " * number)
    return tmp_path


def grade(folder: Path, course: Path, *before: str, after: str = "") -> str:
    """What is printed by `segedu grade` into the folder `out`, on a disk mounted there first."""
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    run = f"{sys.executable} {TINY} {course} grade subs --lab 00_tiny --course {course} --out out/x --seed 3"
    lines = [*before, f"{run} 2>&1; echo ended with $?", after]
    command = ["unshare", *own, "--mount", "sh", "-c", "\n".join(lines)]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_a_full_disk_keeps_what_was_graded_and_the_rest_follows(folder, course):
    text = grade(
        folder, course, "mount -t tmpfs -o size=120k tmpfs out",
        after="find out -name '*.part' | wc -l; cp -r out/x kept",
    )  # fmt: skip
    assert "could not be written" in text and "Free some disk space, then the same command continues" in text
    assert "ended with 1" in text and text.split()[-1] == "0" and "Traceback" not in text
    records = [json.loads(path.read_text()) for path in (folder / "kept").rglob("records/*.json")]
    assert 0 < len(records) <= 40 and {record["status"] for record in records} == {"unreadable"}
    shutil.copytree(folder / "kept", folder / "out" / "x")
    text = grade(folder, course)
    assert f"{40 - len(records)} graded now, {len(records)} had a record already" in text and "Written: " in text
    assert "20 more were not graded" in text and "ended with 1" in text  # by nature: none of these can be read
    assert len(list((folder / "out" / "x").rglob("records/*.json"))) == 40


@pytest.mark.parametrize("size", ["180k", "240k", "300k"])
def test_a_disk_that_is_full_for_the_reports_says_the_same(folder, course, size):
    text = grade(folder, course, f"mount -t tmpfs -o size={size} tmpfs out")
    assert "Traceback" not in text and ("could not be written" in text) == ("ended with 1" in text)


def test_a_read_only_disk_is_said_first(folder, course):
    text = grade(folder, course, "mount -t tmpfs -o ro tmpfs out")
    assert (
        "which cannot be written (Read-only file system); give a folder that you can write" in text
        and "ended with 2" in text
    )


def test_a_second_grader_waits_outside(folder, course):
    from segedu.grading.judging.records import output_folder_lock

    (folder / "out" / "x").mkdir()
    with output_folder_lock(folder / "out" / "x"):
        text = grade(folder, course)
    assert "another run is grading into out/x; wait for it, or give another --out" in text and "ended with 2" in text
