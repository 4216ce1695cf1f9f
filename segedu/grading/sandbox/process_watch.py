"""Find, measure and end the processes of a sandbox, from its supervisor.

Resource limits apply to one process each. Where no control group can be created, the supervisor checks the whole tree
four times per second: its memory, its processes, and below level 3, where the sandbox has no disk of its own, its
folder. It kills what exceeds a limit up to a quarter of a second late, so these limits are soft. The size of a file
that has neither a name nor a descriptor, only memory mapped from it, cannot be read; it counts as a quarter of the disk
limit.

Linux provides /proc. Elsewhere psutil is used, and a process that has left the tree is known only if it was seen in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from pathlib import Path

from segedu.grading.sandbox.folder_usage import folder_usage
from segedu.grading.sandbox.restrictions import LINUX, reading_as_user

INTERVAL = 0.25
_LOWEST_PRIORITY = 19
_LIBRARY_BYTES = 256 << 20  # torch's own files in each process, where shared memory cannot be told apart
_PTMX = os.makedev(5, 2)  # /dev/ptmx: each open descriptor is one terminal
_proc = "/proc"


def pin_proc() -> None:
    """Keep access to this /proc: the init will mount another one over it, with other process ids."""
    global _proc
    if LINUX:
        os.chdir("/proc")
        _proc = "."


class Watch:
    """Limits on the process tree below one init.

    Args:
        init: process id of the init; its descendants are counted, the init is not.
        bounds: limits `memory` (bytes), `processes`, `disk` (bytes) and `inodes` of `folder`, each optional; `sockets`
            and, with a folder, `terminals` limit how many may be open. `user`: the sandbox's own user, if it has one.
            `own_network`: all sockets of this process's network belong to the sandbox. `busy`: how many threads may
            compute at the same time before all of them get the lowest priority.
    """

    def __init__(self, init: int, bounds: dict) -> None:
        self.init, self.bounds = init, bounds
        self.baseline: int | None = None
        self.folder_bytes = 0  # on disk
        self.seen: dict[int, float] = {}
        self.hidden = False  # whether the last check met a process that hides its files
        self.next_check = 0.0

    def check(self) -> tuple[str, str]:
        """Return the exceeded limit and a sentence about it, or two empty strings."""
        start = time.monotonic()
        pids = self._tree() if self.bounds.keys() - {"sockets", "own_network"} else []
        holders = [_readable_task(pid) for pid in pids] if LINUX else pids
        exceeded = self._processes(pids) or self._disk(holders) or self._sockets()
        with reading_as_user(self.bounds.get("user")):
            exceeded = exceeded or self._memory(holders) or self._open_files(holders) or ("", "")
        self._lower_priority(pids)
        now = time.monotonic()
        self.next_check = now + max(INTERVAL, min(1.0, 3 * (now - start)))
        return exceeded

    def _tree(self) -> list[int]:
        return descendants(self.init) if LINUX else self._descendants_by_psutil()

    def kill(self) -> None:
        """Kill everything below the init; the init survives to report."""
        for pid in self._tree() if LINUX else {*self._tree(), *self._strays()}:
            _kill(pid)

    def _strays(self) -> list[int]:
        """Processes never seen in the tree that run in the sandbox's folder or have its environment."""
        import psutil

        strays, folder = [], os.path.realpath(self.bounds["folder"]) if "folder" in self.bounds else None
        for process in psutil.process_iter() if folder else []:
            with contextlib.suppress(psutil.Error, OSError):
                paths = (process.cwd(), os.path.realpath(process.environ().get("SEGEDU_WORK", "/")))
                if any(path.startswith(f"{folder}/") for path in paths) and process.pid not in (self.init, os.getpid()):
                    strays.append(process.pid)
        return strays

    def _processes(self, pids: list[int]) -> tuple[str, str] | None:
        limit = self.bounds.get("processes")
        if limit is None or sum(map(_threads, pids)) <= limit:
            return None
        return "processes", f"more than {limit} processes and threads"

    def _memory(self, pids: list[int]) -> tuple[str, str] | None:
        limit = self.bounds.get("memory")
        if limit is None:
            return None
        sizes = [_resident(pid) for pid in pids]
        if self.baseline is None and sizes:  # of a fresh kernel; most of it is shared with the fork server
            self.baseline = sizes[0] if LINUX else _LIBRARY_BYTES
        if sum(sizes) <= limit + (self.baseline or 0):
            return None  # the exact sum takes a twentieth of a second per process
        total = 0
        for pid in pids:
            total += _proportional_memory(pid, self.baseline or 0)
            if total > limit:
                return "memory", "the memory limit was reached"
        return None

    def _disk(self, pids: list[int]) -> tuple[str, str] | None:
        if "folder" not in self.bounds:
            return None
        self.folder_bytes, inodes = folder_usage(self.bounds["folder"], self.bounds["inodes"])
        if inodes > self.bounds["inodes"]:
            return "disk", f"more than {self.bounds['inodes']} files"
        return None

    def _open_files(self, pids: list[int]) -> tuple[str, str] | None:
        """Check open sockets and terminals, and the disk usage including files that have no name."""
        if "folder" not in self.bounds:
            return None
        before, self.hidden = self.hidden, any(_hides_files(pid, self.bounds.get("user")) for pid in pids if LINUX)
        if before and self.hidden:  # a starting kernel does so briefly
            return "disk", "a process whose files cannot be counted"
        deleted, sockets, terminals = _count_open_files(pids)
        mapped = _mapped_bytes(pids, os.path.realpath(self.bounds["folder"]), deleted, self.bounds["disk"] // 4)
        if self.folder_bytes + sum(deleted.values()) + mapped > self.bounds["disk"]:
            return "disk", f"more than {self.bounds['disk']} bytes of files"
        if sockets > self.bounds.get("sockets", sockets):
            return "sockets", f"more than {self.bounds['sockets']} sockets"
        if terminals > self.bounds.get("terminals", terminals):
            return "terminals", f"more than {self.bounds['terminals']} terminals"
        return None

    def _lower_priority(self, pids: list[int]) -> None:
        """Give a crowd of computing threads the lowest priority, so that neighbours get their share."""
        limit = self.bounds.get("busy")
        if limit is None or not LINUX or sum(map(_threads, pids)) <= limit or sum(map(_running, pids)) <= limit:
            return
        for pid in pids:
            with contextlib.suppress(OSError):  # with autogroups, the session's share counts instead
                if os.getsid(pid) != os.getsid(0):
                    Path(f"{_proc}/{pid}/autogroup").write_text(str(_LOWEST_PRIORITY))
            with contextlib.suppress(OSError):
                for task in os.listdir(f"{_proc}/{pid}/task"):
                    os.setpriority(os.PRIO_PROCESS, int(task), _LOWEST_PRIORITY)

    def _sockets(self) -> tuple[str, str] | None:
        """Check all sockets of the sandbox's own network, including those in transit between processes."""
        if self.bounds.get("own_network") and sockets_of_network() > self.bounds["sockets"]:
            return "sockets", f"more than {self.bounds['sockets']} sockets"
        return None

    def _descendants_by_psutil(self) -> list[int]:
        """The tree, and processes that were in it before and have lost their parent since."""
        import psutil

        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.init).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.seen[process.pid] = process.create_time()
        alive = []
        for pid, created in self.seen.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(pid)
        return alive


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants of a process, from /proc."""
    pids: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        for child in _children(parent):
            if child not in pids:
                pids.append(child)
                queue.append(child)
    return pids


def _children(pid: int) -> list[int]:
    children = []
    try:
        for task in os.listdir(f"{_proc}/{pid}/task"):
            with open(f"{_proc}/{pid}/task/{task}/children") as file:
                children += [int(child) for child in file.read().split()]
    except FileNotFoundError:
        if not os.path.exists(f"{_proc}/thread-self/children"):
            return _children_by_parent(pid)  # an operating system without that list
    except OSError:
        pass
    return children


def _children_by_parent(pid: int) -> list[int]:
    children = []
    for name in os.listdir(_proc):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"{_proc}/{int(name)}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    children.append(int(name))
    return children


def _readable_task(pid: int) -> int:
    """The process, or one of its live threads if the first has ended: only live ones show what the process holds."""
    with contextlib.suppress(OSError):
        if _state(f"{pid}") in "ZX":
            for task in os.listdir(f"{_proc}/{pid}/task"):
                with contextlib.suppress(OSError):
                    if _state(f"{pid}/task/{task}") not in "ZX":
                        return int(task)
    return pid


def _state(task: str) -> str:
    with open(f"{_proc}/{task}/stat") as file:
        return file.read().rpartition(") ")[2][:1]


def _threads(pid: int) -> int:
    if not LINUX:
        return 1
    try:
        return len(os.listdir(f"{_proc}/{pid}/task"))
    except OSError:
        return 0


def _running(pid: int) -> int:
    """Number of a process's threads that compute or are ready to."""
    running = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"{_proc}/{pid}/task"):
            with contextlib.suppress(OSError):
                running += _state(f"{pid}/task/{task}") == "R"
    return running


