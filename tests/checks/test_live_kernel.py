"""What a student sees in a live kernel: one notebook, with one cell per kind of verdict."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = {
    "start": """
import os, time
os.environ["SEGEDU_CHECK"] = "print"
import numpy as np
from segedu.teaching.checks import cell, run_cases
from segedu.teaching.checks.exercise import Exercise, Wrong
run_cases.SECONDS = 0.5
def library(n): return n * 2
twice = Exercise("double", 4, lambda rng: {"core": (3, [{"args": [3]}, {"args": [4]}]), "edge": (1, [{"args": [0]}])},
    library, [Wrong("square", lambda n: n * n, "You square the number.", "What is 3 * 2?")])
check, use = cell.lab_tools("00_tiny", [twice])""",
    "passed": "def double(n):\n    print('<b>seen</b>', n)\n    return n + n\ncheck(double)",
    "changed": "def double(n):\n    return n\nuse(double).__name__",
    "named": "def double(n):\n    return n * n\ncheck(double)",
    "raised": "def double(n):\n    return n / 0\ncheck(double)",
    "endless": "def double(n):\n    while True:\n        print('again')\ncheck(double)",
    "stub": "def double(n):\n    raise NotImplementedError('double it')\ncheck(double)",
    "kept": "case = check(double)\n(case.inputs, case.expected, case.yours)",
}


@pytest.fixture(scope="module")
def shown():
    """Name of a cell -> its outputs, after the notebook ran in one kernel."""
    cells = [nbformat.v4.new_code_cell(source.strip(), id=name) for name, source in CELLS.items()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return {cell.id: cell.outputs for cell in notebook.cells}


def streams(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


def folded(outputs):
    return [o.data["text/html"] for o in outputs if o.output_type == "display_data" and "text/html" in o.data]


def test_no_result_of_check_clutters_the_cell(shown):
    for name in ("passed", "named", "raised", "endless", "stub"):
        assert not any(output.output_type == "execute_result" for output in shown[name]), name


def test_printed_output_is_folded_after_the_verdict(shown):
    card, block = folded(shown["passed"])
    assert (
        "<b>double: 4 of 4 points</b>" in card
        and "✓✓" in card
        and "✗" not in card
        and "seen" not in streams(shown["passed"])
    )
    assert "<details>" in block and "&lt;b&gt;seen&lt;/b&gt; 3" in block


def test_an_edited_function_is_announced(shown):
    assert "You changed double after its check" in streams(shown["changed"])


def test_a_named_mistake_shows_the_call_and_folds_the_hint(shown):
    text = streams(shown["named"])
    assert text.startswith("You square the number.") and "double(3)" in text and "What is 3 * 2?" not in text
    assert any("Hint" in block and "What is 3 * 2?" in block for block in folded(shown["named"]))


def test_the_card_marks_each_case_and_has_a_plain_text(shown):
    cards = [o.data for o in shown["named"] if "points" in o.get("data", {}).get("text/html", "")]
    (card,) = cards
    assert "<b>double: 1 of 4 points</b>" in card["text/html"] and "✗✗" in card["text/html"]
    assert "double: core 0 of 2, edge 1 of 1; grading draws new inputs." in card["text/plain"]


def test_an_exception_folds_its_traceback(shown):
    assert "ZeroDivisionError" in streams(shown["raised"])
    assert any("Traceback" in block for block in folded(shown["raised"]))


def test_an_endless_loop_is_stopped_and_its_output_capped(shown):
    assert "case 1 of core: your function was stopped after 0.5 seconds" in streams(shown["endless"])
    assert len("".join(folded(shown["endless"]))) < 5000


def test_a_stub_is_one_line_and_a_kept_case_can_be_repeated(shown):
    assert streams(shown["stub"]) == "double is not written yet.\n"
    (result,) = [output for output in shown["kept"] if output.output_type == "execute_result"]
    assert result.data["text/plain"] == "([3], 6, 'NotImplementedError')"
