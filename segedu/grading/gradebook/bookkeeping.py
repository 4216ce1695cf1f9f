"""Compute all reports again from the records and the instructor's files, in one pass over the students of each lab."""

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
    """Write all reports of an output folder again, and return their paths.

    Args:
        out: the output folder.
        labs: labs whose files are written, by default all with records. Totals and database always cover all labs.
        course: the checkout of the course, or None to use the task descriptions of an earlier run.

    Raises:
        ValueError: if one of the instructor's files is wrong; then nothing is written.
    """
    instructor_files = read_instructor_files(out)
    for lab in instructor_files.labs:
        LabBook(instructor_files, lab)  # raises an error about the instructor's files before anything is written
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
    """Write all files of a lab in one pass over the results of its students."""
    names = ("grades.csv", "exercises.csv", "canvas.csv", "moodle.csv", "junit.xml")
    paths, pages = [folder / name for name in names], folder / "feedback"
    overview, kept = Overview(book, folder, statistics, prompts), set()
    with contextlib.ExitStack() as stack:
        # Excel needs a byte order mark at the start of a CSV file; the other programs do not
        encodings = ("utf-8-sig", "utf-8-sig", "utf-8", "utf-8", "utf-8")
        wide, long, canvas, moodle, xml = (
            stack.enter_context(derived_text(path, encoding)) for path, encoding in zip(paths, encodings, strict=True)
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
    for old in pages.glob("*.html"):  # pages of students who are no longer on the roster or among the records
        if old.name not in kept:
            old.unlink(missing_ok=True)
    return [*paths, pages, *overview.close()]
