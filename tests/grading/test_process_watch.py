"""What the supervisor sees of a tree of processes and of a folder, and how it ends what is below it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from segedu.grading.sandbox import process_watch, restrictions
from segedu.grading.sandbox.folder_usage import folder_usage
from segedu.grading.sandbox.process_watch import Watch

ENDLESS = "import os, sys, time\nif os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(99)\n    time.sleep(99)\nprint(1, flush=True)\ntime.sleep(99)"


@pytest.fixture
def family():
    """A process, its child and its grandchild."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        until = time.monotonic() + 10
        while len(process_watch.descendants(process.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        yield process
        for pid in (*process_watch.descendants(process.pid), process.pid):
            process_watch._kill(pid)


linux = pytest.mark.skipif(not restrictions.LINUX, reason="asks /proc")


@linux
def test_the_tree_is_found_with_and_without_the_list_of_children(family, monkeypatch):
    found = process_watch.descendants(family.pid)
    assert len(found) == 2 and family.pid not in found
    monkeypatch.setattr(process_watch, "_children", process_watch._children_by_parent)
    assert sorted(process_watch.descendants(family.pid)) == sorted(found)
    assert process_watch.descendants(found[-1]) == []


@linux
@pytest.mark.parametrize("through", ["/proc", "psutil"])
def test_processes_and_memory_are_bounded(family, through, monkeypatch):
    if through == "psutil":
        monkeypatch.setattr(process_watch, "LINUX", False)
    assert Watch(family.pid, {"processes": 2, "memory": 1 << 30}).check() == ("", "")
    assert Watch(family.pid, {"processes": 1}).check()[0] == "processes"
    small = Watch(family.pid, {"memory": 1 << 12})
    small.baseline = 0
    if through == "/proc":
        assert small.check() == ("memory", "the memory limit was reached")
    small.kill()
    until = time.monotonic() + 5
    while time.monotonic() < until and any(
        process_watch._resident(pid) for pid in process_watch.descendants(family.pid)
    ):
        time.sleep(0.02)
    assert family.poll() is None and not any(
        process_watch._resident(pid) for pid in process_watch.descendants(family.pid)
    )


def test_a_folder_is_measured(tmp_path):
    empty = folder_usage(str(tmp_path), 100)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(1 << 20))
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / "sparse").open("wb").truncate(1 << 40)
    size, count = folder_usage(str(tmp_path), 100)
    assert empty == (0, 0) and count == 5 and 1 << 20 <= size < 2 << 20
    assert folder_usage(str(tmp_path), 3)[1] == 4  # it stops counting
    assert folder_usage(str(tmp_path / "missing"), 3) == (0, 0)


def test_a_folder_that_cannot_be_measured_is_too_much(tmp_path, monkeypatch):
    deep = tmp_path
    for _ in range(70):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert folder_usage(str(tmp_path), 1000)[1] == 1001
    opened = os.open

    def refusing(path, flags, mode=0o777, *, dir_fd=None):
        if path == "closed":
            raise PermissionError(13, "closed")
        return opened(path, flags, mode, dir_fd=dir_fd)

    other = tmp_path / "other"
    (other / "closed").mkdir(parents=True)
    assert folder_usage(str(other), 1000)[1] == 1
    monkeypatch.setattr(process_watch.os, "open", refusing)  # root can read everything
    assert folder_usage(str(other), 1000)[1] == 1001


@linux
def test_files_without_a_name_count(tmp_path):
    with open(tmp_path / "gone", "wb") as file:
        file.write(bytes(3 << 20))
        file.flush()
        inode = os.fstat(file.fileno()).st_ino
        assert inode not in process_watch._count_open_files([os.getpid()])[0]
        os.remove(tmp_path / "gone")
        assert process_watch._count_open_files([os.getpid()])[0][inode] >= 3 << 20


MAPPED = """
import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.write(fd, bytes(3 << 20))
libc.mmap(None, 4096, 1, 1, fd, 0)
os.remove("mapped")
if sys.argv[1] == "closed":
    os.close(fd)
shared = mmap.mmap(-1, 1 << 20)
print(1, flush=True)
time.sleep(99)
"""


