"""The processes of a sandbox as its supervisor sees them: found, measured, ended.

Resource limits hold one process each. Where no control group can be made, the supervisor looks four times a second at
the whole tree: its memory, its processes, and below level 3, where there is no disk of its own, its folder. What goes
beyond is killed, a moment late: a limit of this kind is soft by what a quarter of a second can do. The size of a file
that has no name and no descriptor, only memory mapped from it, cannot be read: it counts as a quarter of the disk.

Linux is asked through /proc. Elsewhere psutil is asked, and what has left the tree is known only if it was once seen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from pathlib import Path

from segedu.grading.sandbox.restrictions import LINUX, looking_as

SECONDS = 0.25
_DEEPEST = 64
_LOWEST = 19
_LIBRARIES = 256 << 20  # what each process holds of torch's own files, where nothing tells who shares what
_TERMINAL_MAKER = os.makedev(5, 2)  # /dev/ptmx: each time it is opened there is one terminal more
_proc = "/proc"


def stand_in_proc() -> None:
    """Keeps hold of this /proc: the init will put another one in its place, with other numbers for the same."""
    global _proc
    if LINUX:
        os.chdir("/proc")
        _proc = "."


class Watch:
    """Bounds on the tree below one init.

    Args:
        init: Process id of the init; what descends from it is counted, itself not.
        bounds: `memory` (bytes), `processes`, `disk` (bytes), `inodes` and `folder`, each where it is to be watched;
            `sockets`, and with a folder `terminals` too: how many may be open. `user`: the sandbox's own, if it has
            one. `own_network` says that all sockets of this process's network are the sandbox's. `busy`: how many
            threads may compute at a time before all of them get the lowest priority.
    """

    def __init__(self, init: int, bounds: dict) -> None:
        self.init, self.bounds = init, bounds
        self.base: int | None = None
        self.used = 0  # bytes of the folder
        self.seen: dict[int, float] = {}
        self.hidden = False  # whether there was a process last time that could not be looked into
        self.next = 0.0

    def look(self) -> tuple[str, str]:
        """What is beyond its bound and a sentence on it, or two empty strings."""
        began = time.monotonic()
        pids = self._tree() if self.bounds.keys() - {"sockets", "own_network"} else []
        holders = [_holder(pid) for pid in pids] if LINUX else pids
        found = self._processes(pids) or self._disk(holders) or self._sockets()
        with looking_as(self.bounds.get("user")):
            found = found or self._memory(holders) or self._open_files(holders) or ("", "")
        self._calm(pids)
        now = time.monotonic()
        self.next = now + max(SECONDS, min(1.0, 3 * (now - began)))
        return found

    def _tree(self) -> list[int]:
        return below(self.init) if LINUX else self._below_by_psutil()

    def kill(self) -> None:
        """Kills what is below the init; the init lives to tell."""
        for pid in self._tree() if LINUX else {*self._tree(), *self._strays()}:
            _kill(pid)

    def _strays(self) -> list[int]:
        """What was never seen in the tree and stands in its folder, or was started with its environment."""
        import psutil

        found, folder = [], os.path.realpath(self.bounds["folder"]) if "folder" in self.bounds else None
        for process in psutil.process_iter() if folder else []:
            with contextlib.suppress(psutil.Error, OSError):
                places = (process.cwd(), os.path.realpath(process.environ().get("SEGEDU_WORK", "/")))
                if any(place.startswith(f"{folder}/") for place in places) and process.pid not in (
                    self.init,
                    os.getpid(),
                ):
                    found.append(process.pid)
        return found

    def _processes(self, pids: list[int]) -> tuple[str, str] | None:
        most = self.bounds.get("processes")
        if most is None or sum(map(_threads, pids)) <= most:
            return None
        return "processes", f"more than {most} processes and threads"

    def _memory(self, pids: list[int]) -> tuple[str, str] | None:
        most = self.bounds.get("memory")
        if most is None:
            return None
        held = [_resident(pid) for pid in pids]
        if self.base is None and held:  # of a fresh kernel, most of it shared with the fork server
            self.base = held[0] if LINUX else _LIBRARIES
        if sum(held) <= most + (self.base or 0):
            return None  # the exact sum costs a twentieth of a second a process
        total = 0
        for pid in pids:
            total += _share(pid, self.base or 0)
            if total > most:
                return "memory", "the memory limit was reached"
        return None

    def _disk(self, pids: list[int]) -> tuple[str, str] | None:
        if "folder" not in self.bounds:
            return None
        self.used, inodes = folder_use(self.bounds["folder"], self.bounds["inodes"])
        if inodes > self.bounds["inodes"]:
            return "disk", f"more than {self.bounds['inodes']} files"
        return None

    def _open_files(self, pids: list[int]) -> tuple[str, str] | None:
        """What is open, and what is on the disk together with the files that have no name."""
        if "folder" not in self.bounds:
            return None
        before, self.hidden = self.hidden, any(_hidden(pid, self.bounds.get("user")) for pid in pids if LINUX)
        if before and self.hidden:  # a moment of it belongs to a kernel's start
            return "disk", "a process whose files cannot be counted"
        deleted, sockets, terminals = _opened(pids)
        mapped = _mapped_only(pids, os.path.realpath(self.bounds["folder"]), deleted, self.bounds["disk"] // 4)
        if self.used + sum(deleted.values()) + mapped > self.bounds["disk"]:
            return "disk", f"more than {self.bounds['disk']} bytes of files"
        if sockets > self.bounds.get("sockets", sockets):
            return "sockets", f"more than {self.bounds['sockets']} sockets"
        if terminals > self.bounds.get("terminals", terminals):
            return "terminals", f"more than {self.bounds['terminals']} terminals"
        return None

    def _calm(self, pids: list[int]) -> None:
        """Takes the processors from a crowd: neighbours with as much right to them have one thread each."""
        most = self.bounds.get("busy")
        if most is None or not LINUX or sum(map(_threads, pids)) <= most or sum(map(_running, pids)) <= most:
            return
        for pid in pids:
            with contextlib.suppress(OSError):  # where each session has a share of its own, it counts instead
                if os.getsid(pid) != os.getsid(0):
                    Path(f"{_proc}/{pid}/autogroup").write_text(str(_LOWEST))
            with contextlib.suppress(OSError):
                for task in os.listdir(f"{_proc}/{pid}/task"):
                    os.setpriority(os.PRIO_PROCESS, int(task), _LOWEST)

    def _sockets(self) -> tuple[str, str] | None:
        """Where the network is the sandbox's own: also those that are on their way from one process to another."""
        if self.bounds.get("own_network") and sockets_of_network() > self.bounds["sockets"]:
            return "sockets", f"more than {self.bounds['sockets']} sockets"
        return None

    def _below_by_psutil(self) -> list[int]:
        """The tree, and what was in it before and has lost its parent since."""
        import psutil

        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.init).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.seen[process.pid] = process.create_time()
        alive = []
        for pid, born in self.seen.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(pid)
        return alive


