"""Hide secrets in the command line, which every program can read in the list of processes.

The seed of the hidden cases may be an argument, and below sandbox level 3 a submission can read that list too.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_ARGUMENTS_START = 48  # number of the field in /proc/self/stat, counted from 1


def hide_value(option: str) -> bool:
    """Overwrite the value of an option such as `--seed` in this process's memory, which Linux shows to other programs.

    A parent process that waits for this one (`sudo`, `timeout`, `make`) shows the same value in its own arguments.

    Returns:
        Whether a value was overwritten.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        command_line = Path("/proc/self/cmdline").read_bytes()
        fields = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
        start = int(fields[_ARGUMENTS_START - 3])  # process id and name are not among these
        values = _values(command_line, option.encode())
        if values and start and ctypes.string_at(start, len(command_line)) == command_line:
            for offset, size in values:
                ctypes.memset(start + offset, ord("x"), size)
            return True
    return False


def _values(command_line: bytes, option: bytes) -> list[tuple[int, int]]:
    """Offset and size of each value of an option, written as `--seed 3` or `--seed=3`."""
    values, offset, previous = [], 0, b""
    for word in command_line.split(b"\0"):
        if previous == option:
            values.append((offset, len(word)))
        elif word.startswith(option + b"="):
            values.append((offset + len(option) + 1, len(word) - len(option) - 1))
        offset += len(word) + 1
        previous = word
    return values
