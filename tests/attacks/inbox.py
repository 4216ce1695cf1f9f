"""Attacks by files beside a notebook that a program could take for its own settings; the arena grades in that folder.

`tests/grading/test_clean_environment.py` lays every such file around the real command, Gradescope's script and a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tiny
from attack import FULL, RIGHT, Attack

BOUNDARY = "inbox"
NO_PATH = "a" * 300  # longer than a file name may be
_MARK = """from pathlib import Path

for folder in Path(__file__).resolve().parents:
    if (folder / "host" / "bait").is_dir():
        (folder / "host" / "bait" / "mark").write_text("imported by the grader")
        break
"""


def _right(name: str) -> str:
    return tiny.notebook([*tiny.answered(**RIGHT), tiny.cell("mine", f"# {name}")])


def conftest_alone(folder: Path, name: str) -> Path:
    """What pytest imports from its working directory."""
    path = folder / "conftest.py"
    path.write_text(_MARK)
    return path


def conftest_in_a_folder(folder: Path, name: str) -> Path:
    """What pytest imports from folders there whose names begin with `test`, and settings that name a plugin."""
    home = folder / f"test_{name}"
    home.mkdir()
    (home / "lab.ipynb").write_text(_right(name))
    for file in ("conftest.py", "evil.py", "sitecustomize.py", "json.py", "torch.py", "ipython_config.py"):
        (home / file).write_text(_MARK)
    (home / "pytest.ini").write_text("[pytest]\naddopts = -p evil\n")
    (home / "matplotlibrc").write_text("backend: module://evil\n")
    return home


def own_modules(folder: Path, name: str) -> Path:
    """A notebook beside a module and tests that the student wrote for it."""
    home = folder / f"tested_{name}"
    home.mkdir()
    (home / "lab.ipynb").write_text(_right(name))
    (home / "boxes.py").write_text("def area(box):\n    return (box[2] - box[0]) * (box[3] - box[1])\n")
    (home / "test_boxes.py").write_text(
        "from boxes import area\n\n\ndef test_area():\n    assert area([0, 0, 2, 3]) == 6\n"
    )
    (home / "conftest.py").write_text("import pytest\n")
    return home


def link_to(target: str) -> Callable[[Path, str], Path]:
    """A notebook that is a link."""

    def make(folder: Path, name: str) -> Path:
        path = folder / f"{name}.ipynb"
        path.symlink_to(target)
        return path

    return make


def link_in_a_folder(link: str) -> Callable[[Path, str], Path]:
    """A folder with a right notebook, and a link of this name beside it that leads to no possible path."""

    def make(folder: Path, name: str) -> Path:
        home = folder / name
        home.mkdir()
        (home / "lab.ipynb").write_text(_right(name))
        (home / link).symlink_to(NO_PATH)
        return home

    return make


def only_an_attempt(folder: Path, name: str) -> Path:
    """A folder whose first attempt is such a link."""
    home = folder / name
    home.mkdir()
    link = home / "attempt-1"
    link.symlink_to(NO_PATH)
    return link


INBOX = [
    Attack(
        "p24_link_to_no_path",
        BOUNDARY,
        "to end the batch by a link whose end the system refuses to look up",
        "0, not followed",
        make=link_to(NO_PATH),
        note="is a link, which is not followed",
        make_twin=link_in_a_folder("data"),
    ),
    Attack(
        "p24b_link_to_a_process",
        BOUNDARY,
        "the same, by a link into another process",
        "0, not followed",
        make=link_to("/proc/1/root/x"),
        note="is a link, which is not followed",
        make_twin=link_in_a_folder(tiny.LAB),
    ),
    Attack(
        "p24c_attempt",
        BOUNDARY,
        "the same, by a link for an attempt",
        "0, not followed",
        make=only_an_attempt,
        note="is a link, which is not followed",
        make_twin=link_in_a_folder("timestamp.txt"),
    ),
    Attack(
        "p01_conftest",
        BOUNDARY,
        "to be imported by pytest as the grader",
        "0, never imported",
        make=conftest_alone,
        note="not a notebook",
    ),
    Attack(
        "p02_conftest_in_a_folder",
        BOUNDARY,
        "to be imported from a folder of tests, or named by settings there",
        "never read",
        points=FULL,
        make=conftest_in_a_folder,
        make_twin=own_modules,
    ),
]
