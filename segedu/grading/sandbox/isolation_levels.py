"""Levels of isolation: which of them this machine can provide, found by trying each once in a throw-away child.

3: a file system, network, process tree and user of its own. 2: no network, no other files, no rights, in the
machine's own tree (so no shell commands: they need a terminal). 1: resource limits and nothing else. On each level
memory and processes of a kernel and its children are bounded by control groups, or by the supervisor's watch where none
can be made. Each kernel's job is written here.
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

_FIRST_USER = 0x7A000000  # each kernel's own user is drawn from here; no other users are up there
_turn = itertools.count(secrets.randbelow(1 << 24))  # one after the other: two at a time are never the same
BUSY = 8  # threads that compute at a time before the whole sandbox has to stand back
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
    sockets: int = 1000  # each may hold a fifth of a megabyte, which counts as nobody's memory
    threads: int = 1


@dataclass(frozen=True)
class IsolationLevel:
    """One way to run a kernel here."""

    level: int
    user_namespace: bool = False
    own_user: bool = False
    landlock: bool = False
    seccomp: bool = False
    reason: str = ""


@dataclass
class HostResources:
    """What one kernel gets on the host: a job, control groups, and below level 3 a scratch folder."""

    job: dict
    groups: cgroups.Groups = field(default_factory=cgroups.Groups)
    scratch: Path | None = None

    def out_of_memory(self) -> bool:
        """Whether the control group has killed for memory."""
        return self.groups.out_of_memory()

    def clear(self) -> None:
        """Removes the control groups and the scratch folder."""
        self.groups.clear()
        if self.scratch is not None:
            remove_folder(self.scratch)


def possible_levels() -> list[IsolationLevel]:
    """The ways to try, best first."""
    root = LINUX and os.geteuid() == 0
    ways = []
    dropped = [True, False] if root and readable_by_others() else [False]
    if LINUX and seccomp.available():
        if root:
            ways.append(IsolationLevel(3, own_user=True, seccomp=True, reason="namespaces, own user, seccomp"))
        reason = "user namespace, own user, seccomp" if root else "user namespace, seccomp"
        ways.append(IsolationLevel(3, user_namespace=True, own_user=root, seccomp=True, reason=reason))
        locked = landlock.abi() > 0
        for own in dropped:
            if locked or own:
                files = f"Landlock {landlock.abi()}" if locked else "no Landlock: hidden modules can be read"
                reason = ", ".join(["seccomp without network", files, *["own user"] * own])
                ways.append(IsolationLevel(2, own_user=own, landlock=locked, seccomp=True, reason=reason))
    ways += [IsolationLevel(1, own_user=own, reason=_WEAK_OWN if own else _WEAK) for own in dropped]
    return ways


def readable_by_others() -> bool:
    """Whether another user could read this interpreter; one below a private home it could not."""
    for prefix in {os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}:
        for folder in (Path(prefix), *Path(prefix).parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return False
    return True


@functools.lru_cache(maxsize=1)
def probe_levels() -> list[tuple[int, bool, str]]:
    """(level, available, reason) of every way tried, best first."""
    return [(isolation.level, works, reason) for isolation, works, reason in _probed()]


def best_level(level: int | None = None) -> IsolationLevel:
    """The best way that works, or the best of the level asked for.

    Raises:
        SandboxError: There is none.
    """
    failures = []
    for isolation, works, reason in _probed():
        if level is None or isolation.level == level:
            if works:
                return isolation
            failures.append(f"level {isolation.level}: {reason}")
    wanted = "any level" if level is None else f"level {level}"
    raise SandboxError(f"this machine offers no sandbox of {wanted}: {'; '.join(failures) or 'nothing to try'}")


@functools.lru_cache(maxsize=1)
def _probed() -> list[tuple[IsolationLevel, bool, str]]:
    sweep()
    return [(isolation, *_try(isolation)) for isolation in possible_levels()]


def _try(isolation: IsolationLevel) -> tuple[bool, str]:
    """Whether it starts, and keeps a cell from all that it claims to keep it from."""
    try:
        wrong = trial_sandbox.broken(isolation, trial_sandbox.attempt(isolation, Limits()))
    except (SandboxError, OSError) as error:
        wrong = str(error)
    return not wrong, f"{isolation.reason}: {wrong}" if wrong else isolation.reason


def allocate_resources(isolation: IsolationLevel, stage: Path, limits: Limits) -> HostResources:
    """Prepares one kernel: its job, control groups where they can be written, and its folders."""
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
    memory, tasks = limits.memory_bytes + (256 << 20), limits.processes + 16  # a kernel has eleven threads of its own
    resources.groups = cgroups.make(memory + limits.disk_bytes, tasks)
    job["cgroups"] = [str(folder) for folder in resources.groups.folders]
    watched = {
        kind: most for kind, most in (("memory", memory), ("processes", tasks)) if kind not in resources.groups.kinds
    }
    if "processor" not in resources.groups.kinds:
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
    """A user for one kernel that no other kernel of this process has, among those that can be had here."""
    first, count = _FIRST_USER, 1 << 24
    with contextlib.suppress(OSError, ValueError):
        spans = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(inside <= first and first + count <= inside + length for inside, _, length in spans):
            inside, _, length = max(spans, key=lambda span: span[2])  # a container with few users: its last ones
            count = max(1, min(4096, length // 4))
            first = inside + length - 16 - count
    return first + next(_turn) % count


def sweep() -> None:
    """Removes what graders that were killed have left: empty control groups, and folders of an earlier day."""
    now = time.time()
    cgroups.sweep(now - 600)
    for folder in Path(tempfile.gettempdir()).glob("segedu-*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            ours = found.st_uid == os.geteuid() or found.st_uid >> 24 == _FIRST_USER >> 24
            named = folder.name.startswith(("segedu-run-", "segedu-pool-", "segedu-stage-", "segedu-empty-"))
            if ours and named and now - found.st_mtime > 86_400 and stat.S_ISDIR(found.st_mode):
                remove_folder(folder)


def prefixes() -> list[str]:
    """The folders of this Python, without links, none inside another or inside /usr."""
    kept: list[str] = []
    for folder in sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}):
        if not any(folder == other or folder.startswith(other + "/") for other in ("/usr", *kept)):
            kept.append(folder)
    return kept


def masked() -> list[str]:
    """Copies of the course inside those folders, installed or checked out: the staged copy is laid over them."""
    entries = [Path(entry, "segedu") for entry in sys.path if entry]
    root = Path(__file__).resolve().parents[3]
    entries.append(root if (root / "solutions").is_dir() else root / "segedu")
    paths = {os.path.realpath(path) for path in entries if path.is_dir()}
    return sorted(path for path in paths if path.startswith(tuple(f"{top}/" for top in ("/usr", *prefixes()))))


def describe(isolation: IsolationLevel, resources: HostResources) -> str:
    """One line for the record: what holds this kernel."""
    groups, watched = (
        " and ".join(sorted(kinds)) for kinds in (resources.groups.kinds, {*resources.job["watch"]} & _WATCHED)
    )
    parts = [f"control groups for {groups}"] * bool(groups) + [f"a watch of {watched}"] * bool(watched)
    return ", ".join([isolation.reason, *parts])
