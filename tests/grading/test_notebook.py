"""Parsing hostile and broken notebooks: a clear message each, and never anything else."""

from __future__ import annotations

import json

import pytest

from segedu.grading.submissions.archive import SubmissionError
from segedu.grading.submissions.notebook import MAX_CELLS, MAX_SOURCE, lab_number, parse_notebook


def book(cells, **more) -> bytes:
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b'{"cells": [', r"not valid JSON \(line 1\)"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 500_000, "nested too deep"),
        (b"[" * 2_000_000, "brackets"),
        (b"[1, 2]", "not a notebook"),
        (b'{"a": 1}', "not a notebook"),
        (book([], nbformat=3), "format 3, expected 4"),
        (book([], nbformat=99), "format 99, expected 4"),
        (book([], nbformat=[4]), "expected 4"),
        (book({}), "no list of cells"),
        (book([1]), "cell 1 is not a cell"),
        (book([{"cell_type": "code", "source": [1]}]), "cell 1 has no text"),
        (book([{"cell_type": "code", "source": {}}]), "cell 1 has no text"),
        (book([{"cell_type": "raw", "source": ""}] * (MAX_CELLS + 1)), "at most 2000"),
        (book([{"cell_type": "code", "source": "x" * (MAX_SOURCE + 1)}]), "kB of code"),
        (b" " * (33 << 20), "at most 32 MB"),
    ],
)
def test_bad_notebooks_are_refused_with_a_reason(data, message):
    with pytest.raises(SubmissionError, match=message):
        parse_notebook(data, "anna.ipynb")


def test_what_is_kept_of_a_cell():
    cells = [
        {"cell_type": "markdown", "source": "x" * (MAX_SOURCE + 1)},
        {"cell_type": "code", "source": ["a = 1\n", "b"], "id": "04-x", "metadata": None},
        {"cell_type": ["code"], "source": "a"},
        {"cell_type": "code", "metadata": {"id": "colab", "segedu": {"name": "x"}, "nbgrader": {"grade_id": "y"}}},
        {"cell_type": "code", "id": 7, "metadata": {"segedu": [], "nbgrader": 1, "tags": ["raises-exception"]}},
    ]
    markdown, code, odd, colab, strange = parse_notebook(b"\xef\xbb\xbf" + book(cells))
    assert (markdown.cell_type, markdown.source) == ("markdown", "")
    assert (code.position, code.source, code.ids) == (2, "a = 1\nb", ("04-x",))
    assert odd.cell_type == "raw"
    assert colab.ids == ("colab", "x", "y")
    assert strange.ids == ()


def test_the_lab_is_what_most_cells_say(tiny):
    assert lab_number(parse_notebook(tiny.notebook(tiny.lab_cells()).encode())) == "00"
    assert lab_number([]) == ""
