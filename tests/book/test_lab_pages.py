"""What lab and solution pages show: outputs of the solution, and slots for a student's own results."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from segedu_site import lab_pages


def cell(name: str, role: str, source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"segedu": {"name": name, "role": role}})


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=deepcopy(list(cells)))


CELLS = (
    cell("f", "solution", "def f():\n    return 7"),
    cell("check_f", "check", "print('passed')"),
    cell("figure", "show", "use = lambda g: g\nprint(use(f)())"),
)


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    for folder in ("labs", "solutions"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "solutions" / "01_a.ipynb"
    nbformat.write(notebook(*CELLS), path)
    return path


def test_a_solution_runs_once_for_each_state_of_the_library(solution: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    assert lab_pages.outputs_of(solution, cache, "old", run=False) == {}
    first = lab_pages.outputs_of(solution, cache, "old", run=True)
    assert first["figure"][0]["text"] == "7\n" and first["f"] == []
    assert lab_pages.outputs_of(solution, cache, "old", run=False) == first
    assert lab_pages.outputs_of(solution, cache, "new", run=False) == {}


OUTPUTS = {
    "f": [],
    "check_f": [nbformat.v4.new_output("stream", name="stdout", text="passed")],
    "figure": [nbformat.v4.new_output("stream", name="stdout", text="7")],
}


def test_a_lab_has_a_slot_for_the_check_and_says_whose_function_drew_a_figure():
    lab = notebook(*CELLS)
    lab_pages.fill(lab, OUTPUTS, is_lab=True)
    _, check, figure = (one["outputs"] for one in lab.cells)
    assert "own-result" in check[0]["data"]["text/html"] and len(check) == 1
    assert "library's <code>f</code>" in figure[0]["data"]["text/html"] and figure[1]["text"] == "7"


def test_a_solution_shows_its_own_check():
    solved = notebook(*CELLS)
    lab_pages.fill(solved, OUTPUTS, is_lab=False)
    assert [one["outputs"] for one in solved.cells] == list(OUTPUTS.values())


def test_progress_bars_and_widgets_are_not_shown():
    assert not lab_pages.shown({"name": "stderr", "text": "50%"})
    assert not lab_pages.shown({"data": {lab_pages.WIDGET: {}}})
    assert lab_pages.shown({"name": "stdout", "text": "7"})
