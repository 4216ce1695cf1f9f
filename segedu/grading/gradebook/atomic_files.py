"""Write derived files: atomically, only if their content changes, and without a flush to the disk.

They can always be computed again from the records, so a flush is not necessary. A second run over unchanged records
writes nothing, and a program that watches the folder, such as a web server, sees only new content.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, TextIO

from segedu.grading.judging.atomic_write import atomic_path

Number = int | float | Decimal
MAX_CELL = 32_000  # characters; spreadsheets move what exceeds 32,767 characters to other cells
# the full-width characters begin a formula in the Japanese version of a spreadsheet
_FORMULA = tuple("=+-@\t\r") + ("\uff1d", "\uff0b", "\uff0d", "\uff20")
_AFTER_SPLIT = re.compile(r"([;\t\r\n][\s\"]*)(?=[=+@\uff1d\uff0b\uff0d\uff20-])")


def write_derived(path: Path, data: bytes) -> bool:
    """Write a file atomically if its bytes change, and return whether it was written. Missing folders are created."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return True


@contextlib.contextmanager
def derived_text(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a text file that replaces `path` at the end of the block, if its bytes change and no error occurs.

    The encoding of CSV files for Excel is "utf-8-sig": without a byte order mark Excel reads them wrongly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, if_changed=True) as temporary:
        with temporary.open("w", encoding=encoding, newline="", errors="replace") as file:
            yield file


def points_text(points: Number) -> str:
    """Format points with at most two decimals and no trailing zeros: `3`, `2.5`."""
    exact = points if isinstance(points, Decimal) else Decimal(str(points))
    text = f"{exact.quantize(Decimal('0.01'), ROUND_HALF_UP):f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def as_text(value: object) -> str:
    """The text of a spreadsheet cell, with an apostrophe before everything that a spreadsheet would run as a formula.

    Some programs split a cell after a semicolon, a tab or the end of a line, so formulas are prevented there too, also
    after quotes. Numbers keep their minus sign.
    """
    if isinstance(value, int | float | Decimal):
        return points_text(value)
    text = _AFTER_SPLIT.sub(r"\1'", str(value)[:MAX_CELL])
    text = f"'{text}" if text.lstrip(' "')[:1] in _FORMULA else text
    return text if len(text) < MAX_CELL else f"{text[: MAX_CELL - 20]} ... (and more)"


class CsvRows:
    """Writes rows of a CSV file in which no cell can act as a formula."""

    def __init__(self, file: TextIO, header: list[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self.add(header)

    def add(self, row: list[Any]) -> None:
        """Write one row."""
        self._writer.writerow(["" if value is None else as_text(value) for value in row])
