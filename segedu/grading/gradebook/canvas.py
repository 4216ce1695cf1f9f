"""Canvas: fill the columns of labs in the instructor's gradebook export, or make a fresh table of its shape."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TextIO

from segedu.grading.gradebook.atomic_files import CsvRows, points_text
from segedu.grading.gradebook.csv_cells import CsvLines, plain
from segedu.grading.gradebook.lms_tables import Filled, Finder, idle, name_keys
from segedu.grading.gradebook.policy import LabBook, StudentResult

CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]


def canvas_column(header: list[str], book: LabBook, path: Path) -> int | None:
    """The lab's column in a Canvas export: as policy.toml says, or titled `Lab 4 (12345)` or `04_metrics`.

    Args:
        header: titles of the columns.
        book: of the lab.
        path: for messages.

    Returns:
        Its place, or None.

    Raises:
        ValueError: if several fit.
    """
    lab, number = book.lab, int(book.lab[:2]) if book.lab[:2].isdecimal() else -1
    titles = [re.sub(r"\s*\(\d+\)\s*$", "", title).strip().casefold() for title in header]
    if book.policy.canvas:
        wanted = book.policy.canvas.casefold()
        return next((i for i, title in enumerate(header) if wanted in (title.casefold(), titles[i])), None)
    fits = [i for i, title in enumerate(titles) if title == lab.casefold()]
    pattern = re.compile(rf"\blab[\s_-]*0*{number}\b|\b{re.escape(lab.casefold())}\b")
    fits = fits or [i for i, title in enumerate(titles) if header[i] not in CANVAS and pattern.search(title)]
    if len(fits) > 1:
        both = " and ".join(repr(header[i]) for i in fits[:3])
        raise ValueError(f"{path}: {both} may be lab {lab}; name its column in policy.toml: [labs.{lab}] canvas = ...")
    return fits[0] if fits else None


def fill_canvas(export: Path, books: list[LabBook], target: Path) -> Filled:
    """Fill the columns of labs in a Canvas gradebook export.

    Args:
        export: the CSV that Canvas made.
        books: of the labs to fill; those without a column are passed over.
        target: where the filled CSV goes.

    Returns:
        What was filled.

    Raises:
        ValueError: if it is no such CSV, or has no column of any of the labs.
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
            texts = [plain(cell) for cell in cells]
            if number and texts[0].strip().casefold() == "points possible":
                result.remarks += _other_maximum(texts, finders)
            elif number and any(texts) and len(cells) == len(table.header):
                _fill_row(cells, texts, table, finders, seen, result)
            write(cells, end)
    for _, finder in finders:
        result.left += [key for key, row in finder.rows.items() if row is not None and key not in seen]
    result.left = list(dict.fromkeys(result.left))
    return result


def _other_maximum(texts: list[str], finders: list[tuple[int, Finder]]) -> list[str]:
    remarks = []
    for column, finder in finders:
        given, ours = (texts[column].strip() if column < len(texts) else ""), points_text(finder.book.max)
        if given and given not in (ours, f"{finder.book.max:.1f}", f"{finder.book.max:.2f}"):
            remarks.append(f"{finder.book.lab} has {ours} points, its column there {given}: points are not rescaled")
    return remarks


def _fill_row(
    cells: list[str], texts: list[str], table: CsvLines, finders: list, seen: set[str], result: Filled
) -> None:
    place = table.place
    logins = [texts[place[name]] for name in ("SIS User ID", "SIS Login ID", "Integration ID") if name in place]
    known = False
    for column, finder in finders:
        key = finder.find(f"canvas_id:{texts[place['ID']].strip().casefold()}", *name_keys(*logins))
        known = known or key is not None
        row = finder.rows.get(key) if key else None
        if row is None or texts[column].strip().upper() == "EX":
            seen |= {key} if key else set()
            continue
        seen.add(key)
        cells[column] = table.cell(points_text(row[0]), cells[column])
        result.cells += 1
    if not known and texts[0].strip() and texts[0] != "Student, Test":
        result.unknown.append(texts[place["ID"]].strip() or texts[0])


class FreshCanvas:
    """`canvas.csv`: a table that Canvas can import where there is no export at hand.

    Args:
        file: to write to.
        book: of the lab.
    """

    def __init__(self, file: TextIO, book: LabBook) -> None:
        self.rows = CsvRows(file, [*CANVAS, book.policy.canvas or book.lab])
        csv.writer(file, lineterminator="\n").writerow(["    Points Possible", "", "", "", "", points_text(book.max)])

    def add(self, student_result: StudentResult) -> None:
        """Write the row of one student."""
        person, student = student_result.person, student_result.student
        who = [person.name or student, person.id("canvas_id"), student] if person else [student, "", student]
        login, section = (person.email or student, person.section) if person else (student, "")
        self.rows.add([*who, login, section, "" if idle(student_result) else student_result.final])