def _resident(pid: int) -> int:
    if not LINUX:
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss
        return 0
    return sum(_sizes(pid, "status", ("VmRSS:", "VmPTE:")))


def _proportional_memory(pid: int, baseline: int) -> int:
    """Memory of a process with its part of shared memory; if unknown, what it has beyond `baseline`."""
    sizes = _sizes(pid, "smaps_rollup", ("Pss:", "SwapPss:"))
    return sum(sizes) + sum(_sizes(pid, "status", ("VmPTE:",))) if sizes else max(0, _resident(pid) - baseline)


def _sizes(pid: int, name: str, fields: tuple[str, ...]) -> list[int]:
    """Sizes in bytes. VmPTE are the page tables: reading terabytes of zero pages takes gigabytes of tables."""
    try:
        with open(f"{_proc}/{pid}/{name}") as file:
            words = [line.split() for line in file]
        return [int(word[1]) << 10 for word in words if word and word[0] in fields]
    except (OSError, ValueError, IndexError):
        return []


def sockets_of_network() -> int:
    """Number of sockets of all kinds in this process's network namespace."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{_proc}/self/net/sockstat") as file:
        return int(file.readline().split()[2])
    return 0


def _count_open_files(pids: list[int]) -> tuple[dict[int, int], int, int]:
    """Return inode -> bytes of open files without a name, the number of sockets, and of terminals created."""
    files: dict[int, int] = {}
    sockets, terminals = set(), 0
    for pid in pids if LINUX else []:
        with contextlib.suppress(OSError):
            for name in [f"fd/{number}" for number in os.listdir(f"{_proc}/{pid}/fd")] + ["exe"]:
                with contextlib.suppress(OSError):
                    status = os.stat(f"{_proc}/{pid}/{name}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        files[status.st_ino] = status.st_blocks * 512
                    elif stat.S_ISSOCK(status.st_mode):
                        sockets.add(status.st_ino)
                    elif stat.S_ISCHR(status.st_mode) and status.st_rdev == _PTMX:
                        terminals += 1
    return files, len(sockets), terminals


def _hides_files(pid: int, user: int | None) -> bool:
    """Whether a process hides its files from its own user, because it runs a program that it may not read."""
    try:
        os.listdir(f"{_proc}/{pid}/fd")
    except PermissionError:
        with contextlib.suppress(OSError), open(f"{_proc}/{pid}/status") as file:
            owner = next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
            return owner == (os.geteuid() if user is None else user)  # a starting kernel still belongs to root
    except OSError:
        pass
    return False


def _mapped_bytes(pids: list[int], folder: str, opened: dict[int, int], minimum: int) -> int:
    """Bytes of the folder's files that have no name and no descriptor and are held only by memory mapped from them.

    Reading their sizes needs root privileges, so each counts as at least `minimum`. Libraries map files that they also
    keep open, or large files as a whole.
    """
    files: dict[int, int] = {}
    prefix = os.fsencode(folder.rstrip("/") + "/")
    for pid in pids if LINUX else []:
        with contextlib.suppress(OSError, ValueError), open(f"{_proc}/{pid}/maps", "rb") as file:
            for line in file.read().split(b"\n"):
                if line.endswith(b" (deleted)"):
                    span, _, offset, _, inode, path = line.split(None, 5)
                    if path.startswith(prefix) and int(inode) not in opened:
                        start, _, end = span.partition(b"-")
                        size = int(offset, 16) + int(end, 16) - int(start, 16)
                        files[int(inode)] = max(files.get(int(inode), minimum), size)
    return sum(files.values())


def end_children(uid: int | None = None, watch: Watch | None = None) -> None:
    """Kill all descendants of this process, repeatedly until none is left.

    Args:
        uid: the sandbox's own user, if any; killing all of its processes at once also ends a process that forks faster
            than it can be found.
        watch: knows the processes that have left the tree, on systems that do not track them.
    """
    if uid is not None and os.geteuid() == 0:
        _kill_user(uid)
    for attempt in range(3000):
        for pid in descendants(os.getpid()) if LINUX else []:
            _kill(pid)
        if watch is not None and not LINUX:
            watch.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0 if attempt < 100 else 0.003)


def _kill_user(uid: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)  # does not signal the caller
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
