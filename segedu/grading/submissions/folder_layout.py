"""How a folder of submissions is laid out: what each entry is, and which of its names a student cannot have chosen.

`students`   one notebook, archive or folder per student; every name in it may be a student's own choice.
`nbgrader`   `submitted/<student>/<lab>/`, as nbgrader collects; its `timestamp.txt` says when work was handed in.
`moodle`     the download of an assignment; the number in each entry's name says whose it is.
`canvas`     the same of Canvas.

Without an option a layout is recognised only where nothing else lies in the folder. A student can hand in a folder
named `submitted`, or a file whose name holds somebody else's number: neither may decide about other students.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Sequence
from pathlib import Path

LAYOUTS = ("auto", "students", "nbgrader", "moodle", "canvas")
NBGRADER = ("source", "release", "autograded", "feedback", "exchange", "gradebook.db", "nbgrader_config.py")
PLATFORMS = {
    "moodle": re.compile(r"[^_].*?_\d+_assignsubmission_(?:file|onlinetext)(?:_|$)"),
    "canvas": re.compile(r"[^\W_]+_(?:LATE_)?\d+_\d+_."),
}
SHOWN = 5


def is_of(platform: str, name: str) -> bool:
    """Does the name of a file or folder have the form that a platform gives to downloaded work?

    >>> is_of("moodle", "Anna Rossi_4711_assignsubmission_file")
    True
    >>> is_of("canvas", "rossianna_LATE_77_4242_lab04.ipynb")
    True
    """
    return platform in PLATFORMS and PLATFORMS[platform].match(name) is not None


def is_folder(path: Path) -> bool:
    """Is it a folder, and not a link to one? Where a link leads is the student's choice, and may not even be a path.

    Args:
        path: of an entry that a student may have made.

    Returns:
        False too where it cannot be looked at.
    """
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def find_layout(folder: Path, names: Sequence[str], asked: str) -> tuple[str, Path]:
    """Decide how a folder is laid out.

    Args:
        folder: as the instructor gave it.
        names: of its entries, without the instructor's own files.
        asked: one of `LAYOUTS`, the option `--layout`.

    Returns:
        The layout, never "auto", and the folder whose entries are the submissions.

    Raises:
        ValueError: if `asked` is unknown, or if the folder has two readings; the message says what was found and
            which option decides.
    """
    if asked not in LAYOUTS:
        raise ValueError(f"--layout is {asked!r}, expected one of {', '.join(LAYOUTS)}")
    inner = folder / "submitted"
    has_inner = "submitted" in names and is_folder(inner)
    if asked == "nbgrader":
        return asked, inner if has_inner else folder
    if asked != "auto":
        return asked, folder
    if has_inner:
        _check_alone(folder, inner, [name for name in names if name != "submitted" and name not in NBGRADER])
        return "nbgrader", inner
    if folder.resolve().name == "submitted" and any((folder.resolve().parent / name).exists() for name in NBGRADER):
        return "nbgrader", folder
    found = [platform for platform in PLATFORMS if all(is_of(platform, name) for name in names)]
    return found[0] if found and len(names) > 1 else "students", folder


def _check_alone(folder: Path, inner: Path, others: list[str]) -> None:
    """Refuse a folder `submitted` that has something beside it, or files in it where nbgrader has folders."""
    files: list[str] = []
    with contextlib.suppress(PermissionError):  # a folder that was closed by whom it belongs to
        files = sorted(path.name for path in inner.iterdir() if not path.name.startswith(".") and not is_folder(path))
    if not others and not files:
        return
    found = f"beside it {listed(others)}" if others else f"in that folder files: {listed(files)}"
    raise ValueError(
        f"SUBMISSIONS is {folder}, which holds a folder `submitted`, as a course folder of nbgrader does, and {found}. "
        f"Give --layout nbgrader to grade what lies in `submitted`, or --layout students to grade each file and "
        f"folder of {folder.name or folder} as one student's work"
    )


def listed(names: Sequence[str]) -> str:
    """`a, b and 3 more`, in characters that can be printed."""
    shown = ["".join(c if c.isprintable() else "?" for c in name[:80]) for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown) + more
