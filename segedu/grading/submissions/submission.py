"""Read the notebook of a submission, and reject hostile or broken files.

Everything here comes from students. Nothing is unpacked to the disk, no symbolic link is followed, and every size,
count and depth is checked before memory or time is spent on it. A bad submission becomes a `Submission` with a
`problem`, because one broken file must not end a batch. Only a MemoryError is raised, because another submission may be
its cause.
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
MAX_ARCHIVES = 20  # per folder; each archive is read by a process of its own
TIME_FILE = "timestamp.txt"
NOTEBOOKS = (".ipynb", ".ipynb.txt", ".ipynb.json")  # some browsers add the second suffix


@dataclass(frozen=True)
class RawSubmission:
    """The bytes of a submission's notebooks, read but not parsed; it can be sent to another machine.

    Attributes:
        entry: the path of the submission and its student.
        source: the file or folder, relative to the folder of submissions.
        digest: SHA-256 of the notebooks' names and bytes; without a notebook, of the file's name and size.
        notebooks: `(path, bytes)` of each notebook.
        problem: why there is no notebook, or "".
        notes: notes that do not affect points.
        submitted: ISO 8601 time from nbgrader's `timestamp.txt`, or None.
    """

    entry: Entry
    source: str
    digest: str
    notebooks: tuple[tuple[str, bytes], ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    submitted: str | None = None


@dataclass(frozen=True)
class Submission:
    """One student's parsed notebook, or the `problem` for which it cannot be graded. See also `RawSubmission`, `Entry`.

    Attributes:
        source: the file that was read, relative to the folder of submissions.
        cells: the cells of the notebook; empty if there is a problem.
        clash: True if another submission claims the same id.
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
    """Read and parse one entry, see `collect` and `parse_submission`."""
    return parse_submission(collect(entry, lab, root), lab)


def collect(entry: Entry, lab: str, root: Path) -> RawSubmission:
    """Read an entry's notebooks without parsing them. Any error becomes the `problem` of the result.

    Args:
        entry: an entry from `find_entries`.
        lab: name of the lab, such as `04_metrics`. If the student's folder contains a folder of this name, only that
            folder is read.
        root: the folder of submissions, to which `source` is relative.
    """
    source, clash = entry.path.name, (entry.clash,) if entry.clash else ()
    try:
        source = os.path.relpath(entry.path, root) if root.is_dir() else source
        notebooks, notes = _read_notebooks(entry.path, lab)
        submitted, time_notes = _submitted(entry, lab)
        all_notes = (*clash, *notes, *time_notes)
        return RawSubmission(entry, source, _digest(notebooks), tuple(notebooks), notes=all_notes, submitted=submitted)
    except Exception as error:
        return RawSubmission(entry, source, _name_digest(entry), problem=_problem(entry, error), notes=clash)


def _submitted(entry: Entry, lab: str) -> tuple[str | None, list[str]]:
    """The time in nbgrader's file. In another layout the student may have written that file, so it is only noted."""
    if entry.layout == "nbgrader":
        return submission_time(entry.path, lab), []
    files = [folder / TIME_FILE for folder in (entry.path / lab, entry.path) if is_folder(entry.path)]
    if any(parse_timestamp(text) for text in map(_small_text, files) if text):
        return None, [f"{TIME_FILE} was ignored, because the student may have written it; --layout nbgrader reads it"]
    return None, []


def parse_submission(raw: RawSubmission, lab: str) -> Submission:
    """Parse the notebook of this lab. Any error but a MemoryError becomes the `problem` of the result.

    Raises:
        MemoryError: if this process reaches its memory limit, of which another submission may be the cause.
    """
    entry, source = raw.entry, raw.source
    attributes: dict[str, Any] = {"attempt": entry.attempt, "submitted": raw.submitted, "layout": entry.layout}
    attributes |= {"clash": bool(entry.clash), "notes": raw.notes}
    if raw.problem:
        return Submission(entry.student, source, raw.digest, problem=raw.problem, **attributes)
    try:
        notes = list(raw.notes)
        name, cells = _choose(list(raw.notebooks), lab)
        if len(raw.notebooks) > 1:
            notes.append(f"{len(raw.notebooks)} notebooks were handed in; {name} was graded")
        if name != entry.path.name:
            source = f"{source}/{name}"
        return Submission(entry.student, source, raw.digest, tuple(cells), **attributes | {"notes": tuple(notes)})
    except MemoryError:  # another submission may be the cause: this one is graded again alone
        raise
    except Exception as error:
        return Submission(entry.student, source, raw.digest, problem=_problem(entry, error), **attributes)


def _problem(entry: Entry, error: Exception) -> str:
    """Describe any error, also one that a hostile file causes in a parser: it must not end the batch."""
    if isinstance(error, SubmissionError):
        return str(error)
    if isinstance(error, OSError):
        return f"{entry.path.name} cannot be read: {error.strerror or error}"
    return f"{entry.path.name} cannot be read: {type(error).__name__}"


def submission_time(path: Path, lab: str) -> str | None:
    """ISO 8601 time (UTC) in the `timestamp.txt` that nbgrader puts into the lab's folder of a student, or None."""
    text = _small_text(path / lab / TIME_FILE)
    return parse_timestamp(text) if text else None


def _small_text(file: Path) -> str:
    """The text of a small plain file; "" for anything else."""
    if file.parent.is_symlink() or file.is_symlink() or not file.is_file():
        return ""
    with contextlib.suppress(OSError, SubmissionError):  # a large file is not nbgrader's
        return read_plain(file, 1000).decode(errors="replace")
    return ""


def fingerprint(entry: Entry, lab: str) -> str:
    """The digest of the submission, computed without parsing it."""
    return collect(entry, lab, entry.path.parent).digest