def below(pid: int) -> list[int]:
    """The processes that descend from one, as /proc has them."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        for child in _children(parent):
            if child not in found:
                found.append(child)
                queue.append(child)
    return found


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"{_proc}/{pid}/task"):
            with open(f"{_proc}/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    except FileNotFoundError:
        if not os.path.exists(f"{_proc}/thread-self/children"):
            return _children_by_parent(pid)  # a machine's kernel without that list
    except OSError:
        pass
    return found


def _children_by_parent(pid: int) -> list[int]:
    found = []
    for name in os.listdir(_proc):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"{_proc}/{int(name)}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
    return found


def _holder(pid: int) -> int:
    """The process, or, where its first thread has ended, one of those that go on: only they tell what it holds."""
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
    """Threads of a process that compute, or could if they had a processor."""
    count = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"{_proc}/{pid}/task"):
            with contextlib.suppress(OSError):
                count += _state(f"{pid}/task/{task}") == "R"
    return count


def _resident(pid: int) -> int:
    if not LINUX:
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss
        return 0
    return sum(_sizes(pid, "status", ("VmRSS:", "VmPTE:")))


def _share(pid: int, base: int) -> int:
    """Memory of a process, of what several share its part; where that is not told, what it has beyond `base`."""
    shares = _sizes(pid, "smaps_rollup", ("Pss:", "SwapPss:"))
    return sum(shares) + sum(_sizes(pid, "status", ("VmPTE:",))) if shares else max(0, _resident(pid) - base)


def _sizes(pid: int, name: str, fields: tuple[str, ...]) -> list[int]:
    """Bytes. VmPTE are the tables of the pages: terabytes of nothing, once read, have gigabytes of them."""
    try:
        with open(f"{_proc}/{pid}/{name}") as file:
            words = [line.split() for line in file]
        return [int(word[1]) << 10 for word in words if word and word[0] in fields]
    except (OSError, ValueError, IndexError):
        return []


def folder_use(folder: str, most: int) -> tuple[int, int]:
    """Bytes on disk and number of everything below a folder; counting ends beyond `most` entries.

    What cannot be looked into counts as too much: nobody needs folders that their owner cannot read.
    """
    seen = [0, 0]
    try:
        _add(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), 0, seen, most)
    except FileNotFoundError:
        pass
    except OSError:
        seen[1] = most + 1
    return seen[0], seen[1]


def _add(fd: int, depth: int, seen: list[int], most: int) -> None:
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                seen[0] += found.st_blocks * 512
                seen[1] += 1
                if seen[1] > most:
                    return
                if stat.S_ISDIR(found.st_mode):
                    if depth == _DEEPEST:
                        raise OSError("too deep")
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                        _add(os.open(entry.name, flags, dir_fd=fd), depth + 1, seen, most)
    finally:
        os.close(fd)


def sockets_of_network() -> int:
    """How many sockets of all kinds there are in the network namespace of this process."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{_proc}/self/net/sockstat") as file:
        return int(file.readline().split()[2])
    return 0


