"""The filter of system calls, in children: what it denies, and the honest call beside it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from segedu.grading.sandbox import restrictions, seccomp

pytestmark = pytest.mark.skipif(not (restrictions.LINUX and seccomp.available()), reason="no filter for this machine")


def _filtered(call: Callable[[], object], **rules) -> str:
    """What a call says in a child under the filter: "done", or the name of its error."""
    return _in_a_child(call, lambda: seccomp.apply(**rules))


def _in_a_child(call: Callable[[], object], before: Callable[[], object] = int) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        restrictions._prctl(38, 1)
        before()
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
    number = {**seccomp.DENIED, **seccomp.DENIED_IN_SHARED_TREE, **seccomp.SIGNALS}[name][
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


def test_below_level_three_disk_is_used_by_writing_only(tmp_path):
    """A reservation would fill a disk between two looks of the watch. `posix_fallocate` writes where it is refused."""

    def reserve() -> None:
        with open(tmp_path / "file", "wb") as file:
            number = seccomp.UNSUPPORTED_IN_SHARED_TREE["fallocate"][seccomp._MACHINES[os.uname().machine][0]]
            if ctypes.CDLL(None, use_errno=True).syscall(number, file.fileno(), 0, 0, ctypes.c_long(1 << 20)) < 0:
                raise OSError(ctypes.get_errno(), "fallocate")

    def honest() -> None:
        with open(tmp_path / "honest", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 16)
        assert (tmp_path / "honest").stat().st_size == 1 << 16

    assert (_filtered(reserve, **OWN), _filtered(reserve, **SHARED)) == ("done", errno.errorcode[errno.EOPNOTSUPP])
    assert (_filtered(honest, **OWN), _filtered(honest, **SHARED)) == ("done", "done")


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
    fcntl.ioctl(fd, number, struct.pack("8x"))


@pytest.mark.parametrize("rules", [OWN, SHARED], ids=["own tree", "shared tree"])
def test_no_leases_on_files_that_others_open(rules, tmp_path):
    (tmp_path / "file").write_text("text")

    def open_and(command: int, value: int = 0, name: str = "file") -> Callable[[], object]:
        """In the child, whose end gives a lease back."""
        return lambda: fcntl.fcntl(os.open(tmp_path / name, os.O_RDONLY), command, value)

    for call in (open_and(fcntl.F_SETLEASE, fcntl.F_RDLCK), open_and(fcntl.F_NOTIFY, 2, ".")):
        assert _in_a_child(call) == "done" and _filtered(call, **rules) == "EPERM"
    for command in (fcntl.F_GETFL, fcntl.F_GETFD, fcntl.F_GETLEASE):
        assert _filtered(open_and(command), **rules) == "done"
    assert _filtered(lambda: fcntl.lockf(os.open(tmp_path / "file", os.O_RDWR), fcntl.LOCK_EX), **rules) == "done"


def test_below_level_three_no_process_owns_a_descriptor():
    """Its owner would get a signal of the sender's choice as soon as the descriptor can be read."""
    one, other = socket.socketpair()
    me = os.getpid()
    owners = [
        lambda: fcntl.fcntl(one, fcntl.F_SETOWN, me),
        lambda: fcntl.fcntl(one, 10, signal.SIGUSR1),
        lambda: fcntl.fcntl(one, 15, struct.pack("ii", 1, me)),
        lambda: fcntl.ioctl(one, 0x8901, struct.pack("i", me)),
        lambda: fcntl.ioctl(one, 0x8902, struct.pack("i", me)),
    ]
    for call in owners:
        assert _filtered(call, **SHARED) == "EPERM" and _filtered(call, **OWN) == "done"
    assert _filtered(lambda: fcntl.fcntl(one, fcntl.F_SETFL, os.O_NONBLOCK), **SHARED) == "done"
    other.close()


def test_below_level_three_file_systems_answer_no_requests(tmp_path):
    """They ask whose a file is; how it was opened does not matter to them."""
    (tmp_path / "file").write_text("text")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    flags, attributes = 0x40086602, 0x401C5820
    for number in (flags, attributes, 0x40087602, 0x40806685, 0x800C6613, 0x50009401):
        assert _filtered(lambda n=number: fcntl.ioctl(fd, n, bytes(128)), **SHARED) == "ENOTTY"
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    assert _filtered(lambda: fcntl.ioctl(reading, 0x541B, bytes(4)), **SHARED) == "done"  # how much there is to read
    assert _filtered(lambda: os.set_blocking(reading, False), **SHARED) == "done"


def test_below_level_three_no_descriptor_is_sent():
    """Nobody could count the files that are on their way."""
    one, other = socket.socketpair()
    file = os.open(os.__file__, os.O_RDONLY)
    assert _filtered(lambda: socket.send_fds(one, [b"x"], [file]), **SHARED) == "EPERM"
    assert _filtered(lambda: socket.send_fds(one, [b"x"], [file]), **OWN) == "done"
    assert _filtered(lambda: other.sendall(b"abc"), **SHARED) == "done"


def test_a_thread_shares_the_descriptors_of_its_process():
    """What only a thread has open is not among the descriptors of its process."""
    files, thread = 0x400, 0x100 | 0x800 | 0x10000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
    number = seccomp._CLONE[seccomp._MACHINES[os.uname().machine][0]]

    def clone(flags: int) -> None:
        if ctypes.CDLL(None, use_errno=True).syscall(number, flags, 0, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "clone")

    def start() -> None:
        one = threading.Thread(target=int)
        one.start()
        one.join()

    for rules in (OWN, SHARED):
        assert _filtered(lambda: clone(thread), **rules) == "EPERM"
        assert _filtered(lambda: clone(thread & ~0x100 | files), **rules) == "EINVAL"  # the kernel's own answer
        assert _filtered(start, **rules) == "done"


def test_names_of_sockets_end_for_all_threads():
    """The kernel's own are bound by then, also by a thread; a cell gets none."""
    begin, said = threading.Event(), []

    def bind(name: str) -> None:
        one = socket.socket(socket.AF_UNIX)
        one.bind(f"\0segedu-test-{os.getpid()}-{name}")
        one.listen()

    def later() -> None:
        begin.wait()
        try:
            bind("thread")
        except OSError as error:
            said.append(error.errno)

    def call() -> None:
        thread = threading.Thread(target=later)
        thread.start()
        bind("before")
        seccomp.deny_names()
        begin.set()
        thread.join()
        if said != [errno.EPERM]:
            raise OSError(errno.EINVAL, "the thread got a name")
        socket.socketpair()
        bind("after")

    assert _filtered(call, **SHARED) == "EPERM"


def test_below_level_three_a_process_stays_open_to_the_watch():
    def dumpable(value: int) -> Callable[[], None]:
        return lambda: restrictions._prctl(4, value)

    assert _filtered(dumpable(0), **OWN) == "done" and _filtered(dumpable(0), **SHARED) == "EPERM"
    assert _filtered(dumpable(1), **SHARED) == "done"
    assert _filtered(lambda: restrictions._prctl(38, 1), **SHARED) == "done"
