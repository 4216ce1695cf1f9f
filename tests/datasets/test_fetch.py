"""Downloading a real data set, and everything that can go wrong on the way. The archives are small and served here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import Server, file_server
from miniature_archives import COMMIT, MAKERS, publish, put_by_hand, zip_bytes

from segedu.datasets import arrange_objects, download
from segedu.datasets.data_folder import data_folder, fetched_folder
from segedu.datasets.fetch import FetchError, downloads_folder, fetch
from segedu.datasets.folder import SegmentationFolder
from segedu.datasets.real_data import DATA_SETS, RemoteFile


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Server]]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGEDU_DATA", raising=False)
    with file_server() as handler:
        yield handler


@pytest.fixture
def people(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    """Penn-Fudan on the server, with a hash."""
    publish(server, monkeypatch, "pennfudan")
    change_file(monkeypatch, "pennfudan", hash="sha256:" + digest(server.files["/PennFudanPed.zip"]))
    return server


def digest(content: bytes) -> str:
    from hashlib import sha256

    return sha256(content).hexdigest()


def change_file(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """Change the first file of a data set in the catalogue."""
    data = DATA_SETS[name]
    files = (replace(data.files[0], **changes), *data.files[1:])
    monkeypatch.setitem(DATA_SETS, name, replace(data, files=files))


def left() -> list[str]:
    """What is in the folder of data sets, except the original files."""
    folder = fetched_folder("x").parent
    return sorted(path.name for path in folder.iterdir() if path.name != "downloads") if folder.is_dir() else []


def refused(words: str, name: str = "pennfudan") -> str:
    with pytest.raises(FetchError, match=words) as caught:
        fetch(name, progress=False)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    message = str(caught.value)
    assert "\n" not in message and f"segedu data {name}" in message and str(downloads_folder(name)) in message
    assert left() == [] and not fetched_folder(name).exists()
    return message


def test_downloaded_once(people: type[Server], capfd: pytest.CaptureFixture) -> None:
    folder = fetch("pennfudan")
    printed, bars = capfd.readouterr()
    assert folder == fetched_folder("pennfudan") == data_folder("pennfudan")
    assert "all rights are with the authors" in printed and "L. Wang, J. Shi" in printed and "PennFudanPed.zip" in bars
    assert len(SegmentationFolder(folder, "test")) == 1 and left() == ["pennfudan"]
    assert not downloads_folder("pennfudan").exists()  # the archive is not needed any more
    readme = (folder / "README.txt").read_text()
    assert "Licence: none" in readme and f"{people.url}/PennFudanPed.zip" in readme
    people.files.clear()
    assert fetch("pennfudan") == folder
    assert len(people.asked) == 1 and capfd.readouterr().out == ""


def test_no_bars(people: type[Server], capfd: pytest.CaptureFixture) -> None:
    fetch("pennfudan", progress=False)
    assert capfd.readouterr().err == ""


def test_folder_of_segedu_data_is_used(people: type[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "real" / "pennfudan").mkdir(parents=True)
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path / "real"))
    assert fetch("pennfudan") == tmp_path / "real" / "pennfudan" and people.asked == []
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path / "elsewhere"))
    assert fetch("pennfudan", progress=False) == fetched_folder("pennfudan")


def test_broken_download_continues(people: type[Server]) -> None:
    people.cut = True
    message = refused(r"PennFudanPed.zip could not be read \(")
    assert "continues an incomplete download" in message
    part = downloads_folder("pennfudan") / "PennFudanPed.zip.part"
    received = part.stat().st_size
    people.cut = False
    assert 0 < received and fetch("pennfudan", progress=False).is_dir()
    assert people.starts == [0, received]


def test_part_of_another_file_is_not_continued(people: type[Server]) -> None:
    part = downloads_folder("pennfudan") / "PennFudanPed.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"another file")
    assert fetch("pennfudan", progress=False).is_dir() and people.starts == [12, 0]


def test_wrong_hash(people: type[Server]) -> None:
    people.files["/PennFudanPed.zip"] = zip_bytes({"PennFudanPed/x": b"x"})
    refused(
        r"PennFudanPed.zip is not the published file \(sha256 [0-9a-f]{64}, expected [0-9a-f]{64}\); it was deleted"
    )
    assert list(downloads_folder("pennfudan").iterdir()) == []


def test_wrong_commit(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "camvid")
    change_file(monkeypatch, "camvid", commit="f" * 40)
    refused(f"is not the published file .commit {COMMIT}, expected {'f' * 40}", "camvid")


def test_other_images_than_published(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "pennfudan", names_sha256="0" * 64)
    refused("the names of the images, such as .'FudanPed00001'., are not the expected ones")
    publish(server, monkeypatch, "pennfudan", images=4)
    refused("they have 3 images, expected 4")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/PennFudanPed.zip", "http://no-such-host.invalid/PennFudanPed.zip"])
def test_no_network(people: type[Server], monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    change_file(monkeypatch, "pennfudan", url=url)
    message = refused(r"could not be read \(ConnectionError\)")
    assert f"download {url}" in message and "SEGEDU_DATA" in message
    downloads = downloads_folder("pennfudan")
    (downloads / "PennFudanPed.zip.part").unlink(missing_ok=True)
    downloads.rmdir()
    put_by_hand("pennfudan", downloads)  # what the message says to do
    assert len(SegmentationFolder(fetch("pennfudan", progress=False))) == 3


def test_server_without_the_file(people: type[Server]) -> None:
    people.files.clear()
    refused(r"PennFudanPed.zip could not be read \(HTTP 404\)")


def test_wrong_file_put_by_hand_is_not_deleted(people: type[Server]) -> None:
    path = downloads_folder("pennfudan") / "PennFudanPed.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"my file")
    refused("PennFudanPed.zip is not the published file .* delete it first")
    assert path.read_bytes() == b"my file"


def test_data_set_that_needs_a_login(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "aerial")
    message = refused("aerial.zip is missing. What to do: log in at https://www.kaggle.com", "aerial")
    assert f"put it at {downloads_folder('aerial') / 'aerial.zip'}" in message
    downloads_folder("aerial").rmdir()
    put_by_hand("aerial", downloads_folder("aerial"))
    assert len(SegmentationFolder(fetch("aerial", progress=False))) == 8


def test_disk_that_is_too_small(people: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    change_file(monkeypatch, "pennfudan", size=10**18)
    refused(r"could not be stored in .* \(only \d+ MiB are free there, and \d+ MiB are needed\)")
    assert people.asked == []


def test_disk_that_is_too_small_for_the_content(people: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    free = download.shutil.disk_usage(".")
    sizes = iter([free, free._replace(free=0)])
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: next(sizes))
    refused("could not be stored in .* .only 0 MiB are free")


def test_cache_that_cannot_be_written(people: type[Server], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FetchError, match="could not be stored in"):
        fetch("pennfudan", progress=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zip_bytes({"../../evil": b"x"}), "'../../evil', whose path leads out of the folder"),
        (zip_bytes({"other/x": b"x"}), "expected the folder PennFudanPed"),
    ],
)
def test_archive_that_cannot_be_used(
    server: type[Server], monkeypatch: pytest.MonkeyPatch, content: bytes, words: str, tmp_path: Path
) -> None:
    publish(server, monkeypatch, "pennfudan")
    server.files["/PennFudanPed.zip"] = content
    refused(f"cannot be used: .*{words}")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "content", [b"<html>Please log in</html>", MAKERS["pennfudan"]()[0]["PennFudanPed.zip"][:9000]]
)
def test_page_instead_of_an_archive(server: type[Server], monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """It is not kept, so that the next call downloads again, although no hash is known."""
    publish(server, monkeypatch, "pennfudan")
    server.files["/PennFudanPed.zip"] = content
    refused("PennFudanPed.zip is not the published file .it is neither a zip file nor a tar file.; it was deleted")
    publish(server, monkeypatch, "pennfudan")
    assert fetch("pennfudan", progress=False).is_dir()


def test_unreadable_image(server: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import zipfile

    publish(server, monkeypatch, "pennfudan")
    with zipfile.ZipFile(io.BytesIO(server.files["/PennFudanPed.zip"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["PennFudanPed/PNGImages/FudanPed00016.png"] = b"not an image"
    server.files["/PennFudanPed.zip"] = zip_bytes(members)
    refused("FudanPed00016.png is not a readable image")


def test_interrupt_leaves_nothing(people: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: Path, target: Path, progress: bool) -> list[str]:
        (target / "images").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(arrange_objects, "arrange_pennfudan", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("pennfudan", progress=False)
    assert left() == []


def test_killed_while_unpacking(people: type[Server]) -> None:
    """A process that is killed leaves no folder of the data set, and the next one finishes without a new download."""
    file = DATA_SETS["pennfudan"].files[0]
    code = f"""
