"""Find the submissions in a folder, one notebook, archive or folder per student, and give each student an id."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from segedu.grading.submissions.archive import SUFFIXES as ARCHIVES
from segedu.grading.submissions.folder_layout import PLATFORMS, find_layout, is_folder, is_of, listed

MAX_ATTEMPTS, KEPT_ATTEMPTS = 2000, 20  # names read, attempts graded; limits the work that one student can cause
MAX_ID = 160  # bytes of an id: a file name has at most 255, and the grader adds suffixes
MAX_LETTERS = 80  # characters of an id
# The number that Moodle or Canvas writes into the name of a downloaded file; it identifies the student.
MOODLE_NUMBER = re.compile(r"_(\d{1,10})_assignsubmission_(?:file|onlinetext)")
CANVAS_NUMBER = re.compile(r"^[^_]+_(?:LATE_)?(\d{1,20})_\d{1,20}(?=_|$)")
INVISIBLE_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
MARKS = ("Mn", "Mc")  # accents and vowel signs, which belong to the letter before them
HIDDEN = (".", "__MACOSX", "__pycache__")
INSTRUCTOR_SUFFIXES = (".csv", ".json", ".md", ".txt", ".yml", ".yaml", ".log", ".toml")


@dataclass(frozen=True)
class Entry:
    """One attempt of a student: a notebook, an archive, or a folder.

    Attributes:
        student: the id, safe as a file name.
        path: the file or folder.
        attempt: 1, 2, ... if the student's folder holds `attempt-1`, `attempt-2`, ...
        layout: layout of the folder of submissions, see `folder_layout`; "students" if the student chose all names.
        clash: a sentence if another submission has the same id; otherwise "".
    """

    student: str
    path: Path
    attempt: int = 1
    layout: str = "students"
    clash: str = ""

    @property
    def name(self) -> str:
        """Name of the record."""
        return record_name(self.student, self.attempt)


def record_name(student: str, attempt: int) -> str:
    """Name of a record: `anna`, for a second attempt `anna~2`. No student id holds a `~`."""
    return student if attempt == 1 else f"{student}~{attempt}"


def student_id(name: str) -> str:
    """Turn the name of a file or folder, without its suffix, into a student id.

    An id has at most 80 characters: letters with their accents, digits, `.`, `_`, `-` and `@`. It never begins with a
    character that a shell or a spreadsheet interprets. The id does not depend on how a file system encodes accents,
    and a long name is shortened without losing the number of a platform.

    >>> student_id("=Anna Müller/../x")
    'Anna_Müller_x'
    >>> student_id("Mu\u0308ller") == student_id("M\u00fcller")
    True
    """
    name = _plain(INVISIBLE_MARKS.sub("", unicodedata.normalize("NFC", name)))
    name = re.sub(r"_{2,}", "_", re.sub(r"\.{2,}", "", name))  # the id of an id is the same id
    return _shortened(name.strip("._-@"), MAX_LETTERS, MAX_ID) or "unnamed"


def _plain(name: str) -> str:
    """Replace all but letters with their accents and vowel signs, digits and `.@-` by underscores."""
    result: list[str] = []
    for c in name:
        is_mark = (
            unicodedata.category(c) in MARKS
            and result
            and (result[-1].isalnum() or unicodedata.category(result[-1]) in MARKS)
        )
        result.append(c if c.isalnum() or c in ".@-" or is_mark else "_")
    return "".join(result)


def moodle_numbers(name: str) -> list[str]:
    """The different numbers in a name that look like Moodle's; if there are two, a student wrote one of them.

    >>> moodle_numbers("Anna_4711_assignsubmission_file_17_assignsubmission_file")
    ['4711', '17']
    """
    return list(dict.fromkeys(MOODLE_NUMBER.findall(name)))


def _shortened(name: str, letters: int, size: int) -> str:
    """Shorten a long name before its platform numbers, so that no number is lost, and two numbers stay two."""
    if len(name) <= letters and len(name.encode()) <= size:
        return _cut(name, letters, size)
    texts: dict[str, str] = {}  # number -> the text in the name that holds it
    for match in MOODLE_NUMBER.finditer(name):
        texts.setdefault(match[1], match[0])
    begin, tail = name.find(next(iter(texts.values()), "")), "".join(list(texts.values())[:2])
    if not tail and (canvas := CANVAS_NUMBER.match(name)):
        begin = name.index("_")
        tail = name[begin : canvas.end()]
    if not tail:
        return _cut(name, letters, size)
    if len(tail) > letters:
        return _cut(name[:begin], letters, size)
    return _cut(name[:begin], letters - len(tail), size - len(tail.encode())) + tail


def _cut(name: str, letters: int, size: int) -> str:
    return name[:letters].encode()[:size].decode(errors="ignore").rstrip("._-@")  # a letter may take 4 bytes


def find_entries(
    folder: Path,
    layout: str = "auto",
    out: Path | None = None,
    roster_names: Callable[[Collection[str]], Collection[str]] = lambda ids: (),
) -> tuple[list[Entry], list[str]]:
    """List the submissions of a folder; a single notebook or archive counts as a folder of one submission.

    Args:
        folder: the folder, notebook or archive.
        layout: layout of the folder, one of `LAYOUTS`.
        out: the output folder, which is ignored if it lies in `folder`.
        roster_names: maps ids that several submissions claim to the names on the roster that have one of these ids.

    Returns:
        Entries sorted by student, and the names of ignored files.

    Raises:
        ValueError: if the path does not exist, holds nothing to grade, or has an ambiguous layout.
    """
    if not folder.exists():
        raise ValueError(f"SUBMISSIONS is {folder}, which does not exist; give a folder of notebooks, or one notebook")
    if not folder.is_dir():
        if not folder.name.lower().endswith((".ipynb", *ARCHIVES)):
            expected = f"a folder, a notebook (.ipynb) or an archive ({', '.join(ARCHIVES)})"
            raise ValueError(f"SUBMISSIONS is {folder}, expected {expected}")
        return [Entry(student_id(_stem(folder.name)), folder)], []
    names = [path.name for path in _children(folder) if not _is_instructors(path, out)]
    layout, submissions_folder = find_layout(folder, names, layout)
    children = _children(submissions_folder)
    submissions = [path for path in children if not _is_instructors(path, out)]
    if not submissions:
        advice = "put one file or folder per student there"
        raise ValueError(f"SUBMISSIONS is {folder}, which holds no notebook, archive or student folder; {advice}")
    ignored = [path.name for path in children if path not in submissions]
    return _with_ids(submissions, layout, roster_names), ignored


def _children(folder: Path) -> list[Path]:
    """The sorted entries of a folder, without hidden ones and those that operating systems and Python create."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(HIDDEN))
    except OSError as error:
        raise ValueError(f"SUBMISSIONS is {folder}, which cannot be read: {error.strerror}") from None


