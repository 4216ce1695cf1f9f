"""Reading a hostile folder: every trick is refused, and the honest file beside it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segedu.grading.sandbox import sandbox_files as box_module
from segedu.grading.sandbox.sandbox_files import Box, BoxError, subfolder


@pytest.fixture(params=["openat2", "component by component"])
def folder(request, tmp_path, monkeypatch) -> Path:
    """A box's folder, with the kernel's own resolver and without it."""
    if request.param != "openat2":
        monkeypatch.setattr(box_module.sys, "platform", "other")
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    return inside


@pytest.fixture
def box(folder):
    box = Box(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    yield box
    box.close()


def test_put_and_get(box, folder):
    box.put("job/box_iou/in/0.json", b"{}")
    box.put("job/box_iou/in/1.json", b"[]")
    assert (folder / "job/box_iou/in/0.json").read_bytes() == b"{}"
    assert box.get("job/box_iou/in/1.json") == b"[]"


def test_put_replaces_nothing(box):
    box.put("a", b"1")
    with pytest.raises(OSError):
        box.put("a", b"2")
    assert box.get("a") == b"1"


def test_put_follows_no_link(box, folder, tmp_path):
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(OSError):
        box.put("out/secret", b"forged")
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "a/../../secret", "a//b", "./a", "a\0b"])
def test_paths_that_leave_are_refused(box, path):
    with pytest.raises(ValueError, match="expected a relative path"):
        box.get(path)


def test_links_are_refused(box, folder, tmp_path):
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "self").symlink_to("honest")
    (folder / "honest").write_text("honest")
    for path in ("file", "folder/secret", "self"):
        with pytest.raises(BoxError):
            box.get(path)
    assert box.get("honest") == b"honest"


def test_only_plain_files_are_read(box, folder):
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "device").symlink_to("/dev/zero")
    for path in ("fifo", "folder", "device", "missing"):
        with pytest.raises(BoxError):
            box.get(path)


def test_size_is_bounded(box, folder):
    (folder / "small").write_bytes(bytes(10))
    with open(folder / "large", "wb") as file:
        file.truncate(1 << 40)  # holds nothing on disk
    assert box.get("small", max_bytes=10) == bytes(10)
    with pytest.raises(BoxError, match="at most 9 are allowed"):
        box.get("small", max_bytes=9)
    with pytest.raises(BoxError, match="at most"):
        box.get("large")


def test_find_matches_within_folders(box, folder, tmp_path):
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
    assert box.find("job/*/out/*.json") == ["job/a/out/0.json", "job/a/out/1.json", "job/b/out/0.json"]
    assert box.find("job/c/out/*") == []
    assert box.find("missing/*") == []


def test_find_stops_in_a_flood_of_files(box, folder, monkeypatch):
    monkeypatch.setattr(box_module, "MAX_ENTRIES", 10)
    for number in range(11):
        (folder / f"{number}").touch()
    with pytest.raises(BoxError, match="more than 10 files"):
        box.find("*")


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
