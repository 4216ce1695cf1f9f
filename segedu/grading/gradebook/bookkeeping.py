"""Everything that is derived, made anew: each lab's records are read once, one student at a time, and go to every
report on the way. The records are the truth; the instructor's files (`late`, `roster`) say what counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from segedu.grading.gradebook.atomic_files import derived_text, write_derived
from segedu.grading.gradebook.canvas import FreshCanvas
from segedu.grading.gradebook.database import Gradebook, open_gradebook
from segedu.grading.gradebook.exports import JUnit, Long, Wide
from segedu.grading.gradebook.feedback import feedback_page
from segedu.grading.gradebook.moodle import FreshMoodle
from segedu.grading.gradebook.overview import Overview, write_front
from segedu.grading.gradebook.policy import LabBook, read_own
from segedu.grading.gradebook.prompts import asked
from segedu.grading.gradebook.statistics import Tally


def rebuild(out: Path, labs: Sequence[str] = (), course: Path | None = None) -> list[Path]:
    """Make everything derived anew from the records.

    Args:
        out: the instructor's `--out`.
        labs: whose files are written; all labs with records where empty. The gradebook holds all labs always.
        course: the checkout with `labs/`, or None.

    Returns:
        The files and folders that were written.

    Raises:
        ValueError: if one of the instructor's files is wrong; nothing is written then.
    """
    own = read_own(out)
    for lab in own.labs:
        LabBook(own, lab)  # what is wrong in the instructor's files is said before anything is written
    tallies, written = [], []
    with open_gradebook(out) as gradebook:
        for person in own.tables.roster.people.values():
            gradebook.add_person(person)
        for lab in own.labs:
            book = LabBook(own, lab)
            tallies.append(Tally(lab, book.exercises))
            if lab in (labs or own.labs):
                written += _write_lab(book, out / lab, tallies[-1], gradebook, asked(out, lab, course))
            else:
                for standing in book:
                    tallies[-1].add(standing)
                    gradebook.add(standing)
        with derived_text(out / "totals.csv", "utf-8-sig") as file:
            gradebook.write_totals(file)
        front = write_front(out, tallies, gradebook.course())
    return [*written, front, out / "totals.csv", out / "gradebook.sqlite"]


def _write_lab(book: LabBook, folder: Path, tally: Tally, gradebook: Gradebook, asks: dict[str, str]) -> list[Path]:
    """One pass over a lab's standings, to all of its files."""
    names = ("grades.csv", "exercises.csv", "canvas.csv", "moodle.csv", "junit.xml")
    paths, pages = [folder / name for name in names], folder / "feedback"
    overview, kept = Overview(book, folder, tally, asks), set()
    with contextlib.ExitStack() as stack:
        # Excel needs the mark at the start of a CSV; other platforms and XML are better off without
        codes = ("utf-8-sig", "utf-8-sig", "utf-8", "utf-8", "utf-8")
        wide, long, canvas, moodle, xml = (
            stack.enter_context(derived_text(path, code)) for path, code in zip(paths, codes, strict=True)
        )
        junit = JUnit(xml, book.lab)
        tables = (Wide(wide, book), Long(long), FreshCanvas(canvas, book), FreshMoodle(moodle, book))
        for standing in book:
            for sink in (*tables, junit, tally, gradebook, overview):
                sink.add(standing)
            page = pages / f"{standing.file}.html"
            write_derived(page, feedback_page(standing, asks, book.policy).encode())
            kept.add(page.name)
        junit.close()
    for old in pages.glob("*.html"):  # of students who are neither on the roster nor among the records any more
        if old.name not in kept:
            old.unlink(missing_ok=True)
    return [*paths, pages, *overview.close()]
