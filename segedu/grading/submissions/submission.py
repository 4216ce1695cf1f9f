"""Submissions: read the notebook out of each, refuse what is hostile or broken.

Everything here comes from students. Nothing is unpacked to the disk, nothing is followed, every size, count and
depth is bounded before it is paid for. A bad submission becomes a `Submission` with a `problem`, never an
exception: one broken file must not end a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segedu.grading.submissions.archive import SUFFIXES as ARCHIVES
from segedu.grading.submissions.archive import SubmissionError, is_archive
from segedu.grading.submissions.archive_process import CPU_SECONDS, read_archive
from segedu.grading.submissions.find_submissions import Entry
from segedu.grading.submissions.folder_layout import is_folder
from segedu.grading.submissions.notebook import StudentCell, lab_number, parse_notebook
from segedu.grading.submissions.times import parse_timestamp

MAX_FILE = 64 << 20
MAX_ENTRIES = 2000
MAX_DEPTH = 4
MAX_ARCHIVES = 20  # in one folder; each is read by a process of its own
TIME_FILE = "timestamp.txt"
BOOKS = (".ipynb", ".ipynb.txt", ".ipynb.json")  # browsers add the second suffix


@dataclass(frozen=True)
class Handed:
    """What lies there, read and not yet looked into: it can be sent to another machine as it is.

    Attributes:
        entry: whose it is.
        source: the file or folder, relative to the folder of submissions.
        digest: SHA-256 of the notebooks' names and bytes (of the file's name and size, where there are none).
        found: `(path, bytes)` of each notebook.
        problem: why there is none, or "".
        notes: oddities that cost nothing.
        submitted: when it was handed in, where a file beside it says so; ISO 8601.
    """

    entry: Entry
    source: str
    digest: str
    found: tuple[tuple[str, bytes], ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    submitted: str | None = None


@dataclass(frozen=True)
class Submission:
    """One student's notebook, or what is wrong with it.

    Attributes:
        student: the id.
        source: the file that was read, relative to the folder of submissions.
        digest: SHA-256 of the notebook's bytes (of the file's, where there is no notebook in it).
        cells: of the notebook; empty where there is a problem.
        problem: why nothing can be graded, or "".
        notes: oddities that cost nothing.
        attempt: which of the student's.
        submitted: when, in ISO 8601, or None where nothing says so.
        layout: of the folder of submissions.
        clash: True where another submission claims the same id.
    """

    student: str
    source: str
    digest: str
    cells: tuple[StudentCell, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    attempt: int = 1
    submitted: str | None = None
    layout: str = "students"
    clash: bool = False


def read_submission(entry: Entry, lab: str, root: Path) -> Submission:
    """Read one entry; whatever is wrong with it becomes its `problem`.

    Args:
        entry: from `find_entries`.
        lab: `04_metrics`; chooses among several notebooks by the ids inside them.
        root: paths in messages are relative to it.

    Returns:
        The submission.
    """
    return look_into(collect(entry, lab, root), lab)


def collect(entry: Entry, lab: str, root: Path) -> Handed:
    """Read an entry's notebooks without parsing them; whatever is wrong becomes its `problem`.

    Args:
        entry: from `find_entries`.
        lab: `04_metrics`; a folder of that name in the student's is preferred.
        root: `source` is relative to it.

    Returns:
        The bytes and their digest.
    """
    source, clash = entry.path.name, (entry.clash,) if entry.clash else ()
    try:
        source = os.path.relpath(entry.path, root) if root.is_dir() else source
        found, notes = _notebooks(entry.path, lab)
        submitted, more = _submitted(entry, lab)
        return Handed(entry, source, _digest(found), tuple(found), notes=(*clash, *notes, *more), submitted=submitted)
    except Exception as error:
        return Handed(entry, source, _name_digest(entry), problem=_why(entry, error), notes=clash)


def _submitted(entry: Entry, lab: str) -> tuple[str | None, list[str]]:
    """When it was handed in, where nbgrader says so: in any other folder the file may be the student's own."""
    if entry.layout == "nbgrader":
        return submission_time(entry.path, lab), []
    own = [folder / TIME_FILE for folder in (entry.path / lab, entry.path) if is_folder(entry.path)]
    if any(parse_timestamp(text) for text in map(_first_words, own) if text):
        return None, [f"{TIME_FILE} may be the student's own and was not believed; --layout nbgrader believes it"]
    return None, []