def _is_instructors(path: Path, out: Path | None = None) -> bool:
    """Whether a path is a file of the instructor or the output folder, rather than a submission."""
    name = path.name.lower()
    if is_folder(path):
        return out is not None and path.resolve() in (out, *out.parents)
    return name.endswith(INSTRUCTOR_SUFFIXES) and not name.endswith((".ipynb.txt", ".ipynb.json"))


def _stem(name: str) -> str:
    for suffix in (".ipynb", ".ipynb.txt", ".ipynb.json", *ARCHIVES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _with_ids(
    paths: list[Path], layout: str, roster_names: Callable[[Collection[str]], Collection[str]]
) -> list[Entry]:
    """Give each path an id of its own, also if the ids of several names are equal, and describe such clashes."""
    claims: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        claims[student_id(_name(path)).casefold()].append(path)
    shared_ids = [key for key, claimants in claims.items() if len(claimants) > 1]
    on_roster = set(roster_names(shared_ids)) if shared_ids else set()
    taken, entries = set(claims), []
    for claimants in claims.values():
        claimants.sort(key=lambda path: _priority(_name(path), on_roster))
        ids = [student_id(_name(claimants[0])), *(_unused_id(path, taken) for path in claimants[1:])]
        for path, student in zip(claimants, ids, strict=True):
            entries += _entries(path, student, layout, _clash(path, student, claimants, ids[0]))
    return sorted(entries, key=lambda entry: (entry.student, entry.attempt))


def _name(path: Path) -> str:
    return path.name if is_folder(path) else _stem(path.name)


def _priority(name: str, on_roster: set[str]) -> tuple:
    """Sort key of names with equal ids. The first keeps the id: on the roster, equal to its id, in lower case."""
    return (name not in on_roster, name != student_id(name), name != name.casefold(), name)


def _unused_id(path: Path, taken: set[str]) -> str:
    """The id of a path with the beginning of a hash, so that no other submission has it."""
    student, digest = student_id(_name(path)), path.name.encode(errors="surrogateescape")
    shortened = _shortened(student, MAX_LETTERS - 7, MAX_ID - 7)  # with the suffix no longer than other ids
    while student.casefold() in taken:
        digest = hashlib.sha256(digest).digest()
        student = f"{shortened}-{digest.hex()[:6]}"
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
    """`(number, path)` of `attempt-1`, `attempt 2.ipynb`, ... in a student's folder; only the last `KEPT_ATTEMPTS`."""
    if not is_folder(folder):
        return []
    attempts, paths = {}, []
    with contextlib.suppress(OSError):  # reading the notebook in it reports the error
        paths = sorted(itertools.islice(folder.iterdir(), MAX_ATTEMPTS))
    for path in paths:
        match = re.fullmatch(r"attempt[-_ ]?0*([1-9]\d{0,3})", _stem(path.name), re.IGNORECASE)
        if match:
            attempts.setdefault(int(match[1]), path)
    return sorted(attempts.items())[-KEPT_ATTEMPTS:]
