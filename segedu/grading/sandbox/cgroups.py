"""Control groups for kernels, by which the operating system limits memory, processes and processor share.

Version 1: below our own group of each controller, if root may create one. Version 2: below our own group, if it was
delegated to us (`systemd-run --user --scope -p Delegate=yes segedu grade ...`, or root outside of systemd). A group
of version 2 that enables controllers for its children cannot hold processes itself, so this process first moves into
a leaf of it, but only if all processes of the group descend from this one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from segedu.grading.sandbox.process_watch import descendants

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CONTROLLERS = {"memory", "pids"}
SHARE = 1024  # processor share of a sandbox, regardless of its processes; equal to that of any other program


@dataclass
class Groups:
    """The groups of one kernel; `limited` names what they limit: "memory", "processes", "processor"."""

    folders: list[Path] = field(default_factory=list)
    limited: set[str] = field(default_factory=set)

    def out_of_memory(self) -> bool:
        """Whether a group has killed a process for using too much memory."""
        for folder in self.folders:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                            return True
        return False

    def clear(self) -> None:
        """Kill what is still in the groups and remove them."""
        for folder in self.folders:
            for attempt in range(200):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # a killed process has not ended yet, or a process was missed
                    if attempt % 20 == 5:
                        _kill_members(folder)
                    time.sleep(0.01)


def make(memory: int, tasks: int) -> Groups:
    """Create groups that limit memory (bytes) and tasks (processes and threads), of each controller available here."""
    groups = Groups()
    name = f"segedu-{secrets.token_hex(6)}"
    for parent, limits, optional in parents(memory, tasks):
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        groups.folders.append(folder)
        for file, value in optional.items():
            with contextlib.suppress(OSError):
                _write(folder / file, value)
        for resource, (file, value) in limits.items():
            with contextlib.suppress(OSError):
                _write(folder / file, value)
                groups.limited.add(resource)
        if not groups.limited & set(limits):
            groups.folders.remove(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
    return groups


def parents(memory: int, tasks: int) -> list[tuple[Path, dict[str, tuple[str, int]], dict[str, int]]]:
    """Return (folder, limits, optional settings) for each group to create.

    The folders are below our own groups, so that whatever limits us also limits the kernels.
    """
    version, own = own_groups()
    if version == 2:
        limits = {"memory": ("memory.max", memory), "processes": ("pids.max", tasks)}
        if not delegate():
            return []
        if "cpu" in _words(own["all"] / "cgroup.subtree_control"):
            limits["processor"] = ("cpu.weight", SHARE * 100 // 1024)
        return [(own["all"], limits, {"memory.swap.max": 0, "memory.oom.group": 1})]
    groups = []
    if "memory" in own:
        memory_and_swap = {"memory.memsw.limit_in_bytes": memory, "memory.kmem.tcp.limit_in_bytes": memory // 4}
        groups.append((own["memory"], {"memory": ("memory.limit_in_bytes", memory)}, memory_and_swap))
    if "pids" in own:
        groups.append((own["pids"], {"processes": ("pids.max", tasks)}, {}))
    if "cpu" in own:
        groups.append((own["cpu"], {"processor": ("cpu.shares", SHARE)}, {}))
    return groups


def own_groups() -> tuple[int, dict[str, Path]]:
    """Return the version in use (0 for none) and this process's groups by controller; "all" in version 2."""
    try:
        lines = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:
        return 0, {}
    if (ROOT / "cgroup.controllers").exists():
        path = next((path for number, _, path in lines if number == "0"), "/")
        return 2, {"all": ROOT / _original_group(path).lstrip("/")}
    own = {name: ROOT / name / path.lstrip("/") for _, names, path in lines for name in names.split(",") if name}
    return (1 if own else 0), own


def _original_group(path: str) -> str:
    """Our group before this process moved into a leaf of it."""
    head, _, leaf = path.rpartition("/")
    return (head or "/") if leaf.startswith("segedu-grader-") else path


def delegate() -> bool:
    """Whether our group of version 2 can limit its children, if necessary after moving into a leaf."""
    return _delegate(own_groups()[1]["all"])


@functools.cache
def _delegate(own: Path) -> bool:
    try:
        if _CONTROLLERS <= _words(own / "cgroup.subtree_control"):
            return os.access(own, os.W_OK)
        if not _CONTROLLERS <= _words(own / "cgroup.controllers"):
            return False
        own_pids = {os.getpid(), *descendants(os.getpid())}
        pids = {int(pid) for pid in (own / "cgroup.procs").read_text().split()}
        if not pids <= own_pids:
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
    """Remove the empty groups of graders that were killed before `oldest`."""
    for parent, _, _ in parents(0, 0):
        for folder in parent.glob("segedu-*"):
            with contextlib.suppress(OSError):  # a group that is in use cannot be removed
                if folder.stat().st_mtime < oldest:
                    folder.rmdir()


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):
        _write(folder / "pids.max", 0)  # prevents new processes while the old ones are killed
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
    """Write into an existing file; a folder of control groups does not allow new ones."""
    with open(path, "r+") as file:
        file.write(str(value))
