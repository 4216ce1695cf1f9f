"""`segedu capstone`: the reports of a folder of notebooks as tables, and what each of them lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segedu.grading.gradebook.page import printable
from segedu.grading.submissions.notebook import MAX_NOTEBOOK, parse_notebook
from segedu.grading.submissions.submission import read_plain
from segedu.teaching.capstone import Report, problems, table
from segedu.teaching.capstone.report import MIME, from_json

_LINES, _COLUMNS = 20, 8  # that are printed of a table, and lines of what a report lacks


def notebooks(handed_in: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The notebooks that were named, and those in folders that were named; and files in these that are none.

    Args:
        handed_in: files and folders.

    Returns:
        Paths of notebooks, those of a folder sorted by name, and of what else lies there.

    Raises:
        ValueError: a path is not there, or a folder holds no notebook.
    """
    found, others = [], []
    for path in handed_in:
        if not path.exists():
            raise ValueError(f"{path} does not exist, expected a notebook or a folder of notebooks")
        inside = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir())
            files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
            inside = [p for p in files if p.suffix.lower() == ".ipynb"]
            others += [p for p in files if p.suffix.lower() != ".ipynb"]
            if not inside:
                raise ValueError(f"{path} holds no notebook, expected capstones, saved as .ipynb")
        found += inside
    return found, others


def read(path: Path) -> Report:
    """The report that a saved notebook holds in its outputs, the last one. Nothing is run.

    Args:
        path: of the `.ipynb`.

    Returns:
        The report.

    Raises:
        ValueError: there is none, or it is not what `hand_in` writes.
        SubmissionError: the file is no notebook that can be read.
    """
    data = read_plain(path)
    if len(data) > MAX_NOTEBOOK:  # clearing its outputs, as a lab's student is told, would lose the report
        size, limit = len(data) >> 20, MAX_NOTEBOOK >> 20
        raise ValueError(
            f"{path.name} has {size} MB, at most {limit} MB are read: clear the pictures, not the last cell"
        )
    parse_notebook(data, path.name)  # its limits and its sentences
    cells = json.loads(data.decode(json.detect_encoding(data)))["cells"]
    outputs = [output for cell in cells if isinstance(cell.get("outputs"), list) for output in cell["outputs"]]
    parts = [output.get("data") for output in outputs if isinstance(output, dict)]
    held = [part[MIME] for part in parts if isinstance(part, dict) and MIME in part]
    if not held:
        raise ValueError(f"{path.name} holds no report: run its last cell, save the notebook, and hand it in again")
    return from_json(held[-1])


def print_reports(handed_in: Sequence[Path]) -> int:
    """Print a table for each report, below it what it lacks, and at the end how many are complete, and which are not.

    Args:
        handed_in: files and folders.

    Returns:
        0 where every report is complete, else 1.
    """
    console, lacking, seen = Console(), [], {}
    books, others = notebooks(handed_in)
    for path in books:
        report, lacks = _looked_at(path)
        console.print(f"\n[bold]{_line(path)}[/]", soft_wrap=True)
        if report is not None:
            _print_table(console, report)
            twin = seen.setdefault(report.rows, path)
            if twin != path and report.rows:
                console.print(f"  [yellow]same[/]   all numbers are those of {_line(twin)}", soft_wrap=True)
        for why in lacks[:_LINES]:
            console.print(f"  [red]lacks[/]  {_line(why)}", soft_wrap=True)
        if len(lacks) > _LINES:
            console.print(f"  [red]lacks[/]  {len(lacks) - _LINES} things more")
        lacking += [path] if lacks else []
    console.print(f"\n{len(books) - len(lacking)} of {len(books)} reports are complete.", end=" ")
    console.print("What they say is the students' word; the rubric is for you.", soft_wrap=True)
    for name, paths in (("Not complete", lacking), ("No notebook, not read", others)):
        if paths:
            console.print(f"{name}: {', '.join(map(_line, paths))}", soft_wrap=True)
    return 1 if lacking else 0


def _looked_at(path: Path) -> tuple[Report | None, list[str]]:
    """A report and what it lacks; one that cannot be read must not be the end of all others."""
    try:
        report = read(path)
        return report, problems(report)
    except ValueError as error:
        return None, [str(error)]
    except OSError as error:
        link = "is a link, which is not followed: ask for the file itself" if path.is_symlink() else error.strerror
        return None, [f"{path.name} {link or 'cannot be read'}"]
    except Exception as error:
        return None, [f"{path.name} cannot be read: {type(error).__name__}"]


def _line(words: object, most: int = 500) -> str:
    """On one line, so that nobody's file or method can print lines of its own."""
    return escape(" ".join(printable(words).split())[:most])


def _print_table(console: Console, report: Report) -> None:
    header, *lines = table(report) or [[]]
    if not header:
        return
    shown = Table(*(_line(cell, 60) for cell in header[:_COLUMNS]))
    for line in lines[:_LINES]:
        shown.add_row(*(_line(cell, 60) for cell in line[:_COLUMNS]))
    console.print(shown)
    for more, what in ((len(lines) - _LINES, "methods"), (len(header) - _COLUMNS, "metrics")):
        if more > 0:
            console.print(f"  and {more} {what} more")
