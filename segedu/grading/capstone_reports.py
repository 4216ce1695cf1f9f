"""`segedu capstone`: print the reports in a folder of notebooks as tables, and what each report lacks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segedu.grading.gradebook.page import printable
from segedu.grading.submissions.notebook import MAX_NOTEBOOK, parse_notebook
from segedu.grading.submissions.submission import read_plain
from segedu.teaching.capstone import Report, problems, table
from segedu.teaching.capstone.report import MIME, from_json

_MAX_ROWS, _MAX_COLUMNS = 20, 8  # printed of a table; also limits the listed problems


def notebooks(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Find the notebooks among files and in folders, sorted by name per folder; also return a folder's other files.

    Raises:
        ValueError: if a path does not exist, or a folder holds no notebook.
    """
    books, others = [], []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist, expected a notebook or a folder of notebooks")
        inside = [path]
        if path.is_dir():
            files = sorted(_files_below(path))
            inside = [file for file in files if file.suffix.lower() == ".ipynb"]
            others += [file for file in files if file.suffix.lower() != ".ipynb"]
            if not inside:
                raise ValueError(f"{path} contains no notebook, expected capstones, saved as .ipynb")
        books += inside
    return books, others


def _files_below(folder: Path) -> Iterator[Path]:
    """Files and links below a folder, without hidden ones. `Path.rglob` would recurse as deep as a student nests."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):  # a folder that cannot be read, or whose path is too long
            for path in current.iterdir():
                if path.name.startswith("."):
                    continue
                if path.is_symlink() or not path.is_dir():
                    yield path
                else:
                    waiting.append(path)


def read(path: Path) -> Report:
    """Read the last report in a saved notebook's outputs, without running anything.

    Raises:
        ValueError: if there is no report, or it is not one that `hand_in` writes.
        SubmissionError: if the file is not a readable notebook.
    """
    data = read_plain(path)
    if len(data) > MAX_NOTEBOOK:  # its message differs from a lab's, because clearing all outputs would lose the report
        size, limit = len(data) >> 20, MAX_NOTEBOOK >> 20
        raise ValueError(
            f"{path.name} has {size} MB, at most {limit} MB are read: clear the pictures, not the last cell"
        )
    parse_notebook(data, path.name)  # raises for other limits and malformed files
    cells = json.loads(data.decode(json.detect_encoding(data)))["cells"]
    outputs = [output for cell in cells if isinstance(cell.get("outputs"), list) for output in cell["outputs"]]
    parts = [output.get("data") for output in outputs if isinstance(output, dict)]
    reports = [part[MIME] for part in parts if isinstance(part, dict) and MIME in part]
    if not reports:
        raise ValueError(f"{path.name} contains no report: run its last cell, save the notebook, and hand it in again")
    return from_json(reports[-1])


def print_reports(handed_in: Sequence[Path]) -> int:
    """Print each report's table and what it lacks, then which are complete; return 0 if all are, else 1."""
    console, incomplete, seen = Console(), [], {}
    books, others = notebooks(handed_in)
    for path in books:
        report, missing = _read_and_check(path)
        console.print(f"\n[bold]{_line(path)}[/]", soft_wrap=True)
        if report is not None:
            _print_table(console, report)
            same_rows = seen.setdefault(report.rows, path)
            if same_rows != path and report.rows:
                text = f"all values are equal to those of {_line(same_rows)}"
                console.print(f"  [yellow]same[/]   {text}", soft_wrap=True)
        for problem in missing[:_MAX_ROWS]:
            console.print(f"  [red]lacks[/]  {_line(problem)}", soft_wrap=True)
        if len(missing) > _MAX_ROWS:
            console.print(f"  [red]lacks[/]  {len(missing) - _MAX_ROWS} more")
        incomplete += [path] if missing else []
    console.print(f"\n{len(books) - len(incomplete)} of {len(books)} reports are complete.", end=" ")
    console.print("The reports contain the students' own statements: grade them with the rubric.", soft_wrap=True)
    for name, paths in (("Not complete", incomplete), ("Not a notebook, not read", others)):
        if paths:
            console.print(f"{name}: {', '.join(map(_line, paths))}", soft_wrap=True)
    return 1 if incomplete else 0


def _read_and_check(path: Path) -> tuple[Report | None, list[str]]:
    """Return a report and what it lacks; an unreadable one must not stop the others."""
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


def _line(words: object, limit: int = 500) -> str:
    """Put text on one line, so that a file or method name cannot print lines of its own."""
    return escape(" ".join(printable(words).split())[:limit])


def _print_table(console: Console, report: Report) -> None:
    header, *lines = table(report) or [[]]
    if not header:
        return
    shown = Table(*(_line(cell, 60) for cell in header[:_MAX_COLUMNS]))
    for line in lines[:_MAX_ROWS]:
        shown.add_row(*(_line(cell, 60) for cell in line[:_MAX_COLUMNS]))
    console.print(shown)
    for more, what in ((len(lines) - _MAX_ROWS, "methods"), (len(header) - _MAX_COLUMNS, "metrics")):
        if more > 0:
            console.print(f"  and {more} {what} more")
