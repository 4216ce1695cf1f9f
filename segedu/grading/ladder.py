"""The ladder of levels: what this machine can do, found by doing it once in a throw-away child.

3: a file system, network, process tree and user of its own. 2: no network, no other files, no rights, in the
machine's own tree (so neither shell commands nor data loaders with workers: they need /dev). 1: resource limits and
nothing else. Each kernel's job is written here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import landlock, seccomp
from .provisioner import ForkServer, Guest, SandboxError
from .sandbox import LINUX

_CGROUPS = Path("/sys/fs/cgroup")
_FIRST_USER = 0x5E000000  # each kernel's own user is drawn from here; no other users are up there


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
    threads: int = 1


@dataclass(frozen=True)
class Rung:
    """One way to run a kernel here."""

    level: int
    user_namespace: bool = False
    own_user: bool = False
    landlock: bool = False
    seccomp: bool = False
    reason: str = ""


@dataclass
class Place:
    """What one kernel gets on the host: a job, control groups, and below level 3 a scratch folder."""

    job: dict
    cgroups: list[Path] = field(default_factory=list)
    scratch: Path | None = None

    def out_of_memory(self) -> bool:
        """Whether the control group has killed for memory."""
        for folder in self.cgroups:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                            return True
        return False

    def clear(self) -> None:
        """Removes the control groups and the scratch folder."""
        for folder in self.cgroups:
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # a killed process is still on its way out
                    time.sleep(0.01)
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def rungs() -> list[Rung]:
    """The ways to try, best first."""
    root = LINUX and os.geteuid() == 0
    filtered = seccomp.available()
    ways = []
    if LINUX and filtered:
        if root:
            ways.append(Rung(3, own_user=True, seccomp=True, reason="namespaces, own user, seccomp"))
        ways.append(Rung(3, user_namespace=True, seccomp=True, reason="user namespace, seccomp"))
        locked = landlock.abi() > 0
        dropped = root and readable_by_others()
        if locked or dropped:
            files = f"Landlock {landlock.abi()}" if locked else "no Landlock: hidden modules can be read"
            parts = ["seccomp without network", files, *["own user"] * dropped]
            ways.append(Rung(2, own_user=dropped, landlock=locked, seccomp=True, reason=", ".join(parts)))
    ways.append(Rung(1, reason="resource limits only: a hostile submission can read and write your files"))
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
    return [(rung.level, works, reason) for rung, works, reason in _probed()]


def best_rung(level: int | None = None) -> Rung:
    """The best way that works, or the best of the level asked for.

    Raises:
        SandboxError: There is none.
    """
    failures = []
    for rung, works, reason in _probed():
        if level is None or rung.level == level:
            if works:
                return rung
            failures.append(f"level {rung.level}: {reason}")
    wanted = "any level" if level is None else f"level {level}"
    raise SandboxError(f"this machine offers no sandbox of {wanted}: {'; '.join(failures) or 'nothing to try'}")


@functools.lru_cache(maxsize=1)
def _probed() -> list[tuple[Rung, bool, str]]:
    sweep()
    return [(rung, *_try(rung)) for rung in rungs()]


def _try(rung: Rung) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(prefix="segedu-probe-") as folder:
        os.chmod(folder, 0o711)
        Path(folder, "segedu").mkdir()
        place = make_place(rung, Path(folder), Limits())
        place.job["probe"] = True
        try:
            Guest(ForkServer(cold=True).connect(), place.job).close()
        except (SandboxError, OSError) as error:
            return False, f"{rung.reason}: {error}"
        finally:
            place.clear()
    return True, rung.reason


def make_place(rung: Rung, stage: Path, limits: Limits) -> Place:
    """Prepares one kernel: its job, control groups where they can be written, and its folders."""
    uid = _FIRST_USER + secrets.randbelow(1 << 24) if rung.own_user else None
    job = {
        "level": rung.level, "user_namespace": rung.user_namespace, "landlock": rung.landlock,
        "seccomp": rung.seccomp, "uid": uid, "stage": str(stage), "scratch": None, "prefixes": prefixes(),
        "links": {folder: os.path.realpath(folder) for folder in (sys.prefix, sys.base_prefix)},
        "masked": masked(), "memory_bytes": limits.memory_bytes, "processes": limits.processes,
        "disk_bytes": limits.disk_bytes, "inodes": limits.inodes, "threads": limits.threads,
        "cpu_seconds": int(2 * limits.total_seconds) + 60, "lifetime": 2 * limits.total_seconds + 120,
    }  # fmt: skip
    place = Place(job)
    if rung.level < 3:
        place.scratch = Path(tempfile.mkdtemp(prefix="segedu-run-"))
        job["scratch"] = str(place.scratch)
        for folder in (place.scratch, *(place.scratch / name for name in ("work", "home", "tmp", "run"))):
            folder.mkdir(exist_ok=True)
            if uid is not None:
                os.chown(folder, uid, uid)
    _make_cgroups(place, limits)
    job["cgroups"] = [str(folder) for folder in place.cgroups]
    return place


def sweep() -> None:
    """Removes what graders that were killed have left: empty control groups, and folders of an earlier day."""
    now = time.time()
    for parent, _ in _cgroup_parents(0, 0):
        for folder in parent.glob("segedu-*"):
            with contextlib.suppress(OSError):  # one in use cannot be removed
                if now - folder.stat().st_mtime > 600:
                    folder.rmdir()
    for folder in Path(tempfile.gettempdir()).glob("segedu-*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            ours = found.st_uid == os.geteuid() or found.st_uid >> 24 == _FIRST_USER >> 24
            old = (
                folder.name.startswith(("segedu-run-", "segedu-pool-", "segedu-stage-"))
                and now - found.st_mtime > 86_400
            )
            if ours and old and stat.S_ISDIR(found.st_mode):
                shutil.rmtree(folder, ignore_errors=True)


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
    root = Path(__file__).resolve().parents[2]
    entries.append(root if (root / "solutions").is_dir() else root / "segedu")
    paths = {os.path.realpath(path) for path in entries if path.is_dir()}
    return sorted(path for path in paths if path.startswith(tuple(f"{top}/" for top in ("/usr", *prefixes()))))


def _make_cgroups(place: Place, limits: Limits) -> None:
    name = f"segedu-{secrets.token_hex(6)}"
    memory = limits.memory_bytes + limits.disk_bytes + (256 << 20)
    tasks = limits.processes + 16  # a kernel has about eleven threads of its own
    for parent, settings in _cgroup_parents(memory, tasks):
        folder = parent / name
        try:
            folder.mkdir()
            place.cgroups.append(folder)
            for file, value in settings.items():
                (folder / file).write_text(str(value))
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                folder.rmdir()
                place.cgroups.remove(folder)


def _cgroup_parents(memory: int, tasks: int) -> list[tuple[Path, dict[str, int]]]:
    """Below our own groups, so that whatever limits us limits the kernels too."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    if (_CGROUPS / "cgroup.controllers").exists():  # version 2, delegated to us or we are its root
        own = _CGROUPS / lines[-1].split(":", 2)[2].lstrip("/")
        return [(own, {"memory.max": memory, "memory.swap.max": 0, "pids.max": tasks})]
    own = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
    settings = {"memory": {"memory.limit_in_bytes": memory}, "pids": {"pids.max": tasks}}
    return [(_CGROUPS / kind / own[kind].lstrip("/"), settings[kind]) for kind in settings if kind in own]


def describe(rung: Rung, place: Place) -> str:
    """One line for the record: what holds this kernel."""
    groups = " and ".join(sorted({"memory" if "memory" in str(path) else "processes" for path in place.cgroups}))
    return rung.reason + (f", control groups for {groups}" if groups else "")
