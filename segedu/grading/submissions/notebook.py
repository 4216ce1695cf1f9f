"""Parse a student's notebook with limits on format, counts, sizes and depth."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

from segedu.grading.submissions.archive import SubmissionError

MAX_NOTEBOOK = 32 << 20
MAX_CELLS = 2000
MAX_SOURCE = 1 << 20
MAX_CODE = 1 << 20
MAX_BRACKETS = 1_000_000
_OUR_ID = re.compile(r"^(\d\d)-[a-z0-9-]+$")


@dataclass(frozen=True)
class StudentCell:
    """One cell of a student's notebook.

    Attributes:
        position: 1 for the first cell of the notebook.
        cell_type: code, markdown or raw.
        source: the text of a code cell; "" for other cells.
        ids: the id of the cell, and names that other tools store in the metadata.
    """

    position: int
    cell_type: str
    source: str
    ids: tuple[str, ...] = ()


def lab_number(cells: list[StudentCell]) -> str:
    """The two digits of the lab that most cell ids begin with, such as `04`, or ""."""
    votes = Counter(match[1] for cell in cells for text in cell.ids[:1] if (match := _OUR_ID.match(text)))
    return votes.most_common(1)[0][0] if votes else ""


def parse_notebook(data: bytes, name: str = "the notebook") -> list[StudentCell]:
    """Parse the bytes of a notebook of format 4 into its cells, without outputs and attachments.

    Raises:
        SubmissionError: names the notebook and the problem, and says what to do.
    """
    if len(data) > MAX_NOTEBOOK:
        size, limit = len(data) >> 20, MAX_NOTEBOOK >> 20
        raise SubmissionError(f"{name} has {size} MB, at most {limit} MB are read; clear its outputs and save")
    if not data.strip():
        raise SubmissionError(f"{name} is empty")
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:  # each one needs far more memory than its two bytes
        raise SubmissionError(f"{name} has more than {MAX_BRACKETS} brackets; clear its outputs and save")
    try:
        document = json.loads(data.decode(json.detect_encoding(data)))  # PowerShell writes UTF-16
    except RecursionError:
        raise SubmissionError(f"{name} is nested too deep") from None
    except ValueError as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        advice = "it is truncated or was edited as text; save it again from JupyterLab"
        raise SubmissionError(f"{name} is not valid JSON{line}: {advice}") from None
    version = document.get("nbformat") if isinstance(document, dict) else None
    if version is None:
        raise SubmissionError(f"{name} is JSON, but not a notebook")
    if version != 4:
        version = str(version)[:20]
        raise SubmissionError(f"{name} has notebook format {version}, expected 4; save it again from JupyterLab")
    cells = document.get("cells")
    if not isinstance(cells, list):
        raise SubmissionError(f"{name} has no list of cells")
    if len(cells) > MAX_CELLS:
        raise SubmissionError(f"{name} has {len(cells)} cells, at most {MAX_CELLS} are read")
    parsed = [_cell(cell, position, name) for position, cell in enumerate(cells, 1)]
    code = sum(len(cell.source) for cell in parsed)
    if code > MAX_CODE:  # parsing takes seconds per megabyte, in which no other submission's cells are watched
        raise SubmissionError(f"{name} has {code >> 10} kB of code, at most {MAX_CODE >> 10} kB are read")
    return parsed


def _cell(cell: object, position: int, name: str) -> StudentCell:
    if not isinstance(cell, dict):
        raise SubmissionError(f"{name}: cell {position} is not a cell")
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise SubmissionError(f"{name}: cell {position} has no text as its source")
    if len(source) > MAX_SOURCE and cell.get("cell_type") == "code":
        size, limit = len(source) >> 10, MAX_SOURCE >> 10
        raise SubmissionError(f"{name}: cell {position} has {size} kB of code, at most {limit} kB are read")
    cell_type = cell.get("cell_type")
    source = source if cell_type == "code" else ""  # text is never graded, and may be large
    return StudentCell(position, cell_type if cell_type in ("code", "markdown", "raw") else "raw", source, _ids(cell))


def _ids(cell: dict) -> tuple[str, ...]:
    """The id of a cell, and names in its metadata, where Colab and older tools store them."""
    metadata = cell.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    nbgrader, course = metadata.get("nbgrader"), metadata.get("segedu")
    candidates = [
        cell.get("id"),
        metadata.get("id"),
        course.get("name") if isinstance(course, dict) else None,
        nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None,
    ]
    return tuple(text[:200] for text in candidates if isinstance(text, str) and text)