def look_into(handed: Handed, lab: str) -> Submission:
    """Parse what was collected.

    Args:
        handed: from `collect`, of this machine or another.
        lab: `04_metrics`.

    Returns:
        The submission.
    """
    entry, source = handed.entry, handed.source
    ours: dict[str, Any] = {"attempt": entry.attempt, "submitted": handed.submitted, "layout": entry.layout}
    ours |= {"clash": bool(entry.clash), "notes": handed.notes}
    if handed.problem:
        return Submission(entry.student, source, handed.digest, problem=handed.problem, **ours)
    try:
        notes = list(handed.notes)
        name, cells = _choose(list(handed.found), lab)
        if len(handed.found) > 1:
            notes.append(f"{len(handed.found)} notebooks were handed in; {name} was graded")
        if name != entry.path.name:
            source = f"{source}/{name}"
        return Submission(entry.student, source, handed.digest, tuple(cells), **ours | {"notes": tuple(notes)})
    except Exception as error:
        return Submission(entry.student, source, handed.digest, problem=_why(entry, error), **ours)


def _why(entry: Entry, error: Exception) -> str:
    """Also of a parser that a hostile file breaks in a new way: it must not end the batch."""
    if isinstance(error, SubmissionError):
        return str(error)
    if isinstance(error, OSError):
        return f"{entry.path.name} cannot be read: {error.strerror or error}"
    return f"{entry.path.name} cannot be read: {type(error).__name__}"


def submission_time(path: Path, lab: str) -> str | None:
    """When a student handed in, by the `timestamp.txt` that nbgrader puts beside the notebook.

    Args:
        path: the student's folder, in nbgrader's layout.
        lab: `04_metrics`; nbgrader has a folder for each.

    Returns:
        ISO 8601 in UTC, or None where there is no such file or no time in it.
    """
    text = _first_words(path / lab / TIME_FILE)
    return parse_timestamp(text) if text else None


def _first_words(file: Path) -> str:
    """The text of a small plain file, or "" where it is none, or behind a link."""
    if file.parent.is_symlink() or file.is_symlink() or not file.is_file():
        return ""
    with contextlib.suppress(OSError, SubmissionError):  # too large: not nbgrader's
        return read_plain(file, 1000).decode(errors="replace")
    return ""


def fingerprint(entry: Entry, lab: str) -> str:
    """The digest that `read_submission` will give, without parsing anything.

    Args:
        entry: from `find_entries`.
        lab: `04_metrics`.

    Returns:
        SHA-256, hexadecimal.
    """
    return collect(entry, lab, entry.path.parent).digest


def _digest(found: list[tuple[str, bytes]]) -> str:
    parts = [part for name, data in found for part in (name.encode(errors="replace"), data)]
    lengths = ",".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(b"\0".join([lengths, *parts])).hexdigest()


def _name_digest(entry: Entry) -> str:
    """Of something without a notebook in it: its name and its size, so that a corrected one is read again."""
    size = 0
    with contextlib.suppress(OSError):  # of a link, the length of where it leads: what lies there is not looked at
        size = entry.path.lstat().st_size
    return hashlib.sha256(f"{entry.path.name} {size}".encode(errors="replace")).hexdigest()


