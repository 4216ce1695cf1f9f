"""Submissions: find them in a folder, read the notebook out of each, refuse what is hostile or broken.

Everything here comes from students. Nothing is unpacked to the disk, nothing is followed, every size, count and
depth is bounded before it is paid for. A bad submission becomes a `Submission` with a `problem`, never an
exception: one broken file must not end a batch.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.archive import SUFFIXES as ARCHIVES
from segedu.grading.archive import SubmissionError, notebooks_in
from segedu.grading.notebook import StudentCell, lab_number, parse_notebook

MAX_FILE = 64 << 20
MAX_ENTRIES = 2000
MAX_DEPTH = 4
MAX_ID = 160  # bytes: a file name has at most 255, and suffixes of ours follow
# an instructor's own files beside the submissions, not a student's work
BESIDE = (".csv", ".json", ".md", ".txt", ".yml", ".yaml", ".log", ".toml")


@dataclass(frozen=True)
class Entry:
    """Where one student's work lies: a notebook, an archive, or a folder.

    Attributes:
        student: the id, safe as a file name.
        path: of the file or folder.
    """

    student: str
    path: Path


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
    """

    student: str
    source: str
    digest: str
    cells: tuple[StudentCell, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()


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
    name = re.sub(r"\.{2,}", "", name).replace("__", "_")
    name = name.strip("._-@")[:80].encode()[:MAX_ID].decode(errors="ignore")  # letters may take 4 bytes
    return name.rstrip("._-@") or "unnamed"


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
    return path.name.lower().endswith(BESIDE) and not path.is_dir()


def _stem(name: str) -> str:
    for suffix in (".ipynb", *ARCHIVES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _named(paths: list[Path]) -> list[Entry]:
    entries, taken = [], set()
    for path in paths:
        student = student_id(path.name if path.is_dir() else _stem(path.name))
        more = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()
        while student.casefold() in taken:  # two names that look the same to a file system stay apart
            student, more = f"{student}-{more[:6]}", more[6:] + more[:1]
        taken.add(student.casefold())
        entries.append(Entry(student, path))
    return sorted(entries, key=lambda entry: entry.student)


def read_submission(entry: Entry, lab: str, root: Path) -> Submission:
    """Read one entry; whatever is wrong with it becomes its `problem`.

    Args:
        entry: from `find_entries`.
        lab: `04_metrics`; chooses among several notebooks by the ids inside them.
        root: paths in messages are relative to it.

    Returns:
        The submission.
    """
    source = os.path.relpath(entry.path, root) if root.is_dir() else entry.path.name
    digest = _name_digest(entry)
    try:
        found, notes = _notebooks(entry.path, lab)
        digest = _digest(found)
        name, cells = _choose(found, lab)
        if len(found) > 1:
            notes.append(f"{len(found)} notebooks were handed in; {name} was graded")
        if name != entry.path.name:
            source = f"{source}/{name}"
        return Submission(entry.student, source, digest, tuple(cells), notes=tuple(notes))
    except SubmissionError as error:
        return Submission(entry.student, source, digest, problem=str(error))
    except OSError as error:
        problem = f"{entry.path.name} cannot be read: {error.strerror or error}"
        return Submission(entry.student, source, digest, problem=problem)
    except Exception as error:  # a parser that a hostile file breaks in a new way must not end the batch
        problem = f"{entry.path.name} cannot be read: {type(error).__name__}"
        return Submission(entry.student, source, digest, problem=problem)


def fingerprint(entry: Entry, lab: str) -> str:
    """The digest that `read_submission` will give, without parsing anything.

    Args:
        entry: from `find_entries`.
        lab: `04_metrics`.

    Returns:
        SHA-256, hexadecimal.
    """
    try:
        return _digest(_notebooks(entry.path, lab)[0])
    except Exception:  # what is wrong is said when it is read
        return _name_digest(entry)


def _digest(found: list[tuple[str, bytes]]) -> str:
    parts = [part for name, data in found for part in (name.encode(errors="replace"), data)]
    lengths = ",".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(b"\0".join([lengths, *parts])).hexdigest()


def _name_digest(entry: Entry) -> str:
    """Of something without a notebook in it: its name and its size, so that a corrected one is read again."""
    size = entry.path.lstat().st_size if entry.path.exists() else 0
    return hashlib.sha256(f"{entry.path.name} {size}".encode(errors="replace")).hexdigest()


def _notebooks(path: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    if path.is_symlink():
        raise SubmissionError(f"{path.name} is a link, which is not followed; hand in the file itself")
    if path.is_dir():
        return _in_folder(path, lab)
    data = read_plain(path)
    if path.name.lower().endswith(ARCHIVES):
        return notebooks_in(path.name, data), []
    if path.name.lower().endswith(".ipynb"):
        return [(path.name, data)], []
    raise SubmissionError(f"{path.name} is not a notebook; hand in the .ipynb file of the lab")


def _in_folder(folder: Path, lab: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    start = folder / lab if (folder / lab).is_dir() and not (folder / lab).is_symlink() else folder
    files, links = _walk(start)
    notes = [f"{name} is a link and was not followed" for name in links[:5]]
    books = [path for path in files if path.name.lower().endswith(".ipynb")]
    if books:
        return [(str(path.relative_to(folder)), read_plain(path)) for path in books], notes
    archives = [path for path in files if path.name.lower().endswith(ARCHIVES)]
    found = [item for path in archives for item in notebooks_in(path.name, read_plain(path))]
    if not found:
        raise SubmissionError(f"{folder.name} holds no notebook; hand in the .ipynb file of the lab")
    return found, notes


def _walk(start: Path) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    links: list[str] = []
    seen = 0
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
        if lab_number(cells) == lab[:2]:
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
