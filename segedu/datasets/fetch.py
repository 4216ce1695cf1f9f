"""Download a real data set once, check it, convert it to the layout of `segedu.datasets.folder`, and keep it.

`fetch("pets")` returns the folder of the data set. If the folder exists already, in `$SEGEDU_DATA` or in the cache
folder, nothing is downloaded. A download that broke off continues where it ended. The folder gets its name only after
everything in it is written, so a process that is killed leaves no incomplete data set.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

from segedu.datasets.data_folder import data_folder, fetched_folder
from segedu.datasets.download import PART, check_space, delete_old_parts, download
from segedu.datasets.real_data import RealData, RemoteFile, find_data, size_text
from segedu.datasets.unpack import commit_of, is_archive, unpack

_MANY = 10  # more files than this share one progress bar


class FetchError(OSError):
    """A data set could not be downloaded or converted; the message says what to do."""


def fetch(name: str, *, progress: bool = True) -> Path:
    """Return the folder of a real data set, and download it first if it is not on this machine.

    The licence and the citation are printed before a download.

    Args:
        name: a key of `segedu.datasets.real_data.DATA_SETS`.
        progress: show progress bars.

    Raises:
        ValueError: there is no such data set.
        FetchError: the data set could not be downloaded, is not the published one, or does not fit on the disk.
    """
    data = find_data(name)
    with suppress(FileNotFoundError):
        return data_folder(name)
    print(describe(data))
    folder, downloads = fetched_folder(name), downloads_folder(name)
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        delete_old_parts(folder.parent)
        check_space(downloads, _needed(data, downloads))
        _receive(data, data.files, downloads, progress)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PART) as work:
            _convert(data, downloads, Path(work), progress)
            _move(Path(work) / name, folder)
    except requests.RequestException as error:
        cause = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
        raise FetchError(_message(data, f"{_address(error, data)} could not be read ({cause})")) from None
    except FetchError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise FetchError(_message(data, f"it could not be stored in {folder.parent} ({reason})")) from None
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def describe(data: RealData) -> str:
    """What is about to be downloaded, its licence, its citation, and what is checked."""
    return (
        f"{data.name}: {data.about}. {data.images} images, download {data.size_note}.\n"
        f"Licence: {data.licence}.\nCitation: {data.citation}.\n"
        f"Compared with the published data: {data.checks}.\nChanged: {data.changed}"
    )


def downloads_folder(name: str) -> Path:
    """The folder of the original files of a data set, until they are converted."""
    return fetched_folder(name).parent / "downloads" / name


def _needed(data: RealData, downloads: Path) -> int:
    """Bytes of the files that are not here yet, of their unpacked content, and of the result."""
    present = sum(path.stat().st_size for path in downloads.iterdir() if path.is_file())
    return max(0, data.size - present) + 2 * data.size


def _receive(data: RealData, files: Sequence[RemoteFile], downloads: Path, progress: bool) -> None:
    """Download the files that are not in the folder of downloads, and check all of them."""
    many = len(files) > _MANY
    for file in tqdm(files, desc=f"{data.name}: files", unit="file", disable=not (many and progress)):
        path = downloads / file.file_name
        if not path.is_file():
            if not file.url:
                raise FetchError(_message(data, f"{path} is missing"))
            _download(data, file, path, progress and not many)
        elif reason := _difference(path, file):
            raise FetchError(_message(data, f"{path} is not the published file ({reason}): delete it first"))


def _download(data: RealData, file: RemoteFile, path: Path, progress: bool) -> None:
    part = path.with_name(path.name + ".part")
    for continued in (part.is_file() and part.stat().st_size > 0, False):
        download(file.url, part, file.size, progress=progress)
        reason = _difference(part, file)
        if not reason:
            os.replace(part, path)
            return
        part.unlink()
        if not continued:  # the beginning, from an earlier download, may have been the wrong part
            break
    raise FetchError(_message(data, f"{file.url} is not the published file ({reason}); it was deleted"))


def _difference(path: Path, file: RemoteFile) -> str:
    """What differs between a file and the published one; empty if nothing is known to differ."""
    algorithm, _, digest = file.hash.partition(":")
    actual = pooch.file_hash(str(path), alg=algorithm) if algorithm else ""
    if actual != digest:
        return f"{algorithm} {actual}, expected {digest}"
    if file.is_archive and not is_archive(path):
        return "it is neither a zip file nor a tar file"
    if file.commit and (commit := commit_of(path)) != file.commit:
        return f"commit {commit or 'unknown'}, expected {file.commit}"
    return ""


def _convert(data: RealData, downloads: Path, work: Path, progress: bool) -> None:
    """Unpack the downloads, and write the data set into a folder of its name in the folder `work`."""
    source, target = work / "source", work / data.name
    source.mkdir()
    target.mkdir()
    try:
        _unpack(data.files, downloads, source, progress)
        if data.more_files:
            files = pkgutil.resolve_name(data.more_files)(source)
            _receive(data, files, downloads, progress)
            _unpack(files, downloads, source, progress)
        left_out = pkgutil.resolve_name(data.arrange)(source, target, progress)
        _check_names(data, target, len(left_out))
    except (ValueError, FileNotFoundError) as error:
        problem = f"the files in {downloads} cannot be used: {error}. Delete them if they are damaged"
        raise FetchError(_message(data, problem)) from None
    text = [describe(data), *(f"Source: {file.url or data.by_hand}" for file in data.files)]
    text += [f"Left out: {sentence}" for sentence in left_out]
    (target / "README.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    if left_out:
        print(f"{len(left_out)} images could not be read and were left out: {target.name}/README.txt names them.")


def _unpack(files: Sequence[RemoteFile], downloads: Path, source: Path, progress: bool) -> None:
    for file in files:
        path = downloads / file.file_name
        if file.is_archive:
            unpack(path, source, file.only, progress=progress)
        else:
            shutil.copyfile(path, source / file.file_name)


def _check_names(data: RealData, target: Path, left_out: int) -> None:
    """Compare the number of the images, and their names if the SHA-256 of these is known, with the published ones."""
    names = sorted(path.stem for path in target.glob("images/*"))
    if names and len(names) + left_out != data.images:
        raise ValueError(f"they have {len(names) + left_out} images, expected {data.images}")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if data.names_sha256 not in ("", digest):
        raise ValueError(f"the names of the images, such as {names[:1]}, are not the expected ones")


def _move(target: Path, folder: Path) -> None:
    """Give the complete folder its final name, unless another process was faster."""
    try:
        target.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _address(error: requests.RequestException, data: RealData) -> str:
    return getattr(error.request, "url", None) or " and ".join(file.url for file in data.files)


def _message(data: RealData, problem: str) -> str:
    name, downloads = data.name, downloads_folder(data.name)
    files = [f"{file.url} ({size_text(file.size)})" for file in data.files if file.url]
    by_hand = f"{data.by_hand}, and put it at {downloads / data.files[0].file_name}" if data.by_hand else ""
    other = by_hand or f"download {' and '.join(files)} by other means, "
    if not by_hand:
        other += f"put {' and '.join(file.file_name for file in data.files)} into the folder {downloads}"
    again = "" if data.by_hand else f"run `segedu data {name}` again, which continues an incomplete download; or "
    return (
        f"data set {name!r}: {problem}. What to do: {again}{other}, and run `segedu data {name}`; or set SEGEDU_CACHE "
        f"to a folder on a larger disk, or SEGEDU_DATA to a folder that has the folder {name}."
    )
