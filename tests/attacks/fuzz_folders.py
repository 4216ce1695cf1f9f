"""Folders with what a student's folder, or the folder of all submissions, may hold beside notebooks."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

from fuzz import FILE_NAMES, make_zip

THINGS = (
    "book",
    "book",
    "other",
    "link",
    "loop",
    "outside",
    "pipe",
    "socket",
    "deep",
    "many",
    "hidden",
    "sparse",
    "locked",
    "archive",
)


def write_new(path: Path, data: bytes) -> None:
    """Never through a link or into a pipe that an earlier mutation has put there.

    Raises:
        OSError: if there is anything at this path already, or the file system refuses its name.
    """
    with open(path, "xb") as file:
        file.write(data)


def fill_folder(place: Path, book: bytes, other: bytes, rng: random.Random) -> None:
    """Things that a student's folder may hold; what the file system refuses is left out."""
    place.mkdir()
    for _ in range(rng.randrange(1, 5)):
        name = os.fsdecode(rng.choice(FILE_NAMES)) + rng.choice((".ipynb", "", ".zip", ".ipynb.txt"))
        with contextlib.suppress(OSError):
            put_thing(place / name, book, other, rng)


def put_thing(path: Path, book: bytes, other: bytes, rng: random.Random) -> None:
    """One file, link, pipe, socket or folder; links lead no further than the folder of all submissions."""
    what, place = rng.choice(THINGS), path.parent
    if what in ("book", "other", "hidden"):
        write_new(place / f".{path.name}" if what == "hidden" else path, other if what == "other" else book)
    elif what in ("link", "loop", "outside"):
        path.symlink_to({"link": "../zzz.ipynb", "loop": path.name, "outside": ".."}[what])
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fsencode(path)[:100])
    elif what == "deep":
        (place / "/".join(["d"] * rng.choice((3, 4, 5, 60)))).mkdir(parents=True, exist_ok=True)
        write_new(place / "d/d/d" / "a.ipynb", book)
    elif what == "many":
        for i in range(rng.choice((50, 2100))):
            write_new(place / f"{i}.txt", b"")
    elif what == "archive":
        write_new(path.with_suffix(".zip"), make_zip([("a.ipynb", book)], rng))
    else:
        write_new(path, b"" if what == "sparse" else book)
        if what == "sparse":
            os.truncate(path, rng.choice((1 << 20, 60 << 20, 1 << 40)))
        else:
            path.chmod(0)
