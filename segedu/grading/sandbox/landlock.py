"""Landlock: give up access to all files except the named ones, for the level without namespaces."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

SIGNALS = 6  # from this version on, other programs' processes and abstract sockets are out of reach
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_FILE_BITS = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)  # execute, write, read, truncate, ioctl
_LIST = 1 << 3
_READ = (1 << 0) | (1 << 2) | _LIST  # execute, read a file, list a folder


def abi() -> int:
    """The Landlock version of this operating system, 0 for none."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), 1))


def restrict(read_only: list[str], listed: list[str], read_write: list[str]) -> None:
    """Allow only these files and folders, no TCP, and no signals to others, as far as the Landlock version supports it.

    Args:
        read_only: may be read and run, with everything below.
        listed: folders whose entries may only be listed: imports list a folder before they open a file.
        read_write: may also be changed.
    """
    version = abi()
    if version == 0:
        raise OSError("landlock: this kernel does not offer it")
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    attributes = struct.pack("QQQ", files, 3 if version >= 4 else 0, 3 if version >= SIGNALS else 0)
    size = 24 if version >= SIGNALS else 16 if version >= 4 else 8
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = _checked(libc.syscall(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(size), 0), "create")
    try:
        for path in read_only:
            _allow(libc, ruleset, path, files & _READ)
        for path in listed:
            _allow(libc, ruleset, path, _LIST)
        for path in read_write:
            _allow(libc, ruleset, path, files)
        _checked(libc.syscall(_RESTRICT, ruleset, 0), "restrict")
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_BITS
        rule = struct.pack("=Qi", rights, fd)
        _checked(libc.syscall(_ADD, ruleset, 1, ctypes.c_char_p(rule), 0), f"allow {path}")
    finally:
        os.close(fd)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock {what}: {os.strerror(code)}")
    return result
