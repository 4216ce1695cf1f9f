"""Levels of isolation; each is tried once in a throw-away child to find out which of them this machine offers.

Level 3 has a file system, network, process tree and user of its own. Level 2 has no network, no other files and no
privileges, but shares the host's process tree, so shell commands fail because they need a terminal. Level 1 has
resource limits only. On each level, memory and processes of a kernel and its children are limited by control groups, or
by the supervisor's watch if none can be created. This module also writes each kernel's job.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
import stat
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from segedu.grading.sandbox import cgroups, landlock, seccomp, trial_sandbox
from segedu.grading.sandbox.cell_clock import PATIENCE
from segedu.grading.sandbox.mounts import TERMINALS
from segedu.grading.sandbox.remove_folder import remove_folder
from segedu.grading.sandbox.restrictions import LINUX, SandboxError

_FIRST_USER = 0x7A000000  # first of the user ids for kernels; no other users have such high ids
_user_counter = itertools.count(secrets.randbelow(1 << 24))  # concurrent kernels never share a user
BUSY = 8  # threads that may compute at the same time before the sandbox loses priority
_WATCHED = {"memory", "processes", "disk"}
_WEAK = "resource limits only: a hostile submission can read and write your files"
_WEAK_OWN = "own user and resource limits only: a hostile submission can read what every user can, and use the network"


@dataclass(frozen=True)
class Limits:
    """What one run may use. Memory is counted on top of what a fresh kernel holds."""

    cell_seconds: float = 60.0
    total_seconds: float = 300.0
    memory_bytes: int = 2 << 30
    processes: int = 64
    disk_bytes: int = 64 << 20
    inodes: int = 20_000
    output_bytes: int = 1 << 20
    sockets: int = 1000  # each may hold a fifth of a megabyte, which no process's memory includes
    threads: int = 1


@dataclass(frozen=True)
class IsolationLevel:
    """One way to isolate a kernel on this machine."""

    level: int
    user_namespace: bool = False
    own_user: bool = False
    landlock: bool = False
    seccomp: bool = False
    reason: str = ""


@dataclass
class HostResources:
    """What one kernel uses on the host: a job, control groups, and below level 3 a scratch folder."""

    job: dict
    groups: cgroups.Groups = field(default_factory=cgroups.Groups)
    scratch: Path | None = None

    def out_of_memory(self) -> bool:
        """Whether a control group has killed a process for using too much memory."""
        return self.groups.out_of_memory()

    def clear(self) -> None:
        """Remove the control groups and the scratch folder."""
        self.groups.clear()
        if self.scratch is not None:
            remove_folder(self.scratch)


def possible_levels() -> list[IsolationLevel]:
    """The isolation levels to try, best first."""
    root = LINUX and os.geteuid() == 0
    levels = []
    options = [True, False] if root and readable_by_others() else [False]
    if LINUX and seccomp.available():
        if root:
            levels.append(IsolationLevel(3, own_user=True, seccomp=True, reason="namespaces, own user, seccomp"))
        reason = "user namespace, own user, seccomp" if root else "user namespace, seccomp"
        levels.append(IsolationLevel(3, user_namespace=True, own_user=root, seccomp=True, reason=reason))
        has_landlock = landlock.abi() > 0
        for own in options:
            if has_landlock or own:
                files = f"Landlock {landlock.abi()}" if has_landlock else "no Landlock: hidden modules can be read"
                reason = ", ".join(["seccomp without network", files, *["own user"] * own])
                levels.append(IsolationLevel(2, own_user=own, landlock=has_landlock, seccomp=True, reason=reason))
    levels += [IsolationLevel(1, own_user=own, reason=_WEAK_OWN if own else _WEAK) for own in options]
    return levels


def readable_by_others() -> bool:
    """Whether another user can read this interpreter; not if it lies below a private home."""
    for prefix in {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}:
        for folder in (Path(prefix), *Path(prefix).parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return False
    return True


@functools.lru_cache(maxsize=1)
def probe_levels() -> list[tuple[int, bool, str]]:
    """Return (level, available, reason) for every isolation level, best first."""
    return [(isolation.level, works, reason) for isolation, works, reason in _probed()]


def best_level(level: int | None = None) -> IsolationLevel:
    """Return the best isolation level that works, or the best of the given number.

    Raises:
        SandboxError: if none works.
    """
    failures = []
    for isolation, works, reason in _probed():
        if level is None or isolation.level == level:
            if works:
                return isolation
            failures.append(f"level {isolation.level}: {reason}")
    description = "any level" if level is None else f"level {level}"
    raise SandboxError(f"this machine offers no sandbox of {description}: {'; '.join(failures) or 'nothing to try'}")


@functools.lru_cache(maxsize=1)
def _probed() -> list[tuple[IsolationLevel, bool, str]]:
    sweep()
    return [(isolation, *_try(isolation)) for isolation in possible_levels()]


def _try(isolation: IsolationLevel) -> tuple[bool, str]:
    """Whether this level starts and keeps a cell from everything that it claims to prevent."""
    try:
        problem = trial_sandbox.violations(isolation, trial_sandbox.attempt(isolation, Limits()))
    except (SandboxError, OSError) as error:
        problem = str(error)
    return not problem, f"{isolation.reason}: {problem}" if problem else isolation.reason


def allocate_resources(isolation: IsolationLevel, stage: Path, limits: Limits) -> HostResources:
    """Prepare the job, control groups and folders of one kernel."""
    uid = own_user() if isolation.own_user else None
    job = {
        "level": isolation.level, "user_namespace": isolation.user_namespace, "landlock": isolation.landlock,
        "seccomp": isolation.seccomp, "uid": uid, "stage": str(stage), "scratch": None, "prefixes": prefixes(),
        "links": {folder: os.path.realpath(folder) for folder in (sys.prefix, sys.base_prefix)},
        "masked": masked(), "memory_bytes": limits.memory_bytes, "processes": limits.processes,
        "disk_bytes": limits.disk_bytes, "inodes": limits.inodes, "threads": limits.threads,
        "cpu_seconds": int(2 * limits.total_seconds) + 60, "lifetime": 2 * PATIENCE * limits.total_seconds + 120,
    }  # fmt: skip
    resources = HostResources(job)
    if isolation.level < 3:
        resources.scratch = Path(tempfile.mkdtemp(prefix="segedu-run-"))
        job["scratch"] = str(resources.scratch)
        for folder in (resources.scratch, *(resources.scratch / name for name in ("work", "home", "tmp", "run"))):
            folder.mkdir(exist_ok=True)
            if uid is not None:
                os.chown(folder, uid, uid)
    memory, tasks = limits.memory_bytes + (256 << 20), limits.processes + 16  # a kernel itself has eleven threads
    resources.groups = cgroups.make(memory + limits.disk_bytes, tasks)
    job["cgroups"] = [str(folder) for folder in resources.groups.folders]
    watched = {
        name: cap for name, cap in (("memory", memory), ("processes", tasks)) if name not in resources.groups.limited
    }
    if "processor" not in resources.groups.limited:
        watched["busy"] = BUSY
    watched |= {"sockets": limits.sockets, **({"own_network": True} if isolation.level >= 3 else {})}
    if resources.scratch is not None:
        watched |= {
            "terminals": TERMINALS,
            "folder": str(resources.scratch),
            "disk": limits.disk_bytes,
            "inodes": limits.inodes,
        }
        if uid is not None:
            watched["user"] = uid
    job["watch"] = watched
    return resources


def own_user() -> int:
    """A user id for one kernel that no other kernel of this process has, among those available here."""
    first, count = _FIRST_USER, 1 << 24
    with contextlib.suppress(OSError, ValueError):
        spans = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(inside <= first and first + count <= inside + length for inside, _, length in spans):
            inside, _, length = max(spans, key=lambda span: span[2])  # few user ids in a container: its last ones
            count = max(1, min(4096, length // 4))
            first = inside + length - 16 - count
    return first + next(_user_counter) % count


def sweep() -> None:
    """Remove what killed graders left: empty control groups, and folders older than a day."""
    now = time.time()
    cgroups.sweep(now - 600)
    for folder in Path(tempfile.gettempdir()).glob("segedu-*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            is_ours = status.st_uid == os.geteuid() or status.st_uid >> 24 == _FIRST_USER >> 24
            has_our_prefix = folder.name.startswith(("segedu-run-", "segedu-pool-", "segedu-stage-", "segedu-empty-"))
            if is_ours and has_our_prefix and now - status.st_mtime > 86_400 and stat.S_ISDIR(status.st_mode):
                remove_folder(folder)


def prefixes() -> list[str]:
    """The real folders of this Python, none inside another or inside /usr."""
    kept: list[str] = []
    for folder in sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}):
        if not any(folder == other or folder.startswith(other + "/") for other in ("/usr", *kept)):
            kept.append(folder)
    return kept


def masked() -> list[str]:
    """Copies of the course inside these folders, installed or checked out; the staged copy is mounted over them."""
    entries = [Path(entry, "segedu") for entry in sys.path if entry]
    root = Path(__file__).resolve().parents[3]
    entries.append(root if (root / "solutions").is_dir() else root / "segedu")
    paths = {os.path.realpath(path) for path in entries if path.is_dir()}
    return sorted(path for path in paths if path.startswith(tuple(f"{top}/" for top in ("/usr", *prefixes()))))


def describe(isolation: IsolationLevel, resources: HostResources) -> str:
    """One line for the record that says what limits this kernel."""
    groups, watched = (
        " and ".join(sorted(names)) for names in (resources.groups.limited, {*resources.job["watch"]} & _WATCHED)
    )
    parts = [f"control groups for {groups}"] * bool(groups) + [f"a watch of {watched}"] * bool(watched)
    return ", ".join([isolation.reason, *parts])
