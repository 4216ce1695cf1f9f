"""Between a kernel's sockets and zmq: bytes go through here and are counted before zmq holds them.

zmq bounds the size of a part and the number of messages, but not the parts of one message, and it gathers all of them
before it says a word. So a kernel could fill the grader's memory with a single message.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

CHUNK = 1 << 16


class Relay:
    """Connections to a kernel's sockets, each through a socket of ours that a client may connect to, once.

    Args:
        inside: path of the kernel's sockets, without `-1`, `-2`, ...
        outside: path of ours, in a folder that nobody else can reach.
        numbers: of the sockets.
        limit: so many bytes may come from the kernel between two calls of `begin`; then the lines are cut.

    Attributes:
        hung_up: whether it was the kernel that ended a line first.
    """

    def __init__(self, inside: str, outside: str, numbers: tuple[int, ...], limit: int) -> None:
        self.limit, self.left = limit, limit
        self.hung_up = False
        self.lines: dict[socket.socket, socket.socket] = {}
        self.kernels: set[socket.socket] = set()
        self.listening: dict[socket.socket, str] = {}
        self.wake, self.woken = socket.socketpair()
        for number in numbers:
            ours = socket.socket(socket.AF_UNIX)
            self.listening[ours] = f"{inside}-{number}"
            ours.bind(f"{outside}-{number}")
            ours.listen(1)
        self.thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.thread.start()

    def begin(self) -> None:
        """Counts anew."""
        self.left = self.limit

    def close(self) -> None:
        """Cuts every line; a second time does nothing."""
        self.wake.close()
        self.thread.join(10)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([*self.listening, *self.lines, self.woken], [], [])
                if self.woken in ready:
                    break
                for one in ready:
                    if one in self.listening:
                        self._accept(one)
                    elif one in self.lines:
                        self._pass(one)
        for ours in list(self.listening):
            self._withdraw(ours)
        for one in (*self.lines, self.woken):
            one.close()

    def _accept(self, ours: socket.socket) -> None:
        client, _ = ours.accept()
        kernel = socket.socket(socket.AF_UNIX)
        try:
            kernel.connect(self._withdraw(ours))
        except OSError:
            client.close()
            kernel.close()
        else:
            self.lines |= {client: kernel, kernel: client}
            self.kernels.add(kernel)

    def _withdraw(self, ours: socket.socket) -> str:
        """One client, once: whatever the student puts in the place of a socket later is not connected to."""
        with contextlib.suppress(OSError):
            os.unlink(ours.getsockname())
        ours.close()
        return self.listening.pop(ours)

    def _pass(self, one: socket.socket) -> None:
        other = self.lines[one]
        try:
            data = one.recv(CHUNK)
            self.left -= len(data) if one in self.kernels else 0
            self.hung_up |= one in self.kernels and not data
            if data and self.left >= 0:
                other.sendall(data)
                return
        except OSError:
            pass
        for end in (one, other):
            self.lines.pop(end, None)
            end.close()
