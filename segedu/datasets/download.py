"""Downloads: the cache folder, room on its disk, and a transfer that continues where an earlier one broke off.

Data sets and official weights are downloaded by the same code. It imports no torch.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import IO, Any

import pooch
import requests
from tqdm.auto import tqdm

PART, DAY = ".part-", 24 * 3600
_RANGE_NOT_SATISFIABLE, _PARTIAL, _WHOLE = 416, 206, 200
_TIMEOUT, _CHUNK = 60, 1 << 16  # seconds without an answer; bytes per write


def cache_folder() -> Path:
    """The folder of downloads: `$SEGEDU_CACHE` if set, else the operating system's cache folder for segedu."""
    return Path(os.environ.get("SEGEDU_CACHE") or pooch.os_cache("segedu")).expanduser().absolute()


def check_space(folder: Path, size: float) -> None:
    """Raise an OSError if fewer than `size` bytes are free on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"only {free / 2**20:.0f} MiB are free there, and {size / 2**20:.0f} MiB are needed")


def delete_old_parts(folder: Path) -> None:
    """Delete what killed processes left a day ago or earlier; newer parts may belong to a running process."""
    for part in folder.glob(PART + "*"):
        if part.is_dir() and time.time() - part.stat().st_mtime > DAY:
            shutil.rmtree(part, ignore_errors=True)


def download(url: str, path: Path, size: int, *, progress: bool = True) -> None:
    """Download a file. If `path` has the beginning of the file, only the rest is transferred.

    Args:
        url: address of the file.
        path: file to write, in an existing folder. After an error it has what was transferred so far.
        size: expected number of bytes, for the progress bar until the server sends the exact size.
        progress: show a progress bar.

    Raises:
        requests.RequestException: the server could not be reached, refused, or closed the connection early.
        OSError: the file cannot be written, or another process is downloading it.
    """
    with path.open("ab") as file:
        _lock(file, path)
        start = file.seek(0, os.SEEK_END)
        try:
            _transfer(url, file, start, size, progress)
        except requests.HTTPError as error:
            if not start or error.response.status_code != _RANGE_NOT_SATISFIABLE:
                raise
            total = error.response.headers.get("Content-Range", "").rpartition("/")[2]
            if total != str(start):  # else the file was complete
                file.truncate(0)
                _transfer(url, file, 0, size, progress)


def _transfer(url: str, file: IO[bytes], start: int, size: int, progress: bool) -> None:
    """Append what the server has from byte `start` on."""

    def check(response: requests.Response, *_: Any, **__: Any) -> None:
        if response.status_code == _WHOLE:  # the server does not continue downloads, and sends the file from its start
            file.truncate(0)
        elif response.status_code == _PARTIAL:
            content = response.headers.get("Content-Range", "")
            if not content.startswith(f"bytes {start}-"):
                raise requests.RequestException(f"{url} sent {content!r}, expected the bytes from {start} on")

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    name = Path(file.name).name.removesuffix(".part")
    with tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=not progress) as bar:
        options = {"headers": headers, "hooks": {"response": check}, "timeout": _TIMEOUT, "chunk_size": _CHUNK}
        pooch.HTTPDownloader(progressbar=bar if progress else False, **options)(url, file, None)


def _lock(file: IO[bytes], path: Path) -> None:
    """Raise an OSError if another process is writing the file. Windows has no such lock."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(f"another process is downloading {path}: wait until it has ended") from None
