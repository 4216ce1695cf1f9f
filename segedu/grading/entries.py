"""Which submissions lie in a folder, and whose they are: a notebook, an archive or a folder a student."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.archive import SUFFIXES as ARCHIVES

MAX_ATTEMPTS, KEPT_ATTEMPTS = 2000, 20  # names looked at; graded: a student must not be able to order hours of work
MAX_ID = 160  # bytes: a file name has at most 255, and suffixes of ours follow
# an instructor's own files beside the submissions, not a student's work
BESIDE = (".csv", ".json", ".md", ".txt", ".yml", ".yaml", ".log", ".toml")


@dataclass(frozen=True)
class Entry:
    """Where one student's work lies: a notebook, an archive, or a folder.

    Attributes:
        student: the id, safe as a file name.
        path: of the file or folder.
        attempt: 1, 2, ... where a student's folder holds `attempt-1`, `attempt-2`, ...
    """

    student: str
    path: Path
    attempt: int = 1

    @property
    def name(self) -> str:
        """Of the record: `anna`, for a second attempt `anna~2`; no student id holds a `~`."""
        return record_name(self.student, self.attempt)


def record_name(student: str, attempt: int) -> str:
    """`anna`, `anna~2`."""
    return student if attempt == 1 else f"{student}~{attempt}"


def student_id(name: str) -> str:
    """Turn the name of a file or folder into a student id.

    Args:
        name: without suffix.

    Returns:
        Letters, digits, `.`, `_`, `-`, `@`; at most 80 characters; it never begins with a character that a
        shell or a spreadsheet would act on.

    >>> student_id("=Anna Müller/../x")
    'Anna_Müller_x'
    """
    name = re.sub(r"[^\w.@-]+", "_", name)
    name = re.sub(r"_{2,}", "_", re.sub(r"\.{2,}", "", name))  # so that the id of an id is that id
    return _cut(name.strip("._-@"), 80, MAX_ID) or "unnamed"


def _cut(name: str, letters: int, size: int) -> str:
    return name[:letters].encode()[:size].decode(errors="ignore").rstrip("._-@")  # a letter may take 4 bytes


def find_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """List the submissions of a folder; a single notebook or archive counts as a folder of one.

    nbgrader's layout `submitted/<student>/<lab>/x.ipynb` is accepted too.

    Args:
        folder: as the instructor gave it.

    Returns:
        Entries sorted by student, and the names of files that were left out because they are no submissions.

    Raises:
        ValueError: if there is no such path, or nothing to grade in it.
    """
    if not folder.exists():
        raise ValueError(f"SUBMISSIONS is {folder}, which does not exist; give a folder of notebooks, or one notebook")
    if not folder.is_dir():
        if not folder.name.lower().endswith((".ipynb", *ARCHIVES)):
            kinds = ", ".join(ARCHIVES)
            raise ValueError(f"SUBMISSIONS is {folder}, expected a folder, a notebook (.ipynb) or an archive ({kinds})")
        return [Entry(student_id(_stem(folder.name)), folder)], []
    children = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    if [path.name for path in children if path.is_dir()] == ["submitted"]:
        return find_entries(folder / "submitted")
    mine = [path for path in children if not _is_beside(path)]
    if not mine:
        advice = "put one file or folder a student there"
        raise ValueError(f"SUBMISSIONS is {folder}, which holds no notebook, archive or student folder; {advice}")
    return _named(mine), [path.name for path in children if _is_beside(path)]


def _is_beside(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(BESIDE) and not name.endswith((".ipynb.txt", ".ipynb.json")) and not path.is_dir()


def _stem(name: str) -> str:
    for suffix in (".ipynb", ".ipynb.txt", ".ipynb.json", *ARCHIVES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _named(paths: list[Path]) -> list[Entry]:
    entries, taken = [], set()
    for path in paths:
        student = student_id(path.name if path.is_dir() else _stem(path.name))
        plain, more = student, path.name.encode(errors="surrogateescape")
        while student.casefold() in taken:  # two names that look the same to a file system stay apart
            more = hashlib.sha256(more).digest()
            student = f"{_cut(plain, 73, MAX_ID - 7)}-{more.hex()[:6]}"  # no longer than other ids
        taken.add(student.casefold())
        attempts = _attempts(path)
        entries += [Entry(student, part, number) for number, part in attempts] or [Entry(student, path)]
    return sorted(entries, key=lambda entry: (entry.student, entry.attempt))


def _attempts(folder: Path) -> list[tuple[int, Path]]:
    """`(number, path)` of `attempt-1`, `attempt 2.ipynb`, ... in a student's folder: the last twenty of them."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    found: dict[int, Path] = {}
    for path in sorted(itertools.islice(folder.iterdir(), MAX_ATTEMPTS)):
        match = re.fullmatch(r"attempt[-_ ]?0*([1-9]\d{0,3})", _stem(path.name), re.IGNORECASE)
        if match:
            found.setdefault(int(match[1]), path)
    return sorted(found.items())[-KEPT_ATTEMPTS:]