def _digest(notebooks: list[tuple[str, bytes]]) -> str:
    parts = [part for name, data in notebooks for part in (name.encode(errors="replace"), data)]
    lengths = ",".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(b"\0".join([lengths, *parts])).hexdigest()


def _name_digest(entry: Entry) -> str:
    """Digest of name and size of a file without a notebook, so that a corrected file is read again."""
    size = 0
    with contextlib.suppress(OSError):  # lstat: the target of a symbolic link is not examined
        size = entry.path.lstat().st_size
    return hashlib.sha256(f"{entry.path.name} {size}".encode(errors="replace")).hexdigest()


def _read_notebooks(path: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Pairs (path, bytes) of the notebooks in a file or folder, and notes."""
    if path.is_symlink():
        raise SubmissionError(f"{path.name} is a link, which is not followed; hand in the file itself")
    if is_folder(path):
        return _in_folder(path, lab)
    if path.name.lower().endswith((*NOTEBOOKS, *ARCHIVES)):
        return _Reader().read(path, read_plain(path)), []
    raise SubmissionError(f"{path.name} is not a notebook; hand in the .ipynb file of the lab")


class _Reader:
    """Reads the files of one submission within limits on all its archives together."""

    def __init__(self) -> None:
        self.archives, self.seconds = 0, 0.0

    def read(self, path: Path, data: bytes) -> list[tuple[str, bytes]]:
        """The notebooks in a file. A zip file that is named .ipynb is recognised by its first bytes."""
        if not (is_archive(data) or path.name.lower().endswith(ARCHIVES)):
            return [(path.name, data)]
        self.archives += 1
        if self.archives > MAX_ARCHIVES:
            raise SubmissionError(f"more than {MAX_ARCHIVES} archives were handed in; hand in the notebook alone")
        notebooks, seconds = read_archive(path.name, data, CPU_SECONDS - self.seconds)
        self.seconds += seconds
        return notebooks


def _in_folder(folder: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    start = folder / lab if is_folder(folder / lab) else folder
    files, links = _walk(start)
    notes = [f"{name} is a link and was not followed" for name in links[:5]]
    notebook_files = [path for path in files if path.name.lower().endswith(NOTEBOOKS)]
    notebooks: list[tuple[str, bytes]] = []
    bytes_left, reader = MAX_FILE, _Reader()  # limits for all files together
    for path in notebook_files or [path for path in files if path.name.lower().endswith(ARCHIVES)]:
        data = read_plain(path, bytes_left)
        read = reader.read(path, data)
        if notebook_files and len(read) == 1 and read[0][0] == path.name:
            read = [(str(path.relative_to(folder)), data)]
        notebooks += read
        bytes_left -= max(len(data), sum(len(content) for _, content in read))
        if bytes_left < 0:
            raise SubmissionError(f"{folder.name} holds more than {MAX_FILE >> 20} MB; hand in the notebook alone")
    if not notebooks:
        raise SubmissionError(f"{folder.name} holds no notebook; hand in the .ipynb file of the lab")
    return notebooks, notes


def _walk(start: Path) -> tuple[list[Path], list[str]]:
    """The plain files in a folder and its folders, and the names of symbolic links, which are not followed."""
    files: list[Path] = []
    links: list[str] = []
    count = 0
    os.scandir(start).close()  # raises an error for a folder that cannot be read, which os.walk takes for an empty one
    for parent, folders, names in os.walk(start, followlinks=False):
        count += len(folders) + len(names)
        if count > MAX_ENTRIES:
            raise SubmissionError(f"{start.name} holds more than {MAX_ENTRIES} files; hand in the notebook alone")
        links += [name for name in folders + names if os.path.islink(os.path.join(parent, name))]
        depth = len(Path(parent).relative_to(start).parts)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")) and depth < MAX_DEPTH)
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        files += [path for path in paths if not path.is_symlink()]
    return files, links


def read_plain(path: Path, max_bytes: int = MAX_FILE) -> bytes:
    """Read a plain file of at most `max_bytes` bytes.

    Raises:
        SubmissionError: if it is larger, or a symbolic link, a pipe or another special file.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SubmissionError(f"{path.name} is not a plain file")
        if status.st_size > max_bytes:
            raise SubmissionError(f"{path.name} has {status.st_size >> 20} MB, at most {max_bytes >> 20} MB are read")
        return file.read(max_bytes)


def _choose(notebooks: list[tuple[str, bytes]], lab: str) -> tuple[str, list[StudentCell]]:
    """Choose the notebook of a lab by the ids of its cells; returns its path and its cells."""
    if len(notebooks) == 1:
        name, data = notebooks[0]
        cells = parse_notebook(data, name)
        other = lab_number(cells)
        if other and other != lab[:2]:
            raise SubmissionError(f"{name} is a notebook of lab {other}, expected lab {lab[:2]} ({lab})")
        return name, cells
    matches, problems = [], []
    for name, data in notebooks:
        try:
            cells = parse_notebook(data, name)
        except SubmissionError as error:
            problems.append(str(error))
            continue
        unnumbered = not lab_number(cells) and Path(name).name.startswith(lab)  # saved by a tool that drops ids
        if lab_number(cells) == lab[:2] or unnumbered:
            matches.append((name, cells))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        reasons = "".join(f"; {text}" for text in problems[:2])
        raise SubmissionError(f"none of its {len(notebooks)} notebooks is of lab {lab}{reasons}")
    exact = [match for match in matches if Path(match[0]).name == f"{lab}.ipynb"]
    if len(exact) == 1:
        return exact[0]
    names = ", ".join(name for name, _ in matches[:4])
    raise SubmissionError(f"{len(matches)} notebooks are of lab {lab}: {names}; hand in one")
