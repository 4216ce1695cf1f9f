"""The table of attacks: each at every level that this machine has, beside an honest twin that must get full points.

Exit status 1 if a point was forged, an honest one lost points, or harm was done.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from arena import CROWD_JOBS, Arena, Row, one_course, possible_levels
from attack import Attack
from catalogue import ATTACKS, NO_ROW
from inboxes import INBOXES, Inbox, faults
from rich.console import Console
from rich.table import Table

from segedu.grading.sandbox.isolation_levels import IsolationLevel


def chosen_inboxes(pattern: str) -> list[Inbox]:
    """The folders whose name fits one of the patterns; their boundary is `class`."""
    parts = [part for part in pattern.split(",") if part]
    return [one for one in INBOXES if not parts or any(_fits(part, one.name, "class") for part in parts)]


def inbox_rows(pattern: str, course: Path, level: str, isolation: IsolationLevel) -> list[Row]:
    """Grade whole folders, each alone.

    Args:
        pattern: as of `chosen`.
        course: the tiny one.
        level: its name.
        isolation: the same.

    Returns:
        One row a folder; its points are those of its students together.
    """
    rows = []
    for inbox in chosen_inboxes(pattern):
        found, total = tuple(faults(inbox, course, isolation)), sum(inbox.points.values())
        rows.append(Row(inbox.name, "class", level, total, total, inbox.refused or inbox.tries, found))
    return rows


def _fits(pattern: str, *words: str) -> bool:
    return any(fnmatch.fnmatchcase(word, pattern) for word in words)


def chosen(pattern: str) -> list[Attack]:
    """The attacks whose name or boundary fits one of the patterns.

    Args:
        pattern: such as `a0*,codec`; all where it is empty.

    Returns:
        Attacks in the order of the table.
    """
    parts = [part for part in pattern.split(",") if part]
    return [one for one in ATTACKS if not parts or any(_fits(part, one.name, one.boundary) for part in parts)]


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal.

    Args:
        rows: of all levels.

    Returns:
        A rich table.
    """
    result = Table(box=None, pad_edge=False)
    for name in ("attack", "boundary", "level", "points", "note", "verdict"):
        result.add_column(name, no_wrap=name != "note", overflow="ellipsis")
    for row in rows:
        verdict = "[red]" + "; ".join(row.faults).replace("[", "\\[") + "[/red]" if row.faults else "held"
        points = f"{row.points:g} of {row.right:g}"
        result.add_row(row.attack, row.boundary, row.level, points, row.note.replace("[", "\\["), verdict)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the attacks and print the table.

    Args:
        arguments: of the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", default="", help="3, 3u (with a user namespace), 2, 1; all where not given")
    parser.add_argument("--only", default="", help="names or boundaries: a0*,codec")
    parser.add_argument(
        "--jobs", type=int, default=1, help="submissions at a time; harm is then found at the end alone"
    )
    parser.add_argument("--cell-seconds", type=float, default=6.0, help="limit of each cell")
    options = parser.parse_args(arguments)
    began, attacks, here = time.monotonic(), chosen(options.only), possible_levels()
    levels = [name for name in options.level.split(",") if name] or list(here)
    unknown = sorted(set(levels) - set(here))
    if unknown or not (attacks or chosen_inboxes(options.only)):
        print(f"--level is {options.level!r}, --only is {options.only!r}; the levels here are {', '.join(here)}")
        return 2
    rows: list[Row] = []
    with one_course() as course:
        for level in levels:
            for crowd, jobs in ((False, options.jobs), (True, CROWD_JOBS)):
                some = [attack for attack in attacks if attack.crowd == crowd]
                if some:
                    rows += Arena(course, here[level], some, options.cell_seconds).run(jobs)
            rows += inbox_rows(options.only, course, level, here[level])
            print(f"level {level} is done, {time.monotonic() - began:.0f} s", file=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(rows))
    for number, why in NO_ROW.items() if not options.only else ():
        console.print(f"{number} has no row: {why}")
    console.print(summary(attacks, rows, time.monotonic() - began))
    return 1 if any(row.faults for row in rows) else 0


def summary(attacks: Sequence[Attack], rows: Sequence[Row], seconds: float) -> str:
    """The last line.

    Args:
        attacks: that were run.
        rows: of all levels.
        seconds: it took.

    Returns:
        One line.
    """
    forged, faults = sum(row.forged for row in rows), sum(bool(row.faults) for row in rows)
    twins = sum("-twin" in row.attack for row in rows)
    return (
        f"{len(attacks)} attacks, {len(rows)} rows ({twins} of honest twins), {forged:g} points forged, "
        f"{faults} rows with faults, {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
