"""The example submissions: made again byte for byte, and graded as the file beside them says.

The whole folders are graded by `make grade`, and here under `-m prove`; a few of each kind are graded always.
"""

from __future__ import annotations

import csv
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.command import read_expected
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.batch.reports import expected_differences
from segedu.grading.sandbox.kernel_pool import probe_levels

COURSE = Path(__file__).resolve().parents[2]
FOLDER = COURSE / "tests" / "submissions"
LABS = ("04_metrics", "06_unet")
FEW = ("perfect", "partial_two_wrong", "exits", "a09_write_scores", "a24_forge_replies")
sandboxed = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_submissions", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("lab", LABS)
def test_they_are_made_again_byte_for_byte(make, lab):
    files = make.Maker(lab).all()
    assert sorted(files) == sorted(path.name for path in (FOLDER / lab).iterdir())
    changed = [name for name, text in files.items() if (FOLDER / lab / name).read_text() != text]
    assert changed == [], "run `python tests/submissions/make.py`"


@pytest.mark.parametrize("lab", LABS)
def test_what_is_expected_of_them_is_known_by_construction(lab):
    rows = {row["student"]: row for row in csv.DictReader((FOLDER / lab / "expected.csv").open())}
    full = {name: float(points) for name, points in rows["perfect"].items() if name in list(rows["perfect"])[3:-1]}
    assert sum(full.values()) == 20 == float(rows["perfect"]["points"])
    assert {name: float(rows[name]["points"]) for name in ("stderr", "twice", "no_checks")} == dict.fromkeys(
        ("stderr", "twice", "no_checks"), 20
    )
    attacks = [row for name, row in rows.items() if name.startswith("a")]
    assert len(attacks) == 6 and all(row["points"] == "0" and row["note"] for row in attacks)
    assert rows["blank"]["points"] == rows["imported"]["points"] == rows["broken"]["points"] == "0"


def grade(lab: str, submissions: Path, out: Path) -> list[str]:
    batch = grade_batch(Job(submissions, lab, out, COURSE, cell_seconds=15.0), open_grader_pool=pool_of_threads)
    rows = read_expected(FOLDER / lab / "expected.csv")
    there = {record["student"] for record in batch.records}
    return expected_differences(batch, [row for row in rows if row["student"] in there])


@sandboxed
@pytest.mark.parametrize("lab", LABS)
def test_a_few_of_each_kind_get_exactly_the_expected_points(lab, tmp_path, server):
    folder = tmp_path / "subs"
    folder.mkdir()
    for name in FEW:
        shutil.copy(FOLDER / lab / f"{name}.ipynb", folder)
    assert grade(lab, folder, tmp_path / "out") == []


@sandboxed
@pytest.mark.prove
@pytest.mark.parametrize("lab", LABS)
def test_all_get_exactly_the_expected_points(lab, tmp_path, server):
    assert grade(lab, FOLDER / lab, tmp_path / "out") == []
