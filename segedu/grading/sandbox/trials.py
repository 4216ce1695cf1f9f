"""Escape attempts, made from where a cell runs: after a kernel has dropped its privileges, before any student's code.

Each trial makes the attempt itself and reports the outcome: "refused: EPERM", or what it could do. A trial must not
change the machine even if nothing prevents it, because it may run as root without a sandbox: files are opened and not
written, calls that change something run in a child that ends at once, and calls with a lasting effect are not made.
Only the standard library is used, because this runs in processes that must not import the course.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

SETTINGS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/devices/system/cpu/cpu0/uevent",
)  # fmt: skip
_NEW_USER, _TRACE_ME = 0x10000000, 0
_SHMGET = {"x86_64": 29, "aarch64": 194}
_IPC_INFO = 3
_MANY = 200  # processes or terminals that no notebook needs
Outcome = tuple[bool, str]


def run(probe: dict, limits: dict, report_start: Callable[[], object]) -> None:
    """Run the trials of a throw-away kernel in its work folder and write their outcomes to `found.json`.

    Args:
        probe: `name` of a trial that exhausts a resource, or "" for the access trials, and their targets.
        limits: the job's, in bytes and counts.
        report_start: call it once the kernel counts as started.
    """
    name = probe["name"]
    if name:
        report_start()
        outcomes = {name: EXHAUSTION_TRIALS[name](limits)}
    else:
        outcomes = {name: trial(probe) for name, trial in TRIALS.items()}
    Path("found.json").write_text(json.dumps(outcomes))
    if not name:
        report_start()


def _all_refused(*calls: tuple[str, Callable[[], object]]) -> Outcome:
    """Whether every call is refused, with the error names; otherwise the calls that succeeded."""
    codes, done = [], []
    for name, call in calls:
        try:
            call()
            done.append(name)
        except OSError as error:
            codes.append(
                errno.errorcode.get(error.errno, type(error).__name__) if error.errno else type(error).__name__
            )
    return (False, f"possible: {', '.join(done)}") if done else (True, "refused: " + ", ".join(sorted(set(codes))))


def _system(name: str, *arguments: object) -> tuple[str, Callable[[], None]]:
    def call() -> None:
        if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return name, call


def _open(path: str, flags: int) -> tuple[str, Callable[[], None]]:
    return path, lambda: os.close(os.open(path, flags))


def _rights(probe: dict) -> Outcome:
    """Try calls that only root may make, or that make the caller root in a namespace, each in a child process.

    A process that still has capabilities does not make them; its capabilities are the outcome.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    capabilities = next((line.split()[1] for line in lines if line.startswith("CapEff")), "unknown")
    if capabilities.strip("0"):
        return False, f"possible: it has the capabilities {capabilities}"
    calls = [_system("unshare", _NEW_USER), _system("chroot", b"."), _system("ptrace", _TRACE_ME, 0, 0, 0)]
    return _all_refused(*((name, lambda call=call: _in_a_child(call)) for name, call in calls))


def _in_a_child(call: Callable[[], None]) -> None:
    """Make a call in a child process, which ends together with what it has changed."""
    child = os.fork()
    if child == 0:
        try:
            call()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "refused in a child")


def _settings(probe: dict) -> Outcome:
    return _all_refused(*(_open(path, os.O_WRONLY) for path in SETTINGS))


def _network(probe: dict) -> Outcome:
    def reach(family: int, address: object) -> Callable[[], None]:
        def call() -> None:
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(2)
                client.connect(address)

        return call

    return _all_refused(
        ("a port of this machine", reach(socket.AF_INET, ("127.0.0.1", probe["port"]))),
        ("an abstract socket", reach(socket.AF_UNIX, "\0" + probe["abstract"])),
        ("a socket in a folder", reach(socket.AF_UNIX, probe["socket"])),
        ("a name among those of the machine's sockets", lambda: _take_name(probe["abstract"])),
    )


