"""nbval's items on our kernels. The only file that knows nbval.

nbval's own kernel only waits for the reply: it misses a death and a flood, keeps every output, and believes the
`error` message alone. So its kernel class gets a loop that watches the reply, the output and the process at once, and
hands on only errors and changes of state. Its cell class also checks the reply. An item passes only if nbval ran it to
its end and the reply says "ok".
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
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

from segedu.grading.sandbox import clean_environment
from segedu.grading.sandbox.cell_clock import Clock
from segedu.grading.sandbox.fork_server import PORTS
from segedu.grading.sandbox.isolation_levels import Limits
from segedu.grading.sandbox.kernel_messages import read_message
from segedu.grading.sandbox.provisioner import NAME, RunningSandbox, SandboxSpecs
from segedu.grading.sandbox.socket_relay import Relay

MAX_MESSAGES = 20_000
START_SECONDS = 60.0
SEND_SECONDS = 10.0  # a kernel that closed its connection would let us wait for ever
IDLE_SECONDS = 10.0  # between the reply and the message that the kernel is idle; honest kernels take a millisecond


class Fatal(Exception):
    """The kernel is lost; `status` says how."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotOk(Exception):
    """nbval saw no error message, yet the kernel's reply says that the cell failed."""


class SegKernel(RunningKernel):
    """nbval's kernel on a sandboxed process. The constructor starts it; `sandbox` outlives it."""

    def __init__(self, start: Callable[[str], RunningSandbox], limits: Limits, folder: Path) -> None:
        self.limits = limits
        self.clock = Clock(START_SECONDS)
        self.sockets: dict[str, zmq.Socket] = {}
        self.context = zmq.Context()
        self.context.linger = 0
        self.context.sndtimeo = int(1000 * SEND_SECONDS)
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
            self.sandbox: RunningSandbox = self.km.provisioner.sandbox
            self.kc = self.km.client(context=self.context)
            outside = str(folder / f"k{id(self)}")
            numbers = (PORTS["shell_port"], PORTS["iopub_port"])
            self.relay = Relay(self.kc.ip, outside, numbers, self.context.maxmsgsize)
            self.kc.ip = outside
            self.kc.start_channels(hb=False, stdin=False, control=False)
            self.sockets = {"shell": self.kc.shell_channel.socket, "iopub": self.kc.iopub_channel.socket}
            for socket in self.sockets.values():
                self.monitors.append(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
            self._await_first_answer()
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
        self.clock = Clock(seconds, self.sandbox.waited)
        self.answered, self.patience = False, IDLE_SECONDS
        self.relay.begin()

    def _await_first_answer(self) -> None:
        """The subscription to the output may arrive after the first answers: asks until one is seen there too."""
        self.begin(START_SECONDS)
        while True:
            msg_id = self.kc.kernel_info()
            with contextlib.suppress(Empty):
                self.await_idle(msg_id, 1.0)
                return

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Waits for the reply up to the step's limit, whatever nbval would grant.

        After it the kernel has `IDLE_SECONDS` to say that it is idle, however much else it says.
        """
        while True:
            try:
                message = self.get_message("shell")
            except Fatal as fatal:
                if fatal.status == "timeout":
                    self._ask_where()
                raise
            if message["parent_header"].get("msg_id") == msg_id:
                self.reply, self.answered = message["content"], True
                return

    def _ask_where(self) -> None:
        """Ctrl-C before the end, for a traceback that shows where the cell was."""
        self.interrupt()
        with contextlib.suppress(Fatal, Empty):
            until = time.monotonic() + 1
            while not self.error and time.monotonic() < until:
                self._poll(0.1)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """The next message of a channel, while both channels and the process are watched.

        The time may be up because this process had to wait for others: what has already arrived is read first.
        """
        clocks = [self.clock] if timeout is None else [self.clock, Clock(timeout)]
        while not self.queued[stream]:
            began = time.monotonic()
            left = self.patience if self.answered else min(clock.left() for clock in clocks)
            received = self._poll(min(max(left, 0.0), 1.0))
            if self.answered:
                self.patience -= time.monotonic() - began
            if received or left > 0:
                continue
            if self.answered:
                raise Fatal("died", "the kernel no longer says when a cell has ended")
            if self.clock.left() <= 0:
                raise Fatal("timeout", "the time limit was reached")
            raise Empty
        return self.queued[stream].popleft()

    def is_alive(self) -> bool:
        """Whether the process is there; asked of the process, not of the kernel."""
        return hasattr(self, "sandbox") and self.sandbox.alive()

    def how_it_died(self) -> str:
        """In words; empty while the process is there."""
        return "" if self.is_alive() else f"the kernel died: {exit_words(self.sandbox.report['exit'])}"

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.sandbox.signal(2)

    def stop(self) -> None:
        """Kills the kernel and closes every socket; the sandbox folder stays open. A second time does nothing."""
        sockets, self.sockets = self.sockets, {}
        monitors, self.monitors = self.monitors, []
        steps = [socket.disable_monitor for socket in sockets.values()]
        steps += [functools.partial(monitor.close, 0) for monitor in monitors]
        if hasattr(self, "kc"):
            steps.append(self.kc.stop_channels)
        if hasattr(self, "km") and self.km.provisioner is not None:
            steps.append(functools.partial(self.km.shutdown_kernel, now=True))
        steps.append(functools.partial(self.context.destroy, linger=0))
        if hasattr(self, "relay"):
            steps.append(self.relay.close)
        for step in steps:  # each of them, whatever the kernel did to the others
            with contextlib.suppress(Exception):
                step()

    def _poll(self, seconds: float) -> int:
        """Waits and receives; how many messages came."""
        poller = zmq.Poller()
        for socket in (*self.sockets.values(), *self.monitors):
            poller.register(socket, zmq.POLLIN)
        poller.register(self.sandbox.connection.fileno(), zmq.POLLIN)
        ready = dict(poller.poll(int(seconds * 1000) + 1))
        got = sum(self._receive(name) for name, socket in self.sockets.items() if socket in ready)
        if got:
            return got
        if self.sandbox.connection.fileno() in ready and not self.sandbox.alive():
            raise Fatal("died", self.how_it_died())
        for monitor in self.monitors:
            if monitor in ready:
                recv_monitor_message(monitor, zmq.NOBLOCK)
                if select.select([self.sandbox.connection], [], [], 0.5)[0] and not self.sandbox.alive():
                    raise Fatal("died", self.how_it_died())
                if self.relay.hung_up:
                    raise Fatal("died", "the kernel closed its connection")
                raise Fatal("flood", "the connection was cut: a message was too large")
        return 0

    def _receive(self, name: str) -> int:
        parts = self.sockets[name].recv_multipart(copy=True)
        self.bytes += sum(map(len, parts))
        self.messages += 1
        if self.bytes > self.limits.output_bytes + (1 << 16) or self.messages > MAX_MESSAGES:
            raise Fatal("flood", f"more than {self.limits.output_bytes} bytes of output")
        message = read_message(self.kc.session, parts, name)
        if message is None:
            return 1
        if name == "shell" or message["msg_type"] == "error" or message["content"].get("execution_state") == "idle":
            self.queued[name].append(message)
        if name == "iopub":
            self._note(message["msg_type"], message["content"])
        return 1

    def _note(self, kind: str, content: dict) -> None:
        if kind == "error":
            self.error = self.error or content
        elif kind == "stream":
            self.text.append(content["text"])
        elif kind == "execute_result":
            self.text.append(content["text"] + "\n")


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
        try:
            super().runtest()
        finally:
            self.test_outputs = None  # nbval keeps what the cell showed, for a comparison that is not made here
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
    """One pytest session without a terminal, for the nodes; it collects nothing and loads no plugin but nbval.

    pytest would import `conftest.py` and `test*/conftest.py` of the working directory, which may be a student's.
    """
    variables = {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with clean_environment.empty_folder() as folder, mock.patch.dict(os.environ, variables):
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        places = ["-c", str(settings), "--rootdir", folder, "--confcutdir", folder, folder]
        nothing = ["--noconftest", "--assert=plain", "--capture=no", "-p", "no:cacheprovider", "-p", "nbval"]
        config = pytest.Config.fromdictargs({}, [*nothing, *places])
    return pytest.Session.from_config(config)


def exit_words(code: int | None) -> str:
    """The end of a process in words: its exit status, or the signal that ended it."""
    if code is None:
        return "no exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