@linux
@pytest.mark.parametrize("left, expected", [("closed", 1 << 20), ("open", 0)])
def test_files_without_a_name_that_are_mapped_count(tmp_path, left, expected):
    """A library's memory that belongs to no file of the folder does not."""
    mapping = [sys.executable, "-c", MAPPED, left]
    init = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *mapping]
    with subprocess.Popen(init, stdout=subprocess.PIPE, cwd=tmp_path) as process:  # a browser of other tests has files
        assert process.stdout.readline() == b"1\n"
        (pid,) = process_watch.descendants(process.pid)
        opened = process_watch._count_open_files([pid])[0]
        assert sum(opened.values()) >= (3 << 20 if left == "open" else 0)
        assert process_watch._mapped_bytes([pid], str(tmp_path), opened, 1 << 20) == expected
        assert process_watch._mapped_bytes([pid], str(tmp_path / "other"), opened, 1 << 20) == 0
        bounds = {"folder": str(tmp_path), "disk": 2 << 20, "inodes": 9}
        assert Watch(process.pid, bounds).check()[0] == ("disk" if left == "open" else "")
        assert Watch(process.pid, bounds | {"disk": 1 << 10}).check()[0] == "disk"
        os.kill(pid, signal.SIGKILL)


HEADLESS = """
import ctypes, os, threading, time
held = b"x" * (200 << 20)
file = open("gone", "wb", buffering=0)
file.write(bytes(3 << 20))
os.remove("gone")
def go_on():
    time.sleep(0.2)
    print(1, flush=True)
    time.sleep(99)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({exit}, 0)
"""


@linux
def test_a_process_whose_first_thread_has_ended_is_measured(tmp_path):
    """The first thread's own entry says that the process holds nothing."""
    code = HEADLESS.format(exit={"x86_64": 60, "aarch64": 93}[os.uname().machine])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout.readline() == b"1\n"
        assert process_watch._resident(process.pid) == 0
        small = Watch(os.getpid(), {"memory": 150 << 20})
        small.baseline = 0
        assert small.check() == ("memory", "the memory limit was reached")
        assert Watch(os.getpid(), {"folder": str(tmp_path), "disk": 2 << 20, "inodes": 9}).check()[0] == "disk"
        process.kill()


RACE = """
import os, sys, time
sys.path.insert(0, {root!r})
from segedu.grading.sandbox import process_watch, restrictions
restrictions.adopt_orphans()
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        while True:  # each lives only until it has forked
            if os.fork():
                os._exit(0)
time.sleep(0.5)
process_watch.end_children()
print(process_watch.descendants(os.getpid()))
"""