def _take_name(name: str) -> None:
    """Bind an abstract name. If names are shared with the host, the grader holds it: only other errors are refusals."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(f"\0{name}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            raise FileNotFoundError(errno.ENOENT, "it is free here: the machine's names are not")


def _answers(probe: dict) -> Outcome:
    return _all_refused(*(_open(path, os.O_RDONLY) for path in [*probe["answers"], probe["secret"]]))


def _files(probe: dict) -> Outcome:
    paths = [probe["secret"], os.__file__, ctypes.__file__, "/etc/passwd"]
    return _all_refused(
        *(_open(path, os.O_WRONLY | os.O_APPEND) for path in paths), ("a lease on a file", lambda: _lease(os.__file__))
    )


def _lease(path: str) -> None:
    """Take a lease, which would block other programs that open the file for writing, and release it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_SETLEASE", -1), fcntl.F_RDLCK)
    finally:
        os.close(fd)


def _processes(probe: dict) -> Outcome:
    pid = probe["pid"]
    return _all_refused(
        ("a signal to the grader", lambda: os.kill(pid, 0)), _open(f"/proc/{pid}/environ", os.O_RDONLY),
        _open(f"/proc/{pid}/mem", os.O_RDONLY), ("a socket whose signals go to the grader", lambda: _own_socket(pid)),
    )  # fmt: skip


def _own_socket(pid: int) -> None:
    """Direct a socket's signals to a process; no signal is sent, because the socket is closed at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        fcntl.fcntl(client, fcntl.F_SETOWN, pid)


def _stores(probe: dict) -> Outcome:
    number = _SHMGET.get(os.uname().machine)
    return _all_refused(_system("syscall", number, 0, 1 << 20, 0o1600)) if number else (False, "not known here")


def _queues(probe: dict) -> Outcome:
    """Query information without an object; where this succeeds, other programs' objects can be read and written too."""
    buffer = ctypes.create_string_buffer(1024)
    return _all_refused(
        _system("msgctl", 0, _IPC_INFO, buffer),
        _system("semctl", 0, 0, _IPC_INFO, buffer),
        _system("shmctl", 0, _IPC_INFO, buffer),
    )


TRIALS: dict[str, Callable[[dict], Outcome]] = {
    "rights": _rights, "settings": _settings, "network": _network, "answers": _answers, "files": _files,
    "processes": _processes, "stores": _stores, "queues": _queues,
}  # fmt: skip


def _memory(limits: dict) -> Outcome:
    size = limits["memory_bytes"] + (64 << 20)
    try:
        bytearray(size)
    except MemoryError:
        return True, f"{size >> 20} MiB refused, {limits['memory_bytes'] >> 20} MiB are allowed"
    return False, f"possible: {size >> 20} MiB"


def _children(limits: dict) -> Outcome:
    """Let each child stay within its limit while their sum exceeds the sandbox's, which is enforced from outside."""
    count, size = 10, limits["memory_bytes"] * 3 // 4
    for _ in range(count):
        if os.fork() == 0:
            data = b"x" * size
            time.sleep(4)
            os._exit(len(data) & 0)
    statuses = [os.wait()[1] for _ in range(count)]
    killed = sum(status != 0 for status in statuses)
    return killed > 0, f"{killed} of {count} children were killed, with {size >> 20} MiB each"


def _forks(limits: dict) -> Outcome:
    started = 0
    with contextlib.suppress(OSError):
        while started < _MANY:
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
            started += 1
    time.sleep(1)  # gives the watch time to check if nothing else refuses the forks
    return started < _MANY, f"refused after {started}" if started < _MANY else f"possible: {started}"


def _disk(limits: dict) -> Outcome:
    written, names = 0, [f"big{number}" for number in range(4)]
    try:
        for name in names:
            with open(name, "wb", buffering=0) as file:
                for _ in range(limits["disk_bytes"] >> 20):
                    written += file.write(bytes(1 << 20))
        time.sleep(2)
    except OSError as error:
        return True, f"refused after {written >> 20} MiB: {errno.errorcode[error.errno]}"
    finally:  # the outcome file needs space too
        for name in names:
            Path(name).unlink(missing_ok=True)
    return False, f"possible: {written >> 20} MiB"


def _terminals(limits: dict) -> Outcome:
    terminals = []
    try:
        while len(terminals) < _MANY:
            terminals.append(os.openpty())
        time.sleep(2)
    except OSError as error:
        return True, f"refused after {len(terminals)}: {errno.errorcode[error.errno]}"
    return False, f"possible: {len(terminals)}"


EXHAUSTION_TRIALS: dict[str, Callable[[dict], Outcome]] = {
    "memory": _memory, "memory of children": _children, "forks": _forks, "disk": _disk, "terminals": _terminals,
}  # fmt: skip
