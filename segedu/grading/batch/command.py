"""What `segedu grade` does: run the batch with a progress bar, write the reports, say what happened."""

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
    """Grade a folder and report.

    Args:
        job: what to grade and how.
        expect: a CSV of expected points; a difference makes the exit status 1.
        console: of the terminal.

    Returns:
        The exit status: 0; 1 where something differs from `expect`, the grader itself failed on a submission, no
        submission could be graded, or something could not be written; 2 for wrong arguments or where the graders
        do not start; 130 after Ctrl-C.
    """
    console, errors = console or Console(), console or Console(stderr=True)
    try:
        rows = read_expected(expect) if expect else []
        said: set[str] = set()
        batch = _with_progress(job, console, said)
        return _report(batch, job, rows, console, said)
    except (ValueError, PermissionError, SandboxError) as error:
        errors.print(f"[red]{escape(printable(error))}[/red]", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("Stopped. What was graded is kept: the same command goes on from there.")
        return 130
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = clean(f"could not be {'' if full else 'read or '}written: {error.filename or job.out}: {error.strerror}")
        errors.print(f"[red]{escape(f'Something {what}.')}[/red]", soft_wrap=True)
        advice = "make room, and the same command" if full else "once this is mended, the same command"
        errors.print(f"What was graded before is kept: {advice} goes on from there.")
        return 1


def _with_progress(job: Job, console: Console, said: set[str]) -> Batch:
    """Run the batch; the line about the sandbox goes to the terminal before anything runs, and into `said`."""
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)

    def on_sandbox(level: int, reason: str) -> None:
        said.add(sandbox_line(level, reason))
        console.print(escape(sandbox_line(level, reason)), soft_wrap=True)
        if level < SAFE_LEVEL:
            console.print("[bold red]WARNING: below level 2 a submission can read and write your files.[/bold red]")

    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def on_progress(done: int, total: int, student: str) -> None:
            if not done:  # only now are all names known to be right
                where = f"Lab {job.lab} from {job.course}; records go to {job.out / job.lab}."
                console.print(escape(where), soft_wrap=True)
            progress.update(task, completed=done, total=total, description=escape(student[:24]) or "starting")

        return grade_batch(job, on_progress, on_sandbox)


def _report(batch: Batch, job: Job, rows: list[dict], console: Console, said: set[str]) -> int:
    written = write_reports(batch, job.out, job.course)
    console.print(table(batch))
    for line in summary(batch):
        if line not in said:
            console.print(escape(line), soft_wrap=True)
    if batch.not_due:
        text = f"{batch.not_due} have no record of this work yet, so that no other points could be kept:"
        console.print(f"{text} grade them without --exercise.")
    console.print("Written: " + ", ".join(escape(str(path)) for path in written), soft_wrap=True)
    counts = _say_what_was_not_graded(batch, job, console)
    status = 1 if counts["failed"] or not (counts["graded"] or rows) else 0
    if rows:
        differences = expected_differences(batch, rows)
        for line in differences:
            console.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
        if not differences:
            console.print(f"All {len(rows)} submissions have exactly the expected points and notes.")
        status = 1 if differences else status
    return status


def _say_what_was_not_graded(batch: Batch, job: Job, console: Console) -> Counter:
    """Why, for the first of them; and how many records have each status."""
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
    """Read a CSV of expected points.

    Args:
        path: with the columns student and points; status, note and exercises are optional.

    Returns:
        Its rows.

    Raises:
        ValueError: if there is no such file, or it lacks a column.
    """
    if not path.is_file():
        raise ValueError(f"--expect is {path}, which is not a file; give a CSV with the columns student and points")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"student", "points"} <= set(rows[0]):
        raise ValueError(f"--expect is {path}, expected a CSV with the columns student and points and some rows")
    return rows
