"""The judge's verdict on the known answers of every exercise. A claim stands for this file while nothing changes."""

from pathlib import Path

import pytest

from segedu.teaching import exercises
from segedu.teaching.mutants.wrong_answers import load_alternatives, mutant_row

COURSE = Path(__file__).parents[2]
ALL = [(lab, exercise) for lab in exercises.names() for exercise in exercises.load(lab).exercises]


@pytest.mark.parametrize("lab, exercise", ALL, ids=[f"{lab}-{exercise.name}" for lab, exercise in ALL])
def test_wrong_answers_are_refused_and_named_and_right_ones_accepted(lab, exercise):
    row = mutant_row(lab, exercise, load_alternatives(COURSE, lab)[exercise.name], seeds=(0, 1, 2, 3))
    assert [(name, refused, named) for name, _, refused, named in row.wrong if not (refused and named)] == []
    assert row.accepted == row.alternatives
