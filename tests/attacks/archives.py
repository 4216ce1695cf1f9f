"""Attacks by archives: zip and tar files made by code."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import tiny
from files import ALIEN, attack, good, named


def zipped(*members: tuple[str, object], suffix: str = ".zip") -> Callable[[Path, str], Path]:
    """A zip of `(name or ZipInfo, data)`; data None is a right notebook."""

    def make(folder: Path, name: str) -> Path:
        path = folder / f"{name}{suffix}"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, data in members:
                file.writestr(member, tiny.notebook(good()) if data is None else data)
        return path

    return make


def tarred(*members: tuple[tarfile.TarInfo, bytes], suffix: str = ".tar.gz") -> Callable[[Path, str], Path]:
    """A tar of members."""

    def make(folder: Path, name: str) -> Path:
        path = folder / f"{name}{suffix}"
        with tarfile.open(path, f"w:{suffix.rpartition('.')[2].replace('tar', '')}") as file:
            for info, data in members:
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return path

    return make


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def link_info(name: str) -> zipfile.ZipInfo:
    """A symbolic link in a zip."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def lying_zip(folder: Path, name: str) -> Path:
    """A zip whose table of contents says that 60 MB are 100 bytes."""
    path = zipped(("lab.ipynb", b" " * (60 << 20)))(folder, name)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    return path


def packed_quietly(folder: Path, name: str) -> Path:
    """A tar whose packed size is small and whose unpacked size is not."""
    path = folder / f"{name}.tar.xz"
    with tarfile.open(path, "w:xz") as file:
        info = tar_info("lab.ipynb")
        info.size = 100 << 20
        file.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def locked(folder: Path, name: str) -> Path:
    """A zip that says it is encrypted."""
    path = zipped(("lab.ipynb", None))(folder, name)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.rindex(mark) if mark == b"PK\x01\x02" else data.index(mark)
        data[at + offset] |= 1
    path.write_bytes(data)
    return path


def packed_zip(method: int) -> Callable[[Path, str], Path]:
    """A zip as some programs make it."""

    def make(folder: Path, name: str) -> Path:
        path = folder / f"{name}.zip"
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("lab.ipynb", tiny.notebook(good()))
        return path

    return make


def lying_bzip2(folder: Path, name: str) -> Path:
    """A zip whose table says that an entry packed by bzip2 has 1000 bytes; it has half a gigabyte."""
    packer, unit = bz2.BZ2Compressor(9), bytes(64 << 20)
    packed = b"".join([*(packer.compress(unit) for _ in range(8)), packer.flush()])
    inner, size = b"lab.ipynb", 1000
    sizes = struct.pack("<IIIHH", 0, len(packed), size, len(inner), 0)
    local = struct.pack("<IHHHHH", 0x04034B50, 46, 0, zipfile.ZIP_BZIP2, 0, 0x21) + sizes + inner
    entry = struct.pack("<IHHHHHH", 0x02014B50, 46, 46, 0, zipfile.ZIP_BZIP2, 0, 0x21) + sizes
    entry += struct.pack("<HHHII", 0, 0, 0, 0, 0) + inner
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry), len(local) + len(packed), 0)
    path = folder / f"{name}.zip"
    path.write_bytes(local + packed + entry + end)
    return path


def header(name: str, kind: bytes, size: int) -> bytes:
    """One header of a tar."""
    info = tar_info(name, kind)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def described(*records: bytes, kind: bytes = b"x", entries: int = 1) -> Callable[[Path, str], Path]:
    """A tar with these records before its entries; the last entry is a right notebook."""

    def make(folder: Path, name: str) -> Path:
        data = tiny.notebook(good()).encode()
        parts = [header("p", kind, len(body)) + body + bytes(-len(body) % 512) for body in records]
        parts += [header(f"{i}.txt", b"0", 0) for i in range(entries - 1)]
        parts += [header("lab.ipynb", b"0", len(data)), data, bytes(-len(data) % 512 + 1024)]
        path = folder / f"{name}.tar.gz"
        path.write_bytes(gzip.compress(b"".join(parts)))
        return path

    return make


def with_holes(folder: Path, name: str) -> Path:
    """A tar of one sparse file of 900 pieces, which tarfile puts together in a time that grows with their square."""
    pieces = [b"%011o\0%011o\0" % (i * 4096, 1) for i in range(900)]
    first = bytearray(header("lab.ipynb", tarfile.GNUTYPE_SPARSE, len(pieces)))
    first[257:265] = b"ustar  \0"
    first[386:482] = b"".join(pieces[:4])
    first[482:495] = b"\1%011o\0" % (4096 * len(pieces))
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    more = [b"".join(pieces[i : i + 21]).ljust(504, b"\0") for i in range(4, len(pieces), 21)]
    blocks = [block + bytes([i < len(more) - 1]) + bytes(7) for i, block in enumerate(more)]
    path = folder / f"{name}.tar.gz"
    path.write_bytes(gzip.compress(b"".join([bytes(first), *blocks, b" " * 1024, bytes(1024)])))
    return path


def pax(key: str, value: str) -> bytes:
    """One pax record, whose length counts itself."""
    body = f" {key}={value}\n"
    size = len(body) + len(str(len(body) + 2))
    return f"{size}{body}".encode()


