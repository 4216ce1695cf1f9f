"""Answers that were written from the text of a lab alone: which are refused, which mistakes are named, and how.

They lie in `tests/exercises/fresh/` as text, because they are data: a file per lab and per author, with cells that
begin with `# %% kind | exercise | sentence`. See the README beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segedu.teaching import exercises
from segedu.teaching.checks.cell import VISIBLE_SEED, hidden_names
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.hidden import without
from segedu.teaching.checks.judge import Answers, Verdict, draw, judge, outcomes_of
from segedu.teaching.checks.time_limit import LimitReached, time_limit

KINDS = ("wrong", "right", "pair")
SEEDS = (VISIBLE_SEED, 1, 2)
SECONDS = 20  # of one answer on the cases of one seed; then it counts as stopped


@dataclass(frozen=True)
class FreshAnswer:
    """An answer as its author wrote it.

    Attributes:
        lab: name of the lab.
        author: letter of the set; different letters have different authors.
        number: position in its file, from 1.
        kind: wrong, right or pair (two mistakes).
        exercise: name of the exercise.
        mistake: the author's sentence about the answer.
        source: the code that defines the function.
    """

    lab: str
    author: str
    number: int
    kind: str
    exercise: str
    mistake: str
    source: str


@dataclass(frozen=True)
class FreshVerdict:
    """What the check says about an answer.

    Attributes:
        answer: the answer.
        refused: whether it loses points, per seed of `SEEDS`.
        named: the messages of the misconceptions that the visible check names.
        first_line: what the student reads first on the visible seed.
        stopped: whether it ran longer than the limit.
        hedged: whether the misconceptions are only possible.
    """

    answer: FreshAnswer
    refused: tuple[bool, ...]
    named: tuple[str, ...]
    first_line: str
    stopped: bool = False
    hedged: bool = False

    def record(self) -> dict[str, Any]:
        """The verdict as one flat row."""
        row = asdict(self)
        return {**row.pop("answer"), **row}


def read_fresh(folder: Path, lab: str) -> tuple[str, list[FreshAnswer]]:
    """Read the answers to a lab.

    Returns:
        The imports of the notebook, and the answers of all authors in the order of the files.

    Raises:
        ValueError: if a cell has no kind, exercise and sentence; the message names the file and the cell.
    """
    imports, answers = "", []
    for path in sorted(folder.glob(f"{lab}-*.txt")):
        first, *cells = re.split(r"(?m)^# %% ", path.read_text())[1:]
        imports = first.partition("\n")[2]
        for number, cell in enumerate(cells, start=1):
            head, _, source = cell.partition("\n")
            kind, _, rest = head.partition(" | ")
            exercise, _, mistake = rest.partition(" | ")
            if kind not in KINDS or not mistake:
                raise ValueError(f"{path.name}, cell {number}: {head!r}, expected `kind | exercise | sentence`")
            author = path.stem.rpartition("-")[2]
            answers.append(FreshAnswer(lab, author, number, kind, exercise, mistake, source))
    return imports, answers


def _define(answer: FreshAnswer, imports: str) -> Callable:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(imports, "imports", "exec"), namespace)
    exec(compile(answer.source, f"{answer.lab}-{answer.author} {answer.number}", "exec"), namespace)
    return namespace[answer.exercise]


def judge_fresh(lab: str, imports: str, answers: Sequence[FreshAnswer]) -> Iterator[FreshVerdict]:
    """Judge answers as a lab's check does, and on further seeds as grading does, one after the other."""
    known = {exercise.name: exercise for exercise in exercises.load(lab).exercises}
    hidden = hidden_names(list(known.values()), getattr(exercises.load(lab), "FORBIDDEN", ()))
    ours: dict[str, list[Answers]] = {}
    for answer in answers:
        exercise = known[answer.exercise]
        if exercise.name not in ours:
            ours[exercise.name] = [Answers(exercise, draw(exercise, seed)) for seed in SEEDS]
        verdicts = [_verdict(exercise, answer, imports, hidden, each) for each in ours[exercise.name]]
        refused = tuple(verdict is None or verdict.points < verdict.max_points for verdict in verdicts)
        visible = verdicts[0]
        named = () if visible is None else tuple(wrong.message for wrong in visible.named)
        first_line = "" if visible is None else visible.first_line
        hedged = visible is not None and visible.hedged
        yield FreshVerdict(answer, refused, named, first_line, None in verdicts, hedged)


def _verdict(
    exercise: Exercise, answer: FreshAnswer, imports: str, hidden: Sequence[str], ours: Answers
) -> Verdict | None:
    """The verdict on one seed; None if the time limit was reached."""
    function = _define(answer, imports)
    try:
        with without(hidden, function) as called, time_limit(SECONDS):  # hiding takes long after many imports
            got = outcomes_of(exercise, called, ours.drawn)
    except LimitReached:
        return None
    return judge(exercise, ours.drawn, got, ours)