@linux
def test_processes_that_flee_from_one_to_the_next_are_caught():
    code = RACE.format(root=str(Path(__file__).resolve().parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "[]\n", done.stderr


@linux
def test_sockets_and_terminals_are_counted_once(tmp_path):
    before = process_watch._count_open_files([os.getpid()])
    assert process_watch._count_open_files([os.getpid(), os.getpid()])[1] == before[1]
    main, other = os.openpty()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            for one in socket.socketpair():
                stack.enter_context(one)
        after = process_watch._count_open_files([os.getpid()])
    os.close(main)
    os.close(other)
    assert (after[1] - before[1], after[2] - before[2]) == (6, 1)


@linux
def test_sockets_of_a_network_are_bounded(family):
    assert Watch(family.pid, {"own_network": True, "sockets": 1 << 30}).check() == ("", "")
    with socket.socket():
        assert process_watch.sockets_of_network() >= 1
        assert Watch(family.pid, {"own_network": True, "sockets": 0}).check() == ("sockets", "more than 0 sockets")


TABLES = """
import ctypes, mmap, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
start = libc.mmap(None, 64 << 30, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(64 << 30), 15)
for place in range(start, start + (64 << 30), 2 << 20):
    ctypes.string_at(place, 1)
print(1, flush=True)
time.sleep(99)
"""


@linux
def test_tables_of_pages_count_as_memory():
    """64 GiB of nothing that were read hold 128 MiB of tables, and no page of their own."""
    with subprocess.Popen([sys.executable, "-c", TABLES], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
        assert (
            process_watch._proportional_memory(process.pid, 0) > 128 << 20
            and process_watch._resident(process.pid) > 128 << 20
        )
        process.kill()


@linux
def test_a_crowd_that_computes_stands_back():
    code = "import os, time\nfor _ in range(5): os.fork() or os.setsid() or exec('while True: pass')\nprint(1, flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        share = Path("/proc/self/autogroup").read_text() if os.path.exists("/proc/self/autogroup") else ""
        try:
            Watch(process.pid, {"busy": 5}).check()
            assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in process_watch.descendants(process.pid)} == {
                os.nice(0)
            }
            until = time.monotonic() + 20
            tree = Watch(process.pid, {"busy": 3})
            while time.monotonic() < until:
                assert tree.check() == ("", "")
                lowest = [os.getpriority(os.PRIO_PROCESS, pid) for pid in process_watch.descendants(process.pid)]
                if lowest == [19] * 5:
                    break
            assert lowest == [19] * 5
            assert not share or Path("/proc/self/autogroup").read_text() == share  # of this session, not of theirs
        finally:
            for pid in (*process_watch.descendants(process.pid), process.pid):
                process_watch._kill(pid)


UNREADABLE = """
import os, shutil, sys
fd = os.open("sleep", os.O_WRONLY | os.O_CREAT, 0o111)
with open(shutil.which("sleep"), "rb") as program:
    os.write(fd, program.read())
os.close(fd)
os.execv("sleep", ["sleep", "99"])
"""


@pytest.fixture
def open_folder():
    """A folder that every user can enter; pytest's own folders are closed above it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@linux
def test_a_process_that_cannot_be_looked_into_is_ended(open_folder):
    """In a child without the rights of root, which is what a supervisor has in most containers."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(open_folder)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(64_000, 64_000, 64_000)
                os.setresuid(64_000, 64_000, 64_000)
            python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
            process = subprocess.Popen([python, "-c", UNREADABLE])
            time.sleep(0.1)
            while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
                time.sleep(0.02)
            tree = Watch(os.getpid(), {"folder": str(open_folder), "disk": 1 << 20, "inodes": 9})
            first, second = tree.check(), tree.check()
            process.kill()
            code = 0 if (first, second[0]) == (("", ""), "disk") and "cannot be counted" in second[1] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _give_up_tracing() -> None:
    """The rights of root in a container: without CAP_SYS_PTRACE and CAP_SYS_ADMIN."""
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = int(lines["CapPrm"], 16) & ~(1 << 19 | 1 << 21)
    low, high = held & 0xFFFFFFFF, held >> 32
    header, sets = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", low, low, 0, high, high, 0)
    restrictions.check_call(restrictions.libc().capset(header, sets), "capset")


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_files_of_a_user_are_seen_without_the_right_to_trace(tmp_path):
    """As root in a container; afterwards all is as before, also the signal at the parent's end."""
    user = 64_000
    tmp_path.chmod(0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(tmp_path)
            libc = restrictions.libc()
            fd = os.open("file", os.O_RDWR | os.O_CREAT)
            os.unlink("file")
            inode = os.fstat(fd).st_ino
            sleeper = os.fork()
            if sleeper == 0:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
                restrictions._prctl(4, 1)
                time.sleep(99)
            time.sleep(0.3)
            _give_up_tracing()
            restrictions.die_with_parent(15)
            blind = process_watch._count_open_files([sleeper])[0]
            with restrictions.reading_as_user(user):
                seen = process_watch._count_open_files([sleeper])[0]
            number = ctypes.c_int()
            libc.prctl(2, ctypes.byref(number), 0, 0, 0)
            os.kill(sleeper, 9)
            code = 0 if (inode in seen, inode in blind, number.value) == (True, False, 15) else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
