"""Mutations of honest notebooks and archives: what `test_fuzz.py` hands in.

A mutation is a name and a seed; the seed decides everything else, so hypothesis can shrink a list of them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

ANY = (
    None, True, 0, -1, 7, 1.5, "", "x", "00-double", "\x00", "\ud800", "\u202e", [], {}, [[]], {"": {}}, "é" * 300, 10**30,
    -(2**63), 1e300, "<script>alert(1)</script>", "=cmd()", "\x1b[31m", ["a", None], {"name": "double"}, "../../x",
)  # fmt: skip
SOURCES = (
    "", "\n" * 500, "\x00", "a\x00b", "\ud800", "x = '\udfff'", "\u202edef double(x): return 0", "\x1b]0;title\x07", "(" * 300,
    "-" * 5000 + "1", "a" + ".b" * 5000, "[" * 90 + "]" * 90, "x = " + "1+" * 3000 + "1", "def", "%%time", "!rm -rf /", "?",
    "0x" + "f" * 9000, "x = " + "9" * 5000, "f'{" * 30, "'" * 7, "lambda: " * 300 + "1", "\ufeffx = 1", "\r\r\r", "\x0c\x0b\x1c",
    "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 95)), "x: int", "del double", "global double", "return 1",
    "import " + "a." * 3000 + "b", "# NBVAL_SKIP\n" * 50, "\\\n" * 400, '"""' + "\n" * 300, "async def double(x): await x",
    "double, (total, *box_area) = 1, 2", "match x:\n case {**double}: pass", "x" * 70_000, "é" * 2000, "{**{}}", "x = {[]: 1}",
)  # fmt: skip
TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 4400, b"1" * 4000, b"\xff", b"\x00", b"\\ud800", b'"\\u0000"', b"{",
    b"}", b"[", b"]", b'"', b",", b":", b"\\", b"true", b"null", b"[" * 1200 + b"]" * 1200, b'{"a":' * 1200 + b"1" + b"}" * 1200,
)  # fmt: skip
NAMES = (
    "../a.ipynb", "/etc/a.ipynb", "C:\\a.ipynb", "c:a.ipynb", "..\\a.ipynb", "a\\..\\..\\b.ipynb", "\\\\host\\a.ipynb", "x/../../a.ipynb",
    "a\x00.ipynb", "a.ipynb\x00.txt", "\uff0e\uff0e/a.ipynb", "\u2025/a.ipynb", "a\u2215b.ipynb", "\u202egpj.ipynb", "n" * 10_000 + ".ipynb",
    "d/" * 3000 + "a.ipynb", "A.IPYNB", "a.ipynb/", "", ".", "./a.ipynb", " .ipynb", ".ipynb", "__MACOSX/._a.ipynb", "é.ipynb", "\n.ipynb",
    "=1+1.ipynb", "<b>.ipynb", "a.zip", "nul.ipynb", ".ipynb_checkpoints/a.ipynb", "00_tiny.ipynb", "a b.ipynb", "😀.ipynb",
)  # fmt: skip
SUFFIXES = (
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tar.xz",
    ".ipynb",
    ".ZIP",
    ".tar.zst",
    ".ipynb.zip",
    ".rar",
    "",
)
FILE_NAMES = (
    b"anna", b"=Anna", b"-rf", b"@x", b"a" * 230, b"\xff\xfe", b"a\nb", b"a\tb", b"<b>x", b"&amp;", b'"q"', b"'", b"caf\xc3\xa9",
    "中".encode() * 70, b"...", b"a..b", b"CON", "ﬁ".encode(), "\u202eabc".encode(), b"%s%n", b"$(id)", b"~root", b"a;=1", b"Anna", b"anna_",
)  # fmt: skip


# notebooks: mutations of the document ---------------------------------------------------------------------------------
def _cell(book: dict, rng: random.Random) -> dict:
    cells = [cell for cell in _cells(book) if isinstance(cell, dict)]
    return rng.choice(cells) if cells else {}


