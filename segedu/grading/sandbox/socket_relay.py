"""Relay bytes between a kernel's sockets and zmq, and count them before zmq stores them.

zmq limits the size of a frame and the number of messages, but not the number of frames per message, and it collects all
of them before it delivers anything. A kernel could therefore fill the grader's memory with a single message.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

CHUNK = 1 << 16


class Relay:
    """Connections to a kernel's sockets. Each goes through a socket of ours, to which one client may connect once.

    Args:
        inside: path of the kernel's sockets, without `-1`, `-2`, ...
        outside: path of our sockets, likewise, in a folder that nobody else can reach.
        numbers: numbers of the sockets, which are the ends of their paths.
        limit: bytes that may come from the kernel between two calls of `begin`; beyond it, all connections are closed.

    Attributes:
        hung_up: whether the kernel closed a connection first.
    """

    def __init__(self, inside: str, outside: str, numbers: tuple[int, ...], limit: int) -> None:
        self.limit, self.bytes_left = limit, limit
        self.hung_up = False
        self.peers: dict[socket.socket, socket.socket] = {}
        self.kernel_sockets: set[socket.socket] = set()
        self.listening: dict[socket.socket, str] = {}
        self.wake_write, self.wake_read = socket.socketpair()
        for number in numbers:
            ours = socket.socket(socket.AF_UNIX)
            self.listening[ours] = f"{inside}-{number}"
            ours.bind(f"{outside}-{number}")
            ours.listen(1)
        self.thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.thread.start()

    def begin(self) -> None:
        """Reset the byte count."""
        self.bytes_left = self.limit

    def close(self) -> None:
        """Close every connection; a second call does nothing."""
        self.wake_write.close()
        self.thread.join(10)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([*self.listening, *self.peers, self.wake_read], [], [])
                if self.wake_read in ready:
                    break
                for connection in ready:
                    if connection in self.listening:
                        self._accept(connection)
                    elif connection in self.peers:
                        self._forward(connection)
        for ours in list(self.listening):
            self._stop_listening(ours)
        for connection in (*self.peers, self.wake_read):
            connection.close()

    def _accept(self, ours: socket.socket) -> None:
        client, _ = ours.accept()
        kernel = socket.socket(socket.AF_UNIX)
        try:
            kernel.connect(self._stop_listening(ours))
        except OSError:
            client.close()
            kernel.close()
        else:
            self.peers |= {client: kernel, kernel: client}
            self.kernel_sockets.add(kernel)

    def _stop_listening(self, ours: socket.socket) -> str:
        """Accept one client only, so that nothing connects to a socket that a student puts there later."""
        with contextlib.suppress(OSError):
            os.unlink(ours.getsockname())
        ours.close()
        return self.listening.pop(ours)

    def _forward(self, source: socket.socket) -> None:
        target = self.peers[source]
        try:
            data = source.recv(CHUNK)
            self.bytes_left -= len(data) if source in self.kernel_sockets else 0
            self.hung_up |= source in self.kernel_sockets and not data
            if data and self.bytes_left >= 0:
                target.sendall(data)
                return
        except OSError:
            pass
        for end in (source, target):
            self.peers.pop(end, None)
            end.close()
