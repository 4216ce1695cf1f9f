"""Remove a folder that a student's code has filled, whatever is in it.

A few lines of code nest thousands of folders. `shutil.rmtree` calls itself and holds a descriptor for each of them, so
it would end in a RecursionError or without descriptors. Here the folders of each folder are moved to the top before it
is removed: one descriptor more than the top's is open at a time, and no path is longer than two names.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it; what cannot be removed stays, and nothing is raised.

    Args:
        folder: of our own making; a link in its place is not followed.
    """
    with contextlib.suppress(OSError):
        top = _open(str(folder))
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(folder)


def _empty(top: int) -> None:
    word = secrets.token_hex(8)
    new_names = (f"{word}-{number}" for number in itertools.count())  # a student cannot have taken one of them
    stuck: set[str] = set()
    while folders := set(_remove_files(top)) - stuck:
        for name in folders:
            with contextlib.suppress(OSError):
                _dissolve(top, name, new_names)
            stuck.add(name)  # a name that was removed does not come back


def _dissolve(top: int, name: str, new_names: Iterator[str]) -> None:
    """Remove one folder of the top, after its own folders were moved to the top."""
    folder = _open(name, top)
    try:
        for inner in _remove_files(folder):
            with contextlib.suppress(OSError):
                _move(inner, folder, next(new_names), top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _move(name: str, source: int, new_name: str, target: int) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:  # a folder that its owner has closed to themselves cannot be moved either
        _open_up(name, source)
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def _remove_files(folder: int) -> list[str]:
    """Remove all but the folders of an open folder, and name these."""
    folders = []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                folders.append(name)
            else:
                os.unlink(name, dir_fd=folder)
    return folders


def _open(name: str, within: int | None = None) -> int:
    """Open a folder; one that its owner has closed to themselves is opened up first."""
    if not os.access(name, os.R_OK | os.W_OK | os.X_OK, dir_fd=within):
        _open_up(name, within)
    return os.open(name, _FOLDER, dir_fd=within)


def _open_up(name: str, within: int | None) -> None:
    """Give the owner all rights; where the system can, by a descriptor, so that no link may take the folder's place."""
    if hasattr(os, "O_PATH"):
        handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
    else:
        os.chmod(name, 0o700, dir_fd=within, follow_symlinks=False)
