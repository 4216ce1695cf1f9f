"""Control groups of kernels: memory, processes and share of the processors, held by the machine's kernel itself.

Version 1: below our own group of each kind, where root may make one. Version 2: below our own group, where it was
delegated to us (`systemd-run --user --scope -p Delegate=yes segedu grade ...`, or root outside of systemd). A group
of version 2 that hands controllers on holds no processes itself, so this process moves into a leaf of it first; that
is done only where all of its processes descend from this one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from segedu.grading.sandbox.process_watch import below

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CONTROLLERS = {"memory", "pids"}
SHARE = 1024  # of a sandbox, however many processes it has; as much as any other program has


@dataclass
class Groups:
    """The groups of one kernel; `kinds` says what they hold: "memory", "processes", "processor"."""

    folders: list[Path] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    def out_of_memory(self) -> bool:
        """Whether a group has killed for memory."""
        for folder in self.folders:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                            return True
        return False

    def clear(self) -> None:
        """Ends what is still in the groups and removes them."""
        for folder in self.folders:
            for attempt in range(200):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # a killed process is still on its way out, or one that nobody has found yet
                    if attempt % 20 == 5:
                        _end(folder)
                    time.sleep(0.01)


def make(memory: int, tasks: int) -> Groups:
    """New groups with these bounds, of each kind that can be made here.

    Args:
        memory: Bytes.
        tasks: Processes and threads.
    """
    groups = Groups()
    name = f"segedu-{secrets.token_hex(6)}"
    for parent, settings, wishes in parents(memory, tasks):
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        groups.folders.append(folder)
        for file, value in wishes.items():
            with contextlib.suppress(OSError):
                _write(folder / file, value)
        for kind, (file, value) in settings.items():
            with contextlib.suppress(OSError):
                _write(folder / file, value)
                groups.kinds.add(kind)
        if not groups.kinds & set(settings):
            groups.folders.remove(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
    return groups


def parents(memory: int, tasks: int) -> list[tuple[Path, dict[str, tuple[str, int]], dict[str, int]]]:
    """Where groups go, what bounds them, and what else would be good to set: below our own groups, so that whatever
    limits us limits the kernels too.
    """
    version, own = own_groups()
    if version == 2:
        bounds = {"memory": ("memory.max", memory), "processes": ("pids.max", tasks)}
        if not delegate():
            return []
        if "cpu" in _words(own["all"] / "cgroup.subtree_control"):
            bounds["processor"] = ("cpu.weight", SHARE * 100 // 1024)
        return [(own["all"], bounds, {"memory.swap.max": 0, "memory.oom.group": 1})]
    found = []
    if "memory" in own:
        memory_and_swap = {"memory.memsw.limit_in_bytes": memory, "memory.kmem.tcp.limit_in_bytes": memory // 4}
        found.append((own["memory"], {"memory": ("memory.limit_in_bytes", memory)}, memory_and_swap))
    if "pids" in own:
        found.append((own["pids"], {"processes": ("pids.max", tasks)}, {}))
    if "cpu" in own:
        found.append((own["cpu"], {"processor": ("cpu.shares", SHARE)}, {}))
    return found


def own_groups() -> tuple[int, dict[str, Path]]:
    """The version that counts here (0 for none), and the groups of this process by controller; "all" in version 2."""
    try:
        lines = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:
        return 0, {}
    if (ROOT / "cgroup.controllers").exists():
        path = next((path for number, _, path in lines if number == "0"), "/")
        return 2, {"all": ROOT / _start(path).lstrip("/")}
    own = {name: ROOT / name / path.lstrip("/") for _, names, path in lines for name in names.split(",") if name}
    return (1 if own else 0), own


def _start(path: str) -> str:
    """Our group as it was before this process moved into a leaf of it."""
    head, _, leaf = path.rpartition("/")
    return (head or "/") if leaf.startswith("segedu-grader-") else path


def delegate() -> bool:
    """Whether our group of version 2 hands memory and pids on to groups below it, now or after a move into a leaf."""
    return _delegate(own_groups()[1]["all"])


@functools.cache
def _delegate(own: Path) -> bool:
    try:
        if _CONTROLLERS <= _words(own / "cgroup.subtree_control"):
            return os.access(own, os.W_OK)
        if not _CONTROLLERS <= _words(own / "cgroup.controllers"):
            return False
        ours = {os.getpid(), *below(os.getpid())}
        pids = {int(pid) for pid in (own / "cgroup.procs").read_text().split()}
        if not pids <= ours:
            return False
        leaf = own / f"segedu-grader-{os.getpid()}"
        leaf.mkdir()
        for pid in pids:
            _write(leaf / "cgroup.procs", pid)
        _write(own / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(_CONTROLLERS)))
        with contextlib.suppress(OSError):
            if "cpu" in _words(own / "cgroup.controllers"):
                _write(own / "cgroup.subtree_control", "+cpu")
        return True
    except OSError:
        return False


def sweep(oldest: float) -> None:
    """Removes the empty groups that graders have left that were killed before `oldest`."""
    for parent, _, _ in parents(0, 0):
        for folder in parent.glob("segedu-*"):
            with contextlib.suppress(OSError):  # one in use cannot be removed
                if folder.stat().st_mtime < oldest:
                    folder.rmdir()


def _end(folder: Path) -> None:
    with contextlib.suppress(OSError):
        _write(folder / "pids.max", 0)  # nothing new while the old is ended
    try:
        _write(folder / "cgroup.kill", 1)
    except OSError:
        with contextlib.suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), 9)


def _words(path: Path) -> set[str]:
    return set(path.read_text().split())


def _write(path: Path, value: int | str) -> None:
    """Into a file that is there; in a folder of control groups none can be made."""
    with open(path, "r+") as file:
        file.write(str(value))
