"""What a process of the grader takes from where it was started: no working directory, no home, no settings.

The grader may be started in the folder that the submissions lie in. Python, pytest, matplotlib, numba, coverage and
others read settings or import modules from the working directory, from the home, and from wherever the environment
points. So every process that examines submissions runs in an empty folder, which is its home too, finds modules only
where they are installed, and has no variable that such a program takes as a setting.
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
MEMORY, MEMORY_EACH = 2 << 30, 256 << 20  # bytes above what the process holds; for each submission at a time
_DROPPED = (
    "PYTHON", "PYTEST_", "COVERAGE_", "COV_CORE_", "NBVAL", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "NUMBA_", "XDG_",
    "TRAITLETS", "TORCH_DEVICE_BACKEND", "VIRTUAL_ENV_", "HYPOTHESIS_",
)  # fmt: skip


@contextlib.contextmanager
def empty_folder() -> Iterator[str]:
    """A folder for such a process to run in; removed at the end."""
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as folder:
        yield folder


def environment(folder: str, **more: str) -> dict[str, str]:
    """The environment of such a process.

    Args:
        folder: its home.
        more: variables to set.

    Returns:
        This process's environment without settings of Python and of the programs that the grader imports.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    return kept | {"HOME": folder, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more}


def python(code: str, *arguments: str) -> list[str]:
    """The command of such a process.

    Args:
        code: for the interpreter. Where modules are installed in more folders than it finds by itself (a user's own
            packages, or those that PYTHONPATH names), they come last; the working directory is never among them.
        arguments: its `sys.argv[1:]`.
    """
    flags = ["-I", *["-B"] * sys.flags.dont_write_bytecode, *["-X", "utf8"] * sys.flags.utf8_mode]
    more = f"import sys; sys.path += [entry for entry in {_installed()!r} if entry not in sys.path]\n"
    return [sys.executable, *flags, "-c", more + code, *arguments]


def _installed() -> list[str]:
    """The entries of `sys.path` but the working directory."""
    here = ""
    with contextlib.suppress(OSError):
        here = os.path.realpath(os.getcwd())
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]


def enter(folder: str) -> None:
    """Make this process such a one; its interpreter was started with `-I`.

    Args:
        folder: made by `empty_folder`.
    """
    os.chdir(folder)
    kept = environment(folder)
    os.environ.clear()
    os.environ.update(kept)


def leave() -> None:
    """Remove the folder that this process runs in: its parent may have been killed and cannot."""
    with contextlib.suppress(OSError):
        folder = os.getcwd()
        if os.path.basename(folder).startswith(FOLDER):
            os.chdir("/")
            remove_folder(Path(folder))


def limit_memory(count: int, more: int = MEMORY) -> None:
    """Bound this process's memory: what needs more gets a MemoryError, and the machine and the parent go on.

    Only the soft limit is set: processes that this one starts have limits of their own.

    Args:
        count: of submissions at a time.
        more: bytes above what the process holds now, beside those for each submission.
    """
    if sys.platform != "linux":  # elsewhere the limit counts something else, or nothing
        return
    with open("/proc/self/status") as file:
        held = int(next(line for line in file if line.startswith("VmData")).split()[1]) << 10
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = held + more + count * MEMORY_EACH
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
