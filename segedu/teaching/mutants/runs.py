"""Machine mutants of the references: what the checks say of each.

Mutants run in processes forked from one that holds the reference's outcomes, each mutant with a limit of CPU time
and of memory: a loop without end, a crash or an allocation of everything is a mutant refused, not a command that
hangs. The next mutant then begins in a new process.
"""

from __future__ import annotations

import os
import re
import resource
import select
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from segedu.teaching import exercises
from segedu.teaching.checks.exercise import Exercise
from segedu.teaching.checks.judge import Answers, draw, judge, outcomes_of
from segedu.teaching.mutants.mutation import Mutant
from segedu.teaching.mutants.units import Trace, Units

CPU_SECONDS = 3  # a mutant whose cases need longer, beyond 20 times the reference, is stopped
LEAST_REFUSED = 0.95  # of the mutants of a lab that are not equivalent
BATCH = 16  # mutants that one process tries: to fork costs as much as to try one
MEMORY = 2 << 30  # bytes that a mutant may take in addition


@dataclass(frozen=True)
class Trial:
    """What the checks say of one mutant.

    Attributes:
        mutant: the change.
        refused: for each draw, the visible one first, whether points are lost.
    """

    mutant: Mutant
    refused: tuple[bool, ...]

    @property
    def survives(self) -> bool:
        """True where it gets full points under every draw as grading would draw."""
        return not any(self.refused[1:])


class Bench:
    """Reference outcomes and definitions of an exercise, ready to try mutants.

    Args:
        exercise: the exercise.
        seeds: of the draws; the first is the visible one.
    """

    def __init__(self, exercise: Exercise, seeds: Sequence[int]) -> None:
        self.exercise = replace(exercise, wrong=())  # points only: no search for the misconception
        start = time.process_time()
        self.answers = [Answers(self.exercise, draw(exercise, seed)) for seed in seeds]
        for answers in self.answers:
            _ = answers.reference  # kept, for every process that is forked
        self.cpu_seconds = int(CPU_SECONDS + 20 * (time.process_time() - start))
        trace = Trace()
        sys.settrace(trace)
        try:
            for answers in self.answers:
                outcomes_of(exercise, exercise.reference, answers.drawn)
        finally:
            sys.settrace(None)
        self.units = Units(exercise, trace)
        spoilt = self.units.spoilt_defaults()
        survive = {trial.mutant.name for trial in try_all(self, list(spoilt.values())) if not any(trial.refused)}
        self.units.unused = {node for node, mutant in spoilt.items() if mutant.name in survive}

    @cached_property
    def mutants(self) -> list[Mutant]:
        """All mutants of the exercise's reference."""
        return self.units.mutants()

    def refuses(self, function: Callable) -> Iterator[bool]:
        """Judge a function, draw by draw.

        Args:
            function: of the exercise.

        Yields:
            For each draw, whether it loses points.
        """
        for answers in self.answers:
            got = outcomes_of(self.exercise, function, answers.drawn)
            verdict = judge(self.exercise, answers.drawn, got, answers)
            yield verdict.points < verdict.max_points

    def run(self, mutant: Mutant | None, write: Callable[[bytes], Any]) -> None:
        """Judge a mutant and write one letter a draw: y for refused, n for full points.

        Args:
            mutant: which; None for the unchanged copy.
            write: takes the letters as they come.
        """
        try:
            function = self.units.build(mutant)
        except Exception:
            return  # no definition, no letters: refused
        for refused in self.refuses(function):
            write(b"y" if refused else b"n")

    def trial(self, mutant: Mutant, letters: bytes) -> Trial:
        """Read what a process wrote; a draw without a letter was stopped or crashed.

        Args:
            mutant: that ran.
            letters: from `run`.

        Returns:
            The result.
        """
        refused = tuple(letter != ord("n") for letter in letters)
        return Trial(mutant, refused + (True,) * (len(self.answers) - len(refused)))


