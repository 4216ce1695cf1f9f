"""Notebooks inside a zip or tar archive, read in memory; nothing is unpacked to the disk.

Names, kinds, counts, sizes and ratios are checked from the table of contents, and again while reading, since the
table may lie.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_ENTRIES = 2000
MAX_TOTAL = 64 << 20
MAX_MEMBER = 32 << 20
MAX_RATIO = 200
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class SubmissionError(ValueError):
    """What a student handed in cannot be read; the message says why and what to do."""


def notebooks_in(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """Read the notebooks of an archive.

    Args:
        name: of the archive; its suffix tells zip from tar.
        data: its bytes.

    Returns:
        `(path in the archive, bytes)` of each `.ipynb`.

    Raises:
        SubmissionError: if the archive is broken, holds a link, a device, an absolute path or `..` (named in
            the message), is too large or too many, or holds no notebook.
    """
    read = _from_zip if name.lower().endswith(".zip") else _from_tar
    try:
        found = list(read(name, data))
    except SubmissionError:
        raise
    except _BROKEN as error:
        why = type(error).__name__
        raise SubmissionError(f"{name} is a broken archive ({why}); make it again, or hand in the .ipynb") from None
    if not found:
        raise SubmissionError(f"{name} holds no notebook; hand in the .ipynb file of the lab")
    return found


def _wanted(archive: str, name: str) -> bool:
    shown = name[:80].encode("ascii", "backslashreplace").decode()
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise SubmissionError(f"{archive} is refused: its entry {shown} points outside the archive")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return name.lower().endswith(".ipynb") and not hidden


def _check_size(archive: str, name: str, size: int, total: int) -> None:
    if size > MAX_MEMBER or total > MAX_TOTAL:
        limit = MAX_MEMBER if size > MAX_MEMBER else MAX_TOTAL
        raise SubmissionError(f"{archive} is refused: {name[:80]} makes more than {limit >> 20} MB")


def _from_zip(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise SubmissionError(f"{archive} is refused: {len(entries)} entries, at most {MAX_ENTRIES}")
        total = 0
        for entry in entries:
            total += entry.file_size
            _check_size(archive, entry.filename, entry.file_size, total)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise SubmissionError(f"{archive} is refused: its entry {entry.filename[:80]} is a link")
            if entry.file_size > 1 << 20 and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
                raise SubmissionError(f"{archive} is refused: {entry.filename[:80]} shrank over {MAX_RATIO} times")
        for entry in [entry for entry in entries if _wanted(archive, entry.filename)]:
            if entry.flag_bits & 1:
                raise SubmissionError(f"{archive} is locked with a password; hand in the .ipynb")
            with file.open(entry) as member:
                content = member.read(MAX_MEMBER + 1)
            _check_size(archive, entry.filename, len(content), 0)
            yield entry.filename, content


def _inflate(archive: str, data: bytes) -> bytes:
    """Undo the packing of a whole tar, bounded: tarfile itself would read a header of any size."""
    openers = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    opener = openers.get(data[:2])
    if opener is None:
        return data
    with opener(io.BytesIO(data)) as stream:
        content = stream.read(MAX_TOTAL + 1)
    if len(content) > MAX_TOTAL:
        raise SubmissionError(f"{archive} is refused: it makes more than {MAX_TOTAL >> 20} MB")
    return content


def _from_tar(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    total = 0
    with tarfile.open(fileobj=io.BytesIO(_inflate(archive, data)), mode="r:") as file:
        for count, member in enumerate(file):
            if count >= MAX_ENTRIES:
                raise SubmissionError(f"{archive} is refused: more than {MAX_ENTRIES} entries")
            total += member.size
            _check_size(archive, member.name, member.size, total)
            if not (member.isreg() or member.isdir()):
                kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
                raise SubmissionError(f"{archive} is refused: its entry {member.name[:80]} is {kind}")
            if _wanted(archive, member.name) and member.isreg():
                yield member.name, file.extractfile(member).read(MAX_MEMBER)
