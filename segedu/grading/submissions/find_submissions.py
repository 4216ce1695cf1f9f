"""Which submissions lie in a folder, and whose they are: a notebook, an archive or a folder a student."""

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

MAX_ATTEMPTS, KEPT_ATTEMPTS = 2000, 20  # names looked at; graded: a student must not be able to order hours of work
MAX_ID = 160  # bytes: a file name has at most 255, and suffixes of ours follow
MAX_LETTERS = 80  # of an id
# The number that Moodle or Canvas wrote into the name of downloaded work: it says whose the work is.
MOODLE_NUMBER = re.compile(r"_(\d{1,10})_assignsubmission_(?:file|onlinetext)")
CANVAS_NUMBER = re.compile(r"^[^_]+_(?:LATE_)?(\d{1,20})_\d{1,20}(?=_|$)")
INVISIBLE_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
MARKS = ("Mn", "Mc")  # accents and vowel signs, which belong to the letter before them
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
        Letters with their accents, digits, `.`, `_`, `-`, `@`; at most 80 characters; it never begins with a character
        that a shell or a spreadsheet would act on. One name has one id, however a file system composes its accents,
        and the number of a platform survives the shortening of a long name.

    >>> student_id("=Anna Müller/../x")
    'Anna_Müller_x'
    >>> student_id("Mu\u0308ller") == student_id("M\u00fcller")
    True
    """
    name = _plain(INVISIBLE_MARKS.sub("", unicodedata.normalize("NFC", name)))
    name = re.sub(r"_{2,}", "_", re.sub(r"\.{2,}", "", name))  # so that the id of an id is that id
    return _shortened(name.strip("._-@"), MAX_LETTERS, MAX_ID) or "unnamed"


def _plain(name: str) -> str:
    """Underscores for all but letters, digits, `.@-` and the accents and vowel signs of the letter before them."""
    kept: list[str] = []
    for c in name:
        is_mark = (
            unicodedata.category(c) in MARKS
            and kept
            and (kept[-1].isalnum() or unicodedata.category(kept[-1]) in MARKS)
        )
        kept.append(c if c.isalnum() or c in ".@-" or is_mark else "_")
    return "".join(kept)


def moodle_numbers(name: str) -> list[str]:
    """The different numbers in a name that look like Moodle's; where there are two, a student wrote one of them.

    >>> moodle_numbers("Anna_4711_assignsubmission_file_17_assignsubmission_file")
    ['4711', '17']
    """
    return list(dict.fromkeys(MOODLE_NUMBER.findall(name)))


def _shortened(name: str, letters: int, size: int) -> str:
    """Cut a long name in its middle, so that no number of a platform is lost, and none is left alone by the cut."""
    if len(name) <= letters and len(name.encode()) <= size:
        return _cut(name, letters, size)
    first: dict[
        str, str
    ] = {}  # number -> how it stands in the name; two are enough to show that one is not the platform's
    for match in MOODLE_NUMBER.finditer(name):
        first.setdefault(match[1], match[0])
    begin, tail = name.find(next(iter(first.values()), "")), "".join(list(first.values())[:2])
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
        student = f"{_shortened(plain, MAX_LETTERS - 7, MAX_ID - 7)}-{more.hex()[:6]}"  # no longer than other ids
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
