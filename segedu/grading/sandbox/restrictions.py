"""Restrict one Jupyter kernel: namespaces, control groups, user, capabilities, resource limits, orphaned processes.

The functions act on the calling process. They are called before it has threads, except for `close_names`, because
capabilities, Landlock and seccomp apply to single threads. `isolation_levels` describes the levels 1 to 3. Only the
standard library and this package are used, because processes that run this module must not import the course.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator

from segedu.grading.sandbox import landlock, seccomp

LINUX = sys.platform == "linux"
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 2, 4, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/fonts", "/sys/devices/system/cpu")

_BOUND_SECONDS = 30.0

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class SandboxError(RuntimeError):
    """The sandbox could not be built, or the kernel in it did not start."""


def libc() -> ctypes.CDLL:
    """Load the C library so that `ctypes.get_errno` returns the error of its last call."""
    return ctypes.CDLL(None, use_errno=True)


def check_call(result: int, what: str) -> int:
    """Return the result of a call of the C library, or raise an OSError that begins with `what` if the call failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {errno.errorcode.get(code, code)}")
    return result


def thread_count() -> int:
    """Number of this process's threads according to the operating system, including torch's."""
    return len(os.listdir("/proc/self/task")) if LINUX else 1


def _prctl(option: int, *values: int) -> None:
    if LINUX:
        padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
        check_call(libc().prctl(option, *padded), f"prctl {option}")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the operating system send this process a signal when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


@contextlib.contextmanager
def reading_as_user(user: int | None) -> Iterator[None]:
    """Open files with the permissions of a user in the `with` block; None changes nothing.

    In most containers root may not trace processes, so only a process's own user can read all of its files in /proc.
    Signals are still sent as root. The change of user clears the signal that `die_with_parent` requested, so this
    function requests the signal again at the end.
    """
    if user is None:
        yield
        return
    parent, number = os.getppid(), ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    libc().setfsgid(user)
    libc().setfsuid(user)
    try:
        yield
    finally:
        libc().setfsuid(0)
        libc().setfsgid(0)
        _prctl(_PR_SET_PDEATHSIG, number.value)
        if number.value and os.getppid() != parent:
            os.kill(os.getpid(), number.value)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent has ended (a child subreaper)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_all_but(*keep: int) -> None:
    """Close all file descriptors except 0, 1, 2 and the given ones."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20))


def join_cgroups(folders: list[str]) -> None:
    """Move this process into control groups that were created for it."""
    for folder in folders:
        with open(f"{folder}/cgroup.procs", "w") as file:
            file.write("0")


def unshare(user: bool, own: int | None = None) -> None:
    """Create namespaces for mounts, processes, network, IPC, host name and control groups.

    Args:
        user: also create a user namespace. An unprivileged process needs one to create the other namespaces.
        own: id of the user that runs the kernel. The user namespace then contains this user, with the same id inside
            and outside, and root. Root builds the sandbox, and may read an interpreter that lies in a private folder.
            With None, the namespace contains only the current user, under the id 65534.
    """
    flags = _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP | (_NEWUSER if user else 0)
    if not user:
        check_call(libc().unshare(flags), "unshare")
    elif own is None:
        uid, gid = os.geteuid(), os.getegid()
        check_call(libc().unshare(flags), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    else:
        with _mapped_from_outside(os.getpid(), f"0 0 1\n{own} {own} 1"):
            check_call(libc().unshare(flags), "unshare")


@contextlib.contextmanager
def _mapped_from_outside(pid: int, users: str) -> Iterator[None]:
    """Write the user map of the namespace that `pid` creates in the `with` block, from a process outside of it.

    Only a process with CAP_SETUID in the outer namespace may map several users. No process in the new namespace has it.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            if theirs.recv(1):
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{pid}/{name}", "w") as file:
                        file.write(users)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    theirs.close()
    try:
        with ours:
            yield
            ours.send(b"1")
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, f"uid_map: {errno.errorcode.get(code, code)}")


def harden_init(level: int) -> None:
    """Deny the init's children access to its memory and file descriptors; at level 3, also drop its capabilities."""
    if level >= 3:  # below level 3 the init needs capabilities to kill another user's processes
        drop_capabilities()
    _prctl(_PR_SET_DUMPABLE, 0)
    die_with_parent()


