"""Run the grader's processes without the working directory, home and settings of the place where it was started.

The grader may be started in the folder of the submissions. Python, pytest, matplotlib, numba, coverage and others read
settings or import modules from the working directory, the home folder, and wherever environment variables point. Every
process that examines submissions therefore runs in an empty folder, which is also its home, imports only installed
modules, and has no variable that such a program treats as a setting.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segedu.grading.sandbox.remove_folder import remove_folder

FOLDER = "segedu-empty-"
MEMORY, MEMORY_EACH = 2 << 30, 256 << 20  # bytes on top of what the process holds; bytes per concurrent submission
_DROPPED = (
    "PYTHON", "PYTEST_", "COVERAGE_", "COV_CORE_", "NBVAL", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "NUMBA_", "XDG_",
    "TRAITLETS", "TORCH_DEVICE_BACKEND", "VIRTUAL_ENV_", "HYPOTHESIS_",
)  # fmt: skip


@contextlib.contextmanager
def empty_folder() -> Iterator[str]:
    """Yield a temporary folder to run such a process in."""
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as folder:
        yield folder


def environment(folder: str, **more: str) -> dict[str, str]:
    """Return this process's environment with `folder` as home, without settings of programs that the grader uses."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    return kept | {"HOME": folder, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more}


def python(code: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs `code` with `arguments` as its `sys.argv[1:]`.

    Modules that are installed outside the interpreter's own folders (a user's packages, or PYTHONPATH) are found last;
    the working directory is never on the path.
    """
    flags = ["-I", *["-B"] * sys.flags.dont_write_bytecode, *["-X", "utf8"] * sys.flags.utf8_mode]
    extend_path = f"import sys; sys.path += [entry for entry in {_installed()!r} if entry not in sys.path]\n"
    return [sys.executable, *flags, "-c", extend_path + code, *arguments]


def _installed() -> list[str]:
    """The entries of `sys.path` except the working directory."""
    here = ""
    with contextlib.suppress(OSError):
        here = os.path.realpath(os.getcwd())
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]


def enter(folder: str) -> None:
    """Move this process, whose interpreter was started with `-I`, into a folder made by `empty_folder`."""
    os.chdir(folder)
    kept = environment(folder)
    os.environ.clear()
    os.environ.update(kept)


def leave() -> None:
    """Remove the folder that this process runs in, because a parent that was killed cannot do it."""
    with contextlib.suppress(OSError):
        folder = os.getcwd()
        if os.path.basename(folder).startswith(FOLDER):
            os.chdir("/")
            remove_folder(Path(folder))


def limit_memory(count: int, more: int = MEMORY) -> None:
    """Limit this process's memory, so that excessive use raises MemoryError and spares the machine and the parent.

    Only the soft limit is set, because processes that this one starts have limits of their own.

    Args:
        count: number of concurrent submissions.
        more: bytes on top of what the process holds now, besides those for each submission.
    """
    if sys.platform != "linux":  # on other systems the limit has another meaning or no effect
        return
    with open("/proc/self/status") as file:
        current = int(next(line for line in file if line.startswith("VmData")).split()[1]) << 10
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = current + more + count * MEMORY_EACH
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