def keys_of_all(count: int) -> list[bytes]:
    """Records for all entries, in parts that are each small enough."""
    records = [b"10 %05x=\n" % i for i in range(count)]
    return [b"".join(records[i : i + 1500]) for i in range(0, count, 1500)]


archive = functools.partial(attack, where="archives")
MORE = "x" * 5000
ARCHIVES = [
    archive(
        "z1_parent",
        "to unpack outside of its folder",
        "refused by name",
        zipped(("../../evil.ipynb", None)),
        0,
        "points outside",
        zipped(("work/lab.ipynb", None), ("__MACOSX/._lab.ipynb", b"x")),
    ),
    archive(
        "z2_link",
        "to read files of the host through a link",
        "refused by name",
        zipped((link_info("lab.ipynb"), "/etc/passwd")),
        0,
        "is a link",
    ),
    archive(
        "z3_bomb",
        "to fill memory or disk",
        "refused before it is unpacked",
        zipped(("lab.ipynb", b" " * (60 << 20))),
        0,
        "is refused",
        zipped(("lab.ipynb", None), ("data.csv", b"1,2\n" * 9999)),
    ),
    archive(
        "n48_many_entries",
        "to have a table of contents without end",
        "refused",
        zipped(*[(f"{i}.txt", b"") for i in range(2100)]),
        0,
        "entries, at most",
    ),
    archive(
        "n48b_nested",
        "to hide the notebook in an archive in an archive",
        "said so",
        zipped(("inner.zip", b"PK\x05\x06" + bytes(18))),
        0,
        "holds no notebook",
    ),
    archive(
        "n49_tar_device",
        "to make a device",
        "refused by name",
        tarred((tar_info("null.ipynb", tarfile.CHRTYPE), b"")),
        0,
        "neither a file nor a folder",
        tarred((tar_info("lab.ipynb"), tiny.notebook(good()).encode())),
    ),
    archive(
        "n49b_tar_link",
        "to read files of the host through a hard link",
        "refused",
        tarred((tar_info("lab.ipynb", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        0,
        "is a link",
    ),
    archive(
        "n49c_tar_absolute",
        "to write to an absolute path",
        "refused",
        tarred((tar_info("/tmp/segedu-attack-mark.ipynb"), b"{}")),
        0,
        "points outside",
    ),
    archive(
        "n51_two",
        "to hand in two notebooks and have the better one graded",
        "said so",
        zipped(("a.ipynb", None), ("b.ipynb", None)),
        0,
        "2 notebooks are of lab",
        zipped(("a.ipynb", None), ("b.ipynb", ALIEN["text"])),
    ),
    archive(
        "o90_lying_table",
        "to say in the table that a bomb is small",
        "found while it is read",
        lying_zip,
        0,
        "refused|broken",
    ),
    archive(
        "o91_quiet_tar", "to hide a bomb behind strong packing", "refused", packed_quietly, 0, "unpacks to more than"
    ),
    archive("o92_locked", "to lock the archive", "said so", locked, 0, "password"),
    archive(
        "o93_markup_inside",
        "to bring markup into the reports by the names of entries",
        "cleaned",
        zipped(("../<script>alert(1)</script>.ipynb", None)),
        0,
        "points outside",
    ),
    archive(
        "o94_same_name_twice",
        "to show one notebook and have another graded",
        "said so",
        zipped(("lab.ipynb", None), ("./lab.ipynb", None)),
        0,
        "2 notebooks",
    ),
    archive(
        "p20_lying_bzip2",
        "to take the grader's memory by an entry whose size is not told",
        "unpacked to the size in the table, and refused",
        lying_bzip2,
        0,
        "is a broken archive",
        packed_zip(zipfile.ZIP_BZIP2),
    ),
    archive(
        "p21_digits",
        "to take the grader's time by headers that are slow to search",
        "refused by their size",
        described(*[b"1" * 65536] * 3),
        0,
        "one of its headers says 65536 bytes",
        packed_zip(zipfile.ZIP_LZMA),
    ),
    archive(
        "p21b_small_digits",
        "the same, in headers that each are small enough",
        "ended by the limit of processor time, or by the sum of the headers",
        described(*[b"1" * (16 << 10)] * 70),
        0,
        "the limit|its headers take more than",
        described(pax("LIBARCHIVE.xattr.com.apple.provenance", "AQIA" * 200), pax("mtime", "1700000000.5")),
    ),
    archive(
        "p22_holes",
        "to take the grader's time by a sparse file",
        "refused",
        with_holes,
        0,
        "is sparse",
        tarred((tar_info("lab.ipynb"), tiny.notebook(good()).encode()), suffix=".tar.xz"),
    ),
    archive(
        "p23_copied_records",
        "to take the grader's memory by records that are copied into each entry",
        "refused, or read without keeping the copies",
        described(*keys_of_all(200_000), kind=b"g", entries=60),
        0,
        "its headers take more than",
        described(pax("comment", "made by git archive"), kind=b"g", entries=60),
    ),
    archive(
        "o95_no_archive",
        "to hand in something else under the name of an archive",
        "0, unreadable",
        named("o95_no_archive.zip", lambda: "PK\x03\x04" + MORE),
        0,
        "broken archive",
    ),
]
