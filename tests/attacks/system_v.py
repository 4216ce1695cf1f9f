"""A message queue, a semaphore and a segment of shared memory of the host: by their numbers every process finds them."""

from __future__ import annotations

import ctypes
import struct

IPC_PRIVATE, IPC_RMID, IPC_STAT, IPC_NOWAIT, GETVAL, SETVAL = 0, 0, 2, 0o4000, 12, 16
TEXT, VALUE = b"a message of the host", 7
SIZE = 4099  # of the segment: by it a referee knows those of another arena that runs at the same time


class SystemV:
    """Three objects of the host, and whether they are as they were.

    Attributes:
        words: what an attack finds in `/proc/sysvipc` anyway.
    """

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.queue = self.libc.msgget(IPC_PRIVATE, 0o1666)
        self.segment = self.libc.shmget(IPC_PRIVATE, SIZE, 0o1666)
        self.semaphore = self.libc.semget(IPC_PRIVATE, 1, 0o1666)
        self.words = {"QUEUE": str(self.queue), "SEGMENT": str(self.segment), "SEMAPHORE": str(self.semaphore)}
        self.libc.semctl(self.semaphore, 0, SETVAL, VALUE)
        self._send()

    def _send(self) -> None:
        message = ctypes.create_string_buffer(struct.pack("l", 1) + TEXT)
        self.libc.msgsnd(self.queue, message, len(TEXT), IPC_NOWAIT)

    def changes(self) -> list[str]:
        """What was done to them; the message is taken out and put back."""
        message = ctypes.create_string_buffer(1000)
        size = self.libc.msgrcv(self.queue, message, 900, 0, IPC_NOWAIT)
        read = size < 0 or message.raw[8 : 8 + size] != TEXT
        more = self.libc.msgrcv(self.queue, message, 900, 0, IPC_NOWAIT) >= 0
        self._send()
        found = ["HARM: the host's message queue was read"] * read + ["HARM: it was written"] * more
        if self.libc.semctl(self.semaphore, 0, GETVAL, 0) != VALUE:
            found.append("HARM: the host's semaphore was changed")
            self.libc.semctl(self.semaphore, 0, SETVAL, VALUE)
        if self.segment >= 0 and self.libc.shmctl(self.segment, IPC_STAT, ctypes.create_string_buffer(500)) < 0:
            found.append("HARM: the host's shared memory was removed")
            self.segment = -1
        return found

    def close(self) -> None:
        """Removes them."""
        self.libc.msgctl(self.queue, IPC_RMID, None)
        self.libc.shmctl(self.segment, IPC_RMID, None)
        self.libc.semctl(self.semaphore, 0, IPC_RMID, 0)