import os, signal
from dataclasses import replace
from segedu.datasets import arrange_objects, fetch
from segedu.datasets.real_data import DATA_SETS, RemoteFile
DATA_SETS["pennfudan"] = replace(DATA_SETS["pennfudan"], files=({RemoteFile(**vars(file))!r},))
write = arrange_objects.FolderWriter.add
def kill_at_second(self, *words, **options):
    if self.written:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *words, **options)
arrange_objects.FolderWriter.add = kill_at_second
fetch.fetch("pennfudan", progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (part,) = left()
    assert part.startswith(download.PART) and not fetched_folder("pennfudan").exists()
    with pytest.raises(FileNotFoundError):
        data_folder("pennfudan")
    assert len(SegmentationFolder(fetch("pennfudan", progress=False))) == 3 and len(people.asked) == 1
    assert left() == [part, "pennfudan"]  # a running process may still write to it; after a day it is deleted
    os.utime(fetched_folder("x").parent / part, (0, 0))
    publish_again = fetched_folder("pennfudan")
    download.shutil.rmtree(publish_again)
    fetch("pennfudan", progress=False)
    assert left() == ["pennfudan"]


def test_second_process_that_was_faster(people: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    arrange = arrange_objects.arrange_pennfudan

    def arrange_late(source: Path, target: Path, progress: bool) -> list[str]:
        fetched_folder("pennfudan").mkdir()
        (fetched_folder("pennfudan") / "classes.txt").write_text("theirs")
        return arrange(source, target, progress)

    monkeypatch.setattr(arrange_objects, "arrange_pennfudan", arrange_late)
    assert (fetch("pennfudan", progress=False) / "classes.txt").read_text() == "theirs"
    assert left() == ["pennfudan"]


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="^name is 'petz', expected one of pets, voc2012, "):
        fetch("petz")


def test_error_of_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGEDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"`segedu data pets` downloads it \(811 MB\)$") as caught:
        data_folder("pets")
    assert f"is not in {tmp_path / 'pets'} or {tmp_path / 'cache' / 'data' / 'pets'}" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="`segedu data aerial` says how to get it"):
        data_folder("aerial")
    with pytest.raises(FileNotFoundError, match=f"'mine' is not in {tmp_path / 'mine'}$"):
        data_folder("mine")
    monkeypatch.delenv("SEGEDU_DATA")
    with pytest.raises(FileNotFoundError, match="'mine' is not in SEGEDU_DATA, which is not set"):
        data_folder("mine")
