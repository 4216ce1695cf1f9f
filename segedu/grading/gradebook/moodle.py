"""Moodle: fill the offline grading worksheet of an assignment, or write a new table with the same columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

from segedu.grading.gradebook.atomic_files import CsvRows, as_text, points_text
from segedu.grading.gradebook.csv_cells import CsvLines, unquoted
from segedu.grading.gradebook.lms_tables import Filled, Finder, comment_of, idle, name_keys
from segedu.grading.gradebook.policy import LabBook, StudentResult
from segedu.grading.gradebook.roster import record_keys

MOODLE = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade", "Grade can be changed",
          "Last modified (submission)", "Feedback comments"]  # fmt: skip


def fill_moodle(worksheet: Path, book: LabBook, target: Path) -> Filled:
    """Fill grades and empty feedback comments in Moodle's offline grading worksheet.

    Args:
        worksheet: the CSV file that Moodle exported for the lab's assignment, in English.
        book: results of the lab.
        target: the filled CSV file.

    Raises:
        ValueError: if `worksheet` is not such a file.
    """
    table, result = CsvLines(worksheet, ["Identifier", "Grade"], "Moodle"), Filled(target)
    finder = Finder(book, lambda student_result: (student_result.final, comment_of(student_result)))
    columns, seen, maxima = table.column, set(), set()
    with table.written(target) as write:
        for number, (cells, end) in enumerate(table.rows()):
            texts = [unquoted(cell).strip() for cell in cells]
            if number and any(texts) and len(cells) == len(table.header):
                maxima |= {texts[columns["Maximum Grade"]]} if "Maximum Grade" in columns else set()
                _fill_row(cells, texts, table, finder, seen, result)
            write(cells, end)
    result.missing = [key for key, row in finder.rows.items() if row is not None and key not in seen]
    maxima -= {"", points_text(book.max_points), f"{book.max_points:.2f}"}
    if maxima:
        problem = f"{book.lab} has {points_text(book.max_points)} points, in Moodle {', '.join(sorted(maxima))}"
        result.remarks.append(f"{problem}: points are not rescaled")
    return result


def _fill_row(
    cells: list[str], texts: list[str], table: CsvLines, finder: Finder, seen: set[str], result: Filled
) -> None:
    columns = table.column
    number = re.sub(r"\D", "", texts[columns["Identifier"]])
    names = [texts[columns[name]] for name in ("ID number", "Username", "Email address") if name in columns]
    key = finder.find(f"moodle_id:{number}", *name_keys(*names))
    if key is None:
        result.unknown.append(texts[columns["Identifier"]])
        return
    seen.add(key)
    row = finder.rows[key]
    if row is None:
        return
    if "Grade can be changed" in columns and texts[columns["Grade can be changed"]].casefold() == "no":
        result.remarks.append(f"Moodle does not allow changes of the grade of {key}")
        return
    cells[columns["Grade"]] = table.cell(f"{row[0]:.2f}", cells[columns["Grade"]])
    result.cells += 1
    comment = columns.get("Feedback comments")
    if comment is not None and not texts[comment]:
        cells[comment] = table.cell(as_text(row[1]), cells[comment])


class FreshMoodle:
    """`moodle.csv`: a table with the columns of Moodle's offline grading worksheet."""

    def __init__(self, file: TextIO, book: LabBook) -> None:
        self.rows, self.book = CsvRows(file, MOODLE), book

    def add(self, student_result: StudentResult) -> None:
        """Write the row of one student."""
        person = student_result.person
        number = re.sub(r"\D", "", person.id("moodle_id")) if person else ""
        keys = [key for one in student_result.attempts for key in record_keys(one.record)]
        number = number or next((key.partition(":")[2] for key in keys if key.startswith("moodle_id:")), "")
        row = [f"Participant {number}" if number else "", (person.name if person else "") or student_result.student]
        row += [person.email if person else ""]
        row += ["No submission" if student_result.chosen is None else "Submitted for grading"]
        row += [
            "" if idle(student_result) else f"{student_result.final:.2f}",
            f"{student_result.max_points:.2f}",
            "Yes",
        ]
        submitted = student_result.chosen.submitted if student_result.chosen else None
        row += [self.book.policy.shown(submitted) if submitted else "-"]
        self.rows.add([*row, "" if idle(student_result) else comment_of(student_result)])
