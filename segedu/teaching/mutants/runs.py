"""Run the checks on machine mutants of the references.

Mutants run in processes forked from one that holds the reference's outcomes, each mutant with limits of CPU time and
memory. So an endless loop, a crash or a huge allocation is a refused mutant and not a command that hangs. The next
mutant then begins in a new process.
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

CPU_SECONDS = 3  # limit of a mutant, in addition to 20 times the time of the reference
MIN_REFUSED = 0.95  # share of the mutants of a lab that are not equivalent
BATCH = 16  # mutants per process: forking costs as much as one mutant
MEMORY = 2 << 30  # further bytes that a mutant may allocate


@dataclass(frozen=True)
class Trial:
    """The result of the checks on one mutant.

    Attributes:
        mutant: the change.
        refused: for each draw, the visible one first, whether points are lost.
    """

    mutant: Mutant
    refused: tuple[bool, ...]

    @property
    def survives(self) -> bool:
        """True if it gets full points for every draw like those of grading."""
        return not any(self.refused[1:])


class Bench:
    """Reference outcomes and definitions of an exercise, on which mutants are tried.

    Args:
        exercise: the exercise.
        seeds: of the draws; the first is the visible one.
    """

    def __init__(self, exercise: Exercise, seeds: Sequence[int]) -> None:
        self.exercise = replace(exercise, wrong=())  # points only, without diagnosis
        start = time.process_time()
        self.answers = [Answers(self.exercise, draw(exercise, seed)) for seed in seeds]
        for answers in self.answers:
            _ = answers.reference  # computed once, before the processes are forked
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
        """Yield for each draw whether a function loses points."""
        for answers in self.answers:
            got = outcomes_of(self.exercise, function, answers.drawn)
            verdict = judge(self.exercise, answers.drawn, got, answers)
            yield verdict.points < verdict.max_points

    def run(self, mutant: Mutant | None, write: Callable[[bytes], Any]) -> None:
        """Judge a mutant and write one letter per draw: y for refused, n for full points.

        Args:
            mutant: None for the unchanged copy.
            write: gets each letter at once.
        """
        try:
            function = self.units.build(mutant)
        except Exception:
            return  # without a definition the mutant is refused
        for refused in self.refuses(function):
            write(b"y" if refused else b"n")

    def trial(self, mutant: Mutant, letters: bytes) -> Trial:
        """Read the letters that `run` wrote; a draw without a letter was stopped or crashed and counts as refused."""
        refused = tuple(letter != ord("n") for letter in letters)
        return Trial(mutant, refused + (True,) * (len(self.answers) - len(refused)))


def _limit(cpu_seconds: int) -> None:
    """Limit the further CPU time of this process, and its memory beyond what it has."""
    used = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _start(bench: Bench, mutants: Sequence[Mutant | None]) -> tuple[int, int]:
    """Fork; return the process id and the pipe from which its letters come, a semicolon after each mutant."""
    read_end, write_end = os.pipe()
    process = os.fork()
    if process:
        os.close(write_end)
        return process, read_end
    try:  # the child must never return into the parent's code
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        for mutant in mutants:
            _limit(bench.cpu_seconds)
            bench.run(mutant, lambda letter: os.write(write_end, letter))
            os.write(write_end, b";")
    finally:
        os._exit(0)


def try_all(bench: Bench, mutants: Sequence[Mutant | None], jobs: int = 2) -> Iterator[Trial]:
    """Yield the trials of mutants (None for the unchanged copy) in order of completion, from several processes."""
    waiting = [list(mutants[i : i + BATCH]) for i in range(0, len(mutants), BATCH)][::-1]
    running: dict[int, tuple[list, int, float, bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            batch = waiting.pop()
            process, pipe = _start(bench, batch)
            running[pipe] = (batch, process, time.monotonic(), b"")
        ready, _, _ = select.select(list(running), [], [], 1.0)
        for pipe, (batch, process, since, letters) in list(running.items()):
            received = os.read(pipe, 4096) if pipe in ready else b""
            *finished, letters = (letters + received).split(b";")
            for mutant, answer in zip(batch, finished, strict=False):
                yield bench.trial(mutant, answer)
            batch, since = batch[len(finished) :], time.monotonic() if finished else since
            # a sleeping mutant uses no CPU time, so limit its wall time too
            late = time.monotonic() > since + 20 * bench.cpu_seconds
            running[pipe] = (batch, process, since, letters)
            if late or (pipe in ready and not received):
                if late:
                    os.kill(process, 9)
                os.close(pipe)
                os.waitpid(process, 0)
                del running[pipe]
                if batch:
                    yield bench.trial(batch[0], letters)
                    waiting += [batch[1:]] if batch[1:] else []


def read_equivalents(course: Path, lab: str) -> dict[str, dict[str, str]]:
    """Read the mutants of a lab that no answer could distinguish from the reference, with their reasons.

    Returns:
        Exercise -> mutant's name -> reason; empty if the lab has no such file.
    """
    path = course / "tests" / "exercises" / f"lab{lab}" / "equivalent.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


@dataclass(frozen=True)
class Tally:
    """The machine mutants of one exercise.

    Attributes:
        lab: its name.
        exercise: its name.
        trials: one per mutant.
        listed: mutants listed as equivalent, name -> reason; "…" in a name matches any text, and such a name stands for
            all matching mutants that survive.
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
        """Number of mutants that lose points for a draw of grading."""
        return sum(not t.survives for t in self.trials)

    @property
    def visible(self) -> int:
        """Number of mutants that the visible check refuses."""
        return sum(t.refused[0] for t in self.trials)

    @property
    def by_chance(self) -> list[Trial]:
        """Mutants that some draws refuse and others do not."""
        return [t for t in self.trials if len(set(t.refused)) > 1]

    @property
    def errors(self) -> list[str]:
        """Errors in the list of equivalents, so that it cannot become outdated."""
        errors = []
        for name, reason in self.listed.items():
            fitting = [t for t in self.trials if _pattern(name).fullmatch(t.mutant.name)]
            refused = [t.mutant.name for t in fitting if any(t.refused)]
            if not fitting:
                errors.append(f"{name}: there is no such mutant")
            elif refused and ("…" not in name or len(refused) == len(fitting)):
                errors.append(f"{name}: it is refused ({refused[0]})")
            elif len(reason.split()) < 4:
                errors.append(f"{name}: it has no reason")
        return [f"{self.lab} {self.exercise}, listed as equivalent: {text}" for text in errors]


