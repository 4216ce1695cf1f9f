"""Folders of a student's making are removed, however deep or closed they are, and nothing outside of them."""

from __future__ import annotations

import os
import time

import pytest

from segedu.grading.sandbox import isolation_levels
from segedu.grading.sandbox.remove_folder import remove_folder


def nest(folder, depth: int) -> None:
    """Folders in folders; each has a file in it."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_thousands_of_nested_folders_are_removed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    nest(folder, 5000)
    began = time.process_time()
    remove_folder(folder)
    assert not folder.exists() and time.process_time() - began < 5


def test_many_folders_pipes_and_closed_folders_are_removed_and_links_are_not_followed(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "kept").write_text("kept")
    for i in range(300):
        (folder / f"{i}" / "a" / "b").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "7" / "a" / "link").symlink_to(outside / "inner")
    os.mkfifo(folder / "pipe")
    for part in ("7/a", "8/a/b", "9", "."):
        (folder / part).chmod(0o500 if part == "9" else 0)
    remove_folder(folder)
    assert not folder.exists() and (outside / "inner" / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 != 0o700


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_what_is_no_folder_is_left_and_nothing_is_raised(tmp_path, kind):
    path, target = tmp_path / "x", tmp_path / "target"
    target.mkdir()
    if kind == "file":
        path.write_text("x")
    elif kind == "link":
        path.symlink_to(target)
    remove_folder(path)
    assert target.is_dir() and (kind == "missing" or os.path.lexists(path))


def test_what_a_killed_grader_left_is_removed_on_a_later_day(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation_levels.tempfile, "gettempdir", lambda: str(tmp_path))
    old, new = tmp_path / "segedu-run-old", tmp_path / "segedu-run-new"
    for folder in (old, new):
        folder.mkdir()
    nest(old, 2000)
    os.utime(old, (1, 1))
    isolation_levels.sweep()
    assert not old.exists() and new.exists()
