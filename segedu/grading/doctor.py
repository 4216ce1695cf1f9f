"""What `segedu grade --doctor` prints: what this machine offers for a sandbox, what was tried, and what to do.

Facts are read, rungs of the ladder are tried: only what was tried counts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segedu.grading import cgroups, ladder, landlock, sandbox, seccomp
from segedu.grading.batch import SAFE_LEVEL

_SYS_ADMIN, _MOUNT_SETATTR = 21, 442
_NEW_USER = 0x10000000

HOLDS = {
    3: "no network, no files but the system's and Python's (read-only), no other processes, a disk, a temporary "
    "folder and a user of its own, no rights, a filter of system calls",
    2: "no network, no connections to other programs, no rights, a filter of system calls",
    1: "nothing but limits on time, memory, processes and files",
    0: "nothing",
}
LEFT = {
    3: "a flaw in the machine's kernel itself; a guess at how long other work takes on the same processor",
    2: "the names and sizes of files and the list of processes can be seen; the temporary folder is bounded by a "
    "watch, a moment late; shell commands do not run",
    1: "A HOSTILE SUBMISSION CAN READ AND CHANGE YOUR FILES, THE REFERENCE SOLUTIONS AND ITS OWN POINTS, AND USE THE "
    "NETWORK",
    0: "everything",
}


def doctor(console: Console | None = None) -> int:
    """Print what this machine offers, which levels of the sandbox work and why the others do not.

    Args:
        console: of the terminal.

    Returns:
        The exit status: 0 where a level of at least 2 works, else 1.
    """
    console = console or Console()
    table = Table("this machine", "", "", title=None, show_header=False, box=None, pad_edge=False)
    for name, good, text in facts():
        mark = "" if good is None else "[green]yes[/green]" if good else "[yellow]no[/yellow]"
        table.add_row(escape(name), mark, escape(text))
    console.print(table)
    console.print()
    levels = ladder.probe_levels()
    for level, available, reason in levels:
        mark = "[green]works[/green]" if available else "[yellow]does not[/yellow]"
        console.print(f"level {level}: {mark}  {escape(reason)}", soft_wrap=True)
    best = max((level for level, available, _ in levels if available), default=0)
    style = "" if best >= SAFE_LEVEL else "bold red"
    asks = "" if best >= SAFE_LEVEL else " It asks for --i-trust-these-submissions first."
    console.print(f"\nGrading here uses level {best}.{asks}", style=style, soft_wrap=True)
    console.print(f"It gives: {HOLDS[best]}.", soft_wrap=True)
    console.print(f"It leaves: {LEFT[best]}.", style=style, soft_wrap=True)
    for line in advice(best):
        console.print(f"Better: {line}", soft_wrap=True)
    return 0 if best >= SAFE_LEVEL else 1


def facts() -> list[tuple[str, bool | None, str]]:
    """Name, whether it is there (None where that is no question), and a sentence; in the order of the table."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    found = [("system", None, system), ("user", None, _user())]
    if not sandbox.LINUX:
        why = "levels 2 and 3 need Linux: in a virtual machine, in WSL 2, or on a server"
        return [*found, ("sandbox", False, why), ("psutil", *_psutil())]
    checks: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
        ("container", _container), ("user namespaces", _user_namespaces), ("CAP_SYS_ADMIN", _sys_admin),
        ("seccomp", _seccomp), ("Landlock", _landlock), ("mount API (5.12)", _mount_api), ("pidfd (5.3)", _pidfd),
        ("control groups", _groups), ("interpreter readable by others", _interpreter), ("psutil", _psutil),
        ("bubblewrap", _bubblewrap),
    ]  # fmt: skip
    return [*found, *((name, *check()) for name, check in checks)]


def advice(best: int) -> list[str]:
    """What would give a better level here, or better limits on this one."""
    lines = []
    if not sandbox.LINUX:
        return ["grade on Linux (a virtual machine will do); here grade only work of people you trust"]
    if best < 3:
        if _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
            lines.append("`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), or grade as root")
        if _number("/proc/sys/user/max_user_namespaces") == 0:
            lines.append("`sudo sysctl user.max_user_namespaces=10000`, or grade as root")
        if _container()[0]:
            lines.append("start the container with `--security-opt seccomp=unconfined --cap-add SYS_ADMIN`, or grade "
                         "outside of it")  # fmt: skip
        elif os.geteuid() != 0:
            lines.append("grade as root: each submission then gets a user of its own, which can do less than you")
    if os.geteuid() == 0 and best < 3 and not ladder.readable_by_others():
        lines.append(f"put Python where every user may read it; {sys.prefix} lies in a private folder")
    if not _groups()[0]:
        lines.append("`systemd-run --user --scope -p Delegate=yes segedu grade ...` for hard limits on memory")
    return lines


