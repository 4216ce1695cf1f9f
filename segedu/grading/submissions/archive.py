"""Notebooks inside a zip or tar archive, read in memory; nothing is unpacked to the disk.

Names, kinds, counts, sizes and ratios are checked from the table of contents, and again while reading, since the
table may lie. `archive_process` runs this in a process of its own, for what these checks do not foresee.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_ENTRIES = 2000
MAX_TOTAL = 64 << 20
MAX_MEMBER = 32 << 20
MAX_RATIO = 200
MAX_STREAMS = 2000  # packers that work in parallel write many behind each other
MAX_HEADER = 16 << 10  # of a long name or of pax records; tarfile's time for it grows with the square of its size
MAX_HEADERS = 1 << 20  # of all of them together; attributes of files on macOS take half a kilobyte per file
MAX_UNPACKER = 256 << 20  # memory that an xz header may ask for
_CHUNK = 1 << 16
_SPARSE = "one of its files is sparse; make it again without the option -S of tar"
_PACKED: dict[bytes, Callable] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZ": bz2.BZ2Decompressor,
    b"\xfd7": lambda: lzma.LZMADecompressor(memlimit=MAX_UNPACKER),
}


class _BadHeader(ValueError):
    """A number in a tar header that no honest archive has."""


class SubmissionError(ValueError):
    """What a student handed in cannot be read; the message says why and what to do."""


def notebooks_in(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """Read the notebooks of an archive.

    Args:
        name: of the archive, for messages; its first bytes tell zip from tar.
        data: its bytes.

    Returns:
        `(path in the archive, bytes)` of each `.ipynb`.

    Raises:
        SubmissionError: if the archive is broken, holds a link, a device, an absolute path or `..` (named in
            the message), is too large or too many, or holds no notebook.
    """
    read = _from_zip if data[:2] == b"PK" else _from_tar
    try:
        found = list(read(name, data))
    except SubmissionError:
        raise
    except MemoryError:
        raise
    except _BadHeader as error:
        raise SubmissionError(f"{name} is refused: {error}") from None
    except Exception as error:  # the readers of these formats fail in many ways
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


def is_archive(data: bytes) -> bool:
    """Do the first bytes say zip, gzip, bzip2 or xz, whatever the file's name says?"""
    return data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b" or data[:3] == b"BZh" or data[:6] == b"\xfd7zXZ\0"


def _check_size(archive: str, name: str, size: int, total: int) -> None:
    if size < 0:  # a negative size leads back to earlier entries, again and again
        raise SubmissionError(f"{archive} is refused: {name[:80]} has a negative size")
    if size > MAX_MEMBER or total > MAX_TOTAL:
        limit = MAX_MEMBER if size > MAX_MEMBER else MAX_TOTAL
        raise SubmissionError(f"{archive} is refused: {name[:80]} makes more than {limit >> 20} MB")


def _from_zip(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    listed = data.count(b"PK\x01\x02")  # before the table of contents is read: each line of it costs a kilobyte
    if listed > 2 * MAX_ENTRIES:
        raise SubmissionError(f"{archive} is refused: {listed} entries, at most {MAX_ENTRIES}")
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
            if entry.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                content = _bounded(data, entry)
            else:
                with file.open(entry) as member:
                    content = member.read(MAX_MEMBER + 1)
            _check_size(archive, entry.filename, len(content), 0)
            yield entry.filename, content


def _bounded(data: bytes, entry: zipfile.ZipInfo) -> bytes:
    """A bzip2 or LZMA entry of a zip, no larger than its table says: zipfile itself unpacks these without a bound."""
    name_size, extra_size = struct.unpack_from("<HH", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_size + extra_size
    packed = data[start : start + entry.compress_size]
    unpacker: Any = bz2.BZ2Decompressor()
    if entry.compress_type == zipfile.ZIP_LZMA:  # version and size of the properties, properties, stream
        (size,) = struct.unpack_from("<H", packed, 2)
        packed = packed[4 : 4 + size] + b"\xff" * 8 + packed[4 + size :]  # as an .lzma file of unknown length
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_UNPACKER)
    content = unpacker.decompress(packed, entry.file_size + 1)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile
    return content


def _inflate(archive: str, data: bytes) -> bytes:
    """Undo the packing of a whole tar, bounded: tarfile itself would read a header of any size."""
    start = _PACKED.get(data[:2])
    if start is None:
        return data
    content, here, streams = bytearray(), 0, 0
    while data[here : here + 2] == data[:2]:
        streams += 1
        if streams > MAX_STREAMS:
            raise SubmissionError(f"{archive} is refused: it is packed in more than {MAX_STREAMS} parts")
        here = _unpack(archive, data, here, start(), content)
    return bytes(content)


def _unpack(archive: str, data: bytes, here: int, unpacker: Any, content: bytearray) -> int:
    """Unpack one stream that begins at `here`; returns where it ends."""
    while not unpacker.eof:
        piece = data[here : here + _CHUNK]
        if not piece:
            raise EOFError
        here += len(piece)
        content += unpacker.decompress(piece, MAX_TOTAL + 1 - len(content))  # takes all of it unless it is too much
        if len(content) > MAX_TOTAL:
            raise SubmissionError(f"{archive} is refused: it makes more than {MAX_TOTAL >> 20} MB")
    return here - len(unpacker.unused_data)


class _Tar(tarfile.TarFile):
    """A tar file that adds up what its headers take."""

    described = 0


class _Header(tarfile.TarInfo):
    """A tar header that is held to its limits before tarfile goes where it points."""

    def _proc_member(self, file: _Tar) -> tarfile.TarInfo:
        describes = self.type in (b"x", b"g", b"X", b"L", b"K")  # pax records, long names, long links
        if self.size < 0 or (describes and self.size > MAX_HEADER):
            raise _BadHeader(f"one of its headers says {self.size} bytes")
        file.described += self.size if describes else 0
        if file.described > MAX_HEADERS:
            raise _BadHeader(f"its headers take more than {MAX_HEADERS >> 20} MB")
        if self.type == tarfile.GNUTYPE_SPARSE:  # before tarfile reads the map of its holes
            raise _BadHeader(_SPARSE)
        return super()._proc_member(file)


def _from_tar(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    total = count = 0
    with _Tar.open(fileobj=io.BytesIO(_inflate(archive, data)), mode="r:", tarinfo=_Header) as file:
        while (member := file.next()) is not None:
            file.members.clear()  # tarfile would keep them all, each with a copy of the records for all entries
            count += 1
            if count > MAX_ENTRIES:
                raise SubmissionError(f"{archive} is refused: more than {MAX_ENTRIES} entries")
            if member.issparse():
                raise _BadHeader(_SPARSE)
            total += member.size
            _check_size(archive, member.name, member.size, total)
            if not (member.isreg() or member.isdir()):
                kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
                raise SubmissionError(f"{archive} is refused: its entry {member.name[:80]} is {kind}")
            if _wanted(archive, member.name) and member.isreg():
                yield member.name, file.extractfile(member).read()
