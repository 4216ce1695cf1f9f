"""`segedu check`: a student's saved notebook gets the points and the feedback that grading gives."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import nbformat
import pytest
from rich.console import Console
from typer.testing import CliRunner

from segedu.cli import app
from segedu.grading.batch.batch import Job, grade_batch
from segedu.grading.check_notebook import check_notebook, find_course, lab_of, unsolved_lab
from segedu.teaching.checks.cell import VISIBLE_SEED

ROOT = Path(__file__).resolve().parents[2]
LAB = "04_metrics"
EXERCISES = ("confusion_matrix", "iou_dice", "miou", "box_iou", "giou", "boundary_f1")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook with one wrong answer, as a student saves it."""
    solved = nbformat.read(ROOT / "solutions" / f"{LAB}.ipynb", as_version=4)
    (cell,) = (cell for cell in solved.cells if cell.metadata["segedu"]["name"] == "box_iou")
    assert cell.source.count("- inter") == 1
    cell.source = cell.source.replace("- inter", "")
    path = tmp_path / "mine.ipynb"
    nbformat.write(solved, path)
    return path


def printed(notebook: Path, course: Path = ROOT, **options) -> str:
    text = io.StringIO()
    assert check_notebook(notebook, course, console=Console(file=text, width=200), **options) == 0
    return text.getvalue()


def test_points_and_feedback_are_those_of_grading(notebook, tmp_path):
    before = notebook.read_bytes()
    text = printed(notebook)
    assert notebook.read_bytes() == before and list(notebook.parent.iterdir()) == [notebook]
    batch = grade_batch(Job(notebook, LAB, tmp_path / "graded", ROOT, seed=VISIBLE_SEED))
    record = batch.records[0]
    assert 0 < record["points"] < 20
    assert f"{record['points']:g} of 20 points" in text
    assert [entry["name"] for entry in record["exercises"]] == list(EXERCISES)
    for entry in record["exercises"]:
        (row,) = (line for line in text.splitlines() if line.strip().startswith(entry["name"] + " "))
        expected = "passed" if entry["points"] == entry["max"] else entry["first_line"]
        assert f"{entry['points']:g} of {entry['max']}" in row and expected[:60] in row


def test_a_student_may_work_in_the_folder_of_labs(notebook, tmp_path):
    course = tmp_path / "course"
    for folder in ("labs", "solutions"):
        (course / folder).mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / f"{LAB}.ipynb", course / "solutions")
    own = Path(shutil.copy(notebook, course / "labs" / f"{LAB}.ipynb"))
    assert find_course(own) == course or find_course(own) == ROOT  # the working directory comes first
    handed_out = nbformat.read(ROOT / "labs" / f"{LAB}.ipynb", as_version=4)
    assert [cell.source for cell in unsolved_lab(LAB, course, own).cells] == [cell.source for cell in handed_out.cells]
    (course / "solutions" / f"{LAB}.ipynb").unlink()
    with pytest.raises(ValueError, match=r"has no solutions/04_metrics.ipynb, and labs/04_metrics.ipynb is your own"):
        unsolved_lab(LAB, course, own)
    assert unsolved_lab(LAB, course, notebook).cells  # a copy that is handed in from elsewhere


def said(*words: str) -> str:
    outcome = CliRunner().invoke(app, ["check", *words])
    assert outcome.exit_code == 2, outcome.output
    return outcome.output


def test_what_is_no_notebook_of_a_lab_is_named(tmp_path):
    broken, foreign = tmp_path / "broken.ipynb", tmp_path / "foreign.ipynb"
    broken.write_text('{"cells": [')
    foreign.write_text(json.dumps({"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    course = ("--course", str(ROOT))
    assert "missing.ipynb, which does not exist" in said(str(tmp_path / "missing.ipynb"), *course)
    assert "which is not a notebook" in said(str(ROOT / "solutions" / f"{LAB}.py"), *course)
    assert "broken.ipynb is not valid JSON" in said(str(broken), *course)
    assert "foreign.ipynb has no cells of a lab" in said(str(foreign), *course)
    assert "expected one of 01_tasks, 02_clustering" in said(str(foreign), "--lab", "4", *course)
    assert "contains neither labs/ nor solutions/" in said(str(foreign), "--course", str(tmp_path))


def test_an_unreadable_notebook_is_not_graded(tmp_path, capsys):
    path = tmp_path / "mine.ipynb"
    path.write_text('{"cells": [')
    assert check_notebook(path, ROOT, LAB) == 1
    assert "mine.ipynb was not graded: " in capsys.readouterr().out


def test_the_ids_of_cells_decide_the_lab(notebook):
    assert lab_of(notebook, ROOT) == LAB
