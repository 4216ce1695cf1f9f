"""Read notebooks from a zip or tar archive in memory, without unpacking it to the disk.

Names, types, counts, sizes and compression ratios are checked in the table of contents, and again while reading,
because the table may be wrong. `archive_process` runs this in a separate process, for attacks that no check foresees.
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
MAX_STREAMS = 2000  # parallel compressors write many streams, one after the other
MAX_HEADER = 16 << 10  # bytes of a long name or of pax records; tarfile's time grows with the square of its size
MAX_HEADERS = 1 << 20  # bytes of all headers together; attributes of files on macOS take half a kilobyte per file
MAX_UNPACKER = 256 << 20  # memory that an xz header may require
_CHUNK = 1 << 16
_SPARSE = "one of its files is sparse; make it again without the option -S of tar"
_DECOMPRESSORS: dict[bytes, Callable] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZ": bz2.BZ2Decompressor,
    b"\xfd7": lambda: lzma.LZMADecompressor(memlimit=MAX_UNPACKER),
}


class _BadHeader(ValueError):
    """A tar header with a value that no honest archive has."""


class SubmissionError(ValueError):
    """A submission cannot be read; the message says why and what to do."""


def notebooks_in(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """Read the notebooks of a zip or tar archive as pairs (path in the archive, bytes).

    Raises:
        SubmissionError: if the archive is broken, holds a link, a device, an absolute path or `..`, is too large, has
            too many entries, or holds no notebook.
    """
    read = _from_zip if data[:2] == b"PK" else _from_tar
    try:
        notebooks = list(read(name, data))
    except (SubmissionError, MemoryError):
        raise
    except _BadHeader as error:
        raise SubmissionError(f"{name} is refused: {error}") from None
    except Exception as error:  # zipfile and tarfile raise many types of errors
        problem = f"{name} is a broken archive ({type(error).__name__})"
        raise SubmissionError(f"{problem}; make it again, or hand in the .ipynb") from None
    if not notebooks:
        raise SubmissionError(f"{name} holds no notebook; hand in the .ipynb file of the lab")
    return notebooks


def _is_notebook(archive: str, name: str) -> bool:
    """Whether an entry is a visible notebook; raises an error for a path that leaves the archive."""
    shown = name[:80].encode("ascii", "backslashreplace").decode()
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise SubmissionError(f"{archive} is refused: its entry {shown} points outside the archive")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return name.lower().endswith(".ipynb") and not hidden


def is_archive(data: bytes) -> bool:
    """Whether the first bytes are those of zip, gzip, bzip2 or xz, regardless of the file's name."""
    return data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b" or data[:3] == b"BZh" or data[:6] == b"\xfd7zXZ\0"


def _check_size(archive: str, name: str, size: int, total: int) -> None:
    if size < 0:  # a negative size leads back to earlier entries, again and again
        raise SubmissionError(f"{archive} is refused: {name[:80]} has a negative size")
    if size > MAX_MEMBER:
        raise SubmissionError(f"{archive} is refused: {name[:80]} has more than {MAX_MEMBER >> 20} MB")
    if total > MAX_TOTAL:
        raise SubmissionError(f"{archive} is refused: it unpacks to more than {MAX_TOTAL >> 20} MB")