def _opened(pids: list[int]) -> tuple[dict[int, int], int, int]:
    """What is open in these: inode -> bytes of files without a name, sockets, and terminals that they made."""
    files: dict[int, int] = {}
    sockets, terminals = set(), 0
    for pid in pids if LINUX else []:
        with contextlib.suppress(OSError):
            for name in [f"fd/{number}" for number in os.listdir(f"{_proc}/{pid}/fd")] + ["exe"]:
                with contextlib.suppress(OSError):
                    found = os.stat(f"{_proc}/{pid}/{name}")
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                        files[found.st_ino] = found.st_blocks * 512
                    elif stat.S_ISSOCK(found.st_mode):
                        sockets.add(found.st_ino)
                    elif stat.S_ISCHR(found.st_mode) and found.st_rdev == _TERMINAL_MAKER:
                        terminals += 1
    return files, len(sockets), terminals


def _hidden(pid: int, user: int | None) -> bool:
    """Whether a process closes its files to the user that it belongs to: it runs a program that it may not read."""
    try:
        os.listdir(f"{_proc}/{pid}/fd")
    except PermissionError:
        with contextlib.suppress(OSError), open(f"{_proc}/{pid}/status") as file:
            owner = next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
            return owner == (os.geteuid() if user is None else user)  # a kernel that starts is still root's
    except OSError:
        pass
    return False


def _mapped_only(pids: list[int], folder: str, opened: dict[int, int], least: int) -> int:
    """Bytes of files of the folder that have no name, are open nowhere and are held by memory that is mapped from them.

    Only the right to administer the machine would tell their sizes, so each counts as at least `least`. Libraries map
    files that they also keep open, or large ones as a whole.
    """
    files: dict[int, int] = {}
    inside = os.fsencode(folder.rstrip("/") + "/")
    for pid in pids if LINUX else []:
        with contextlib.suppress(OSError, ValueError), open(f"{_proc}/{pid}/maps", "rb") as file:
            for line in file.read().split(b"\n"):
                if line.endswith(b" (deleted)"):
                    span, _, offset, _, inode, path = line.split(None, 5)
                    if path.startswith(inside) and int(inode) not in opened:
                        start, _, end = span.partition(b"-")
                        size = int(offset, 16) + int(end, 16) - int(start, 16)
                        files[int(inode)] = max(files.get(int(inode), least), size)
    return sum(files.values())


def end_children(uid: int | None = None, watch: Watch | None = None) -> None:
    """Kills whatever descends from this process, again and again until nothing is left.

    Args:
        uid: The user that the sandbox had for itself, if any: all that it runs ends at one blow, which a process that
            forks faster than it can be found cannot outrun.
        watch: What knows those that have left the tree, where the machine does not keep them in it.
    """
    if uid is not None and os.geteuid() == 0:
        _end_user(uid)
    for attempt in range(3000):
        for pid in below(os.getpid()) if LINUX else []:
            _kill(pid)
        if watch is not None and not LINUX:
            watch.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0 if attempt < 100 else 0.003)


def _end_user(uid: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)  # itself is spared
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
