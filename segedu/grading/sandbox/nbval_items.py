"""nbval's items on our kernels. This is the only file that depends on nbval.

nbval's own kernel only waits for the reply: it misses a death or a flood of output, keeps every output, and trusts the
`error` message alone. This kernel class therefore watches the reply, the output and the process at once, and passes on
only errors and state changes. The cell class also checks the reply. An item passes only if nbval ran it to its end and
the reply's status is "ok".
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
SEND_SECONDS = 10.0  # otherwise a kernel that closed its connection would block us forever
IDLE_SECONDS = 10.0  # between the reply and the idle message; honest kernels take a millisecond
TRACEBACK_SECONDS = 2.0  # after the interrupt at the time limit, for the traceback


class KernelLost(Exception):
    """The kernel is lost; `status` says how."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class CellFailed(Exception):
    """nbval saw no error message, but the kernel's reply says that the cell failed."""


class SegKernel(RunningKernel):
    """nbval's kernel on a sandboxed process. The constructor starts it; `sandbox` outlives it."""

    def __init__(self, start: Callable[[str], RunningSandbox], limits: Limits, folder: Path) -> None:
        self.limits = limits
        self.clock = Clock(START_SECONDS)
        self.sockets: dict[str, zmq.Socket] = {}
        self.context = zmq.Context()
        self.context.linger = 0
        self.context.sndtimeo = int(1000 * SEND_SECONDS)
        self.context.rcvhwm = 64  # at most this many messages may wait in our memory
        self.context.maxmsgsize = 2 * max(limits.output_bytes, 1 << 20)
        self.context.reconnect_ivl = -1  # a student could replace the socket by another
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
            ports = (PORTS["shell_port"], PORTS["iopub_port"])
            self.relay = Relay(self.kc.ip, outside, ports, self.context.maxmsgsize)
            self.kc.ip = outside
            self.kc.start_channels(hb=False, stdin=False, control=False)
            self.sockets = {"shell": self.kc.shell_channel.socket, "iopub": self.kc.iopub_channel.socket}
            for socket in self.sockets.values():
                self.monitors.append(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
            self._await_subscription()
        except BaseException:
            self.stop()
            raise

    def begin(self, seconds: float) -> None:
        """Start a step with fresh counts and a fresh clock."""
        self.queued: dict[str, deque] = {"shell": deque(), "iopub": deque()}
        self.bytes = self.messages = 0
        self.text: list[str] = []
        self.error: dict = {}
        self.reply: dict = {}
        self.clock = Clock(seconds, self.sandbox.waited)
        self.replied, self.idle_seconds_left = False, IDLE_SECONDS
        self.relay.begin()

    def _await_subscription(self) -> None:
        """Ask for kernel info until the answer arrives on the output channel too: subscribing may take a while."""
        self.begin(START_SECONDS)
        while True:
            msg_id = self.kc.kernel_info()
            with contextlib.suppress(Empty):
                self.await_idle(msg_id, 1.0)
                return

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait for the reply up to the step's limit, ignoring nbval's own timeout.

        After the reply, the kernel has `IDLE_SECONDS` to report that it is idle, however much else it sends.
        """
        while True:
            try:
                message = self.get_message("shell")
            except KernelLost as error:
                if error.status == "timeout":
                    self._interrupt_for_traceback()
                raise
            if message["parent_header"].get("msg_id") == msg_id:
                self.reply, self.replied = message["content"], True
                return

    def _interrupt_for_traceback(self) -> None:
        """Interrupt the cell before the end, for a traceback that shows where it was."""
        self.interrupt()
        with contextlib.suppress(KernelLost, Empty):
            clock = Clock(TRACEBACK_SECONDS, self.clock.waited)  # on a busy machine the kernel gets longer
            while not self.error and clock.left() > 0:
                self._poll(0.1)

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """Return the next message of a channel, while watching both channels and the process.

        Messages that have arrived are read even after the time is up: this process may have had to wait for others.
        """
        clocks = [self.clock] if timeout is None else [self.clock, Clock(timeout)]
        while not self.queued[stream]:
            start = time.monotonic()
            left = self.idle_seconds_left if self.replied else min(clock.left() for clock in clocks)
            received = self._poll(min(max(left, 0.0), 1.0))
            if self.replied:
                self.idle_seconds_left -= time.monotonic() - start
            if received or left > 0:
                continue
            if self.replied:
                raise KernelLost("died", "the kernel no longer reports when a cell has ended")
            if self.clock.left() <= 0:
                raise KernelLost("timeout", "the time limit was reached")
            if clocks[-1].left() <= 0:  # otherwise the limit has been extended since `left` was computed
                raise Empty
        return self.queued[stream].popleft()

    def is_alive(self) -> bool:
        """Whether the process is alive, without asking the kernel."""
        return hasattr(self, "sandbox") and self.sandbox.alive()

    def death_message(self) -> str:
        """Say how the process ended; empty while it is alive."""
        return "" if self.is_alive() else f"the kernel died: {describe_exit(self.sandbox.report['exit'])}"

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self.sandbox.signal(2)

    def stop(self) -> None:
        """Kill the kernel and close every socket; the sandbox folder stays open. A second call does nothing."""
        sockets, self.sockets = self.sockets, {}
        monitors, self.monitors = self.monitors, []
        actions = [socket.disable_monitor for socket in sockets.values()]
        actions += [functools.partial(monitor.close, 0) for monitor in monitors]
        if hasattr(self, "kc"):
            actions.append(self.kc.stop_channels)
        if hasattr(self, "km") and self.km.provisioner is not None:
            actions.append(functools.partial(self.km.shutdown_kernel, now=True))
        actions.append(functools.partial(self.context.destroy, linger=0))
        if hasattr(self, "relay"):
            actions.append(self.relay.close)
        for action in actions:  # all of them, even if one fails
            with contextlib.suppress(Exception):
                action()

    def _poll(self, seconds: float) -> int:
        """Wait for messages and receive them; return how many arrived."""
        poller = zmq.Poller()
        for socket in (*self.sockets.values(), *self.monitors):
            poller.register(socket, zmq.POLLIN)
        poller.register(self.sandbox.connection.fileno(), zmq.POLLIN)
        ready = dict(poller.poll(int(seconds * 1000) + 1))
        received = sum(self._receive(name) for name, socket in self.sockets.items() if socket in ready)
        if received:
            return received
        if self.sandbox.connection.fileno() in ready and not self.sandbox.alive():
            raise KernelLost("died", self.death_message())
        for monitor in self.monitors:
            if monitor in ready:
                recv_monitor_message(monitor, zmq.NOBLOCK)
                if select.select([self.sandbox.connection], [], [], 0.5)[0] and not self.sandbox.alive():
                    raise KernelLost("died", self.death_message())
                if self.relay.hung_up:
                    raise KernelLost("died", "the kernel closed its connection")
                raise KernelLost("flood", "the connection was cut: a message was too large")
        return 0

    def _receive(self, name: str) -> int:
        frames = self.sockets[name].recv_multipart(copy=True)
        self.bytes += sum(map(len, frames))
        self.messages += 1
        if self.bytes > self.limits.output_bytes + (1 << 16) or self.messages > MAX_MESSAGES:
            raise KernelLost("flood", f"more than {self.limits.output_bytes} bytes of output")
        message = read_message(self.kc.session, frames, name)
        if message is None:
            return 1
        if name == "shell" or message["msg_type"] == "error" or message["content"].get("execution_state") == "idle":
            self.queued[name].append(message)
        if name == "iopub":
            self._record_output(message["msg_type"], message["content"])
        return 1

    def _record_output(self, kind: str, content: dict) -> None:
        if kind == "error":
            self.error = self.error or content
        elif kind == "stream":
            self.text.append(content["text"])
        elif kind == "execute_result":
            self.text.append(content["text"] + "\n")


class SegFile(IPyNbFile):
    """An in-memory notebook whose cells are the steps; markers in a student's source have no effect."""

    def collect(self):
        for number, cell in enumerate(self.nb.cells):
            options = {"skip": False, "check": False, "check_exception": False}
            name = cell.metadata["segedu_step"]
            yield SegCell.from_parent(self, name=name, cell_num=number, cell=cell, options=options)


class SegCell(IPyNbCell):
    """nbval's cell, which also checks the reply."""

    def runtest(self) -> None:
        try:
            super().runtest()
        finally:
            self.test_outputs = None  # nbval keeps the outputs for a comparison that is not made here
        if self.parent.kernel.reply.get("status") != "ok":
            raise CellFailed(str(self.parent.kernel.reply.get("ename", "no reply")))


def items(names_and_sources: list[tuple[str, str]], path: Path) -> list[SegCell]:
    """Create an nbval item per source, all in one notebook that exists only in memory."""
    notebook = nbformat.v4.new_notebook()
    for number, (name, source) in enumerate(names_and_sources):
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"segedu_step": f"{number}-{name}"}))
    file = SegFile.from_parent(session(), path=path)
    file.nb = notebook
    return list(file.collect())


@functools.lru_cache(maxsize=1)
def session() -> pytest.Session:
    """Create a pytest session without a terminal for the items; it collects nothing and loads no plugin but nbval.

    By default pytest would import `conftest.py` and `test*/conftest.py` of the working directory, perhaps a student's.
    """
    variables = {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with clean_environment.empty_folder() as folder, mock.patch.dict(os.environ, variables):
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        paths = ["-c", str(settings), "--rootdir", folder, "--confcutdir", folder, folder]
        options = ["--noconftest", "--assert=plain", "--capture=no", "-p", "no:cacheprovider", "-p", "nbval"]
        config = pytest.Config.fromdictargs({}, [*options, *paths])
    return pytest.Session.from_config(config)


def describe_exit(code: int | None) -> str:
    """Describe the end of a process: its exit status, or the signal that ended it."""
    if code is None:
        return "no exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
