"""The relay between a kernel's sockets and zmq: bytes pass, are counted, and are cut."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from segedu.grading.sandbox.socket_relay import Relay


@pytest.fixture
def kernel(tmp_path):
    """A socket that plays the kernel's."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "k-1"))
    listening.listen(5)
    yield listening
    listening.close()


@pytest.fixture
def relay(tmp_path, kernel):
    made = Relay(str(tmp_path / "k"), str(tmp_path / "out"), (1,), limit=1000)
    yield made
    made.close()


def connect(tmp_path, kernel):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(tmp_path / "out-1"))
    inner, _ = kernel.accept()
    inner.settimeout(10)
    return client, inner


def test_bytes_pass_both_ways_and_only_those_of_the_kernel_are_counted(tmp_path, kernel, relay):
    client, inner = connect(tmp_path, kernel)
    with client, inner:
        client.sendall(b"x" * 5000)
        got = 0
        while got < 5000:
            got += len(inner.recv(5000))
        for _ in range(3):
            inner.sendall(b"y" * 900)
            assert client.recv(900, socket.MSG_WAITALL) == b"y" * 900
            relay.begin()


def test_what_is_too_much_is_cut(tmp_path, kernel, relay):
    client, inner = connect(tmp_path, kernel)
    with client, inner:
        inner.sendall(b"y" * 900)
        assert client.recv(900, socket.MSG_WAITALL) == b"y" * 900
        inner.sendall(b"y" * 900)
        assert client.recv(900) == b"" == inner.recv(1)


def test_only_one_client_and_nothing_is_left(tmp_path, kernel, relay):
    client, inner = connect(tmp_path, kernel)
    with client, inner:
        assert not os.path.exists(tmp_path / "out-1")
        inner.close()
        assert client.recv(1) == b""
    relay.close()
    assert not relay.thread.is_alive() and sorted(os.listdir(tmp_path)) == ["k-1"]


def test_a_kernel_that_is_not_there_is_a_cut_line(tmp_path):
    relay = Relay(str(tmp_path / "nothing"), str(tmp_path / "out"), (1,), limit=1000)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / "out-1"))
        assert client.recv(1) == b""
    relay.close()


def test_a_client_that_does_not_read_stops_nobody(tmp_path, kernel):
    relay = Relay(str(tmp_path / "k"), str(tmp_path / "out"), (1,), limit=1 << 30)
    client, inner = connect(tmp_path, kernel)
    with client, inner:
        sender = threading.Thread(target=lambda: _send(inner, b"z" * (32 << 20)), daemon=True)
        sender.start()
        sender.join(1)
        assert sender.is_alive()
        client.close()  # as zmq does at the end
        relay.close()
        assert not relay.thread.is_alive()


def _send(one, data):
    try:
        one.sendall(data)
    except OSError:
        pass
