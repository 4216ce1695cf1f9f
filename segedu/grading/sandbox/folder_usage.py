"""Disk usage of a sandbox's folder: bytes and number of entries, without following links."""

from __future__ import annotations

import contextlib
import os
import stat

_MAX_DEPTH = 64


def folder_usage(folder: str, max_entries: int) -> tuple[int, int]:
    """Return the bytes on disk and the number of entries below a folder; counting stops beyond `max_entries`.

    An unreadable folder counts as too many entries, because nobody needs folders that their owner cannot read.
    """
    totals = [0, 0]
    try:
        _count_entries(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), 0, totals, max_entries)
    except FileNotFoundError:
        pass
    except OSError:
        totals[1] = max_entries + 1
    return totals[0], totals[1]


def _count_entries(fd: int, depth: int, totals: list[int], max_entries: int) -> None:
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                totals[0] += status.st_blocks * 512
                totals[1] += 1
                if totals[1] > max_entries:
                    return
                if stat.S_ISDIR(status.st_mode):
                    if depth == _MAX_DEPTH:
                        raise OSError("too deep")
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                        _count_entries(os.open(entry.name, flags, dir_fd=fd), depth + 1, totals, max_entries)
    finally:
        os.close(fd)