def _notebooks(path: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    if path.is_symlink():
        raise SubmissionError(f"{path.name} is a link, which is not followed; hand in the file itself")
    if is_folder(path):
        return _in_folder(path, lab)
    if path.name.lower().endswith((*BOOKS, *ARCHIVES)):
        return _Reader().read(path, read_plain(path)), []
    raise SubmissionError(f"{path.name} is not a notebook; hand in the .ipynb file of the lab")


class _Reader:
    """Reads the files of one submission, and adds up what its archives cost."""

    def __init__(self) -> None:
        self.archives, self.seconds = 0, 0.0

    def read(self, path: Path, data: bytes) -> list[tuple[str, bytes]]:
        """The notebooks in a file. What its first bytes say counts: a zip that was named .ipynb is a zip."""
        if not (is_archive(data) or path.name.lower().endswith(ARCHIVES)):
            return [(path.name, data)]
        self.archives += 1
        if self.archives > MAX_ARCHIVES:
            raise SubmissionError(f"more than {MAX_ARCHIVES} archives were handed in; hand in the notebook alone")
        found, seconds = read_archive(path.name, data, CPU_SECONDS - self.seconds)
        self.seconds += seconds
        return found


def _in_folder(folder: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    start = folder / lab if is_folder(folder / lab) else folder
    files, links = _walk(start)
    notes = [f"{name} is a link and was not followed" for name in links[:5]]
    books = [path for path in files if path.name.lower().endswith(BOOKS)]
    wanted = books or [path for path in files if path.name.lower().endswith(ARCHIVES)]
    found: list[tuple[str, bytes]] = []
    left, reader = MAX_FILE, _Reader()  # of all files together
    for path in wanted:
        data = read_plain(path, left)
        more = reader.read(path, data)
        if books and len(more) == 1 and more[0][0] == path.name:
            more = [(str(path.relative_to(folder)), data)]
        found += more
        left -= max(len(data), sum(len(content) for _, content in more))
        if left < 0:
            raise SubmissionError(f"{folder.name} holds more than {MAX_FILE >> 20} MB; hand in the notebook alone")
    if not found:
        raise SubmissionError(f"{folder.name} holds no notebook; hand in the .ipynb file of the lab")
    return found, notes


def _walk(start: Path) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    links: list[str] = []
    seen = 0
    os.scandir(start).close()  # a folder that cannot be read is not an empty one
    for here, folders, names in os.walk(start, followlinks=False):
        seen += len(folders) + len(names)
        if seen > MAX_ENTRIES:
            raise SubmissionError(f"{start.name} holds more than {MAX_ENTRIES} files; hand in the notebook alone")
        links += [name for name in folders + names if os.path.islink(os.path.join(here, name))]
        depth = len(Path(here).relative_to(start).parts)
        keep = [name for name in folders if not name.startswith((".", "__")) and depth < MAX_DEPTH]
        folders[:] = sorted(keep)
        paths = (Path(here, name) for name in sorted(names) if not name.startswith("."))
        files += [path for path in paths if not path.is_symlink()]
    return files, links


def read_plain(path: Path, max_bytes: int = MAX_FILE) -> bytes:
    """Read a plain file of bounded size; links and pipes are refused.

    Args:
        path: of the file.
        max_bytes: that are read.

    Returns:
        Its bytes.

    Raises:
        SubmissionError: if it is anything else, or larger.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise SubmissionError(f"{path.name} is not a plain file")
        if found.st_size > max_bytes:
            raise SubmissionError(f"{path.name} has {found.st_size >> 20} MB, at most {max_bytes >> 20} MB are read")
        return file.read(max_bytes)


def _choose(found: list[tuple[str, bytes]], lab: str) -> tuple[str, list[StudentCell]]:
    if len(found) == 1:
        name, data = found[0]
        cells = parse_notebook(data, name)
        other = lab_number(cells)
        if other and other != lab[:2]:
            raise SubmissionError(f"{name} is a notebook of lab {other}, expected lab {lab[:2]} ({lab})")
        return name, cells
    fitting, problems = [], []
    for name, data in found:
        try:
            cells = parse_notebook(data, name)
        except SubmissionError as error:
            problems.append(str(error))
            continue
        unnumbered = not lab_number(cells) and Path(name).name.startswith(lab)  # saved by a tool that drops ids
        if lab_number(cells) == lab[:2] or unnumbered:
            fitting.append((name, cells))
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        reasons = "".join(f"; {text}" for text in problems[:2])
        raise SubmissionError(f"none of its {len(found)} notebooks is of lab {lab}{reasons}")
    exact = [item for item in fitting if Path(item[0]).name == f"{lab}.ipynb"]
    if len(exact) == 1:
        return exact[0]
    names = ", ".join(name for name, _ in fitting[:4])
    raise SubmissionError(f"{len(fitting)} notebooks are of lab {lab}: {names}; hand in one")
