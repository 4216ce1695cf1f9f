"""Canvas: fill the columns of labs in a gradebook export, or write a new table with the same columns."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TextIO

from segedu.grading.gradebook.atomic_files import CsvRows, points_text
from segedu.grading.gradebook.csv_cells import CsvLines, unquoted
from segedu.grading.gradebook.lms_tables import Filled, Finder, idle, name_keys
from segedu.grading.gradebook.policy import LabBook, StudentResult

CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]


def canvas_column(header: list[str], book: LabBook, path: Path) -> int | None:
    """The index of the lab's column in a Canvas export, or None.

    The title of the column is in policy.toml, or it contains `Lab 4` or `04_metrics`.

    Raises:
        ValueError: if several columns match.
    """
    lab, number = book.lab, int(book.lab[:2]) if book.lab[:2].isdecimal() else -1
    titles = [re.sub(r"\s*\(\d+\)\s*$", "", title).strip().casefold() for title in header]
    if book.policy.canvas:
        policy_title = book.policy.canvas.casefold()
        return next((i for i, title in enumerate(header) if policy_title in (title.casefold(), titles[i])), None)
    matches = [i for i, title in enumerate(titles) if title == lab.casefold()]
    pattern = re.compile(rf"\blab[\s_-]*0*{number}\b|\b{re.escape(lab.casefold())}\b")
    matches = matches or [i for i, title in enumerate(titles) if header[i] not in CANVAS and pattern.search(title)]
    if len(matches) > 1:
        columns = " and ".join(repr(header[i]) for i in matches[:3])
        advice = f"name its column in policy.toml: [labs.{lab}] canvas = ..."
        raise ValueError(f"{path}: {columns} may be lab {lab}; {advice}")
    return matches[0] if matches else None


def fill_canvas(export: Path, books: list[LabBook], target: Path) -> Filled:
    """Fill the columns of labs in a Canvas gradebook export; labs without a column are skipped.

    Args:
        export: the CSV file that Canvas exported.
        books: results of the labs.
        target: the filled CSV file.

    Raises:
        ValueError: if `export` is not such a file, or has a column of none of the labs.
    """
    table, result = CsvLines(export, ["Student", "ID"], "Canvas"), Filled(target)
    columns = [(column, book) for book in books if (column := canvas_column(table.header, book, export)) is not None]
    if not columns:
        titles = ", ".join(table.header[5:15]) or "no assignments"
        labs = ", ".join(book.lab for book in books)
        advice = "or name it in policy.toml: [labs.NAME] canvas = ..."
        raise ValueError(f"{export}, line 1: no column of {labs}; it has {titles}; expected `Lab 4 (12345)`, {advice}")
    finders = [(column, Finder(book, lambda student_result: (student_result.final,))) for column, book in columns]
    seen: set[str] = set()
    with table.written(target) as write:
        for number, (cells, end) in enumerate(table.rows()):
            texts = [unquoted(cell) for cell in cells]
            if number and texts[0].strip().casefold() == "points possible":
                result.remarks += _other_maximum(texts, finders)
            elif number and any(texts) and len(cells) == len(table.header):
                _fill_row(cells, texts, table, finders, seen, result)
            write(cells, end)
    for _, finder in finders:
        result.missing += [key for key, row in finder.rows.items() if row is not None and key not in seen]
    result.missing = list(dict.fromkeys(result.missing))
    return result


def _other_maximum(texts: list[str], finders: list[tuple[int, Finder]]) -> list[str]:
    remarks = []
    for column, finder in finders:
        canvas_points = texts[column].strip() if column < len(texts) else ""
        lab_points = points_text(finder.book.max_points)
        if canvas_points and canvas_points not in (
            lab_points,
            f"{finder.book.max_points:.1f}",
            f"{finder.book.max_points:.2f}",
        ):
            problem = f"{finder.book.lab} has {lab_points} points, its column in Canvas {canvas_points}"
            remarks.append(f"{problem}: points are not rescaled")
    return remarks


def _fill_row(
    cells: list[str], texts: list[str], table: CsvLines, finders: list, seen: set[str], result: Filled
) -> None:
    columns = table.column
    logins = [texts[columns[name]] for name in ("SIS User ID", "SIS Login ID", "Integration ID") if name in columns]
    known = False
    for column, finder in finders:
        key = finder.find(f"canvas_id:{texts[columns['ID']].strip().casefold()}", *name_keys(*logins))
        known = known or key is not None
        row = finder.rows.get(key) if key else None
        if row is None or texts[column].strip().upper() == "EX":
            seen |= {key} if key else set()
            continue
        seen.add(key)
        cells[column] = table.cell(points_text(row[0]), cells[column])
        result.cells += 1
    if not known and texts[0].strip() and texts[0] != "Student, Test":
        result.unknown.append(texts[columns["ID"]].strip() or texts[0])


class FreshCanvas:
    """`canvas.csv`: a table that Canvas can import, for instructors without a gradebook export."""

    def __init__(self, file: TextIO, book: LabBook) -> None:
        self.rows = CsvRows(file, [*CANVAS, book.policy.canvas or book.lab])
        csv.writer(file, lineterminator="\n").writerow(
            ["    Points Possible", "", "", "", "", points_text(book.max_points)]
        )

    def add(self, student_result: StudentResult) -> None:
        """Write the row of one student."""
        person, student = student_result.person, student_result.student
        row = [student, "", student, student, ""]
        if person:
            row = [person.name or student, person.id("canvas_id"), student, person.email or student, person.section]
        self.rows.add([*row, "" if idle(student_result) else student_result.final])
