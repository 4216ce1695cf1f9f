"""Edit single cells of another program's CSV file; every other byte of it stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segedu.grading.gradebook.atomic_files import derived_text

_FIELD = r'(?:"(?:[^"]|"")*"|[^{0}"\r\n]*)'


class CsvLines:
    """The rows of a CSV file as they are written: cells keep their quotes, rows their line ends.

    Args:
        path: the file.
        required: columns that the file must have.
        source: the program that wrote the file, for messages.

    Raises:
        ValueError: if it is not such a file.
    """

    def __init__(self, path: Path, required: list[str], source: str) -> None:
        self.path = path
        try:
            self.text = path.read_bytes().decode("utf-8")
        except OSError as error:
            problem = f"the table of {source} is {path}, which cannot be read ({error.strerror})"
            raise ValueError(f"{problem}; give the CSV file of {source}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is not UTF-8; give the file as {source} wrote it") from None
        self.byte_order_mark = "\ufeff" * self.text.startswith("\ufeff")
        first_line = self.text.splitlines()[0] if self.text.strip() else ""
        self.delimiter = max(",;\t", key=first_line.count)
        self._field = re.compile(_FIELD.format(re.escape(self.delimiter)))
        self.header = [unquoted(cell).strip() for cell in next(self.rows(), ([], ""))[0]]
        self.column = {name: i for i, name in enumerate(self.header)}
        if not set(required) <= set(self.header):
            problem = f"the columns are {', '.join(self.header[:9]) or 'nothing'}"
            expected = f"those of {source}, among them {', '.join(required)}"
            raise ValueError(f"{path}, line 1: {problem}; expected {expected}")

    def rows(self) -> Iterator[tuple[list[str], str]]:
        """Yield (cells as written, line end) of every row, beginning with the header."""
        position, cells = len(self.byte_order_mark), []
        while position < len(self.text):
            match = self._field.match(self.text, position)
            cells.append(match[0])
            position = match.end()
            if self.text.startswith(self.delimiter, position):
                position += 1
                if position == len(self.text):  # the file ends in a delimiter: the last cell is empty
                    cells.append("")
                continue
            end = re.compile(r"\r\n|\n|\r|\Z").match(self.text, position)
            if not end:
                line = self.text.count("\n", 0, position) + 1
                raise ValueError(f"{self.path}, line {line}: a quote stands inside a cell; expected quotes around it")
            yield cells, end[0]
            position, cells = end.end(), []
        if cells:
            yield cells, ""

    @contextmanager
    def written(self, path: Path) -> Iterator[Callable[[list[str], str], None]]:
        """Open another file, and yield a function that writes a row as `rows` yields it."""
        with derived_text(path) as file:
            file.write(self.byte_order_mark)

            def write(cells: list[str], end: str) -> None:
                file.write(self.delimiter.join(cells) + end)

            yield write

    def cell(self, text: str, old_cell: str) -> str:
        """A cell with a new text, in quotes if they are necessary or if the old cell had them."""
        needs_quotes = old_cell.startswith('"') or any(mark in text for mark in (self.delimiter, '"', "\n", "\r"))
        return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def unquoted(cell: str) -> str:
    """The text of a cell, without its quotes."""
    return cell[1:-1].replace('""', '"') if cell[:1] == '"' and len(cell) > 1 else cell
