"""`segedu grade --doctor`: what this machine offers for a sandbox, what was tried, and what to improve.

Each reported fact has just been tested: a cell in a throw-away sandbox has tried to break out (`trials`), and a child
of this process has tried each facility of the machine. Nothing untested is claimed.
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

from segedu.grading.batch.batch import SAFE_LEVEL
from segedu.grading.sandbox import (
    cgroups,
    isolation_levels,
    landlock,
    mounts,
    restrictions,
    seccomp,
    trial_sandbox,
    trials,
)

TRIAL_LABELS = {
    "user": "owner of the files that a cell writes", "rights": "rights of root, a namespace, a trace",
    "settings": "writing settings of the machine",
    "network": "connecting to sockets of this machine, or taking their names",
    "answers": "reading the course's exercises and a private file", "files": "writing files of the machine",
    "processes": "reaching the grader's process", "stores": "shared memory that outlives its process",
    "queues": "using message queues and semaphores of the machine",
    "memory": "more memory than is allowed", "memory of children": "the same, spread over children",
    "forks": "200 processes", "disk": "more files than the limit allows", "terminals": "200 terminals",
}  # fmt: skip
_LOCKS = "an advisory lock (flock) on a file of Python or of the system, which another program may wait for"
REMAINING_RISKS = {
    3: f"a flaw in the machine's kernel itself; a guess at how long other work takes on the same processor; {_LOCKS}",
    2: "the names and sizes of files, the numbers of System V objects and the list of processes can be seen, with "
    "the seed where a program that waits for `segedu grade --seed`, such as sudo, has it among its arguments; the "
    "temporary folder is bounded by a watch, a moment late, and deleted files that are only mapped into memory by four "
    f"times the limit; shell commands do not run; {_LOCKS}",
    1: "A HOSTILE SUBMISSION CAN READ AND CHANGE YOUR FILES, THE REFERENCE SOLUTIONS AND ITS OWN POINTS, AND USE THE "
    "NETWORK",
    0: "everything",
}

# what honest notebooks cannot use
UNAVAILABLE = {
    3: "the network; torch.compile, which takes longer than an exercise has",
    2: "the network; shared memory and /tmp, so multiprocessing and the workers of a DataLoader fail; torch.compile, "
    "which takes longer than an exercise has",
}


def doctor(console: Console | None = None) -> int:
    """Print what this machine offers and which sandbox levels work; return 0 if level 2 or better works, else 1."""
    console = console or Console()
    table = Table("this machine", "", "", title=None, show_header=False, box=None, pad_edge=False)
    for name, good, text in facts():
        mark = "" if good is None else "[green]yes[/green]" if good else "[yellow]no[/yellow]"
        table.add_row(escape(name), mark, escape(text))
    console.print(table)
    console.print()
    levels = isolation_levels.probe_levels()
    for level, available, reason in levels:
        mark = "[green]works[/green]" if available else "[yellow]does not[/yellow]"
        console.print(f"level {level}: {mark}  {escape(reason)}", soft_wrap=True)
    best = max((level for level, available, _ in levels if available), default=0)
    style = "" if best >= SAFE_LEVEL else "bold red"
    confirmation = "" if best >= SAFE_LEVEL else " It requires --i-trust-these-submissions."
    console.print(f"\nGrading here uses level {best}.{confirmation}", style=style, soft_wrap=True)
    if best:
        console.print(f"A cell at level {best} has just tried:", soft_wrap=True)
        console.print(_trial_table(run_trials(best)))
    console.print(f"Remaining risks: {REMAINING_RISKS[best]}.", style=style, soft_wrap=True)
    if best in UNAVAILABLE:
        console.print(f"Not available to notebooks: {UNAVAILABLE[best]}.", soft_wrap=True)
    for line in advice(best):
        console.print(f"Better: {line}", soft_wrap=True)
    return 0 if best >= SAFE_LEVEL else 1


def run_trials(level: int) -> dict[str, tuple[bool, str]]:
    """Run all trials at a level; return, per trial, whether it was prevented and a description."""
    isolation = isolation_levels.best_level(level)
    try:
        outcomes = trial_sandbox.attempt(isolation, isolation_levels.Limits())
    except (restrictions.SandboxError, OSError) as error:
        return {"user": (False, f"could not be tried: {error}")}
    names = trials.EXHAUSTION_TRIALS if restrictions.LINUX else ("disk", "forks")
    return outcomes | trial_sandbox.exhaust(isolation, tuple(names), isolation_levels.Limits())


def _trial_table(outcomes: dict[str, tuple[bool, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, label in TRIAL_LABELS.items():
        if name in outcomes:
            prevented, text = outcomes[name]
            mark = "[green]prevented[/green]" if prevented else "[red]not prevented[/red]"
            table.add_row(f"  {label}", mark, escape(text))
    return table


def facts() -> list[tuple[str, bool | None, str]]:
    """Return (name, whether it is available or None, description) for each row of the table."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    rows = [("system", None, system), ("user", None, _user())]
    if not restrictions.LINUX:
        why = "levels 2 and 3 need Linux: in a virtual machine, in WSL 2, or on a server"
        return [*rows, ("sandbox", False, why), ("psutil", *_psutil())]
    checks: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
        ("container", _container), ("user namespaces", _user_namespaces), ("CAP_SYS_ADMIN", _sys_admin),
        ("seccomp", _seccomp), ("Landlock", _landlock), ("mount API (5.12)", _mount_api), ("pidfd (5.3)", _pidfd),
        ("control groups", _groups), ("interpreter readable by others", _interpreter), ("psutil", _psutil),
        ("bubblewrap", _bubblewrap),
    ]  # fmt: skip
    return [*rows, *((name, *check()) for name, check in checks)]


