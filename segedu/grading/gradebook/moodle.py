"""Moodle: fill the offline grading worksheet of the lab's assignment, or make a fresh table of its shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

from segedu.grading.gradebook.atomic_files import CsvRows, as_text, points_text
from segedu.grading.gradebook.csv_cells import CsvLines, plain
from segedu.grading.gradebook.lms_tables import Filled, Finder, comment_of, idle, name_keys
from segedu.grading.gradebook.policy import LabBook, StudentResult
from segedu.grading.gradebook.roster import record_keys

MOODLE = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade", "Grade can be changed",
          "Last modified (submission)", "Feedback comments"]  # fmt: skip


def fill_moodle(worksheet: Path, book: LabBook, target: Path) -> Filled:
    """Fill grades and, where there are none, feedback comments in Moodle's offline grading worksheet.

    Args:
        worksheet: the CSV that Moodle made for the lab's assignment.
        book: of the lab.
        target: where the filled CSV goes.

    Returns:
        What was filled.

    Raises:
        ValueError: if it is no such CSV; a worksheet in another language than English is none.
    """
    table, result = CsvLines(worksheet, ["Identifier", "Grade"], "Moodle"), Filled(target)
    finder = Finder(book, lambda student_result: (student_result.final, comment_of(student_result)))
    place, seen, most = table.place, set(), set()
    with table.written(target) as write:
        for number, (cells, end) in enumerate(table.rows()):
            texts = [plain(cell).strip() for cell in cells]
            if number and any(texts) and len(cells) == len(table.header):
                most |= {texts[place["Maximum Grade"]]} if "Maximum Grade" in place else set()
                _fill_row(cells, texts, table, finder, seen, result)
            write(cells, end)
    result.left = [key for key, row in finder.rows.items() if row is not None and key not in seen]
    most -= {"", points_text(book.max), f"{book.max:.2f}"}
    if most:
        there = ", ".join(sorted(most))
        result.remarks.append(f"{book.lab} has {points_text(book.max)} points, Moodle {there}: they are not rescaled")
    return result


def _fill_row(
    cells: list[str], texts: list[str], table: CsvLines, finder: Finder, seen: set[str], result: Filled
) -> None:
    place = table.place
    number = re.sub(r"\D", "", texts[place["Identifier"]])
    names = [texts[place[name]] for name in ("ID number", "Username", "Email address") if name in place]
    key = finder.find(f"moodle_id:{number}", *name_keys(*names))
    if key is None:
        result.unknown.append(texts[place["Identifier"]])
        return
    seen.add(key)
    row = finder.rows[key]
    if row is None:
        return
    if "Grade can be changed" in place and texts[place["Grade can be changed"]].casefold() == "no":
        result.remarks.append(f"Moodle says that the grade of {key} cannot be changed")
        return
    cells[place["Grade"]] = table.cell(f"{row[0]:.2f}", cells[place["Grade"]])
    result.cells += 1
    column = place.get("Feedback comments")
    if column is not None and not texts[column]:
        cells[column] = table.cell(as_text(row[1]), cells[column])


class FreshMoodle:
    """`moodle.csv`: a table of the shape of Moodle's grading worksheet.

    Args:
        file: to write to.
        book: of the lab.
    """

    def __init__(self, file: TextIO, book: LabBook) -> None:
        self.rows, self.book = CsvRows(file, MOODLE), book

    def add(self, student_result: StudentResult) -> None:
        """Write the row of one student."""
        person = student_result.person
        number = re.sub(r"\D", "", person.id("moodle_id")) if person else ""
        keys = [key for one in student_result.attempts for key in record_keys(one.record)]
        number = number or next((key.partition(":")[2] for key in keys if key.startswith("moodle_id:")), "")
        who = [f"Participant {number}" if number else "", (person.name if person else "") or student_result.student]
        when = student_result.chosen.submitted if student_result.chosen else None
        done = "No submission" if student_result.chosen is None else "Submitted for grading"
        grade = "" if idle(student_result) else f"{student_result.final:.2f}"
        rest = [grade, f"{student_result.max:.2f}", "Yes", self.book.policy.shown(when) if when else "-"]
        self.rows.add(
            [
                *who,
                person.email if person else "",
                done,
                *rest,
                "" if idle(student_result) else comment_of(student_result),
            ]
        )
