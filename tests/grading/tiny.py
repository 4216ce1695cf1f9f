"""A course with one lab of three exercises, and notebooks for it: the grader is tested without the real labs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAB = "00_tiny"
STUBS = {
    "double": 'def double(x):\n    """Twice x."""\n    raise NotImplementedError("return twice x")',
    "total": 'def total(values):\n    """Sum of values."""\n    raise NotImplementedError("add the values")',
    "box_area": 'def box_area(boxes):\n    """(N, 4) -> (N,)"""\n    raise NotImplementedError("width times height")',
}
RIGHT = {
    "double": 'def double(x):\n    """Twice x."""\n    return 2 * x',
    "total": "def total(values):\n    return float(np.sum(values))",
    "box_area": "def box_area(boxes):\n    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])",
}
EXERCISES = """
import numpy as np

from segedu.teaching.checks.exercise import Exercise, Wrong


def cases(make):
    def build(rng):
        core = [{"args": [make(rng)]} for _ in range(3)]
        return {"core": (2, core), "edge": (1, [{"args": [make(None)], "name": "the edge"}])}

    return build


def boxes(rng):
    return np.array([[0.0, 0.0, 2.0, 3.0]]) if rng is None else np.sort(rng.uniform(0, 9, (4, 4)), axis=1)


double = Exercise(
    "double", 3, cases(lambda rng: -7.0 if rng is None else float(rng.uniform(1, 9))), lambda x: 2 * x,
    [Wrong("adds two", lambda x: x + 2, "You add 2 instead of doubling.", hint="Try x = 5.")],
)
total = Exercise(
    "total", 3, cases(lambda rng: np.array([4.0]) if rng is None else rng.uniform(1, 9, 5)), lambda v: float(v.sum()),
    [Wrong("mean", lambda v: float(v.mean()), "You take the mean.")],
)
box_area = Exercise(
    "box_area", 3, cases(boxes), lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]),
    [Wrong("inclusive", lambda b: (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1), "You count both ends.")],
    hides=("segedu.ops.boxes",),
)
exercises = [double, total, box_area]
FORBIDDEN = ("torchvision.ops.box_area", "sklearn.metrics.auc")
"""


def cell(cell_id: str, source: str, cell_type: str = "code", **segedu: str) -> dict:
    """One notebook cell."""
    metadata = {"segedu": segedu} if segedu else {}
    rest = {"outputs": [], "execution_count": None} if cell_type == "code" else {}
    return {"cell_type": cell_type, "id": cell_id, "metadata": metadata, "source": source, **rest}


def lab_cells() -> list[dict]:
    """The lab: a setup cell, then each exercise with its check and a figure, then training."""
    cells = [cell("00-title", "# Tiny", "markdown")]
    cells.append(
        cell(
            "00-setup",
            "import numpy as np\nfrom segedu.teaching.exercises.lab00_tiny import check",
            role="setup",
            name="setup",
        )
    )
    for name, stub in STUBS.items():
        stem = name.replace("_", "-")
        cells.append(cell(f"00-{stem}", stub, role="solution", name=name))
        cells.append(cell(f"00-check-{stem}", f"check({name})", role="check", name=f"check_{name}"))
        cells.append(cell(f"00-show-{stem}", f"import math\nprint({name})", role="show", name=f"show_{name}"))
    cells.append(cell("00-train", "import time\nSCALE = 'cpu'\ntime.sleep(60)", role="train", name="train"))
    return cells


def notebook(cells: list[dict]) -> str:
    """The text of a notebook file."""
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def answered(**answers: str) -> list[dict]:
    """The lab's cells with the given answers in place of stubs."""
    cells = lab_cells()
    for one in cells:
        name = one["metadata"].get("segedu", {}).get("name")
        if name in answers and one["metadata"]["segedu"]["role"] == "solution":
            one["source"] = answers[name]
    return cells


def make_course(folder: Path) -> Path:
    """Write the checkout and its exercises package below a folder."""
    (folder / "labs").mkdir(parents=True)
    (folder / "labs" / f"{LAB}.ipynb").write_text(notebook(lab_cells()))
    package = folder / "exercises" / "lab00_tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(EXERCISES)
    return folder


def install(course: Path) -> None:
    """Let `segedu.teaching.exercises.load("00_tiny")` find the package."""
    import segedu.teaching.exercises

    path = str(course / "exercises")
    if path not in segedu.teaching.exercises.__path__:
        segedu.teaching.exercises.__path__.append(path)


@contextmanager
def installed(course: Path) -> Iterator[Path]:
    """`install`, and undone at the end: tests of the real labs must not find this one among them."""
    import segedu.teaching.exercises

    install(course)
    try:
        yield course
    finally:
        segedu.teaching.exercises.__path__.remove(str(course / "exercises"))
        sys.modules.pop("segedu.teaching.exercises.lab00_tiny", None)
        vars(segedu.teaching.exercises).pop("lab00_tiny", None)


def other_side(course: Path, more: str = "") -> str:
    """What a process of graders runs in place of `grader_process._CODE`, so that it finds the package too."""
    here = Path(__file__).resolve().parent
    return f"""
import sys
sys.path[:0] = [{str(here.parents[1])!r}, {str(here)!r}]
from pathlib import Path
import tiny
tiny.install(Path({str(course)!r}))
{more}
from segedu.grading.batch import grader_process
grader_process.main(int(sys.argv[1]))
"""


if __name__ == "__main__":  # `python tiny.py COURSE grade ...` is `segedu grade ...` on the tiny course
    course_folder = Path(sys.argv.pop(1)).resolve()
    install(course_folder)
    from segedu.cli import app
    from segedu.grading.batch import grader_process

    grader_process._CODE = other_side(course_folder)
    app()
