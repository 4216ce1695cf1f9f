"""Answers that were written blind: all are read, and the verdicts are those of a check."""

import time
from pathlib import Path

import pytest

from segedu.teaching import exercises
from segedu.teaching.checks.time_limit import LimitReached, time_limit
from segedu.teaching.mutants import fresh_answers
from segedu.teaching.mutants.fresh_answers import KINDS, FreshAnswer, FreshVerdict, judge_fresh, read_fresh
from segedu.teaching.mutants.fresh_table import count, print_fresh

FOLDER = Path(__file__).resolve().parent / "fresh"
LAB = "04_metrics"
RIGHT = """def box_iou(a, b):
    low, high = torch.max(a[:, None, :2], b[:, :2]), torch.min(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(c[:, 2:] - c[:, :2]).prod(-1) for c in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    return torch.where(union > 0, shared / union, 0.0)
"""
ENDLESS = """def box_iou(a, b):
    end = time.monotonic() + 60  # so that the test fails, and does not hang, if nothing stops it
    while time.monotonic() < end:
        pass
"""
SETUP = "# %% setup\nimport time\n\nimport torch\n\n"


@pytest.mark.parametrize("lab", exercises.names())
def test_every_answer_is_read_and_belongs_to_an_exercise(lab):
    known = {exercise.name for exercise in exercises.load(lab).exercises}
    imports, answers = read_fresh(FOLDER, lab)
    assert "import" in imports
    assert {answer.author for answer in answers} == {"a", "b"}
    assert {answer.kind for answer in answers} == set(KINDS)
    assert {answer.exercise for answer in answers} == known
    assert all(f"def {answer.exercise}(" in answer.source for answer in answers)


def test_a_cell_without_a_sentence_is_an_error(tmp_path):
    (tmp_path / f"{LAB}-a.txt").write_text(SETUP + "# %% wrong | box_iou\nx = 1\n")
    with pytest.raises(ValueError, match=r"04_metrics-a.txt, cell 1: .*expected `kind | exercise | sentence`"):
        read_fresh(tmp_path, LAB)


def test_verdicts(tmp_path, monkeypatch):
    known = next(exercise for exercise in exercises.load(LAB).exercises if exercise.name == "box_iou")
    monkeypatch.setattr(fresh_answers, "SECONDS", 3)
    cells = {
        "right | box_iou | as in the text": RIGHT,
        "wrong | box_iou | union without the subtraction": RIGHT.replace(" - shared", ""),
        "wrong | box_iou | never ends": ENDLESS,
    }
    text = SETUP + "".join(f"# %% {head}\n{source}\n" for head, source in cells.items())
    (tmp_path / f"{LAB}-a.txt").write_text(text)
    right, wrong, endless = judge_fresh(LAB, *read_fresh(tmp_path, LAB))
    assert right.refused == (False, False, False) and not right.named and not right.stopped
    assert wrong.refused == (True, True, True) and not wrong.stopped
    assert len(wrong.named) == 1 and wrong.named[0] in {each.message for each in known.wrong}
    assert wrong.first_line == wrong.named[0] == wrong.record()["first_line"]
    assert endless.stopped and endless.refused == (True, True, True)


def test_counts():
    rows = [("wrong", True, 1, False), ("wrong", True, 1, True), ("wrong", True, 0, False), ("wrong", False, 0, False)]
    rows += [("right", False, 0, False), ("right", True, 1, False), ("pair", True, 2, True), ("pair", True, 1, True)]
    counts = count(
        FreshVerdict(
            FreshAnswer(LAB, "a", 1, kind, "giou", "", ""), (refused, False), ("You.",) * named, "", False, hedged
        )
        for kind, refused, named, hedged in rows
    )
    assert (counts.wrong, counts.refused, counts.named, counts.hedged, counts.difference) == (4, 3, 1, 1, 1)
    assert (counts.right, counts.accepted, counts.pairs, counts.both, counts.one) == (2, 1, 2, 1, 1)
    assert counts.cells() == ["3/4", "1", "1", "1", "67%", "1/2", "1/2", "1"]


def test_the_table(tmp_path, capsys):
    folder = tmp_path / "tests" / "exercises" / "fresh"
    folder.mkdir(parents=True)
    (folder / f"{LAB}-a.txt").write_text(SETUP + f"# %% right | box_iou | as in the text\n{RIGHT}\n")
    print_fresh(tmp_path, [LAB])
    assert LAB in capsys.readouterr().out


def test_a_lost_stop_is_repeated():
    end = time.monotonic() + 60  # so that the test fails, and does not hang, if nothing stops it
    lost = False
    with pytest.raises(LimitReached), time_limit(1):
        while time.monotonic() < end:
            if lost:
                continue
            try:
                while time.monotonic() < end:
                    pass
            except LimitReached:  # as it happens in a destructor
                lost = True
    assert lost
