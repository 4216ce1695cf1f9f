"""The filter of system calls, in children: what it denies, and the honest call beside it."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
import socket
import struct
from collections.abc import Callable

import pytest

from segedu.grading.sandbox import restrictions, seccomp

pytestmark = pytest.mark.skipif(not (restrictions.LINUX and seccomp.available()), reason="no filter for this machine")


def _filtered(call: Callable[[], object], **rules) -> str:
    """What a call says in a child under the filter: "done", or the name of its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        restrictions._prctl(38, 1)
        seccomp.apply(**rules)
        try:
            call()
            said = "done"
        except OSError as error:
            said = errno.errorcode[error.errno]
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


OWN = {"network": True}
SHARED = {"network": False, "own_tree": False}


def _system(name: str, *arguments: int) -> Callable[[], None]:
    number = {**seccomp.DENIED, **seccomp.DENIED_IN_THE_TREE, **seccomp.SIGNALS}[name][
        seccomp._MACHINES[os.uname().machine][0]
    ]

    def call() -> None:
        if ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return call


@pytest.mark.parametrize("name", sorted(seccomp.DENIED))
def test_what_is_denied_is_denied_everywhere(name):
    if seccomp.DENIED[name][seccomp._MACHINES[os.uname().machine][0]] is None:
        pytest.skip("this machine has no such call")
    assert _filtered(_system(name, -1, 0, 0, 0), **OWN) == "EPERM"


@pytest.mark.parametrize("rules", [OWN, SHARED], ids=["own tree", "shared tree"])
def test_honest_calls_go_on(rules, tmp_path):
    def honest() -> None:
        (tmp_path / "a").write_text("a")
        shutil.copy2(tmp_path / "a", tmp_path / "b")
        first, second = socket.socketpair()
        first.send(b"x")
        assert second.recv(1) == b"x"
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), 0)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()  # zmq lists the interfaces
        socket.if_nameindex()

    assert _filtered(honest, **rules) == "done"


def test_sockets():
    def make(*words: int) -> Callable[[], object]:
        return lambda: socket.socket(*words)

    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    for rules, inet, letters in ((OWN, "done", "done"), (SHARED, "EACCES", "EACCES")):
        assert _filtered(make(socket.AF_INET, stream), **rules) == inet
        assert _filtered(make(socket.AF_UNIX, stream), **rules) == "done"
        assert _filtered(make(socket.AF_UNIX, datagram), **rules) == letters
        assert _filtered(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM), **rules) == letters
        for words in ((socket.AF_NETLINK, socket.SOCK_RAW, 9), (40, stream), (38, 5), (17, socket.SOCK_RAW),
                      (socket.AF_INET, stream, 132), (socket.AF_INET, socket.SOCK_SEQPACKET, 132)):  # fmt: skip
            assert _filtered(make(*words), **rules) == "EACCES", words  # audit, vsock, crypto, packets, SCTP


def test_below_level_three_nobody_is_called(tmp_path):
    path = str(tmp_path / "bus")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert _filtered(lambda: socket.socket(socket.AF_UNIX).connect(path), **OWN) == "done"
        assert _filtered(lambda: socket.socket(socket.AF_UNIX).connect(path), **SHARED) == "EPERM"


def test_below_level_three_names_of_files_give_no_hold(tmp_path):
    file = tmp_path / "theirs"
    file.write_text("text")
    file.chmod(0o600)
    times = file.stat().st_mtime_ns
    for call in (lambda: os.chmod(file, 0o777), lambda: os.utime(file, (0, 0)), lambda: os.chown(file, -1, -1),
                 lambda: os.fchmod(os.open(file, os.O_RDONLY), 0)):  # fmt: skip
        assert _filtered(call, **SHARED) == "done"  # said, not done
    assert _filtered(lambda: os.truncate(file, 0), **SHARED) == "EPERM"
    assert (file.stat().st_mode & 0o777, file.stat().st_mtime_ns, file.read_text()) == (0o600, times, "text")
    assert _filtered(lambda: os.chmod(file, 0o644), **OWN) == "done" and file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["inotify_add_watch", "setpriority"])
def test_below_level_three_nothing_is_shared(name):
    assert _filtered(_system(name, 0, 0, 0, 0), **SHARED) == "EPERM"


def test_where_nothing_else_is_denied_memory_without_a_holder_is(monkeypatch):
    monkeypatch.setattr(seccomp, "apply", seccomp.deny_stores)
    for name in seccomp.DENIED_STORES:
        assert _filtered(_system(name, 0, 1 << 20, 0o1600)) == "EPERM", name
    assert _filtered(lambda: socket.socket().close()) == "done"
    assert _filtered(lambda: os.close(os.openpty()[0])) == "done"


@pytest.mark.parametrize("rules", [OWN, SHARED], ids=["own tree", "shared tree"])
def test_buffers_of_sockets_keep_their_size(rules):
    def enlarge() -> None:
        ours, _ = socket.socketpair()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            before = ours.getsockopt(socket.SOL_SOCKET, option)
            ours.setsockopt(socket.SOL_SOCKET, option, 1 << 16)
            if ours.getsockopt(socket.SOL_SOCKET, option) != before:
                raise OSError(errno.E2BIG, "it was changed")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            raise OSError(errno.EINVAL, "an honest option was not set")

    assert _filtered(enlarge, **rules) == "done"


def test_limits_of_others_stay():
    parent = os.getpid()
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    for rules in (OWN, SHARED):
        assert _filtered(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, mine), **rules) == "EPERM"
        assert _filtered(lambda: resource.prlimit(0, resource.RLIMIT_NOFILE), **rules) == "done"
    assert _filtered(lambda: os.sched_setaffinity(parent, os.sched_getaffinity(0)), **SHARED) == "EPERM"
    assert _filtered(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)), **SHARED) == "done"


def test_signals_where_nothing_else_holds_them():
    """A user's other processes: everything of them ends by `kill -9 -1`."""
    parent, alone = os.getpid(), {**SHARED, "own_signals": False}
    for call in (lambda: os.kill(parent, 0), lambda: os.kill(-1, 0), lambda: os.killpg(os.getpgid(parent), 0),
                 lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0), _system("tkill", parent, 0),
                 _system("tgkill", parent, parent, 0), _system("rt_sigqueueinfo", parent, 10, 0)):  # fmt: skip
        assert _filtered(call, **alone) == "EPERM"
    assert _filtered(lambda: os.kill(os.getpid(), 0), **alone) == "done"
    assert _filtered(lambda: signal.raise_signal(signal.SIGCHLD), **alone) == "done"
    assert _filtered(lambda: os.kill(parent, 0), **SHARED) == "done"  # there Landlock or the user stands in the way


def test_nothing_is_typed_for_another_terminal():
    main, _ = os.openpty()
    for number in (0x5412, 0x541C, 0x5423):
        assert _filtered(lambda number=number: _ioctl(main, number), **OWN) == "EPERM"
    assert _filtered(lambda: os.get_terminal_size(main), **OWN) == "done"


def _ioctl(fd: int, number: int) -> None:
    import fcntl

    fcntl.ioctl(fd, number, struct.pack("8x"))
