"""What other programs can read of the command that was given: the list of processes shows every argument to everybody.

Below level 3 a cell sees that list too, and the seed of the hidden cases may be among the arguments.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_ARGUMENTS_START = 48  # the field of /proc/self/stat, counted from 1


def hide_value(option: str) -> bool:
    """Overwrite the value of an option in the list of processes; Linux shows the memory that it lies in.

    A program that waits for this one (`sudo`, `timeout`, `make`) has the same words in its own arguments, which only a
    shorter command can avoid.

    Args:
        option: such as `--seed`.

    Returns:
        Whether there was one to overwrite, and it was.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        held = Path("/proc/self/cmdline").read_bytes()
        fields = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
        start = int(fields[_ARGUMENTS_START - 3])  # process id and name are not among these
        values = _values(held, option.encode())
        if values and start and ctypes.string_at(start, len(held)) == held:
            for offset, size in values:
                ctypes.memset(start + offset, ord("x"), size)
            return True
    return False


def _values(held: bytes, option: bytes) -> list[tuple[int, int]]:
    """Offset and size of each value, as `--seed 3` and as `--seed=3`."""
    found, offset, before = [], 0, b""
    for word in held.split(b"\0"):
        if before == option:
            found.append((offset, len(word)))
        elif word.startswith(option + b"="):
            found.append((offset + len(option) + 1, len(word) - len(option) - 1))
        offset += len(word) + 1
        before = word
    return found
