"""`segedu capstone`: the reports of a folder of notebooks as tables, and what each of them lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segedu.capstone import Report, problems, read, table
from segedu.gradebook.page import printable


def notebooks(handed_in: Sequence[Path]) -> Iterator[Path]:
    """The notebooks that were named, and those in folders that were named.

    Args:
        handed_in: files and folders.

    Yields:
        Paths, those of a folder sorted by name.

    Raises:
        ValueError: a path is not there, or a folder holds no notebook.
    """
    for path in handed_in:
        inside = (
            sorted(p for p in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts) if path.is_dir() else []
        )
        if path.is_dir() and not inside:
            raise ValueError(f"{path} holds no notebook, expected capstones, saved as .ipynb")
        if not path.exists():
            raise ValueError(f"{path} does not exist, expected a notebook or a folder of notebooks")
        yield from inside or [path]


def print_reports(handed_in: Sequence[Path]) -> int:
    """Print a table for each report, below it what it lacks, and at the end how many are complete.

    Args:
        handed_in: files and folders.

    Returns:
        0 where every report is complete, else 1.
    """
    console, complete, every = Console(), 0, 0
    for path in notebooks(handed_in):
        every += 1
        try:
            report = read(path)
            lacks = problems(report)
        except (ValueError, OSError) as error:
            report, lacks = None, [str(error)]
        console.print(f"\n[bold]{escape(printable(path))}[/]")
        if report is not None:
            _print_table(console, report)
        for why in lacks:
            console.print(f"  [red]lacks[/]  {escape(printable(why))[:500]}", soft_wrap=True)
        complete += not lacks
    console.print(
        f"\n{complete} of {every} reports are complete. What they say is the students' word; the rubric is for you."
    )
    return 0 if complete == every else 1


def _print_table(console: Console, report: Report) -> None:
    try:
        header, *lines = table(report)
    except ValueError:  # rows of different lengths, which `problems` says
        return
    shown = Table(*(escape(printable(cell))[:60] for cell in header))
    for line in lines[:50]:
        shown.add_row(*(escape(printable(cell))[:60] for cell in line))
    console.print(shown)
