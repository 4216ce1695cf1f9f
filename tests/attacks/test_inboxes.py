"""Whole folders of submissions, graded and counted: nobody replaces a class, takes an id, or decides about lateness."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import arena
from inboxes import INBOXES, Inbox, faults


@pytest.fixture(scope="module")
def course():
    with arena.one_course() as folder:
        yield folder


@pytest.fixture(scope="module")
def isolation():
    found = [isolation for isolation in arena.possible_levels().values() if isolation.level >= 2]
    if not found:
        pytest.skip("this machine offers no sandbox")
    return found[0]


@pytest.mark.parametrize("inbox", INBOXES, ids=lambda inbox: inbox.name)
def test_nobody_decides_about_another_student(inbox, course, isolation):
    assert faults(inbox, course, isolation) == []


def test_a_wrong_expectation_is_seen(course, isolation):
    files = {"anna.ipynb": "{}"}
    found = faults(Inbox("x", "", files, {"anna": 9, "bert": 1}, noted=("anna",)), course, isolation)
    assert found == [
        "anna has 0.0, expected 9", "bert has None, expected 1", "no flag tells anna", "the page does not tell of the clash",
    ]  # fmt: skip
    assert faults(Inbox("x", "", files, refused="y"), course, isolation) == ["NOT REFUSED"]
    assert faults(Inbox("x", "", {}, {}), course, isolation)[0].startswith("REFUSED: ")
