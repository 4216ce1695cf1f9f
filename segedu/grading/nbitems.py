"""nbval's items on our kernels. The only file that knows nbval.

nbval's own kernel waits for the reply with its eyes shut: it misses a death, swallows a flood and believes the
`error` message alone. So its kernel class gets a loop that watches the reply, the output and the process at once, and
its cell class also asks the reply. An item passes only if nbval ran it to its end and the reply says "ok".
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from unittest import mock

import nbformat
import pytest
import zmq
from jupyter_client.manager import KernelManager
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile
from zmq.utils.monitor import recv_monitor_message

from .clock import Clock
from .ladder import Limits
from .provisioner import NAME, Guest, SandboxSpecs
from .relay import Relay
from .zygote import PORTS

MAX_MESSAGES = 20_000
_MESSAGES = {"status", "execute_input", "display_data", "execute_result", "stream", "error"}


class Fatal(Exception):
    """The kernel is lost; `status` says how."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotOk(Exception):
    """nbval saw no error message, yet the kernel's reply says that the cell failed."""


class SegKernel(RunningKernel):
    """nbval's kernel on a sandboxed process. The constructor starts it; `guest` outlives it."""

    def __init__(self, start: Callable[[str], Guest], limits: Limits, folder: Path) -> None:
        self.limits = limits
        self.clock = Clock(60)
        self.context = zmq.Context()
        self.context.linger = 0
        self.context.rcvhwm = 64  # so many messages of the largest size may wait in our memory
        self.context.maxmsgsize = 2 * max(limits.output_bytes, 1 << 20)
        self.context.reconnect_ivl = -1  # the student could put another socket in its place
        self.monitors: list[zmq.Socket] = []
        try:
            self.km = KernelManager(
                kernel_name=NAME, kernel_spec_manager=SandboxSpecs(), context=self.context,
                connection_file=str(folder / f"kernel-{id(self)}.json"),
            )  # fmt: skip
            self.km.start_kernel(start=start)
            self.guest: Guest = self.km.provisioner.guest
            self.kc = self.km.client(context=self.context)
            outside = str(folder / f"k{id(self)}")
            numbers = (PORTS["shell_port"], PORTS["iopub_port"])
            self.relay = Relay(self.kc.ip, outside, numbers, self.context.maxmsgsize)
            self.kc.ip = outside
            self.kc.start_channels(hb=False, stdin=False, control=False)
            self.sockets = {"shell": self.kc.shell_channel.socket, "iopub": self.kc.iopub_channel.socket}
            for socket in self.sockets.values():
                self.monitors.append(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
            self.begin(60)
            self._ensure_iopub_up()
        except BaseException:
            self.stop()
            raise

    def begin(self, seconds: float) -> None:
        """Starts a step: fresh counts and a fresh clock."""
        self.queued: dict[str, deque] = {"shell": deque(), "iopub": deque()}
        self.bytes = self.messages = 0
        self.text: list[str] = []
        self.error: dict = {}
        self.reply: dict = {}
        self.clock = Clock(seconds, self.guest.waited)
        self.relay.begin()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Waits for the reply up to the step's limit, whatever nbval would grant."""
        while True:
            try:
                message = self.get_message("shell")
            except Fatal as fatal:
                if fatal.status == "timeout":
                    self._ask_where()
                raise
            if message["parent_header"].get("msg_id") == msg_id:
                self.reply = message["content"]
                return

    def _ask_where(self) -> None:
        """Ctrl-C before the end, for a traceback that shows where the cell was."""
        self.interrupt()
        with contextlib.suppress(Fatal, Empty):
            until = time.monotonic() + 1
            while not self.error and time.monotonic() < until:
                self._poll(0.1)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """The next message of a channel, while both channels and the process are watched."""
        clock = self.clock if timeout is None else Clock(timeout)
        while not self.queued[stream]:
            left = clock.left()
            if left <= 0 and timeout is None:
                raise Fatal("timeout", "the time limit was reached")
            if left <= 0:
                raise Empty
            self._poll(min(left, 1.0))
        return self.queued[stream].popleft()

    def is_alive(self) -> bool:
        """Whether the process is there; asked of the process, not of the kernel."""
        return hasattr(self, "guest") and self.guest.alive()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.guest.signal(2)

    def stop(self) -> None:
        """Kills the kernel and closes every socket; the guest's folder stays open."""
        for socket in getattr(self, "sockets", {}).values():
            socket.disable_monitor()
        for monitor in self.monitors:
            monitor.close(0)
        self.monitors = []
        if hasattr(self, "kc"):
            self.kc.stop_channels()
        if hasattr(self, "km") and self.km.provisioner is not None:
            with contextlib.suppress(Exception):
                self.km.shutdown_kernel(now=True)
        self.context.destroy(linger=0)
        if hasattr(self, "relay"):
            self.relay.close()

    def _poll(self, seconds: float) -> None:
        poller = zmq.Poller()
        for socket in (*self.sockets.values(), *self.monitors):
            poller.register(socket, zmq.POLLIN)
        poller.register(self.guest.connection.fileno(), zmq.POLLIN)
        ready = dict(poller.poll(int(seconds * 1000) + 1))
        got = sum(self._receive(name) for name, socket in self.sockets.items() if socket in ready)
        if got:
            return
        if self.guest.connection.fileno() in ready and not self.guest.alive():
            raise Fatal("died", f"the kernel died: {exit_words(self.guest.report['exit'])}")
        for monitor in self.monitors:
            if monitor in ready:
                recv_monitor_message(monitor, zmq.NOBLOCK)
                if select.select([self.guest.connection], [], [], 0.5)[0] and not self.guest.alive():
                    raise Fatal("died", f"the kernel died: {exit_words(self.guest.report['exit'])}")
                raise Fatal("flood", "the connection was cut: a message was too large")

    def _receive(self, name: str) -> int:
        parts = self.sockets[name].recv_multipart(copy=True)
        self.bytes += sum(map(len, parts))
        self.messages += 1
        if self.bytes > self.limits.output_bytes + (1 << 16) or self.messages > MAX_MESSAGES:
            raise Fatal("flood", f"more than {self.limits.output_bytes} bytes of output")
        try:
            _, parts = self.kc.session.feed_identities(parts)
            message = self.kc.session.deserialize(parts)
            _check_form(message)
        except Exception:  # forged or broken: whoever writes such messages gains nothing by them
            return 1
        if name == "shell" or message["msg_type"] in _MESSAGES:
            self.queued[name].append(message)
            if name == "iopub":
                self._note(message["msg_type"], message["content"])
        return 1

    def _note(self, kind: str, content: dict) -> None:
        if kind == "error":
            self.error = self.error or content
        elif kind == "stream":
            self.text.append(str(content.get("text", "")))
        elif kind == "execute_result":
            self.text.append(str(content.get("data", {}).get("text/plain", "")) + "\n")


def _check_form(message: dict) -> None:
    """Whoever holds the key may send anything: what is read later must be of the type that it is read as."""
    content, parent = message["content"], message["parent_header"]
    if not (isinstance(content, dict) and isinstance(parent, dict) and isinstance(message["msg_type"], str)):
        raise ValueError("a message with parts of the wrong types")


class SegFile(IPyNbFile):
    """An in-memory notebook: its cells are the steps, and no marker in a student's source means anything."""

    def collect(self):
        for number, cell in enumerate(self.nb.cells):
            options = {"skip": False, "check": False, "check_exception": False}
            name = cell.metadata["segedu_step"]
            yield SegCell.from_parent(self, name=name, cell_num=number, cell=cell, options=options)


class SegCell(IPyNbCell):
    """nbval's cell, which also asks the reply."""

    def runtest(self) -> None:
        super().runtest()
        if self.parent.kernel.reply.get("status") != "ok":
            raise NotOk(str(self.parent.kernel.reply.get("ename", "no reply")))


def items(names_and_sources: list[tuple[str, str]], path: Path) -> list[SegCell]:
    """An item for each source, all in one notebook that exists in memory only."""
    book = nbformat.v4.new_notebook()
    for number, (name, source) in enumerate(names_and_sources):
        book.cells.append(nbformat.v4.new_code_cell(source, metadata={"segedu_step": f"{number}-{name}"}))
    file = SegFile.from_parent(session(), path=path)
    file.nb = book
    return list(file.collect())


@functools.lru_cache(maxsize=1)
def session() -> pytest.Session:
    """One pytest session without a terminal, for the nodes; it collects nothing and loads no plugin but nbval."""
    with mock.patch.dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS=""):
        folder = tempfile.gettempdir()
        arguments = ["--rootdir", folder, "-c", os.devnull, "-p", "no:cacheprovider", "-p", "nbval"]
        config = pytest.Config.fromdictargs({}, arguments)
    return pytest.Session.from_config(config)


def exit_words(code: int | None) -> str:
    """The end of a process in words: its exit status, or the signal that ended it."""
    if code is None:
        return "no exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
