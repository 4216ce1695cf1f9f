"""The grader's access to files inside a sandbox, through one directory descriptor.

The student's process owns the folder and may change it while we read. Paths are therefore never opened the ordinary
way: the operating system rejects symbolic links, `..`, mount points and magic links (`openat2`), a FIFO does not block,
only regular files are read, and sizes and counts are limited before anything is read. The descriptor keeps the files
alive after the kernel has ended.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import functools
import os
import stat
import struct
import sys

MAX_FILE = 16 << 20
MAX_ENTRIES = 20_000
_OPENAT2 = 437
_RESOLVE = 0x01 | 0x02 | 0x04 | 0x08  # NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS | BENEATH


class SandboxFileError(OSError):
    """A file of the sandbox that the grader does not read or write; the message says why."""


class SandboxFiles:
    """Files below one folder of a sandbox, given as an open directory descriptor that this object owns and closes."""

    def __init__(self, folder: int) -> None:
        self.folder = folder
        self.owner = os.fstat(folder)

    def put(self, path: str, data: bytes) -> None:
        """Write a new file and create its folders, all owned by the owner of the folder."""
        *folders, name = _parts(path)
        parent = os.dup(self.folder)
        try:
            for part in folders:
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                    self._set_owner(parent, part)
                except FileExistsError:
                    pass
                parent = _descend(parent, part)
            fd = _open_beneath(parent, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), self.owner.st_uid, self.owner.st_gid)
        finally:
            os.close(parent)

    def get(self, path: str, max_bytes: int = MAX_FILE) -> bytes:
        """Read a regular file of at most `max_bytes`.

        Raises:
            SandboxFileError: if it is missing, a symbolic link, not a regular file, or too large.
        """
        parts = _parts(path)
        try:
            fd = _open_beneath(self.folder, "/".join(parts), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise SandboxFileError(error.errno, f"{path} could not be read: {os.strerror(error.errno)}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise SandboxFileError(errno.EINVAL, f"{path} is not a plain file")
        with os.fdopen(fd, "rb") as file:
            if status.st_size > max_bytes:
                raise SandboxFileError(
                    errno.EFBIG, f"{path} has {status.st_size} bytes, at most {max_bytes} are allowed"
                )
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise SandboxFileError(errno.EFBIG, f"{path} grew beyond {max_bytes} bytes while it was read")
        return data

    def find(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern such as `job/*/out/*`; a star stays within a folder."""
        return sorted(self._find(self.folder, "", _parts(pattern), [MAX_ENTRIES]))

    def close(self) -> None:
        """Close the descriptor."""
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1

    def _find(self, folder: int, prefix: str, parts: list[str], remaining: list[int]) -> list[str]:
        names = [parts[0]]
        if any(mark in parts[0] for mark in "*?["):
            names = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    remaining[0] -= 1
                    if remaining[0] < 0:
                        raise SandboxFileError(errno.E2BIG, f"more than {MAX_ENTRIES} files")
                    if fnmatch.fnmatchcase(entry.name, parts[0]):
                        names.append(entry.name)
        if len(parts) == 1:
            return [prefix + name for name in names]
        paths = []
        for name in names:
            try:
                child = _open_beneath(folder, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                paths += self._find(child, f"{prefix}{name}/", parts[1:], remaining)
            finally:
                os.close(child)
        return paths

    def _set_owner(self, parent: int, name: str) -> None:
        if os.geteuid() == 0:
            os.chown(name, self.owner.st_uid, self.owner.st_gid, dir_fd=parent, follow_symlinks=False)


def subfolder(folder: int, name: str) -> SandboxFiles:
    """Return the files of a folder inside an open folder."""
    return SandboxFiles(_open_beneath(folder, name, os.O_RDONLY | os.O_DIRECTORY))


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise ValueError(f"path is {path!r}, expected a relative path without '..'")
    return parts


def _descend(parent: int, name: str) -> int:
    child = _open_beneath(parent, name, os.O_RDONLY | os.O_DIRECTORY)
    os.close(parent)
    return child


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # cached because each call builds a class; errno is still per thread


def _open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Call `openat2` if available; otherwise open one path component after the other, none of them a symbolic link."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if sys.platform == "linux":
        libc = _libc()
        how = ctypes.create_string_buffer(struct.pack("QQQ", flags, mode, _RESOLVE))
        fd = libc.syscall(_OPENAT2, folder, os.fsencode(path), how, 24)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EPERM):  # an old Linux, or a container's filter
            raise OSError(code, os.strerror(code), path)
    *folders, name = path.split("/")
    parent = os.dup(folder)
    try:
        for part in folders:
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            os.close(parent)
            parent = child
        return os.open(name, flags, mode, dir_fd=parent)
    finally:
        os.close(parent)
