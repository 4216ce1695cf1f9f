"""Labs without example submissions in the repository: the same kinds are made here, and graded in the sandbox."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path

import pytest

from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.batch.grader_threads import pool_of_threads
from segedu.grading.sandbox.kernel_pool import probe_levels
from segedu.teaching import exercises

COURSE = Path(__file__).resolve().parents[2]
FOLDER = COURSE / "tests" / "submissions"
LABS = [lab for lab in exercises.with_notebook() if not (FOLDER / lab).is_dir()]
KINDS = ("perfect", "blank", "wrong", "helpers", "imported", "a09_write_scores")
sandboxed = pytest.mark.skipif(
    not any(works and level >= 2 for level, works, _ in probe_levels()), reason="this machine offers no sandbox"
)


@sandboxed
@pytest.mark.parametrize("lab", LABS)
def test_each_kind_gets_exactly_its_points(lab, tmp_path, server):
    """The solution 20 of 20 (with helper cells that import viz, datasets and training too); the rest what is known."""
    spec = importlib.util.spec_from_file_location("make_submissions", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    files = make.Maker(lab).all()
    for kind in KINDS:
        (tmp_path / "subs").mkdir(exist_ok=True)
        (tmp_path / "subs" / f"{kind}.ipynb").write_text(files[f"{kind}.ipynb"])
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(files["expected.csv"]))}
    batch = grade_batch(
        Job(tmp_path / "subs", lab, tmp_path / "out", COURSE, cell_seconds=15.0), open_grader_pool=pool_of_threads
    )
    names = [exercise.name for exercise in exercises.load(lab).exercises]
    assert rows["perfect"]["points"] == "20" and rows["blank"]["points"] == rows["imported"]["points"] == "0"
    assert len(batch.records) == len(KINDS)
    for record in batch.records:
        row = rows[record["student"]]
        got = {exercise["name"]: exercise["points"] for exercise in record["exercises"]}
        assert got == {name: float(row[name]) for name in names}, record["student"]
