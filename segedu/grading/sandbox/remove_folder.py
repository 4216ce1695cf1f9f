"""Remove a folder that a student's code has filled, whatever its contents.

A few lines of code can nest thousands of folders. `shutil.rmtree` recurses and keeps a descriptor open per level, so it
would fail with a RecursionError or run out of descriptors. Here the subfolders of each folder are moved to the top
before it is removed: only one descriptor besides the top's is open at a time, and no path has more than two names.
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
    """Remove a folder that the grader created, with its content. Follow no symbolic link and raise no error."""
    with contextlib.suppress(OSError):
        top = _open(str(folder))
        try:
            _remove_contents(top)
        finally:
            os.close(top)
        os.rmdir(folder)


def _remove_contents(top: int) -> None:
    prefix = secrets.token_hex(8)
    new_names = (f"{prefix}-{number}" for number in itertools.count())  # a student cannot guess them
    stuck: set[str] = set()
    while folders := set(_remove_files(top)) - stuck:
        for name in folders:
            with contextlib.suppress(OSError):
                _flatten(top, name, new_names)
            stuck.add(name)  # names are never reused


def _flatten(top: int, name: str, new_names: Iterator[str]) -> None:
    """Remove one folder of the top, after moving its subfolders to the top."""
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
    except PermissionError:  # a folder without permissions for its owner cannot be moved either
        _grant_owner(name, source)
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def _remove_files(folder: int) -> list[str]:
    """Remove everything except folders from an open folder, and return the names of its folders."""
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
    """Open a folder, granting its owner permissions first if necessary."""
    if not os.access(name, os.R_OK | os.W_OK | os.X_OK, dir_fd=within):
        _grant_owner(name, within)
    return os.open(name, _FOLDER, dir_fd=within)


def _grant_owner(name: str, within: int | None) -> None:
    """Grant the owner all permissions, through a descriptor if possible, so that no link can replace the folder."""
    if hasattr(os, "O_PATH"):
        handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
    else:
        os.chmod(name, 0o700, dir_fd=within, follow_symlinks=False)
