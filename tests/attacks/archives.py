"""Attacks by archives: zip and tar files made by code."""

from __future__ import annotations

import functools
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
    archive("o91_quiet_tar", "to hide a bomb behind strong packing", "refused", packed_quietly, 0, "makes more than"),
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
        "o95_no_archive",
        "to hand in something else under the name of an archive",
        "0, unreadable",
        named("o95_no_archive.zip", lambda: "PK\x03\x04" + MORE),
        0,
        "broken archive",
    ),
]
