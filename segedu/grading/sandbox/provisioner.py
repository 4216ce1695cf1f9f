"""Start sandboxed kernels for jupyter_client: the fork server's client and a kernel provisioner.

`KernelManager` and nbval are used unchanged: they find a kernel spec that names this provisioner, which is registered
in the running process. Nothing has to be installed, and no connection file is written to the user's runtime folder.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning import KernelProvisionerBase, KernelProvisionerFactory

from segedu.grading.sandbox import clean_environment
from segedu.grading.sandbox.cell_clock import process_of, waited_for_processor
from segedu.grading.sandbox.fork_server import PORTS
from segedu.grading.sandbox.messages import receive, send
from segedu.grading.sandbox.mounts import SCRATCH
from segedu.grading.sandbox.restrictions import LINUX, ONE_THREAD, SandboxError
from segedu.grading.sandbox.sandbox_files import SandboxFiles, subfolder

NAME = "segedu-sandbox"
START_SECONDS, END_SECONDS = 60.0, 10.0
_NO_REPORT = {"exit": None, "cpu": 0.0, "max_rss": 0}
_ROOT = str(Path(__file__).resolve().parents[3])
_CODE = "import sys; sys.path.insert(0, {root!r}); "
_CODE += "from segedu.grading.sandbox import fork_server; fork_server.{entry}({fd})"


class ForkServer:
    """The grader's side of the warm parent; without one (`cold=True`), each job gets a process of its own.

    Threads may share a server, because a warm parent holds half a gigabyte and takes seconds to start.
    """

    _shared: ForkServer | None = None
    _sharing = threading.Lock()

    def __init__(self, cold: bool = False) -> None:
        self.cold = cold
        self.users = 1
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.control: socket.socket | None = None
        self.folder = contextlib.ExitStack()  # the warm parent's working directory
        if not cold:
            self._start()

    @classmethod
    def share(cls) -> ForkServer:
        """Return this process's warm parent; each `share` needs its own `close`."""
        with cls._sharing:
            if cls._shared is None:
                cls._shared = cls()
            else:
                cls._shared.users += 1
            return cls._shared

    def connect(self) -> socket.socket:
        """Return a new connection to a supervisor that waits for its job."""
        ours, theirs = socket.socketpair()
        with theirs:
            if self.cold:
                _start_process("cold", theirs.fileno())
            else:
                with self.lock:
                    self._restart_if_dead()
                    send(self.control, {}, [theirs.fileno()])
        return ours

    def close(self) -> None:
        """End the warm parent once its last user has closed it; its supervisors end with it."""
        with ForkServer._sharing:
            self.users -= 1
            if self.users > 0:
                return
            if ForkServer._shared is self:
                ForkServer._shared = None
        self._end()

    def _end(self) -> None:
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self.folder.close()

    def _start(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            folder = self.folder.enter_context(clean_environment.empty_folder())
            self.process = _start_process("serve", theirs.fileno(), folder)
        self.control.settimeout(300)
        try:
            greeting, _ = receive(self.control)
        except (EOFError, TimeoutError) as error:
            self._end()
            raise SandboxError(f"the fork server did not start: {error}") from None
        if greeting["threads"] != 1:  # a child forked from a multi-threaded parent may hang: better slow than stuck
            self._end()
            self.cold = True

    def _restart_if_dead(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self._end()
            self._start()


def _start_process(entry: str, fd: int, folder: str = "") -> subprocess.Popen:
    """Start a fork server, or with no folder a single kernel's process.

    A server imports libraries that read settings and write caches, so it gets an empty folder, which is removed
    afterwards. A single kernel's process imports nothing before it has the environment of a kernel.
    """
    code = _CODE.format(root=_ROOT, entry=entry, fd=fd)
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", **ONE_THREAD}
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    environment |= {"HOME": folder, "TMPDIR": folder} if folder else {"HOME": "/nonexistent"}
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", code], pass_fds=[fd], env=environment, stdin=subprocess.DEVNULL,
        start_new_session=True, cwd=folder or "/",
    )  # fmt: skip


class RunningSandbox:
    """The grader's handle on one running sandbox: its folder, its signals, its report."""

    def __init__(self, connection: socket.socket, job: dict) -> None:
        self.connection = connection
        self.pidfd = -1
        self.folder = -1
        self.report: dict | None = None
        self.limit_exceeded: tuple[str, str] | None = None
        try:
            connection.settimeout(START_SECONDS)
            send(connection, job)
            greeting, fds = receive(connection, 2)
        except (EOFError, OSError) as error:
            connection.close()
            raise SandboxError(f"the sandbox did not start: {error}") from None
        if "error" in greeting:
            connection.close()
            raise SandboxError(greeting["error"])
        self.pid = greeting["pid"]
        self.folder, self.pidfd = fds[0], (fds[1] if len(fds) > 1 else -1)
        self.files: SandboxFiles = subfolder(self.folder, "work")
        self.scratch = job["scratch"] or SCRATCH
        self.work = f"{self.scratch}/work"

    @property
    def connection_info(self) -> dict:
        """Addresses of the sockets; through the descriptor they are reachable from outside the sandbox's mounts."""
        ports = {name: number for name, number in PORTS.items()}
        return {"transport": "ipc", "ip": f"{self.path}/run/k", "signature_scheme": "hmac-sha256", **ports}

    @property
    def path(self) -> str:
        """The scratch folder as a path of the grader's process, for sockets only."""
        return f"/proc/self/fd/{self.folder}" if LINUX else self.scratch

    def alive(self) -> bool:
        """Whether the sandbox has not reported its end and its supervisor still exists."""
        if self.report is None and select.select([self.connection], [], [], 0)[0]:
            self._read_report()
        return self.report is None

    def waited(self) -> float:
        """Seconds for which the kernel was ready to run but other work had the processor."""
        return waited_for_processor(process_of(self.pidfd) if self.pidfd >= 0 else self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the kernel's process, if it still exists."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the kernel and everything else in the sandbox; wait for the report and for all processes to end."""
        if self.report is None:
            self.signal(signal.SIGKILL)
            if select.select([self.connection], [], [], 5)[0]:
                self._read_report()
            else:
                self.report = dict(_NO_REPORT)
        if self.connection.fileno() >= 0:
            self._wait_for_the_end()
            self.connection.close()

    def _wait_for_the_end(self) -> None:
        """Wait until the connection closes, with the last process that could still write into the sandbox's folder."""
        self.connection.settimeout(END_SECONDS)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)  # the supervisor then ends all remaining processes
            while self.connection.recv(4096):
                pass

    def close(self) -> None:
        """Kill the sandbox and close the descriptors; its files are lost."""
        self.kill()
        if self.folder >= 0:
            self.files.close()
            for fd in (self.folder, self.pidfd):
                if fd >= 0:
                    os.close(fd)
            self.folder = self.pidfd = -1

    def _read_report(self) -> None:
        """Read the init's report, and before it the supervisor's reason for ending the kernel, if any."""
        try:
            while self.report is None:
                message, _ = receive(self.connection)
                if "exceeded" in message:
                    self.limit_exceeded = (message["exceeded"], message["message"])
                else:
                    self.report = message
        except (EOFError, OSError):
            self.report = dict(_NO_REPORT)


class SandboxProvisioner(KernelProvisionerBase):
    """Starts and stops kernels for `KernelManager`, through a `RunningSandbox`."""

    sandbox: RunningSandbox | None = None

    @property
    def has_process(self) -> bool:
        return self.sandbox is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        kwargs = await super().pre_launch(env={}, **kwargs)
        return {**kwargs, "cmd": []}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict:
        key = self.parent.session.key
        self.sandbox = kwargs["start"](key.decode())
        return {**self.sandbox.connection_info, "key": key, "kernel_name": NAME}

    async def poll(self) -> int | None:
        if self.sandbox is None:
            return 0
        if self.sandbox.alive():
            return None
        code = self.sandbox.report["exit"]
        return code if code is not None else -9

    async def wait(self) -> int | None:
        if self.sandbox is not None and self.sandbox.report is None:
            self.sandbox.kill()
        code, self.sandbox = await self.poll(), None
        return code

    async def send_signal(self, signum: int) -> None:
        if self.sandbox is not None:
            self.sandbox.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        if self.sandbox is not None:
            self.sandbox.kill()

    async def terminate(self, restart: bool = False) -> None:
        await self.kill()

    async def cleanup(self, restart: bool = False) -> None:
        self.sandbox = None


class SandboxSpecs(KernelSpecManager):
    """Offers only our kernel spec, whatever a notebook names."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        factory = KernelProvisionerFactory.instance()
        if NAME not in factory.provisioners:
            value = f"{__name__}:{SandboxProvisioner.__name__}"
            entry = EntryPoint(name=NAME, value=value, group=KernelProvisionerFactory.GROUP_NAME)
            factory.provisioners[NAME] = entry
        metadata = {"kernel_provisioner": {"provisioner_name": NAME, "config": {}}}
        return KernelSpec(argv=["sandboxed"], display_name=NAME, language="python", metadata=metadata)