def _cells(book: dict) -> list:
    cells = book.get("cells")
    return cells if isinstance(cells, list) else []


def drop_cell(book: dict, rng: random.Random) -> None:
    if _cells(book):
        book["cells"].pop(rng.randrange(len(book["cells"])))


def repeat_cell(book: dict, rng: random.Random) -> None:
    if _cells(book):
        book["cells"] += [rng.choice(book["cells"])] * rng.choice((1, 1, 3, 2100))


def shuffle_cells(book: dict, rng: random.Random) -> None:
    rng.shuffle(_cells(book))


def retype_cell(book: dict, rng: random.Random) -> None:
    _cell(book, rng)["cell_type"] = rng.choice((*ANY, "code", "markdown", "raw", "heading"))


def change_id(book: dict, rng: random.Random) -> None:
    _cell(book, rng)["id"] = rng.choice((*ANY, "00-total", "00-check-double", "04-box-iou", "00-double\n"))


def change_metadata(book: dict, rng: random.Random) -> None:
    key = rng.choice(("segedu", "nbgrader", "id", "tags", "x"))
    value = rng.choice((*ANY, {"name": rng.choice(ANY), "role": rng.choice(ANY)}, {"grade_id": rng.choice(ANY)}))
    _cell(book, rng)["metadata"] = rng.choice((value, {key: value}, {key: value, "segedu": value}))


def change_source(book: dict, rng: random.Random) -> None:
    text = rng.choice(SOURCES)
    lines = [text, *rng.choices(SOURCES, k=rng.randrange(4))]
    _cell(book, rng)["source"] = rng.choice((text, "\n".join(lines), lines, [lines], rng.choice(ANY), text * 3))


def huge_source(book: dict, rng: random.Random) -> None:
    size = rng.choice((1 << 16, 1 << 19, (1 << 20) + 9))
    _cell(book, rng)["source"] = rng.choice(("x\n", "# ?\n", "\n", "é", "?", " ", "def f(): pass\n", "'", "(")) * (
        size // 2
    )


def many_cells(book: dict, rng: random.Random) -> None:
    words = "ctypes settrace showtraceback f_back ptrace __import__ run_cell /proc/ get_objects monai\n!x"
    source = rng.choice((words, "x", "double = 1", "import " + "a, " * 200 + "b", "def total(v): pass", ""))
    if _cells(book):
        book["cells"] += [{"cell_type": "code", "source": source, "id": f"m{i}"} for i in range(rng.choice((30, 1900)))]


def nest_cells(book: dict, rng: random.Random) -> None:
    book["cells"] = rng.choice(
        ([_cells(book)], {"cells": _cells(book)}, [{"cells": _cells(book)}], [None, 1, "x"], *ANY)
    )


def change_format(book: dict, rng: random.Random) -> None:
    book[rng.choice(("nbformat", "nbformat_minor"))] = rng.choice((*ANY, 3, 4, 5, 99, 4.0, "4", 4.5, 10**25, True))


def worksheets(book: dict, rng: random.Random) -> None:
    book["nbformat"] = 3
    book["worksheets"] = [{"cells": book.pop("cells", [])}]


def outputs(book: dict, rng: random.Random) -> None:
    html = {
        "output_type": "display_data",
        "data": {"text/html": "<script>alert(1)</script>", "image/png": "A" * 4000},
        "metadata": {},
    }
    _cell(book, rng)["outputs"] = rng.choice(([html], [html] * 400, *ANY))


def top_level(book: dict, rng: random.Random) -> None:
    book[rng.choice(("metadata", "kernelspec", "x", "cells"))] = rng.choice(ANY)


DOCUMENT: tuple[Callable, ...] = (
    drop_cell, repeat_cell, shuffle_cells, retype_cell, change_id, change_metadata, change_source, huge_source, many_cells,
    nest_cells, change_format, worksheets, outputs, top_level,
)  # fmt: skip


