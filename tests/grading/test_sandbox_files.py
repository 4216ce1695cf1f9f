"""Reading a hostile folder: every trick is refused, and the honest file beside it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segedu.grading.sandbox import sandbox_files
from segedu.grading.sandbox.sandbox_files import SandboxFileError, SandboxFiles, subfolder


@pytest.fixture(params=["openat2", "component by component"])
def folder(request, tmp_path, monkeypatch) -> Path:
    """A box's folder, with the kernel's own resolver and without it."""
    if request.param != "openat2":
        monkeypatch.setattr(sandbox_files.sys, "platform", "other")
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    return inside


@pytest.fixture
def files(folder):
    files = SandboxFiles(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    yield files
    files.close()


def test_put_and_get(files, folder):
    files.put("job/box_iou/in/0.json", b"{}")
    files.put("job/box_iou/in/1.json", b"[]")
    assert (folder / "job/box_iou/in/0.json").read_bytes() == b"{}"
    assert files.get("job/box_iou/in/1.json") == b"[]"


def test_put_replaces_nothing(files):
    files.put("a", b"1")
    with pytest.raises(OSError):
        files.put("a", b"2")
    assert files.get("a") == b"1"


def test_put_follows_no_link(files, folder, tmp_path):
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(OSError):
        files.put("out/secret", b"forged")
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "a/../../secret", "a//b", "./a", "a\0b"])
def test_paths_that_leave_are_refused(files, path):
    with pytest.raises(ValueError, match="expected a relative path"):
        files.get(path)


def test_links_are_refused(files, folder, tmp_path):
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "self").symlink_to("honest")
    (folder / "honest").write_text("honest")
    for path in ("file", "folder/secret", "self"):
        with pytest.raises(SandboxFileError):
            files.get(path)
    assert files.get("honest") == b"honest"


def test_only_plain_files_are_read(files, folder):
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "device").symlink_to("/dev/zero")
    for path in ("fifo", "folder", "device", "missing"):
        with pytest.raises(SandboxFileError):
            files.get(path)


def test_size_is_bounded(files, folder):
    (folder / "small").write_bytes(bytes(10))
    with open(folder / "large", "wb") as file:
        file.truncate(1 << 40)  # holds nothing on disk
    assert files.get("small", max_bytes=10) == bytes(10)
    with pytest.raises(SandboxFileError, match="at most 9 are allowed"):
        files.get("small", max_bytes=9)
    with pytest.raises(SandboxFileError, match="at most"):
        files.get("large")


def test_find_matches_within_folders(files, folder, tmp_path):
    for name in (
        "job/a/out/0.json",
        "job/a/out/1.json",
        "job/b/out/0.json",
        "job/b/in/0.json",
        "job/a/out/deep/2.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "job/c").symlink_to(folder / "job/a")
    assert files.find("job/*/out/*.json") == ["job/a/out/0.json", "job/a/out/1.json", "job/b/out/0.json"]
    assert files.find("job/c/out/*") == []
    assert files.find("missing/*") == []


def test_find_stops_in_a_flood_of_files(files, folder, monkeypatch):
    monkeypatch.setattr(sandbox_files, "MAX_ENTRIES", 10)
    for number in range(11):
        (folder / f"{number}").touch()
    with pytest.raises(SandboxFileError, match="more than 10 files"):
        files.find("*")


def test_subfolder(folder):
    (folder / "work").mkdir()
    (folder / "link").symlink_to("work")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        subfolder(descriptor, "work").close()
        with pytest.raises(OSError):
            subfolder(descriptor, "link")
    finally:
        os.close(descriptor)
