"""Files that are written whole or not at all: a reader finds the old file or the new one, whatever happens."""

from __future__ import annotations

import contextlib
import filecmp
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, if_changed: bool = False) -> Iterator[Path]:
    """Write a file beside its place and move it there at the end. After an error in the block the old file stays.

    Args:
        path: of the file; its folder exists.
        if_changed: leave the old file untouched where the new one has the same bytes.

    Yields:
        Where to write it, in the same folder.
    """
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        yield part
        if not (if_changed and path.is_file() and filecmp.cmp(part, path, shallow=False)):
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, and flush it to the disk: a power cut loses nothing that was written.

    Args:
        path: of the file.
        data: its bytes.
        mode: its permissions.
    """
    with replacing(path) as part:
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
