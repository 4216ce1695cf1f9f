"""The labs as students meet them: derived without a trace, run blank to the end, checked by plain nbval."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from proven import each_lab

from segedu.teaching import exercises
from segedu.teaching.authoring import notebooks as authoring

ROOT = Path(__file__).parents[2]
LABS = exercises.with_notebook()
each = pytest.mark.parametrize("lab", LABS)


each_that_changed = each_lab(LABS)


def role(cell):
    return cell.metadata["segedu"]["role"]


def name(cell):
    return cell.metadata["segedu"]["name"]


def without_training(notebook):
    """For variants of which only the check cells matter: what they test does not depend on the training cell."""
    light = copy.deepcopy(notebook)
    light.cells = [cell for cell in light.cells if role(cell) not in ("train", "widget")]
    return light


def nbval(notebook, folder: Path) -> dict[str, str]:
    """Plain `pytest --nbval`, no option of ours; gives cell name -> "passed" or "failed"."""
    path = folder / "lab.ipynb"
    nbformat.write(notebook, path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SEGEDU"))}
    command = [sys.executable, "-m", "pytest", "--nbval", str(path), "--junitxml", str(folder / "r.xml"), "-q"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    cases = list(ET.parse(folder / "r.xml").iter("testcase"))
    code = [name(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cases) == len(code), done.stdout
    return {
        cell: "failed" if case.find("failure") is not None else "passed" for cell, case in zip(code, cases, strict=True)
    }


def failed(results):
    return {cell for cell, result in results.items() if result == "failed"}


def checks(notebook):
    return {name(cell) for cell in notebook.cells if role(cell) == "check"}


def executed_clean(notebook, lab):
    return authoring.execute(notebook, ROOT, lab)


@each
def test_both_notebooks_are_what_the_source_derives(lab):
    solved = authoring.read_source(ROOT, lab)
    committed = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4)
    assert json.dumps(committed, sort_keys=True) == json.dumps(authoring.make_lab(solved), sort_keys=True)
    solution = nbformat.read(ROOT / "solutions" / f"{lab}.ipynb", 4)
    assert [cell.source for cell in solution.cells] == [cell.source for cell in solved.cells]
    digest = authoring._source_hash(ROOT, lab, solved)
    assert solution.metadata["segedu"]["source"] == digest, (
        "run make labs: the solution was executed from older sources"
    )
    assert not [cell for cell in solution.cells if cell.get("outputs") and role(cell) != "check"]
    for text in (json.dumps(committed), json.dumps(solution)):
        assert str(ROOT) not in text and "/home/" not in text and "site-packages" not in text


@each
def test_no_solution_in_the_lab(lab):
    solved = authoring.read_source(ROOT, lab)
    secrets = []
    for cell in solved.cells:
        if role(cell) == "solution":
            secrets += [line.strip() for line in authoring.strip_solution(cell.source, name(cell))[1]]
    committed = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4)
    assert len(secrets) > 20
    assert authoring.find_leaks(committed, secrets) == []
    assert "BEGIN SOLUTION" not in json.dumps(committed)
    assert all(not cell.get("outputs") and not cell.get("attachments") for cell in committed.cells)


@each
def test_house_rules(lab):
    """Six exercises, short cells, figures with alt text only through viz.show, few words between figures."""
    committed = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert role(code[0]) == "setup" and sum(role(cell) == "solution" for cell in code) == 6
    assert sum("SCALE = " in cell.source for cell in code) == 1 and sum(role(cell) == "widget" for cell in code) >= 1
    assert all(len(cell.source.splitlines()) <= 45 for cell in code), [name(c) for c in code]
    text = "\n".join(cell.source for cell in code)
    assert "plt.show" not in text and "savefig" not in text and "!pip" not in text
    assert all(role(cell) == "train" for cell in code if "SCALE" in cell.source)
    prose = [cell.source for cell in committed.cells if cell.cell_type == "markdown"]
    assert any("<details>" in cell for cell in prose), "the quiz folds its answers"


@each
def test_a_lab_imports_nothing_that_it_asks_for(lab):
    hidden = {module for e in exercises.load(lab).exercises for module in e.hides}
    committed = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4)
    for cell in committed.cells:
        for module in hidden if cell.cell_type == "code" else ():
            assert f"{module} import" not in cell.source and f"import {module}" not in cell.source, name(cell)


@each_that_changed
def test_the_blank_lab_runs_to_its_end(lab):
    done = executed_clean(nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4), lab)
    for cell in done.cells:
        if role(cell) == "check":
            assert "is not written yet" in json.dumps(cell.outputs), name(cell)
    pictures = [
        m for cell in done.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {}) for m in [o]
    ]
    assert pictures and all(len(json.dumps(o["metadata"])) > 20 for o in pictures), "a figure without alt text"


@each_that_changed
def test_nbval_passes_on_the_solution(lab, tmp_path):
    results = nbval(nbformat.read(ROOT / "solutions" / f"{lab}.ipynb", 4), tmp_path)
    assert failed(results) == set()


@each_that_changed
def test_nbval_fails_in_the_check_cells_of_a_blank_lab(lab, tmp_path):
    blank = without_training(nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4))
    assert failed(nbval(blank, tmp_path)) == checks(blank)


@each_that_changed
def test_nbval_fails_in_the_check_cells_of_a_wrong_lab_saved_with_its_outputs(lab, tmp_path):
    wrong = without_training(nbformat.read(ROOT / "labs" / f"{lab}.ipynb", 4))
    for cell in wrong.cells:
        if role(cell) == "solution":
            cell.source += f"\n\ndef {name(cell)}(*args):\n    return 0.123"
    saved = executed_clean(wrong, lab)
    assert all(cell.outputs for cell in saved.cells if role(cell) == "check")
    assert failed(nbval(saved, tmp_path)) == checks(saved)


@each_that_changed
def test_nbval_fails_in_one_check_cell_of_a_right_lab_with_one_exercise_broken(lab, tmp_path):
    broken = without_training(nbformat.read(ROOT / "solutions" / f"{lab}.ipynb", 4))
    victim = [cell for cell in broken.cells if role(cell) == "solution"][2]
    victim.source += f"\n\ndef {name(victim)}(*args):\n    return 0.123"
    assert failed(nbval(broken, tmp_path)) == {f"check_{name(victim)}"}