def _pattern(name: str) -> re.Pattern:
    return re.compile(".*".join(map(re.escape, name.split("…"))))


def tally(lab: str, bench: Bench, listed: dict[str, str], jobs: int = 2, step: Callable = lambda: None) -> Tally:
    """Try all mutants of an exercise; `listed` are its equivalent ones with reasons, `step` is called after each.

    Raises:
        RuntimeError: if the unchanged copy of the reference is refused, which makes every verdict meaningless.
    """
    name = bench.exercise.name
    (copy,) = try_all(bench, [None])
    if any(copy.refused):
        raise RuntimeError(f"{lab} {name}: the reference, compiled anew and unchanged, loses points")
    trials = {}
    for trial in try_all(bench, bench.mutants, jobs):
        trials[trial.mutant.name] = trial
        step()
    return Tally(lab, name, [trials[m.name] for m in bench.mutants], listed)


def print_machine(course: Path, labs: Sequence[str], seeds: Sequence[int], jobs: int = 2) -> None:
    """Print the results of the checks on machine mutants, and every survivor; the first seed is the visible one.

    Raises:
        SystemExit: with 1 if a lab refuses less than 95 % of the mutants that are not equivalent, or its list
            of equivalents is wrong.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Column, Table

    torch.set_num_threads(1)  # a forked process has no other threads
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
    """Print one line per lab, which tests/claims.toml reads; return whether all labs pass."""
    good = True
    for lab in dict.fromkeys(row.lab for row in tallies):
        rows = [row for row in tallies if row.lab == lab]
        errors = [error for row in rows for error in row.errors]
        print(*errors, sep="\n", end="\n" if errors else "")
        made = sum(len(row.trials) - len(row.equivalent) for row in rows)
        share = sum(row.refused for row in rows) / made
        each = ", ".join(f"{r.exercise} {len(r.trials)}/{r.refused}/{len(r.equivalent)}" for r in rows)
        print(f"{lab}: {share:.1%} refused; mutants/refused/equivalent: {each}")
        good &= share >= MIN_REFUSED and not errors
    return good
