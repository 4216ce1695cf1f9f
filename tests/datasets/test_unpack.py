"""Archives from the network: what is unpacked, and what ends with an error instead."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from segedu.datasets.unpack import commit_of, unpack


def zip_of(path: Path, members: dict[str, bytes], comment: bytes = b"", links: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, content)
        archive.comment = comment
    return path


def tar_of(path: Path, members: dict[str, bytes], **kinds: bytes) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = kinds.get(name.rpartition("/")[2], tarfile.REGTYPE)
            if info.type != tarfile.REGTYPE:
                info.linkname, info.size = content.decode(), 0
            archive.addfile(info, io.BytesIO(content))
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(("make", "name"), [(zip_of, "a.zip"), (tar_of, "a.tar"), (tar_of, "a.tar.gz")])
def test_members(make, name: str, folder: Path) -> None:
    members = {"top/images/a.png": b"a", "top/images/b.png": b"b" * 3_000_000, "top/code/x.py": b"x"}
    archive = make(folder.parent / name, members)
    unpack(archive, folder, "/images/", progress=False)
    assert files_in(folder) == {name: content for name, content in members.items() if "images" in name}


@pytest.mark.parametrize("bad", ["../x", "/tmp/x", "a/../../x", "a\\..\\x", "C:x"])
@pytest.mark.parametrize(("make", "name"), [(zip_of, "a.zip"), (tar_of, "a.tar")])
@pytest.mark.parametrize("only", ["", "^nothing$"])
def test_path_out_of_the_folder(make, name: str, bad: str, only: str, folder: Path) -> None:
    archive = make(folder.parent / name, {bad: b"x"})
    with pytest.raises(ValueError, match="whose path leads out of the folder"):
        unpack(archive, folder, only, progress=False)
    assert files_in(folder.parent) == {name: archive.read_bytes()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_link_or_device_in_tar(kind: bytes, folder: Path) -> None:
    archive = tar_of(folder.parent / "a.tar", {"a/link": b"/etc/passwd", "a/file": b"x"}, link=kind)
    with pytest.raises(ValueError, match="link or a device"):
        unpack(archive, folder, progress=False)
    unpack(archive, folder, "file$", progress=False)  # what is not needed does not matter
    assert files_in(folder) == {"a/file": b"x"}


def test_link_in_zip(folder: Path) -> None:
    archive = zip_of(folder.parent / "a.zip", {"a/link": b"/etc/passwd"}, links=("a/link",))
    with pytest.raises(ValueError, match="link or a device"):
        unpack(archive, folder, progress=False)


@pytest.mark.parametrize(("make", "name"), [(zip_of, "a.zip"), (tar_of, "a.tar"), (tar_of, "a.tar.gz")])
def test_damaged(make, name: str, folder: Path) -> None:
    import random

    content = random.Random(0).randbytes(100_000)
    archive = make(folder.parent / name, {"a": content})
    data = archive.read_bytes()
    archive.write_bytes(data[:50_000])
    with pytest.raises(ValueError, match="is damaged|is neither a zip file nor a tar file"):
        unpack(archive, folder, progress=False)
    if name == "a.zip":
        archive.write_bytes(data[:5000] + b"\0\1" + data[5002:])
        with pytest.raises(ValueError, match="is damaged"):
            unpack(archive, folder, progress=False)


def test_no_archive(folder: Path) -> None:
    page = folder.parent / "a.zip"
    page.write_text("<html>Please log in</html>")
    with pytest.raises(ValueError, match="is neither a zip file nor a tar file"):
        unpack(page, folder, progress=False)
    assert commit_of(page) == ""


def test_commit(folder: Path) -> None:
    assert commit_of(zip_of(folder.parent / "a.zip", {"a": b""}, comment=b"bb68b64e")) == "bb68b64e"
