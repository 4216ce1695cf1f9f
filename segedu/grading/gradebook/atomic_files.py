"""Derived files: made anew from the records at will, so they are never flushed, and touched only where they change.

A hundred thousand feedback pages cost a hundred thousand writes the first time and none the second; a program that
watches the folder (a web server, a synchroniser) sees only what is new.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, TextIO

from segedu.grading.judging.atomic_write import replacing

Number = int | float | Decimal
MAX_CELL = 32_000  # characters; a spreadsheet cuts a cell at 32,767 and moves the rest to other cells
# the wide ones begin a formula too, where the spreadsheet speaks Japanese
_FORMULA = tuple("=+-@\t\r") + ("\uff1d", "\uff0b", "\uff0d", "\uff20")
_AFTER_SPLIT = re.compile(r"([;\t\r\n][\s\"]*)(?=[=+@\uff1d\uff0b\uff0d\uff20-])")


def write_derived(path: Path, data: bytes) -> bool:
    """Write a file whole or not at all, if its bytes change.

    Args:
        path: of the file; its folder is made.
        data: its bytes.

    Returns:
        True where it was written, False where it was so already.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(data)
    return True


@contextlib.contextmanager
def derived_text(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """A text file that is written in pieces; it takes its place at the end, if its bytes change.

    Args:
        path: of the file; its folder is made.
        encoding: of the file; "utf-8-sig" for CSV, which Excel reads wrongly without the mark.

    Yields:
        The file to write to. After an error in the block the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, if_changed=True) as part:
        with part.open("w", encoding=encoding, newline="", errors="replace") as file:
            yield file


def points_text(points: Number) -> str:
    """`3`, `2.5`: at most two decimals and no trailing zeros."""
    exact = points if isinstance(points, Decimal) else Decimal(str(points))
    text = f"{exact.quantize(Decimal('0.01'), ROUND_HALF_UP):f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def as_text(value: object) -> str:
    """What begins like a formula is shown as text, also where some programs split a cell: after a semicolon, a tab or
    the end of a line, with quotes between, which a program that splits there takes for quotes around a cell.

    Args:
        value: of a cell that a spreadsheet will open. A number of ours keeps its minus.

    Returns:
        The text, with an apostrophe before what a spreadsheet would run.
    """
    if isinstance(value, int | float | Decimal):
        return points_text(value)
    text = _AFTER_SPLIT.sub(r"\1'", str(value)[:MAX_CELL])
    text = f"'{text}" if text.lstrip(' "')[:1] in _FORMULA else text
    return text if len(text) < MAX_CELL else f"{text[: MAX_CELL - 20]} ... (and more)"


class CsvRows:
    """Writes rows of CSV; every cell is kept from being a formula.

    Args:
        file: to write to.
        header: names of the columns.
    """

    def __init__(self, file: TextIO, header: list[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self.add(header)

    def add(self, row: list[Any]) -> None:
        """Write one row."""
        self._writer.writerow(["" if value is None else as_text(value) for value in row])
