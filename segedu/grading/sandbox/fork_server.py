"""The warm fork server and its children.

The server imports torch and IPython once and never runs a torch operation: children of a parent that ran one with two
threads hang. Each job is a fork, in three processes: the **supervisor** (outside, ends the sandbox when the grader
exits), the **init** (pid 1 of the sandbox: builds it, reaps children, reports) and the **kernel** (IPython). The kernel
is never pid 1, because pid 1 ignores signals that have no handler. The job is received after the fork, so that no
kernel finds another kernel's key in its memory.

`cold` runs one job in a process of its own, without the warm parent, for platforms that cannot fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from segedu.grading.sandbox import mounts, process_watch, restrictions, trials
from segedu.grading.sandbox.messages import receive, send

PRELOAD = (
    "numpy", "scipy.ndimage", "torch", "torch.nn.functional", "torch.utils.data", "torchvision.transforms.v2",
    "torchvision.tv_tensors", "PIL.Image", "matplotlib.pyplot", "matplotlib_inline.backend_inline",
    "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "IPython.core.completerlib",
    "IPython.core.magics", "IPython.core.profiledir", "IPython.extensions.storemagic", "comm", "uuid",
    "multiprocessing", "IPython.core.debugger", "IPython.core.logger", "IPython.core.oinspect", "faulthandler",
    "tornado.platform.asyncio", "pygments.formatters.terminal256", "zmq.utils.garbage", "ipywidgets",
)  # fmt: skip
# a coloured traceback with context takes 40 ms, a plain one 2 ms, and every canary raises one
QUIET = ("--HistoryManager.enabled=False", "--InteractiveShell.xmode=Plain", "--InteractiveShell.colors=nocolor")
PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}


def serve(control_fd: int) -> None:
    """Fork one supervisor for each connection that arrives, until the grader closes its end."""
    control = socket.socket(fileno=control_fd)
    preload(PRELOAD)
    hide_grader()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the server does not wait for supervisors
    send(control, {"ready": True, "threads": restrictions.thread_count()})
    while True:
        try:
            _, fds = receive(control, 1)
        except EOFError:
            os._exit(0)  # skips the libraries' exit handlers, which would only print errors
        if os.fork() == 0:
            with _never_returning():
                control.close()
                restrictions.die_with_parent()
                supervise(socket.socket(fileno=fds[0]), warm=True)
        os.close(fds[0])


def cold(connection_fd: int) -> None:
    """Run one job without a warm parent."""
    hide_grader()
    supervise(socket.socket(fileno=connection_fd))


def preload(names: tuple[str, ...]) -> None:
    """Import what every kernel needs, if it is installed."""
    sys.modules["debugpy"] = None  # importing it would take each kernel a third of a second
    with contextlib.suppress(ImportError):
        importlib.import_module("ipykernel.debugger")
    del sys.modules["debugpy"]
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def hide_grader() -> None:
    """Remove our package and the checkout from what a kernel can import."""
    for name in [name for name in sys.modules if name.split(".")[0] == "segedu"]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
    roots = {os.path.realpath(folder) for folder in (sys.prefix, sys.base_prefix, "/usr")}
    sys.path[:] = [
        entry for entry in sys.path if any(_inside(os.path.realpath(entry), root) for root in roots) and entry
    ]
    sys.path_importer_cache.clear()


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


@contextlib.contextmanager
def _never_returning():
    """End a forked child here, even after an exception, so that it runs none of the parent's clean-up."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(Exception):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def supervise(connection: socket.socket, warm: bool = False) -> None:
    """Run the supervisor: receive the job, create the namespaces, fork the init, and end it when the grader exits."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    restrictions.close_all_but(connection.fileno())
    job, _ = receive(connection)
    process_watch.pin_proc()
    try:
        restrictions.join_cgroups(job.get("cgroups", []))
        if job["level"] >= 3:
            restrictions.unshare(job["user_namespace"], job["uid"])
        else:
            if warm:  # only this process ends the others, so it must briefly outlive the fork server
                signal.signal(signal.SIGTERM, _exit_on_signal)
                restrictions.die_with_parent(signal.SIGTERM)
            restrictions.adopt_orphans()
    except OSError as error:
        send(connection, {"error": str(error)})
        return
    init = os.fork()
    if init == 0:
        with _never_returning():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            restrictions.die_with_parent()
            run_init(connection, job)
    watch = process_watch.Watch(init, job["watch"]) if job.get("watch") else None
    try:
        _wait_for_end(connection, init, time.monotonic() + job["lifetime"], watch)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGKILL)
        process_watch.end_children(job["uid"] if job["level"] < 3 else None, watch)


def _exit_on_signal(*_: object) -> None:
    raise SystemExit


def _wait_for_end(connection: socket.socket, init: int, deadline: float, watch: process_watch.Watch | None) -> None:
    """Return when the init has ended, the grader has closed its end, or the lifetime is over."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    max_wait = 0.1
    if hasattr(os, "pidfd_open"):
        poll.register(os.pidfd_open(init), select.POLLIN)
        max_wait = float("inf")
    while True:
        left = deadline - time.monotonic()
        wait = min(left, max_wait, watch.next_check - time.monotonic() if watch else left)
        if left <= 0 or poll.poll(max(0.0, wait) * 1000 + 1) or os.waitpid(init, os.WNOHANG)[0]:
            return
        if watch is not None and time.monotonic() >= watch.next_check:
            resource, message = watch.check()
            if resource:
                send(connection, {"exceeded": resource, "message": message})
                watch.kill()


