"""What honest students hand in by accident costs no points; graded in the real sandbox, in one batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.judging.lab_source import read_lab
from segedu.grading.judging.rebuild import rebuild
from segedu.grading.sandbox.kernel_pool import probe_levels
from segedu.grading.sandbox.provisioner import ForkServer
from segedu.grading.submissions.find_submissions import find_entries
from segedu.grading.submissions.submission import read_submission

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "grading")]
import honest
import tiny

sandboxed = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)


def lost(course: Path, lab: str, folder: Path, out: Path, full: int) -> list[str]:
    """Grade a folder; what has less than full points, and why."""
    batch = grade_batch(
        Job(folder, lab, out, course, seed=3, jobs=2, cell_seconds=20), open_grader_pool=pool_of_threads
    )
    records = list(batch.records)
    assert len(records) == len(list(folder.iterdir()))
    return [
        f"{record['student']}: {record['problem']} {record['notes']} {[(e['first_line'], e['notes']) for e in record['exercises']]}"
        for record in records
        if record["points"] != full
    ]


@pytest.fixture(scope="module")
def server():
    """One warm fork server for both; each start of one takes seconds."""
    server = ForkServer.share()
    yield server
    server.close()


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    with tiny.installed(tiny.make_course(tmp_path_factory.mktemp("course"))) as folder:
        yield folder


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_every_form_is_read_and_each_of_its_exercises_found(course, tmp_path):
    folder = write(tmp_path / "subs", dict(honest.notebooks()))
    entries, left_out = find_entries(folder)
    assert left_out == [] and len(entries) >= 90
    lab = read_lab(course, tiny.LAB)
    for entry in entries:
        submission = read_submission(entry, tiny.LAB, folder)
        assert submission.problem == "", entry.student
        assert set(rebuild(lab, submission.cells).state.values()) == {"answered"}, entry.student


@sandboxed
def test_the_forms_that_once_lost_points_lose_none(course, tmp_path, server):
    forms = dict(honest.notebooks())
    folder = write(tmp_path / "subs", {name: forms[name] for name in honest.ONCE_LOST})
    assert lost(course, tiny.LAB, folder, tmp_path / "out", 9) == []


@sandboxed
@pytest.mark.prove
def test_no_honest_form_loses_points(course, tmp_path, server):
    forms = dict(honest.notebooks())
    assert "\n".join(lost(course, tiny.LAB, write(tmp_path / "subs", forms), tmp_path / "out", 9)) == ""
    print(f"\n{len(forms)} honest forms have full points;")


@sandboxed
@pytest.mark.prove
def test_no_honest_form_of_lab_4_loses_points(tmp_path, server):
    root = Path(__file__).resolve().parents[2]
    forms = dict(honest.real_lab(root, "04_metrics"))
    assert "\n".join(lost(root, "04_metrics", write(tmp_path / "subs", forms), tmp_path / "out", 20)) == ""
    print(f"\n{len(forms)} honest forms of lab 4 have full points")