def drop_capabilities() -> None:
    """Clear the capability sets of the calling thread."""
    if LINUX:
        header = struct.pack("Ii", 0x20080522, 0)
        with contextlib.suppress(OSError):
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        check_call(libc().capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))), "capset")


def confine(job: dict, scratch: str) -> None:
    """Restrict the process that becomes the kernel, irreversibly: limits, user, capabilities, Landlock, seccomp."""
    set_limits(job)
    if job["uid"] is not None:
        os.setgroups([])
        for capability in range(64):
            try:
                _prctl(_PR_CAPBSET_DROP, capability)
            except OSError:
                break
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    if job["level"] >= 2:
        drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 1)  # after a change of user, a process cannot read its own /proc/self
    die_with_parent()
    if job["landlock"]:
        listed = [os.path.dirname(path) for path in job["masked"]]
        landlock.restrict(readable(job), listed, [scratch, *(f"/dev/{name}" for name in DEVICES)])
    if job["seccomp"]:
        own_tree = job["level"] >= 3
        own_signals = own_tree or job["uid"] is not None or (job["landlock"] and landlock.abi() >= landlock.SIGNALS)
        seccomp.apply(network=own_tree, own_tree=own_tree, own_signals=own_signals)
    elif LINUX and seccomp.available():
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        seccomp.deny_stores()


def close_names(job: dict, scratch: str, sockets: tuple[int, ...] = ()) -> None:
    """Forbid the calling process to bind sockets, if the sandbox shares abstract socket names with the host.

    First wait until the kernel's own sockets, whose numbers are given, are bound in `scratch`. One of them is bound by
    a thread, so it may not exist yet.
    """
    if job["level"] < 3 and job["seccomp"]:
        deadline = time.monotonic() + _BOUND_SECONDS
        while not all(os.path.exists(f"{scratch}/run/k-{number}") for number in sockets):
            if time.monotonic() > deadline:
                raise SandboxError("the kernel has not bound its sockets")
            time.sleep(0.001)
        seccomp.deny_names()


def readable(job: dict) -> list[str]:
    """Paths that a kernel without its own file system may read; copies of the course are not among them."""
    folders = [folder for folder in SYSTEM_FOLDERS if not os.path.islink(folder)]
    folders += [*SYSTEM_FILES, "/proc", *job["prefixes"]]
    return [job["stage"], *(part for folder in folders for part in _without_masked(folder, job["masked"]))]


def _without_masked(folder: str, masked: list[str]) -> list[str]:
    """Paths that together contain everything in a folder except the masked paths."""
    if folder in masked:
        return []
    if not any(path.startswith(folder.rstrip("/") + "/") for path in masked):
        return [folder]
    parts = [os.path.join(folder, name) for name in os.listdir(folder)]
    # symbolic links, such as a venv's lib64, are omitted: Landlock would follow them, even to a masked path
    return [kept for part in parts if not os.path.islink(part) for kept in _without_masked(part, masked)]


def set_limits(job: dict) -> None:
    """Set resource limits. The memory limit is in addition to the memory that the process already uses."""
    limits = {
        "CPU": job["cpu_seconds"],
        "CORE": 0,
        "FSIZE": job["disk_bytes"],
        "NOFILE": 1024,
        "MEMLOCK": 64 << 10,
        "MSGQUEUE": 0,
    }
    if LINUX:  # elsewhere NPROC counts all processes of the user and DATA has no effect: see `process_watch`
        has_own_user = job["uid"] is not None or job["level"] >= 3
        limits["NPROC"] = job["processes"] + (0 if has_own_user else _count_user_threads())
        limits["DATA"] = job["memory_bytes"] + _data_bytes()
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS does not support every limit
            resource.setrlimit(kind, (value, value))


def _data_bytes() -> int:
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmData")).split()[1]) << 10
    return 1 << 30


def _count_user_threads() -> int:
    """Number of the user's threads, which count towards a kernel's process limit unless the kernel has its own user."""
    count = 0
    for pid in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if pid.isdigit() and os.stat(f"/proc/{pid}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count