def run_init(connection: socket.socket, job: dict) -> None:
    """Run the init: build the sandbox, fork the kernel, send descriptors of its folder, reap children, and report."""
    scratch = job["scratch"]
    try:
        if job["level"] >= 3:
            scratch = mounts.build_root(job)
        else:
            restrictions.adopt_orphans()
    except OSError as error:
        send(connection, {"error": str(error)})
        return
    started_read, started_write = os.pipe()
    kernel = os.fork()
    if kernel == 0:
        with _never_returning():
            connection.close()
            os.close(started_read)
            run_kernel(job, scratch, started_write)
    os.close(started_write)
    fds = [os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)]
    if hasattr(os, "pidfd_open"):
        fds.append(os.pidfd_open(kernel))
    restrictions.harden_init(job["level"])
    if os.read(started_read, 1):
        send(connection, {"ready": True, "pid": kernel}, fds)
    else:
        send(connection, {"error": f"the kernel did not start: {_stderr_tail(scratch)}"})
    for fd in fds:
        os.close(fd)
    send(connection, _reap(kernel))
    if job["level"] < 3:  # at level 3 all processes end with pid 1
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(kernel, signal.SIGKILL)
        process_watch.end_children(job["uid"])
    os._exit(0)


def _reap(kernel: int) -> dict:
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == kernel:
            cpu = usage.ru_utime + usage.ru_stime
            return {"exit": os.waitstatus_to_exitcode(status), "cpu": cpu, "max_rss": usage.ru_maxrss * 1024}


def _stderr_tail(scratch: str) -> str:
    with contextlib.suppress(OSError), open(f"{scratch}/run/stderr", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
        return file.read().decode(errors="replace")
    return "it left no message"


def run_kernel(job: dict, scratch: str, started_write: int) -> None:
    """Run the kernel: drop all privileges, then start IPython, whose threads begin only in `initialize`."""
    stage = mounts.STAGE if job["level"] >= 3 else job["stage"]
    os.setsid()
    os.umask(0o022)
    log = os.open(f"{scratch}/run/stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.dup2(log, 1)
    os.close(log)
    restrictions.confine(job, scratch)
    os.chdir(f"{scratch}/work")
    if job.get("probe"):
        os.listdir(stage)
        restrictions.close_names(job, scratch)
        trials.run(job["probe"], job, lambda: os.write(started_write, b"1"))
        os._exit(0)
    _set_environment(job, scratch, stage)
    file = Path(scratch, "run", "kernel.json")
    info = {"transport": "ipc", "ip": f"{scratch}/run/k", "key": job["key"], "signature_scheme": "hmac-sha256"}
    file.write_text(json.dumps({**info, **PORTS, "kernel_name": "segedu"}))
    sys.path[:] = ["", stage, *sys.path]
    sys.path_importer_cache.clear()
    _reseed(job["threads"])
    app = _kernel_app()
    app.initialize(["-f", str(file), *QUIET])
    restrictions.close_names(job, scratch, tuple(PORTS.values()))
    app.shell.ask_exit = lambda: None  # `exit()` in a cell would end every kernel that replays the cell
    os.write(started_write, b"1")
    os.close(started_write)
    app.start()


def _kernel_app() -> Any:
    """A kernel that drops no output message if the reader is slow: the message that ends a cell could be among them."""
    from ipykernel.kernelapp import IPKernelApp

    class LosslessKernelApp(IPKernelApp):
        def init_iopub(self, context: Any) -> None:
            context.sndhwm = 0  # waiting messages count as memory of the sandbox
            super().init_iopub(context)

    return LosslessKernelApp.instance()


def _set_environment(job: dict, scratch: str, stage: str) -> None:
    home = f"{scratch}/home"
    threads = str(job["threads"])
    os.environ.clear()
    os.environ.update(
        PATH=f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin", HOME=home, USER="student", LOGNAME="student",
        TMPDIR=f"{scratch}/tmp", LANG="C.UTF-8", TERM="dumb", MPLBACKEND="module://matplotlib_inline.backend_inline",
        MPLCONFIGDIR=f"{home}/.matplotlib", IPYTHONDIR=f"{home}/.ipython", JUPYTER_RUNTIME_DIR=f"{home}/.jupyter",
        PYTHONPATH=stage, PYTHONDONTWRITEBYTECODE="1", SEGEDU_WIDGETS="static", SEGEDU_WORK=f"{scratch}/work",
        OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads,
    )  # fmt: skip
    sys.dont_write_bytecode = True
    import tempfile

    tempfile.tempdir = None
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None:  # matplotlib chose its folders when the server imported it
        matplotlib.get_cachedir = matplotlib.get_configdir = lambda: f"{home}/.matplotlib"
    os.makedirs(f"{home}/.matplotlib", exist_ok=True)


def _reseed(threads: int) -> None:
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(int.from_bytes(os.urandom(4), "little"))
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(int.from_bytes(os.urandom(7), "little"))
        sys.modules["torch"].set_num_threads(threads)
