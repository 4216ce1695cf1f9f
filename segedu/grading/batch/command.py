"""The command `segedu grade`: grade the batch with a progress bar, write the reports, print a summary."""

from __future__ import annotations

import csv
import errno
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segedu.grading.batch.batch import SAFE_LEVEL, Batch, Job, grade_batch
from segedu.grading.batch.reports import NAMES, expected_differences, sandbox_line, summary, table, write_reports
from segedu.grading.gradebook.page import printable
from segedu.grading.judging.records import clean
from segedu.grading.sandbox.restrictions import SandboxError


def grade(job: Job, expect: Path | None = None, console: Console | None = None) -> int:
    """Grade a folder and print a report.

    Args:
        job: the options.
        expect: a CSV file of expected points.
        console: terminal for the output, by default stdout and stderr.

    Returns:
        The exit status: 1 if points differ from `expect`, the grader failed on a submission, no submission could be
        graded, or a file could not be written; 2 for wrong arguments or if the graders do not start; 130 after
        Ctrl-C; otherwise 0.
    """
    console, errors = console or Console(), console or Console(stderr=True)
    try:
        rows = read_expected(expect) if expect else []
        printed: set[str] = set()
        batch = _grade_with_progress(job, console, printed)
        return _report(batch, job, rows, console, printed)
    except (ValueError, PermissionError, SandboxError) as error:
        errors.print(f"[red]{escape(printable(error))}[/red]", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("Stopped. All records are kept: the same command continues from there.")
        return 130
    except OSError as error:
        disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        action = "written" if disk_full else "read or written"
        problem = clean(f"A file could not be {action}: {error.filename or job.out}: {error.strerror}")
        errors.print(f"[red]{escape(f'{problem}.')}[/red]", soft_wrap=True)
        advice = "Free some disk space" if disk_full else "Solve this problem"
        errors.print(f"All records are kept. {advice}, then the same command continues from there.")
        return 1


def _grade_with_progress(job: Job, console: Console, printed: set[str]) -> Batch:
    """Grade the batch with a progress bar. The line about the sandbox is printed first, and added to `printed`."""
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)

    def on_sandbox(level: int, reason: str) -> None:
        printed.add(sandbox_line(level, reason))
        console.print(escape(sandbox_line(level, reason)), soft_wrap=True)
        if level < SAFE_LEVEL:
            console.print("[bold red]WARNING: below level 2 a submission can read and write your files.[/bold red]")

    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def on_progress(done: int, total: int, student: str) -> None:
            if not done:  # printed here, because all names have been checked now
                text = f"Lab {job.lab} from {job.course}; records go to {job.out / job.lab}."
                console.print(escape(text), soft_wrap=True)
            progress.update(task, completed=done, total=total, description=escape(student[:24]) or "starting")

        return grade_batch(job, on_progress, on_sandbox)


def _report(batch: Batch, job: Job, rows: list[dict], console: Console, printed: set[str]) -> int:
    written = write_reports(batch, job.out, job.course)
    console.print(table(batch))
    for line in summary(batch):
        if line not in printed:
            console.print(escape(line), soft_wrap=True)
    if batch.skipped:
        text = f"{batch.skipped} submissions were skipped, because they have no record with points of other exercises:"
        console.print(f"{text} grade them without --exercise.")
    console.print("Written: " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)
    counts = _print_not_graded(batch, job, console)
    status = 1 if counts["failed"] or not (counts["graded"] or rows) else 0
    if rows:
        differences = expected_differences(batch, rows)
        for line in differences:
            console.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
        if not differences:
            console.print(f"All {len(rows)} submissions have exactly the expected points and notes.")
        status = 1 if differences else status
    return status


def _print_not_graded(batch: Batch, job: Job, console: Console) -> Counter:
    """Print why the first `NAMES` of them were not graded, and return the number of records per status."""
    counts: Counter[str] = Counter()
    for record in batch.records:
        counts[record["status"]] += 1
        if record["status"] != "graded" and counts.total() - counts["graded"] <= NAMES:
            text = f"{record['student']} was not graded: {clean(record['problem'])}"
            console.print(f"[yellow]{escape(text)}.[/yellow]", soft_wrap=True)
    more = counts.total() - counts["graded"] - NAMES
    if more > 0:
        console.print(f"{more} more were not graded: see {escape(str(job.out / job.lab / 'index.html'))}")
    return counts


def read_expected(path: Path) -> list[dict]:
    """Read the rows of a CSV file of expected points, with the columns that `expected_differences` describes."""
    if not path.is_file():
        raise ValueError(f"--expect is {path}, which is not a file; give a CSV with the columns student and points")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"student", "points"} <= set(rows[0]):
        raise ValueError(f"--expect is {path}, expected a CSV with the columns student and points and some rows")
    return rows
