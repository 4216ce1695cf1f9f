"""The warm parent of all kernels: what it imports finds a home, and leaves nothing on the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from segedu.grading.sandbox.provisioner import ForkServer
from segedu.grading.sandbox.restrictions import LINUX


@pytest.mark.skipif(not LINUX, reason="the environment of a process is read in /proc")
def test_caches_of_libraries_go_to_a_folder_that_is_removed(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = ForkServer()
    try:
        words = Path(f"/proc/{server.process.pid}/environ").read_bytes().decode().split("\0")
        environment = dict(word.partition("=")[::2] for word in words if word)
        (home,) = tmp_path.iterdir()
        assert environment["HOME"] == environment["TMPDIR"] == str(home)
        assert any(home.rglob("matplotlib*"))
    finally:
        server.close()
    assert not list(tmp_path.iterdir())
    assert "writable" not in capfd.readouterr().err
