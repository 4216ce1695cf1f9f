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
from segedu.grading.gradebook.policy import LabBook, read_instructor_files
from segedu.grading.gradebook.prompts import exercise_prompts
from segedu.grading.gradebook.statistics import LabStatistics


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
    instructor_files = read_instructor_files(out)
    for lab in instructor_files.labs:
        LabBook(instructor_files, lab)  # what is wrong in the instructor's files is said before anything is written
    statistics_of_labs, written = [], []
    with open_gradebook(out) as gradebook:
        for person in instructor_files.tables.roster.people.values():
            gradebook.add_person(person)
        for lab in instructor_files.labs:
            book = LabBook(instructor_files, lab)
            statistics_of_labs.append(LabStatistics(lab, book.exercises))
            if lab in (labs or instructor_files.labs):
                written += _write_lab(
                    book, out / lab, statistics_of_labs[-1], gradebook, exercise_prompts(out, lab, course)
                )
            else:
                for student_result in book:
                    statistics_of_labs[-1].add(student_result)
                    gradebook.add(student_result)
        with derived_text(out / "totals.csv", "utf-8-sig") as file:
            gradebook.write_totals(file)
        front = write_front(out, statistics_of_labs, gradebook.course())
    return [*written, front, out / "totals.csv", out / "gradebook.sqlite"]


def _write_lab(
    book: LabBook, folder: Path, statistics: LabStatistics, gradebook: Gradebook, prompts: dict[str, str]
) -> list[Path]:
    """One pass over the results of a lab's students, to all of its files."""
    names = ("grades.csv", "exercises.csv", "canvas.csv", "moodle.csv", "junit.xml")
    paths, pages = [folder / name for name in names], folder / "feedback"
    overview, kept = Overview(book, folder, statistics, prompts), set()
    with contextlib.ExitStack() as stack:
        # Excel needs the mark at the start of a CSV; other platforms and XML are better off without
        codes = ("utf-8-sig", "utf-8-sig", "utf-8", "utf-8", "utf-8")
        wide, long, canvas, moodle, xml = (
            stack.enter_context(derived_text(path, code)) for path, code in zip(paths, codes, strict=True)
        )
        junit = JUnit(xml, book.lab)
        tables = (Wide(wide, book), Long(long), FreshCanvas(canvas, book), FreshMoodle(moodle, book))
        for student_result in book:
            for sink in (*tables, junit, statistics, gradebook, overview):
                sink.add(student_result)
            page = pages / f"{student_result.file}.html"
            write_derived(page, feedback_page(student_result, prompts, book.policy).encode())
            kept.add(page.name)
        junit.close()
    for old in pages.glob("*.html"):  # of students who are neither on the roster nor among the records any more
        if old.name not in kept:
            old.unlink(missing_ok=True)
    return [*paths, pages, *overview.close()]
