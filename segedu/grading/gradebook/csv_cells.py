"""Somebody else's CSV, edited cell by cell: every byte outside the cells that are changed stays as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segedu.grading.gradebook.atomic_files import derived_text

_FIELD = r'(?:"(?:[^"]|"")*"|[^{0}"\r\n]*)'


class CsvLines:
    """Rows of a CSV as they are written: cells keep their quotes, rows their line ends.

    Args:
        path: of the file.
        needed: columns without which it is not the table that we think.
        kind: what to call it in messages.

    Raises:
        ValueError: if it is not such a table.
    """

    def __init__(self, path: Path, needed: list[str], kind: str) -> None:
        self.path = path
        try:
            self.text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise ValueError(f"{kind} is {path}, which cannot be read ({error.strerror}); give its CSV") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is not UTF-8; give the file as {kind} wrote it") from None
        self.mark = "\ufeff" * self.text.startswith("\ufeff")
        first = self.text.splitlines()[0] if self.text.strip() else ""
        self.comma = max(",;\t", key=first.count)
        self._field = re.compile(_FIELD.format(re.escape(self.comma)))
        self.header = [plain(cell).strip() for cell in next(self.rows(), ([], ""))[0]]
        self.place = {name: i for i, name in enumerate(self.header)}
        missing = [name for name in needed if name not in self.header]
        if missing:
            given = ", ".join(self.header[:9]) or "nothing"
            raise ValueError(f"{path}, line 1: the columns are {given}; expected {kind}'s, {', '.join(needed)} too")

    def rows(self) -> Iterator[tuple[list[str], str]]:
        """(cells as written, line end) of every row, the header first."""
        place, cells = len(self.mark), []
        while place < len(self.text):
            match = self._field.match(self.text, place)
            cells.append(match[0])
            place = match.end()
            if self.text.startswith(self.comma, place):
                place += 1
                if place == len(self.text):  # a comma ends the file: one more cell, empty
                    cells.append("")
                continue
            end = re.compile(r"\r\n|\n|\r|\Z").match(self.text, place)
            if not end:
                line = self.text.count("\n", 0, place) + 1
                raise ValueError(f"{self.path}, line {line}: a quote stands inside a cell; expected quotes around it")
            yield cells, end[0]
            place, cells = end.end(), []
        if cells:
            yield cells, ""

    @contextmanager
    def written(self, path: Path) -> Iterator[Callable[[list[str], str], None]]:
        """Write rows to another file as `rows` gave them."""
        with derived_text(path) as file:
            file.write(self.mark)

            def write(cells: list[str], end: str) -> None:
                file.write(self.comma.join(cells) + end)

            yield write

    def cell(self, text: str, like: str) -> str:
        """A cell as this file writes it: in quotes where it must be, or where the old one was."""
        needs = like.startswith('"') or any(mark in text for mark in (self.comma, '"', "\n", "\r"))
        return '"' + text.replace('"', '""') + '"' if needs else text


def plain(cell: str) -> str:
    """What a cell says, without its quotes."""
    return cell[1:-1].replace('""', '"') if cell[:1] == '"' and len(cell) > 1 else cell