# notebooks: mutations of the bytes ------------------------------------------------------------------------------------
def recode(data: bytes, rng: random.Random) -> bytes:
    codec = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp037"))
    return data.decode("utf-8", "replace").encode(codec, "replace")


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.8 else data[rng.randrange(len(data) + 1) :]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 40)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def put_token(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(TOKENS) + data[place + rng.randrange(3) :]


def change_number(data: bytes, rng: random.Random) -> bytes:
    """The format's number, or the first null, becomes another token; the rest stays JSON."""
    old = rng.choice((b'"nbformat": 4', b'"nbformat_minor": 5', b"null"))
    name = old.partition(b":")[0]
    return data.replace(old, (name + b": " if old != b"null" else b"") + rng.choice(TOKENS), 1)


def repeat_key(data: bytes, rng: random.Random) -> bytes:
    key = rng.choice((b'"cells": []', b'"nbformat": 3', b'"nbformat": 4', b'"metadata": 1', b'"cells": null'))
    return data.replace(b"{", b"{" + key + b", ", 1) if rng.random() < 0.5 else data.rstrip()[:-1] + b", " + key + b"}"


def pad(data: bytes, rng: random.Random) -> bytes:
    more = rng.choice((b" " * 100_000, b"\0" * 1000, b"\n{}", b"]", b"\xef\xbb\xbf", b"garbage"))
    return more + data if rng.random() < 0.5 else data + more


def replace_all(data: bytes, rng: random.Random) -> bytes:
    deep = rng.choice((900, 5000, 200_000, 1_000_001))
    return rng.choice((
        b"", b" ", b"null", b"4", b'"x"', b"[]", b"{}", b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * deep, rng.randbytes(400), b"%PDF-1.7",
        b'{"nbformat": ' + b"[" * deep + b"]" * deep + b"}", b'{"nbformat": 4, "cells": ' + b"[" * deep + b"]" * deep + b"}", b"PK\x03\x04" + data,
    ))  # fmt: skip


BYTES: tuple[Callable, ...] = (recode, cut, flip_bits, put_token, change_number, repeat_key, pad, replace_all)


# archives -------------------------------------------------------------------------------------------------------------
def make_zip(files: list[tuple[str, bytes]], rng: random.Random) -> bytes:
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in files:
            info = zipfile.ZipInfo(name or "x")
            info.filename = name  # ZipInfo cuts at a NUL and turns backslashes
            info.compress_type = method
            if rng.random() < 0.2:
                info.external_attr = rng.choice((stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR, 0xFFFF)) << 16
            info.comment, info.extra = (
                rng.choice((b"", b"c" * 9000)),
                rng.choice((b"", b"\x01\x00\x10\x00" + b"\xff" * 16)),
            )
            try:
                file.writestr(info, data)
            except (ValueError, struct.error, OSError, IndexError):
                continue
        file.comment = rng.choice((b"", b"PK\x05\x06" * 9, b"z" * 65535))
    return stream.getvalue()


def make_tar(files: list[tuple[str, bytes]], rng: random.Random, packing: str = "") -> bytes:
    stream = io.BytesIO()
    layout = rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        b"S",
        b"V",
        b"x",
        b"Z",
    )
    with tarfile.open(fileobj=stream, mode="w", format=layout, errors="surrogatepass") as file:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if rng.random() < 0.2:
                info.type, info.linkname = rng.choice(kinds), rng.choice(("/etc/passwd", "../x", "a.ipynb", ""))
            if layout == tarfile.PAX_FORMAT and rng.random() < 0.4:
                key = rng.choice(
                    ("path", "size", "mtime", "GNU.sparse.major", "GNU.sparse.name", "hdrcharset", "linkpath")
                )
                info.pax_headers = {key: rng.choice(("../x", "-1", "9" * 30, "x\0y", "1e999", "", "BINARY", "é" * 500))}
            try:
                file.addfile(info, io.BytesIO(data))
            except (ValueError, OSError):
                continue
    data = stream.getvalue()
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(packing, bytes)(data)


