"""Attacks by files beside a notebook that a program could take for its own settings; the arena grades in that folder.

`tests/grading/test_clean_environment.py` lays every such file around the real command, Gradescope's script and a worker.
"""

from __future__ import annotations

from pathlib import Path

import tiny
from attack import FULL, RIGHT, Attack

BOUNDARY = "inbox"
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


INBOX = [
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
