"""Unpack a downloaded zip or tar file into a new folder, and nothing outside that folder.

An archive is data from the network. A member with an absolute path, with `..` in its path, that is a link, or that is
neither a file nor a folder ends the extraction with an error.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm.auto import tqdm

from segedu.datasets.download import check_space

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError)
Member = tuple[str, int, IO[bytes]]  # path, number of bytes, open file


def unpack(archive: Path, folder: Path, only: str = "", *, progress: bool = True) -> None:
    """Unpack an archive.

    Args:
        archive: a zip file, or a tar file with or without compression.
        folder: an existing folder.
        only: regular expression; members whose path it does not match anywhere are left out. Their paths must be safe
            too.
        progress: show a progress bar.

    Raises:
        ValueError: the archive is damaged, is neither zip nor tar, or has a member that is not safe.
        OSError: the disk is too small.
    """
    if not is_archive(archive):
        raise ValueError(f"{archive} is neither a zip file nor a tar file")
    is_tar = tarfile.is_tarfile(archive)  # first, because a tar file that ends with a zip file looks like a zip file
    try:
        with tqdm(desc=f"unpack {archive.name}", unit=" files", disable=not progress) as bar:
            for name, size, content in (_tar_members if is_tar else _zip_members)(archive, only):
                check_space(folder, size)
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                bar.update()
    except _DAMAGED as error:
        raise ValueError(f"{archive} is damaged ({error})") from None


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar file, as far as its beginning and its end show."""
    return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)


def commit_of(archive: Path) -> str:
    """The commit of which a zip file of GitHub is the content: git writes it into the file's comment."""
    try:
        with zipfile.ZipFile(archive) as content:
            return content.comment.decode("ascii", errors="replace")
    except zipfile.BadZipFile:
        return ""


def _zip_members(archive: Path, only: str) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            mode = info.external_attr >> 16  # 0 if the archive was not made on Unix
            regular = info.is_dir() or stat.S_IFMT(mode) in (0, stat.S_IFREG)
            if _is_wanted(archive, info.filename, regular, only) and not info.is_dir():
                with content.open(info) as file:
                    yield info.filename, info.file_size, file


def _tar_members(archive: Path, only: str) -> Iterator[Member]:
    with tarfile.open(archive) as content:
        for info in content:
            if _is_wanted(archive, info.name, info.isfile() or info.isdir(), only) and info.isfile():
                yield info.name, info.size, content.extractfile(info)


def _is_wanted(archive: Path, name: str, regular: bool, only: str) -> bool:
    """Whether to unpack a member.

    Raises:
        ValueError: its path leads out of the folder, or it is to be unpacked and is neither a file nor a folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise ValueError(f"{archive} has the member {name!r}, whose path leads out of the folder")
    matches = re.search(only, name) is not None
    if matches and not regular:
        raise ValueError(f"{archive} has the member {name!r}, which is a link or a device, expected files and folders")
    return matches
