"""Messages on the unix socket between the grader and a kernel's supervisor: a four-byte length, then JSON.

File descriptors are sent with the first bytes. Both ends belong to the grader; the student's process never holds one.
"""

from __future__ import annotations

import json
import os
import socket
import struct

MAX_MESSAGE = 1 << 20


def send(connection: socket.socket, message: dict, fds: list[int] | None = None) -> None:
    """Send one message, and optionally open file descriptors."""
    body = json.dumps(message).encode()
    data = struct.pack("!I", len(body)) + body
    sent = socket.send_fds(connection, [data], fds or [])
    connection.sendall(data[sent:])


def receive(connection: socket.socket, max_fds: int = 0) -> tuple[dict, list[int]]:
    """Receive one message and its file descriptors.

    Raises:
        EOFError: if the other end is closed.
    """
    data, fds, _, _ = socket.recv_fds(connection, 4, max_fds)
    try:
        for fd in fds:  # programs that are started later must not inherit them
            os.set_inheritable(fd, False)
        data += _receive_exactly(connection, 4 - len(data)) if data else b""
        if not data:
            raise EOFError("the connection was closed")
        (size,) = struct.unpack("!I", data)
        if size > MAX_MESSAGE:
            raise EOFError(f"a message of {size} bytes was announced, at most {MAX_MESSAGE} are allowed")
        return json.loads(_receive_exactly(connection, size)), list(fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise EOFError("the connection was closed in the middle of a message")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
