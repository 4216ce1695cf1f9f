"""Layouts of a folder of submissions, which decide what each entry is and which parts of its name can be trusted.

`students`   one notebook, archive or folder per student; students may have chosen all names.
`nbgrader`   `submitted/<student>/<lab>/`, as nbgrader collects; `timestamp.txt` holds the submission time.
`moodle`     an assignment as downloaded from Moodle; the number in each entry's name identifies the student.
`canvas`     an assignment as downloaded from Canvas; the number in each entry's name identifies the student.

Without the option `--layout`, a layout is recognised only if all entries of the folder follow it. Otherwise a student
who hands in a folder named `submitted`, or a file whose name contains another student's number, could change how other
students are graded.
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
    """Whether a name has the form that a platform gives to the files and folders of downloaded submissions.

    >>> is_of("moodle", "Anna Rossi_4711_assignsubmission_file")
    True
    >>> is_of("canvas", "rossianna_LATE_77_4242_lab04.ipynb")
    True
    """
    return platform in PLATFORMS and PLATFORMS[platform].match(name) is not None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder. A symbolic link to a folder does not count, because a student may have created it."""
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def find_layout(folder: Path, names: Sequence[str], layout: str) -> tuple[str, Path]:
    """Decide the layout of a folder.

    Args:
        folder: the folder of submissions.
        names: names of the entries of the folder, without the instructor's own files.
        layout: the value of the option `--layout`, one of `LAYOUTS`.

    Returns:
        The layout, never "auto", and the folder whose entries are the submissions.

    Raises:
        ValueError: if `layout` is unknown, or if it is "auto" and the folder is ambiguous.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"--layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    inner = folder / "submitted"
    has_inner = "submitted" in names and is_folder(inner)
    if layout == "nbgrader":
        return layout, inner if has_inner else folder
    if layout != "auto":
        return layout, folder
    if has_inner:
        _check_alone(folder, inner, [name for name in names if name != "submitted" and name not in NBGRADER])
        return "nbgrader", inner
    if folder.resolve().name == "submitted" and any((folder.resolve().parent / name).exists() for name in NBGRADER):
        return "nbgrader", folder
    matches = [platform for platform in PLATFORMS if all(is_of(platform, name) for name in names)]
    return matches[0] if matches and len(names) > 1 else "students", folder


def _check_alone(folder: Path, inner: Path, others: list[str]) -> None:
    """Raise a ValueError if `submitted` is not the only entry of the folder, or contains files beside its folders."""
    files: list[str] = []
    with contextlib.suppress(PermissionError):
        files = sorted(path.name for path in inner.iterdir() if not path.name.startswith(".") and not is_folder(path))
    if not others and not files:
        return
    problem = f"beside it {listed(others)}" if others else f"in that folder files: {listed(files)}"
    raise ValueError(
        f"SUBMISSIONS is {folder}, which holds a folder `submitted`, as a course folder of nbgrader does, and "
        f"{problem}. Give --layout nbgrader to grade the content of `submitted`, or --layout students to grade each "
        f"file and folder of {folder.name or folder} as one student's work"
    )


def listed(names: Sequence[str]) -> str:
    """Join names as `a, b and 3 more`, with `?` for characters that cannot be printed."""
    shown = ["".join(c if c.isprintable() else "?" for c in name[:80]) for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown) + more