def _limit(cpu_seconds: int) -> None:
    """CPU time of this process from now on, and memory beyond what it has."""
    used = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _start(bench: Bench, mutants: Sequence[Mutant | None]) -> tuple[int, int]:
    """Fork; returns the process and the end of the pipe that its letters come from, a semicolon after each mutant."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process:
        os.close(theirs)
        return process, ours
    try:  # never return from here into the parent's code
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        for mutant in mutants:
            _limit(bench.cpu_seconds)
            bench.run(mutant, lambda letter: os.write(theirs, letter))
            os.write(theirs, b";")
    finally:
        os._exit(0)


def try_all(bench: Bench, mutants: Sequence[Mutant | None], jobs: int = 2) -> Iterator[Trial]:
    """Try mutants, several processes at a time; one process tries one after the other until one of them ends it.

    Args:
        bench: of the exercise.
        mutants: which to try; None tries the unchanged copy.
        jobs: processes at a time.

    Yields:
        Results, as they come.
    """
    waiting = [list(mutants[i : i + BATCH]) for i in range(0, len(mutants), BATCH)][::-1]
    running: dict[int, tuple[list, int, float, bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            batch = waiting.pop()
            process, pipe = _start(bench, batch)
            running[pipe] = (batch, process, time.monotonic(), b"")
        ready, _, _ = select.select(list(running), [], [], 1.0)
        for pipe, (batch, process, since, letters) in list(running.items()):
            more = os.read(pipe, 4096) if pipe in ready else b""
            *done, letters = (letters + more).split(b";")
            for mutant, answer in zip(batch, done, strict=False):
                yield bench.trial(mutant, answer)
            batch, since = batch[len(done) :], time.monotonic() if done else since
            # a mutant that sleeps uses no CPU time: the clock ends it
            late = time.monotonic() > since + 20 * bench.cpu_seconds
            running[pipe] = (batch, process, since, letters)
            if late or (pipe in ready and not more):
                if late:
                    os.kill(process, 9)
                os.close(pipe)
                os.waitpid(process, 0)
                del running[pipe]
                if batch:
                    yield bench.trial(batch[0], letters)
                    waiting += [batch[1:]] if batch[1:] else []


def read_equivalents(course: Path, lab: str) -> dict[str, dict[str, str]]:
    """The mutants of a lab that no answer could tell from the reference, with the reason of each.

    Args:
        course: the checkout.
        lab: `04_metrics`.

    Returns:
        Exercise -> mutant's name -> reason; empty where the lab has no such file.
    """
    path = course / "tests" / "exercises" / f"lab{lab}" / "equivalent.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


@dataclass(frozen=True)
class Tally:
    """The machine mutants of one exercise.

    Attributes:
        lab, exercise: names.
        trials: one a mutant.
        listed: those said to be equivalent, name -> reason; "…" in a name stands for any text, and the name then
            for all that survive of those that fit.
    """

    lab: str
    exercise: str
    trials: list[Trial]
    listed: dict[str, str]

    @cached_property
    def equivalent(self) -> list[Trial]:
        """Mutants that are listed and survive."""
        patterns = [_pattern(name) for name in self.listed]
        return [t for t in self.trials if t.survives and any(p.fullmatch(t.mutant.name) for p in patterns)]

    @property
    def survivors(self) -> list[Trial]:
        """Mutants that get full points and are not listed as equivalent."""
        return [t for t in self.trials if t.survives and t not in self.equivalent]

    @property
    def refused(self) -> int:
        """Mutants that lose points under a draw of grading."""
        return sum(not t.survives for t in self.trials)

    @property
    def visible(self) -> int:
        """Mutants that the visible check refuses."""
        return sum(t.refused[0] for t in self.trials)

    @property
    def by_chance(self) -> list[Trial]:
        """Mutants that some draws refuse and others do not."""
        return [t for t in self.trials if len(set(t.refused)) > 1]

    @property
    def errors(self) -> list[str]:
        """What is wrong with the list of equivalents: a list that nobody checks would grow old."""
        found = []
        for name, reason in self.listed.items():
            fitting = [t for t in self.trials if _pattern(name).fullmatch(t.mutant.name)]
            refused = [t.mutant.name for t in fitting if any(t.refused)]
            if not fitting:
                found.append(f"{name}: there is no such mutant")
            elif refused and ("…" not in name or len(refused) == len(fitting)):
                found.append(f"{name}: it is refused ({refused[0]})")
            elif len(reason.split()) < 4:
                found.append(f"{name}: it has no reason")
        return [f"{self.lab} {self.exercise}, listed as equivalent: {text}" for text in found]


def _pattern(name: str) -> re.Pattern:
    return re.compile(".*".join(map(re.escape, name.split("…"))))


def tally(lab: str, bench: Bench, listed: dict[str, str], jobs: int = 2, step: Callable = lambda: None) -> Tally:
    """Try all mutants of an exercise.

    Args:
        lab: its name.
        bench: of the exercise.
        listed: its equivalent mutants with their reasons.
        jobs: processes at a time.
        step: called after each mutant.

    Returns:
        The tally, mutants in the order of the source.

    Raises:
        RuntimeError: if the unchanged copy of the reference is refused: then no verdict would mean anything.
    """
    name = bench.exercise.name
    (copy,) = try_all(bench, [None])
    if any(copy.refused):
        raise RuntimeError(f"{lab} {name}: the reference, compiled anew and unchanged, loses points")
    done = {}
    for trial in try_all(bench, bench.mutants, jobs):
        done[trial.mutant.name] = trial
        step()
    return Tally(lab, name, [done[m.name] for m in bench.mutants], listed)


def print_machine(course: Path, labs: Sequence[str], seeds: Sequence[int], jobs: int = 2) -> None:
    """Print what the checks say of machine mutants, and every one that survives.

    Args:
        course: the checkout, for the lists of equivalent mutants.
        labs: names; all by default.
        seeds: of the draws; the first is the visible one.
        jobs: processes at a time.

    Raises:
        SystemExit: with 1 where a lab refuses less than 95 % of those that are not equivalent, or where its list
            of equivalents is wrong.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Column, Table

    torch.set_num_threads(1)  # a process that is forked has no other threads
    console = Console()
    columns = ("mutants", "refused", "visibly", "by chance", "equivalent", "survive")
    table = Table(Column("lab", no_wrap=True), Column("exercise", no_wrap=True), *columns)
    tallies = []
    for lab in labs or exercises.names():
        listed = read_equivalents(course, lab)
        for exercise in exercises.load(lab).exercises:
            bench = Bench(exercise, seeds)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task(f"{lab} {exercise.name}", total=len(bench.mutants))
                row = tally(lab, bench, listed.get(exercise.name, {}), jobs, lambda p=progress, b=bar: p.advance(b))
            tallies.append(row)
            counts = (len(row.trials), row.refused, row.visible, len(row.by_chance), len(row.equivalent))
            table.add_row(lab, row.exercise, *map(str, (*counts, len(row.survivors))))
    console.print(table)
    for row in tallies:
        for word, trials in (("survives", row.survivors), ("is refused by some draws only", row.by_chance)):
            for trial in trials:
                console.out(f"{row.lab} {row.exercise}, line {trial.mutant.line}: {trial.mutant.name} {word}")
    if not _print_shares(tallies):
        raise SystemExit(1)


def _print_shares(tallies: Sequence[Tally]) -> bool:
    """One line a lab, which tests/claims.toml reads; whether all is as it must be."""
    good = True
    for lab in dict.fromkeys(row.lab for row in tallies):
        rows = [row for row in tallies if row.lab == lab]
        errors = [error for row in rows for error in row.errors]
        print(*errors, sep="\n", end="\n" if errors else "")
        made = sum(len(row.trials) - len(row.equivalent) for row in rows)
        share = sum(row.refused for row in rows) / made
        each = ", ".join(f"{r.exercise} {len(r.trials)}/{r.refused}/{len(r.equivalent)}" for r in rows)
        print(f"{lab}: {share:.1%} refused; mutants/refused/equivalent: {each}")
        good &= share >= LEAST_REFUSED and not errors
    return good
