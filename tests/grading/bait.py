"""Files that programs read from a working directory, a home or wherever the environment points.

Each Python file writes a mark when it is imported; settings name a module that does. `watched` sees which files were
opened, by whatever program.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# what Python itself imports for `python -m`, before any code of ours runs, is not among them
MODULES = (
    "json", "numpy", "torch", "typer", "rich", "click", "subprocess", "tempfile", "shutil", "socket", "zipfile", "csv",
    "sqlite3", "pytest", "_pytest", "nbval", "nbformat", "zmq", "jupyter_client", "ipykernel", "IPython", "psutil",
    "matplotlib", "numba", "coverage", "scipy", "PIL", "secrets", "hashlib", "evil", "resource", "distributed",
)  # fmt: skip
IMPORTED = ("conftest.py", "sitecustomize.py", "usercustomize.py", "ipython_config.py", "jupyter_config.py",
            "jupyter_client_config.py", "ipython_kernel_config.py", "pythonstartup.py", "profile_default/startup/00.py",
            "test_one/conftest.py", "tests/conftest.py", ".local/lib/python{0}.{1}/site-packages/usercustomize.py",
            *(f"{name}.py" for name in MODULES))  # fmt: skip
SETTINGS = {
    "pytest.ini": "[pytest]\naddopts = -p evil\npython_files = *.py\n",
    "tox.ini": "[pytest]\naddopts = -p evil\n",
    "setup.cfg": "[tool:pytest]\naddopts = -p evil\n[coverage:run]\nplugins = evil\n",
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-p evil"\n[tool.coverage.run]\nplugins = ["evil"]\n',
    ".coveragerc": "[run]\nplugins = evil\n",
    "matplotlibrc": "figure.dpi: 7\nbackend: module://evil\n",
    ".numba_config.yaml": "disable_jit: 1\n",
    "evil.pth": "import evil\n",
    ".local/lib/python{0}.{1}/site-packages/evil.pth": "import evil\n",
    "pyvenv.cfg": "home = .\n",
    "evil-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    "evil-1.0.dist-info/entry_points.txt": "".join(
        f"[{group}]\nevil = evil\n"
        for group in ("pytest11", "torch.backends", "jupyter_client.kernel_provisioners", "numba_extensions")
    ),
}
# variables that point there, as an instructor may have set them for something else
POINTERS = {
    "PYTHONPATH": ".", "PYTHONSTARTUP": "pythonstartup.py", "PYTEST_ADDOPTS": "-p evil", "PYTEST_PLUGINS": "evil",
    "COVERAGE_PROCESS_START": ".coveragerc", "COVERAGE_RCFILE": ".coveragerc", "MATPLOTLIBRC": ".", "MPLCONFIGDIR": ".",
    "IPYTHONDIR": ".", "JUPYTER_CONFIG_DIR": ".", "JUPYTER_CONFIG_PATH": ".", "JUPYTER_PATH": ".",
    "NUMBA_CACHE_DIR": ".", "XDG_CONFIG_HOME": ".", "XDG_DATA_HOME": ".", "HOME": ".", "PYTHONUSERBASE": ".local",
}  # fmt: skip
_CODE = """
import os, sys
with open({marks!r} + f"/{{os.getpid()}}-" + {name!r}.replace("/", "_"), "w") as mark:
    mark.write(" ".join(sys.argv))
raise ImportError("a file of a student was imported")
"""


def lay(folder: Path, marks: Path) -> None:
    """Write all of them.

    Args:
        folder: where; a submission may lie there already.
        marks: a folder for the marks, named by process and file.
    """
    marks.mkdir(exist_ok=True)
    files = {name: _CODE.format(marks=str(marks), name=name) for name in IMPORTED} | SETTINGS
    for name, text in files.items():
        path = folder / name.format(*sys.version_info)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def watched(folder: Path) -> Iterator[set[str]]:
    """The names of the files below a folder that any process opens meanwhile; on Linux alone.

    Args:
        folder: with all its folders there already.

    Yields:
        A set that is filled at the end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    opened: set[str] = set()
    try:
        for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            assert libc.inotify_add_watch(fd, os.fsencode(place), 0x20) >= 0  # IN_OPEN
        yield opened
        while data := _some(fd):
            at = 0
            while at < len(data):
                _, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0").decode()
                opened |= {name} if name and not mask & 0x40000000 else set()  # not a folder
                at += 16 + size
    finally:
        os.close(fd)


def _some(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""