def _from_zip(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    count = data.count(b"PK\x01\x02")  # before zipfile reads the table of contents, a kilobyte of memory per entry
    if count > 2 * MAX_ENTRIES:
        raise SubmissionError(f"{archive} is refused: {count} entries, at most {MAX_ENTRIES}")
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
                ratio = f"{entry.filename[:80]} is compressed more than {MAX_RATIO} times"
                raise SubmissionError(f"{archive} is refused: {ratio}")
        for entry in [entry for entry in entries if _is_notebook(archive, entry.filename)]:
            if entry.flag_bits & 1:
                raise SubmissionError(f"{archive} is protected with a password; hand in the .ipynb")
            if entry.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                content = _bounded(data, entry)
            else:
                with file.open(entry) as member:
                    content = member.read(MAX_MEMBER + 1)
            _check_size(archive, entry.filename, len(content), 0)
            yield entry.filename, content


def _bounded(data: bytes, entry: zipfile.ZipInfo) -> bytes:
    """Unpack a bzip2 or LZMA entry of a zip up to its listed size; zipfile itself unpacks these without a limit."""
    name_size, extra_size = struct.unpack_from("<HH", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_size + extra_size
    packed = data[start : start + entry.compress_size]
    unpacker: Any = bz2.BZ2Decompressor()
    if entry.compress_type == zipfile.ZIP_LZMA:  # version, size of the properties, properties, stream
        (size,) = struct.unpack_from("<H", packed, 2)
        packed = packed[4 : 4 + size] + b"\xff" * 8 + packed[4 + size :]  # as an .lzma file of unknown length
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_UNPACKER)
    content = unpacker.decompress(packed, entry.file_size + 1)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile
    return content


def _inflate(archive: str, data: bytes) -> bytes:
    """Decompress a whole tar file within limits; tarfile itself would read a header of any size."""
    make_decompressor = _DECOMPRESSORS.get(data[:2])
    if make_decompressor is None:
        return data
    content, position, streams = bytearray(), 0, 0
    while data[position : position + 2] == data[:2]:
        streams += 1
        if streams > MAX_STREAMS:
            raise SubmissionError(f"{archive} is refused: it is compressed in more than {MAX_STREAMS} streams")
        position = _decompress(archive, data, position, make_decompressor(), content)
    return bytes(content)


def _decompress(archive: str, data: bytes, position: int, decompressor: Any, content: bytearray) -> int:
    """Decompress the stream that begins at `position` into `content`; returns the position of its end."""
    while not decompressor.eof:
        piece = data[position : position + _CHUNK]
        if not piece:
            raise EOFError
        position += len(piece)
        content += decompressor.decompress(piece, MAX_TOTAL + 1 - len(content))
        if len(content) > MAX_TOTAL:
            raise SubmissionError(f"{archive} is refused: it unpacks to more than {MAX_TOTAL >> 20} MB")
    return position - len(decompressor.unused_data)


class _Tar(tarfile.TarFile):
    """A tar file that counts the bytes of its additional headers."""

    header_bytes = 0


class _Header(tarfile.TarInfo):
    """A tar header whose size is checked before tarfile reads what it describes."""

    def _proc_member(self, file: _Tar) -> tarfile.TarInfo:
        is_additional = self.type in (b"x", b"g", b"X", b"L", b"K")  # pax records, long names, long links
        if self.size < 0 or (is_additional and self.size > MAX_HEADER):
            raise _BadHeader(f"one of its headers says {self.size} bytes")
        file.header_bytes += self.size if is_additional else 0
        if file.header_bytes > MAX_HEADERS:
            raise _BadHeader(f"its headers take more than {MAX_HEADERS >> 20} MB")
        if self.type == tarfile.GNUTYPE_SPARSE:  # before tarfile reads the map of its holes
            raise _BadHeader(_SPARSE)
        return super()._proc_member(file)


def _from_tar(archive: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    total = count = 0
    with _Tar.open(fileobj=io.BytesIO(_inflate(archive, data)), mode="r:", tarinfo=_Header) as file:
        while (member := file.next()) is not None:
            file.members.clear()  # tarfile would keep all members, each with a copy of the global records
            count += 1
            if count > MAX_ENTRIES:
                raise SubmissionError(f"{archive} is refused: more than {MAX_ENTRIES} entries")
            if member.issparse():
                raise _BadHeader(_SPARSE)
            total += member.size
            _check_size(archive, member.name, member.size, total)
            if not (member.isreg() or member.isdir()):
                file_type = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
                raise SubmissionError(f"{archive} is refused: its entry {member.name[:80]} is {file_type}")
            if _is_notebook(archive, member.name) and member.isreg():
                yield member.name, file.extractfile(member).read()
