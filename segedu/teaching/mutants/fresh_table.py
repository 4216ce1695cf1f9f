"""How the answers that were written blind are diagnosed: one row per lab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segedu.teaching import exercises
from segedu.teaching.mutants.fresh_answers import FreshVerdict, judge_fresh, read_fresh

FOLDER = Path("tests") / "exercises" / "fresh"


@dataclass
class FreshCounts:
    """Numbers of answers to a lab.

    Attributes:
        wrong: wrong answers.
        refused: those that lose points, on at least one seed.
        named: refused ones with a misconception that is named as a fact.
        hedged: refused ones with a misconception that is named as a possibility.
        difference: refused ones of which only the first difference is shown.
        right: right answers.
        accepted: those with all points on all seeds.
        pairs: answers with two mistakes.
        both: those with two named misconceptions.
        one: those with one named misconception.
    """

    wrong: int = 0
    refused: int = 0
    named: int = 0
    hedged: int = 0
    difference: int = 0
    right: int = 0
    accepted: int = 0
    pairs: int = 0
    both: int = 0
    one: int = 0

    def add(self, verdict: FreshVerdict) -> None:
        """Count one answer."""
        refused, named = any(verdict.refused), len(verdict.named)
        if verdict.answer.kind == "right":
            self.right += 1
            self.accepted += not refused
        elif verdict.answer.kind == "pair":
            self.pairs += 1
            self.both += named == 2
            self.one += named == 1
        else:
            self.wrong += 1
            self.refused += refused
            self.named += bool(named) and not verdict.hedged
            self.hedged += bool(named) and verdict.hedged
            self.difference += refused and not named

    def cells(self) -> list[str]:
        """The cells of a row of the table."""
        return [
            f"{self.refused}/{self.wrong}", f"{self.named}", f"{self.hedged}", f"{self.difference}",
            f"{(self.named + self.hedged) / self.refused:.0%}" if self.refused else "",
            f"{self.accepted}/{self.right}", f"{self.both}/{self.pairs}", f"{self.one}",
        ]  # fmt: skip


def count(verdicts: Iterable[FreshVerdict]) -> FreshCounts:
    """Count the verdicts of one lab, or of several."""
    counts = FreshCounts()
    for verdict in verdicts:
        counts.add(verdict)
    return counts


def print_fresh(course: Path, labs: Sequence[str]) -> None:
    """Print the table for the given labs or for all, and the verdicts of all labs together."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Column, Table

    read = {lab: read_fresh(course / FOLDER, lab) for lab in labs or exercises.names()}
    lab_column = Column("lab", no_wrap=True)
    table = Table(lab_column, "refused", "named", "possibly", "neither", "share", "right", "pairs: both", "one")
    verdicts: list[FreshVerdict] = []
    with Progress(transient=True) as progress:
        task = progress.add_task("answers", total=sum(len(answers) for _, answers in read.values()))
        for lab, (imports, answers) in read.items():
            progress.update(task, description=lab)
            of_lab = []
            for verdict in judge_fresh(lab, imports, answers):
                of_lab.append(verdict)
                progress.advance(task)
            table.add_row(lab, *count(of_lab).cells())
            verdicts += of_lab
    if len(read) > 1:
        table.add_row("all", *count(verdicts).cells(), style="bold")
    Console().print(table)