def advice(best: int) -> list[str]:
    """Return what would give a better level here, or better limits on this one."""
    lines = []
    if not restrictions.LINUX:
        return ["grade on Linux (a virtual machine will do); here grade only work of people you trust"]
    if best < 3:
        if _read_int("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
            lines.append("`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), or grade as root")
        if _read_int("/proc/sys/user/max_user_namespaces") == 0:
            lines.append("`sudo sysctl user.max_user_namespaces=10000`, or grade as root")
        if _container()[0]:
            lines.append("start the container with `--security-opt seccomp=unconfined --cap-add SYS_ADMIN`, or grade "
                         "outside of it")  # fmt: skip
        elif os.geteuid() != 0:
            lines.append("grade as root: each submission then gets a user of its own, which can do less than you")
    if os.geteuid() == 0 and best < 3 and not isolation_levels.readable_by_others():
        lines.append(f"put Python where every user may read it; {sys.prefix} lies in a private folder")
    if not _groups()[0]:
        lines.append("`systemd-run --user --scope -p Delegate=yes segedu grade ...` for hard limits on memory")
    return lines


def _user() -> str:
    uid = os.geteuid()
    return "root" if uid == 0 else f"not root ({uid})"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _read_int(path: str) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _status(field: str) -> str:
    lines = (line.partition(":") for line in _read("/proc/self/status").splitlines())
    return next((value.strip() for name, _, value in lines if name == field), "")


def _container() -> tuple[bool, str]:
    indications = [path for path in ("/.dockerenv", "/run/.containerenv") if os.path.exists(path)]
    indications += ["the variable container"] * ("container" in os.environ)
    filtered = _status("Seccomp") == "2"
    indications += ["a filter of system calls on this process"] * filtered
    return bool(indications), ", ".join(indications) or "not detected"


def _in_a_child(attempt: Callable[[], str | None]) -> tuple[bool, str]:
    """Run an attempt in a child process; return whether it succeeded, and its text or error."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write_end, (attempt() or "").encode())
            code = 0
        except OSError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        text = file.read()
    return os.waitpid(child, 0)[1] == 0, text


def _user_namespaces() -> tuple[bool, str]:
    """Create a user namespace and mount in it, because AppArmor may allow the first and deny the second."""

    def attempt() -> None:
        restrictions.unshare(user=True)
        mounts.mount("none", "/", None, 16384 | 1 << 18)
        mounts.mount("tmpfs", "/tmp", "tmpfs", 0, "size=4k")

    works, why = _in_a_child(attempt)
    reasons = [why] * bool(why)
    limit = _read_int("/proc/sys/user/max_user_namespaces")
    if limit is not None:
        reasons.append(f"at most {limit}")
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        reasons.append("kernel.unprivileged_userns_clone is 0")
    if _read_int("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"):
        reasons.append("AppArmor removes the privileges in one from ordinary programs (Ubuntu 23.10 and later)")
    return works, ", ".join(reasons) or "one was created, and a folder was mounted in it"


def _sys_admin() -> tuple[bool, str]:
    works, why = _in_a_child(lambda: restrictions.unshare(user=False))
    return works, "namespaces were created without a user namespace" if works else f"without a user namespace: {why}"


def _seccomp() -> tuple[bool, str]:
    machine = platform.machine()
    if not seccomp.available():
        return False, f"the system call numbers of {machine} are not known"
    return _in_a_child(_denied_calls)


def _denied_calls() -> str:
    """Make every denied call under the filter, in a process without rights and with meaningless arguments."""
    restrictions._prctl(38, 1)
    restrictions.drop_capabilities()
    seccomp.apply(network=True)
    if _status("Seccomp") != "2":
        raise OSError("the filter is not in place")
    column = seccomp._MACHINES[platform.machine()][0]
    numbers = {name: both[column] for name, both in seccomp.DENIED.items() if both[column] is not None}
    libc = ctypes.CDLL(None, use_errno=True)
    allowed = [name for name, number in numbers.items()
             if libc.syscall(number, -1, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM]  # fmt: skip
    if allowed:
        raise OSError(f"not denied: {', '.join(allowed)}")
    return f"{len(numbers)} system calls were made under the filter, all were denied"


def _landlock() -> tuple[bool, str]:
    version = landlock.abi()
    if not version:
        return False, "not in this kernel (5.13), not in its `lsm=` list, or hidden by a container: no level 2"

    def attempt() -> None:
        restrictions._prctl(38, 1)
        landlock.restrict([os.path.dirname(os.__file__)], [], [])
        os.close(os.open(os.__file__, os.O_RDONLY))
        try:
            os.close(os.open("/proc/self/status", os.O_RDONLY))
        except PermissionError:
            return
        raise OSError("a file that it must not read was opened")

    works, why = _in_a_child(attempt)
    gaps = [text for minimum, text in ((3, "truncation"), (4, "TCP"), (6, "signals")) if version < minimum]
    text = f"version {version}" + (f", which lacks {', '.join(gaps)}" if gaps else "")
    return works, f"{text}; a child process could not open a protected file" if works else f"{text}; {why}"


def _mount_api() -> tuple[bool, str]:
    def attempt() -> None:
        restrictions.unshare(user=os.geteuid() != 0 or not _sys_admin()[0])
        mounts.mount("none", "/", None, 16384 | 1 << 18)
        os.close(mounts.clone("/usr"))

    works, why = _in_a_child(attempt)
    return works, "a folder was cloned read-only" if works else f"{why}: no level 3"


def _pidfd() -> tuple[bool, str]:
    try:
        os.close(os.pidfd_open(os.getpid()))
        return True, "the end of a kernel is noticed immediately"
    except (OSError, AttributeError):
        return False, "the end of a kernel is noticed a tenth of a second late"


def _groups() -> tuple[bool, str]:
    version, _ = cgroups.own_groups()
    groups = cgroups.make(1 << 30, 64)
    limited = sorted(groups.limited)
    groups.clear()
    missing = sorted({"memory", "processes", "processor"} - set(limited))
    description = f"version {version or '?'}, one was created, with limits on {' and '.join(limited) or 'nothing'}"
    watched = f"; {' and '.join(missing)} checked four times per second" if missing else ""
    return not {"memory", "processes"} & set(missing), description + watched


def _interpreter() -> tuple[bool, str]:
    if os.geteuid() != 0:
        readable = isolation_levels.readable_by_others()
        return readable, f"{sys.prefix}, according to the permissions of its folders"

    def attempt() -> None:
        other = isolation_levels.own_user()
        os.setgroups([])
        os.setresgid(other, other, other)
        os.setresuid(other, other, other)
        os.close(os.open(os.path.realpath(sys.executable), os.O_RDONLY))
        os.close(os.open(os.__file__, os.O_RDONLY))

    readable, why = _in_a_child(attempt)
    return readable, sys.prefix + ("" if readable else f": root cannot give level 2 a user of its own ({why})")


def _psutil() -> tuple[bool, str]:
    try:
        import psutil
    except ImportError:
        return restrictions.LINUX, "missing; on Linux it is not needed"
    return True, f"{psutil.__version__}; used where there is no /proc"


def _bubblewrap() -> tuple[None, str]:
    """Report bubblewrap, which is not used: our levels do the same, and it cannot limit the number of files."""
    return None, f"{shutil.which('bwrap') or 'missing'}; not used"
