"""The transfer of a file: it continues where an earlier one ended, and never mixes two files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from file_server import Server, file_server

from segedu.datasets import download as module
from segedu.datasets.download import check_space, delete_old_parts, download

BODY = bytes(range(256)) * 2000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    monkeypatch.setenv("NO_PROXY", "*")
    with file_server() as handler:
        handler.files["/a.bin"] = BODY
        yield handler


def get(server: type[Server], path: Path) -> bytes:
    download(f"{server.url}/a.bin", path, len(BODY), progress=False)
    return path.read_bytes()


def test_whole_file(server: type[Server], tmp_path: Path) -> None:
    assert get(server, tmp_path / "a.part") == BODY and server.starts == [0]


def test_broken_download_continues(server: type[Server], tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    server.cut = True
    for _ in range(3):
        with pytest.raises(requests.RequestException):
            get(server, path)
    server.cut = False
    received = path.stat().st_size
    assert 0 < received < len(BODY)
    assert get(server, path) == BODY
    assert server.starts == sorted(set(server.starts)) and server.starts[-1] == received


def test_server_that_does_not_continue(server: type[Server], tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(BODY[:1000])
    server.continues = False
    assert get(server, path) == BODY


def test_complete_file_is_kept(server: type[Server], tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(BODY)
    assert get(server, path) == BODY and server.starts == [len(BODY)]


def test_longer_file_is_replaced(server: type[Server], tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(BODY + b"more")
    assert get(server, path) == BODY


def test_other_bytes_than_requested(server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.part"
    path.write_bytes(BODY[:1000])

    def send_header(self: Server, name: str, value: str) -> None:
        BaseHTTPRequestHandler.send_header(self, name, value.replace("bytes 1000-", "bytes 7-"))

    monkeypatch.setattr(server, "send_header", send_header)
    with pytest.raises(requests.RequestException, match="expected the bytes from 1000 on"):
        get(server, path)
    assert path.read_bytes() == BODY[:1000]


def test_missing_file(server: type[Server], tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError):
        download(f"{server.url}/b.bin", tmp_path / "b.part", 1, progress=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_two_processes_do_not_write_one_file(server: type[Server], tmp_path: Path) -> None:
    path = tmp_path / "a.part"
    code = f"import fcntl, time; f = open({str(path)!r}, 'ab'); fcntl.flock(f, 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            with pytest.raises(OSError, match="another process is downloading"):
                get(server, path)
        finally:
            other.kill()
    assert get(server, path) == BODY


def test_space(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(OSError, match=r"^only \d+ MiB are free there, and \d+ MiB are needed$"):
        check_space(tmp_path, 1e18)


def test_old_parts(tmp_path: Path) -> None:
    for name in (".part-old", ".part-new", "data"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".part-old", (time.time() - 2 * module.DAY,) * 2)
    delete_old_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-new", "data"]
