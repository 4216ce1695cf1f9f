"""Which submissions lie in a folder, and whose they are: a notebook, an archive or a folder a student."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.submissions.archive import SUFFIXES as ARCHIVES
from segedu.grading.submissions.folder_layout import PLATFORMS, find_layout, is_folder, is_of, listed

MAX_ATTEMPTS, KEPT_ATTEMPTS = 2000, 20  # names looked at; graded: a student must not be able to order hours of work
MAX_ID = 160  # bytes: a file name has at most 255, and suffixes of ours follow
HIDDEN = (".", "__MACOSX", "__pycache__")
# an instructor's own files beside the submissions, not a student's work
BESIDE = (".csv", ".json", ".md", ".txt", ".yml", ".yaml", ".log", ".toml")


@dataclass(frozen=True)
class Entry:
    """Where one student's work lies: a notebook, an archive, or a folder.

    Attributes:
        student: the id, safe as a file name.
        path: of the file or folder.
        attempt: 1, 2, ... where a student's folder holds `attempt-1`, `attempt-2`, ...
        layout: of the folder, see `layout`; "students" where the name and all in it are the student's own choice.
        clash: a sentence, where another submission has the same name but for its spelling; else "".
    """

    student: str
    path: Path
    attempt: int = 1
    layout: str = "students"
    clash: str = ""

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


def find_entries(
    folder: Path,
    layout: str = "auto",
    out: Path | None = None,
    exact: Callable[[Collection[str]], Collection[str]] = lambda ids: (),
) -> tuple[list[Entry], list[str]]:
    """List the submissions of a folder; a single notebook or archive counts as a folder of one.

    Args:
        folder: as the instructor gave it.
        layout: of the folder, one of `LAYOUTS`.
        out: where records go; it may lie in the folder, and is no submission.
        exact: given ids that several submissions claim, the names on the roster that have one of these ids.

    Returns:
        Entries sorted by student, and the names of files that were left out because they are no submissions.

    Raises:
        ValueError: if there is no such path, nothing to grade in it, or more than one way to read it.
    """
    if not folder.exists():
        raise ValueError(f"SUBMISSIONS is {folder}, which does not exist; give a folder of notebooks, or one notebook")
    if not folder.is_dir():
        if not folder.name.lower().endswith((".ipynb", *ARCHIVES)):
            kinds = ", ".join(ARCHIVES)
            raise ValueError(f"SUBMISSIONS is {folder}, expected a folder, a notebook (.ipynb) or an archive ({kinds})")
        return [Entry(student_id(_stem(folder.name)), folder)], []
    found, where = find_layout(folder, [path.name for path in _children(folder) if not _is_beside(path, out)], layout)
    children = _children(where)
    mine = [path for path in children if not _is_beside(path, out)]
    if not mine:
        advice = "put one file or folder a student there"
        raise ValueError(f"SUBMISSIONS is {folder}, which holds no notebook, archive or student folder; {advice}")
    return _named(mine, found, exact), [path.name for path in children if path not in mine]


def _children(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and what operating systems and Python put there."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(HIDDEN))
    except OSError as error:
        raise ValueError(f"SUBMISSIONS is {folder}, which cannot be read: {error.strerror}") from None


def _is_beside(path: Path, out: Path | None = None) -> bool:
    """An instructor's own file, or the folder of records."""
    name = path.name.lower()
    if is_folder(path):
        return out is not None and path.resolve() in (out, *out.parents)
    return name.endswith(BESIDE) and not name.endswith((".ipynb.txt", ".ipynb.json"))


def _stem(name: str) -> str:
    for suffix in (".ipynb", ".ipynb.txt", ".ipynb.json", *ARCHIVES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _named(paths: list[Path], layout: str, exact: Callable[[Collection[str]], Collection[str]]) -> list[Entry]:
    """An id for each path: two names that look the same to a file system stay apart, and both are told."""
    claims: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        claims[student_id(_name(path)).casefold()].append(path)
    several = [key for key, claimants in claims.items() if len(claimants) > 1]
    on_roster = set(exact(several)) if several else set()
    taken, entries = set(claims), []
    for claimants in claims.values():
        claimants.sort(key=lambda path: _claim(_name(path), on_roster))
        ids = [student_id(_name(claimants[0])), *(_another_id(path, taken) for path in claimants[1:])]
        for path, student in zip(claimants, ids, strict=True):
            entries += _entries(path, student, layout, _clash(path, student, claimants, ids[0]))
    return sorted(entries, key=lambda entry: (entry.student, entry.attempt))


def _name(path: Path) -> str:
    return path.name if is_folder(path) else _stem(path.name)


def _claim(name: str, on_roster: set[str]) -> tuple:
    """Of several names of one id, the first keeps it: one of the roster, one that is its own id, in small letters."""
    return (name not in on_roster, name != student_id(name), name != name.casefold(), name)


def _another_id(path: Path, taken: set[str]) -> str:
    student, more = student_id(_name(path)), path.name.encode(errors="surrogateescape")
    plain = student
    while student.casefold() in taken:
        more = hashlib.sha256(more).digest()
        student = f"{_cut(plain, 73, MAX_ID - 7)}-{more.hex()[:6]}"  # no longer than other ids
    taken.add(student.casefold())
    return student


def _clash(path: Path, student: str, claimants: list[Path], first: str) -> str:
    if len(claimants) == 1:
        return ""
    others = listed([other.name for other in claimants if other != path])
    kept = f"this one keeps the id {first}" if student == first else f"this one is graded as {student}"
    return f"another submission claims the same id ({others}): {kept}"


def _entries(path: Path, student: str, layout: str, clash: str) -> list[Entry]:
    layout = layout if layout not in PLATFORMS or is_of(layout, path.name) else "students"
    attempts = _attempts(path) or [(1, path)]
    return [Entry(student, part, number, layout, clash) for number, part in attempts]


def _attempts(folder: Path) -> list[tuple[int, Path]]:
    """`(number, path)` of `attempt-1`, `attempt 2.ipynb`, ... in a student's folder: the last twenty of them."""
    if not is_folder(folder):
        return []
    found, paths = {}, []
    with contextlib.suppress(OSError):  # why it cannot be read is said where its notebook is looked for
        paths = sorted(itertools.islice(folder.iterdir(), MAX_ATTEMPTS))
    for path in paths:
        match = re.fullmatch(r"attempt[-_ ]?0*([1-9]\d{0,3})", _stem(path.name), re.IGNORECASE)
        if match:
            found.setdefault(int(match[1]), path)
    return sorted(found.items())[-KEPT_ATTEMPTS:]
