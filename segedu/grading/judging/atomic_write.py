"""Atomic file writes: a reader sees either the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import filecmp
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path, if_changed: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder and move it to `path` at the end; after an error the old file stays.

    Args:
        path: its folder must exist.
        if_changed: leave the old file untouched when the new one has the same bytes.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        yield temporary
        if not (if_changed and path.is_file() and filecmp.cmp(temporary, path, shallow=False)):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file atomically with these permissions and flush it to disk, so that it survives a power failure."""
    with atomic_path(path) as part:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    if os.name != "posix":
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