def _user() -> str:
    uid = os.geteuid()
    return "root: submissions run as users of their own" if uid == 0 else f"an ordinary one ({uid})"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _status(field: str) -> str:
    lines = (line.partition(":") for line in _read("/proc/self/status").splitlines())
    return next((value.strip() for name, _, value in lines if name == field), "")


def _container() -> tuple[bool, str]:
    signs = [path for path in ("/.dockerenv", "/run/.containerenv") if os.path.exists(path)]
    signs += ["the variable container"] * ("container" in os.environ)
    filtered = _status("Seccomp") == "2"
    signs += ["a filter of system calls on this process"] * filtered
    return bool(signs), ", ".join(signs) or "no sign of one"


def _user_namespaces() -> tuple[bool, str]:
    """Tried in a child, for a process cannot leave one."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(0 if libc.unshare(_NEW_USER) == 0 else ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reasons = []
    most = _number("/proc/sys/user/max_user_namespaces")
    if most is not None:
        reasons.append(f"at most {most}")
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        reasons.append("kernel.unprivileged_userns_clone is 0")
    if _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
        reasons.append("AppArmor takes the rights in one away from ordinary programs (Ubuntu 23.10 and later)")
    if code:
        reasons.insert(0, f"unshare says {errno.errorcode.get(code, code)}")
    return code == 0, ", ".join(reasons) or "can be made"


def _sys_admin() -> tuple[bool, str]:
    has = bool(int(_status("CapEff") or "0", 16) >> _SYS_ADMIN & 1)
    return has, "namespaces without a user namespace" if has else "a user namespace is needed for the others"


def _seccomp() -> tuple[bool, str]:
    machine = platform.machine()
    if not seccomp.available():
        return False, f"the numbers of system calls on {machine} are not known here"
    return True, f"{len(seccomp.DENIED)} system calls are denied on {machine}, more below level 3"


def _landlock() -> tuple[bool, str]:
    version = landlock.abi()
    if not version:
        return False, "not in this kernel (5.13), not in its `lsm=` list, or hidden by a container: no level 2"
    gaps = [text for least, text in ((3, "truncation"), (4, "TCP"), (6, "signals")) if version < least]
    text = f"version {version}" + (f"; the filter of system calls stands in for {', '.join(gaps)}" if gaps else "")
    return True, text


def _mount_api() -> tuple[bool, str]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(_MOUNT_SETATTR, -1, b"", 0, None, ctypes.c_size_t(0))
    code = ctypes.get_errno()
    return code != errno.ENOSYS, "mount_setattr" + (" is missing: no level 3" if code == errno.ENOSYS else "")


def _pidfd() -> tuple[bool, str]:
    try:
        os.close(os.pidfd_open(os.getpid()))
        return True, "the end of a kernel is seen at once"
    except (OSError, AttributeError):
        return False, "the end of a kernel is seen a tenth of a second late"


def _groups() -> tuple[bool, str]:
    version, _ = cgroups.own_groups()
    groups = cgroups.make(1 << 30, 64)
    kinds = sorted(groups.kinds)
    groups.clear()
    missing = sorted({"memory", "processes"} - set(kinds))
    held = f"version {version or '?'}, hard limits on {' and '.join(kinds) or 'nothing'}"
    watched = f"; {' and '.join(missing)} bounded by looking four times a second" if missing else ""
    return not missing, held + watched


def _interpreter() -> tuple[bool, str]:
    readable = ladder.readable_by_others()
    return readable, sys.prefix + ("" if readable else ": root cannot give level 2 a user of its own")


def _psutil() -> tuple[bool, str]:
    try:
        import psutil
    except ImportError:
        return sandbox.LINUX, "missing; on Linux it is not needed"
    return True, f"{psutil.__version__}; used where there is no /proc"


def _bubblewrap() -> tuple[None, str]:
    """Why it is not a rung: what it does the ladder does itself, and it lacks a limit on the number of files, leaves
    the bounding set of root as it was, loses the processor time of what it kills, and starts each kernel cold.
    """
    place = shutil.which("bwrap")
    return None, f"{place or 'missing'}; not used: it needs what level 3 needs, starts slower and has weaker limits"
