"""The known wrong answers of the exercises: each must be refused and named, and every right alternative accepted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segedu.teaching import exercises
from segedu.teaching.checks.cell import VISIBLE_SEED
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of
from segedu.teaching.evidence.proofs import read_rows

SEEDS = (VISIBLE_SEED, 1, 2)  # the visible seed, and two like those of grading


@dataclass(frozen=True)
class MutantRow:
    """One exercise in the table of wrong answers.

    Attributes:
        lab: its name.
        exercise: its name.
        wrong: `(name, message, refused, named)` of each wrong answer.
        accepted: number of right alternatives with full points.
        alternatives: number of right alternatives.
    """

    lab: str
    exercise: str
    wrong: list[tuple[str, str, bool, bool]]
    accepted: int
    alternatives: int

    @property
    def perfect(self) -> bool:
        """True if every wrong answer is refused and named and every right alternative accepted."""
        return all(refused and named for _, _, refused, named in self.wrong) and self.accepted == self.alternatives


def load_alternatives(course: Path, lab: str) -> dict[str, list[Callable]]:
    """Load the right alternatives of a lab from its tests: exercise name -> functions; empty if there are none."""
    path = course / "tests" / "exercises" / f"lab{lab}" / "alternatives.py"
    if not path.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(f"alternatives_{lab}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ALTERNATIVES


def mutant_row(
    lab: str,
    exercise: Exercise,
    right: Sequence[Callable],
    seeds: Sequence[int] = SEEDS,
    threads: Sequence[int] = (1,),
) -> MutantRow:
    """Judge every wrong answer and every right alternative of an exercise.

    A wrong answer counts as refused, or named, only if it is so for all seeds and all numbers of torch threads.
    """
    answers = [Answers(exercise, draw(exercise, seed)) for seed in seeds]

    def verdicts(function: Callable) -> list:
        pairs = [(a, n) for a in answers for n in threads]
        return [judge(exercise, a.drawn, outcomes_of(exercise, function, a.drawn, n), a) for a, n in pairs]

    wrong = []
    for answer in exercise.wrong:
        results = verdicts(answer.function)
        named = all(v.first_line == answer.message and len(v.named) == 1 for v in results)
        wrong.append((answer.name, answer.message, all(v.points < v.max_points for v in results), named))
    accepted = sum(all(v.points == v.max_points for v in verdicts(function)) for function in right)
    return MutantRow(lab, exercise.name, wrong, accepted, len(right))


def mutant_table(course: Path, labs: Sequence[str] = ()) -> list[MutantRow]:
    """Make the table of wrong answers, one row per exercise, of the given labs or of all."""
    rows = []
    for lab in labs or exercises.names():
        right = load_alternatives(course, lab)
        rows += [mutant_row(lab, e, right.get(e.name, [])) for e in exercises.load(lab).exercises]
    return rows


def print_mutants(course: Path, labs: Sequence[str], write: bool) -> None:
    """Print the table of wrong answers, and optionally write its page, `course/wrong-answers.md`.

    Raises:
        SystemExit: with 1 if a wrong answer is accepted or not named, or a right one refused.
    """
    from rich.console import Console
    from rich.table import Column, Table

    rows = mutant_table(course, labs)
    exercise = Column("exercise", no_wrap=True, min_width=23)
    table = Table("lab", exercise, "wrong refused", "named first", "right accepted")
    for row in rows:
        refused, named = (sum(column) for column in zip(*[(r, n) for _, _, r, n in row.wrong], strict=True))
        total = len(row.wrong)
        table.add_row(
            row.lab, row.exercise, f"{refused}/{total}", f"{named}/{total}", f"{row.accepted}/{row.alternatives}"
        )
    Console().print(table)
    for row in rows:
        for name, _, refused, named in row.wrong:
            if not (refused and named):
                print(f"{row.lab} {row.exercise}: {name} is {'not named' if refused else 'ACCEPTED'}")
    if write:
        (course / "course" / "wrong-answers.md").write_text(mutants_page(course, rows))
    if not all(row.perfect for row in rows):
        raise SystemExit(1)


def print_steady(course: Path, labs: Sequence[str], seeds: int) -> None:
    """Judge references, wrong answers and right alternatives for a number of draws, with 1 and 2 torch threads.

    Raises:
        SystemExit: with 1 if a verdict is wrong or differs between runs.
    """
    from rich.progress import track

    pairs = [(lab, exercise) for lab in labs or exercises.names() for exercise in exercises.load(lab).exercises]
    wrong = right = 0
    unsteady = []
    for lab, exercise in track(pairs, transient=True):
        alternatives = [exercise.reference, *load_alternatives(course, lab).get(exercise.name, [])]
        row = mutant_row(lab, exercise, alternatives, range(seeds), threads=(1, 2))
        wrong, right = wrong + len(row.wrong), right + row.alternatives
        unsteady += [
            f"{lab} {exercise.name}: {name}" for name, _, refused, named in row.wrong if not (refused and named)
        ]
        unsteady += [f"{lab} {exercise.name}: a right answer is refused"] * (row.accepted < row.alternatives)
    print(*unsteady, sep="\n", end="\n" if unsteady else "")
    print(
        f"{len(pairs)} exercises, {wrong} wrong answers, {right} right answers; {seeds} draws, 1 and 2 threads: ",
        end="",
    )
    print(f"verdicts that are wrong or not the same: {len(unsteady)}")
    if unsteady:
        raise SystemExit(1)


MACHINE_CLAIM = "lab {}: machine mutants of each exercise, made/refused/equivalent"


def _machine_lines(course: Path, lab: str) -> list[str]:
    """The table of machine mutants of a lab, as measured for tests/proofs.csv; empty if it was not measured."""
    row = read_rows(course).get(MACHINE_CLAIM.format(int(lab.partition("_")[0])))
    if row is None:
        return []
    lines = ["| exercise | machine mutants | refused | equivalent |", "|---|---|---|---|"]
    for entry in row.figure.split(", "):
        exercise, counts = entry.split()
        lines.append(f"| `{exercise}` | " + " | ".join(counts.split("/")) + " |")
    return [*lines, ""]


def mutants_page(course: Path, rows: Sequence[MutantRow]) -> str:
    """Format the table as a page of the book in Markdown."""
    lines = [
        "# Wrong answers that the labs know",
        "",
        "Each exercise contains the wrong answers that students really give, as functions that run. A check compares",
        "your function with them and names the one that matches. `segedu mutants --write` writes this page, and also",
        f"verifies it: each wrong answer is refused and named, on the visible cases and {len(SEEDS) - 1} more draws.",
        "",
        "Nobody thinks of every mistake, so `segedu mutants --machine` makes small changes in each reference:",
        "another operator, number, axis or bound, a lost term, call or statement. A mutant is refused if it loses",
        "points. Equivalent ones give the same answer for every input that the exercise allows; each is listed with",
        "its reason in `tests/exercises/`. The other mutants get full points: they are gaps in the cases.",
        "",
    ]
    for lab in dict.fromkeys(row.lab for row in rows):
        lines += [f"## Lab {lab.partition('_')[0]}", ""]
        lines += ["| exercise | misconception | what the check says | refused | named |", "|---|---|---|---|---|"]
        for row in (row for row in rows if row.lab == lab):
            for name, message, refused, named in row.wrong:
                text = message.replace("|", "\\|")
                lines.append(f"| `{row.exercise}` | {name} | {text} | {_yes(refused)} | {_yes(named)} |")
            lines.append(
                f"| `{row.exercise}` | *right, written differently* | | "
                f"{row.accepted} of {row.alternatives} accepted | |"
            )
        lines += ["", *_machine_lines(course, lab)]
    return "\n".join(lines)


def _yes(flag: bool) -> str:
    return "yes" if flag else "NO"