def lie_in_zip(data: bytes, rng: random.Random) -> bytes:
    """Change a number in a header: sizes, offsets, methods, flags (encryption), counts, the sizes of zip64."""
    changed = bytearray(data)
    signature, low, high = rng.choice(((b"PK\x01\x02", 4, 46), (b"PK\x03\x04", 4, 30), (b"PK\x05\x06", 4, 22)))
    start = data.find(signature)
    if start < 0 or start + high > len(data):
        return data
    place = start + rng.randrange(low, high - 1)
    changed[place : place + 2] = rng.choice((b"\xff\xff", b"\0\0", b"\x01\0", rng.randbytes(2)))
    return bytes(changed)


def lie_in_tar(data: bytes, rng: random.Random) -> bytes:
    """Change a field of the first header, its checksum made right again; -1536 leads back to the header before it."""
    if len(data) < 1024:
        return data
    head = bytearray(data[:512])
    sizes = (
        b"\xff" * 12,
        b"\xff" * 10 + b"\xfa\0",
        b"\xff" * 10 + b"\xfc\0",
        b"\x80" + b"\xff" * 11,
        b"77777777777\0",
        b"-0000000512\0",
        b"            ",
    )
    low, value = rng.choice(
        (
            (124, rng.choice(sizes)),
            (156, rng.randbytes(1)),
            (0, b"\xff" * 100),
            (257, rng.randbytes(8)),
            (148, b"?" * 8),
        )
    )
    head[low : low + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:] if rng.random() < 0.5 else data[:1024] + bytes(head) + data[1024:]


def overlapping(notebook: bytes, count: int = 40) -> bytes:
    """One compressed body behind many names, in the way of Fifield's bombs: each entry begins at the same place."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.ipynb", notebook)
        first = file.infolist()[0]
        for i in range(count):
            info = zipfile.ZipInfo(f"{i}.ipynb")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(info, field, getattr(first, field))
            file.filelist.append(info)
    return stream.getvalue()


def archive(book: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """An archive with one or several notebooks in it, mutated or not, under a suffix that may not be its own."""
    honest = [("work/00_tiny.ipynb", book)]
    odd = [(rng.choice(NAMES), rng.choice((book, other, b"", b"x" * 70_000)))]
    inner = make_zip(honest, random.Random(0))
    files = rng.choice((
        honest, honest, honest + odd, odd, [*honest, ("b.ipynb", book)], [*honest, ("b.ipynb", other)], [("b.ipynb", other)],
        [("a.ipynb", book), ("A.ipynb", book)], [*honest, *honest], [("inner.zip", inner)], [("a.ipynb", inner)], [],
        [(f"{i}.txt", b"") for i in range(rng.choice((60, 2100)))] + honest, [("big.ipynb", b" " * (40 << 20))], [("big.txt", b"0" * (9 << 20))],
    ))  # fmt: skip
    kind = rng.choice(("zip", "zip", "tar", "tar", "gz", "bz2", "xz", "overlapping"))
    if kind == "zip":
        data = make_zip(files, rng)
    elif kind == "overlapping":
        data = overlapping(book)
    else:
        data = make_tar(files, rng, "" if kind == "tar" else kind)
    lie = lie_in_zip if kind in ("zip", "overlapping") else lie_in_tar
    for change in rng.choice(((), (), (lie,), (lie, lie), (flip_bits,), (cut,), (pad,))):
        data = change(data, rng)
    own = {"overlapping": ".zip", "zip": ".zip", "tar": ".tar"}.get(kind, f".tar.{kind}")
    return (own if rng.random() < 0.8 else rng.choice(SUFFIXES)), data


def mutated(book: dict, changes: list[tuple[Callable, int]]) -> bytes:
    """The notebook after the changes: first those of the document, then those of its bytes."""
    book = json.loads(json.dumps(book))
    for change, seed in changes:
        if change in DOCUMENT:
            change(book, random.Random(seed))
    data = json.dumps(book, indent=1).encode()
    for change, seed in changes:
        if change in BYTES:
            data = change(data, random.Random(seed))
    return data
