"""Messages between grader and supervisor: whole or not at all, with descriptors that nobody leaks."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from segedu.grading.sandbox.messages import MAX_MESSAGE, receive, send


@pytest.fixture
def ends():
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def test_messages_arrive_in_order(ends):
    ours, theirs = ends
    for message in ({}, {"text": "é" * 10_000}, {"last": [1, None]}):
        send(ours, message)
        assert receive(theirs) == (message, [])


def test_descriptors_travel(ends):
    ours, theirs = ends
    reading, writing = os.pipe()
    send(ours, {"pipe": True}, [writing])
    os.close(writing)
    message, (received,) = receive(theirs, 1)
    assert not os.get_inheritable(received)
    os.write(received, b"honest")
    os.close(received)
    assert (message, os.read(reading, 10)) == ({"pipe": True}, b"honest")
    os.close(reading)


def test_the_end_is_told(ends):
    ours, theirs = ends
    ours.close()
    with pytest.raises(EOFError, match="closed"):
        receive(theirs)


def test_half_a_message_is_none(ends):
    ours, theirs = ends
    ours.sendall(struct.pack("!I", 100) + b"{")
    ours.close()
    with pytest.raises(EOFError, match="in the middle"):
        receive(theirs)


def test_size_is_bounded(ends):
    ours, theirs = ends
    ours.sendall(struct.pack("!I", MAX_MESSAGE + 1))
    with pytest.raises(EOFError, match="at most"):
        receive(theirs)


def test_descriptors_of_a_broken_message_are_closed(ends):
    ours, theirs = ends
    reading, writing = os.pipe()
    socket.send_fds(ours, [struct.pack("!I", 3) + b"{{{"], [writing])
    os.close(writing)
    with pytest.raises(ValueError):
        receive(theirs, 1)
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)
