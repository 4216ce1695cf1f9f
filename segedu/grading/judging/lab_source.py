"""The lab as the course publishes it: its code cells and their roles. Grading trusts this file alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

ROLES = ("setup", "solution", "check", "show", "train", "widget", "quiz")


@dataclass(frozen=True)
class LabCell:
    """One code cell of the lab.

    Attributes:
        id: stable, such as `04-box-iou`.
        role: one of `ROLES`.
        name: such as `box_iou` or `check_box_iou`.
        source: the cell's text; for a solution cell, the stub.
    """

    id: str
    role: str
    name: str
    source: str


@dataclass(frozen=True)
class Lab:
    """A lab's code cells, in order.

    Attributes:
        name: such as `04_metrics`.
        digest: SHA-256 of the notebook file.
        cells: the code cells.
    """

    name: str
    digest: str
    cells: tuple[LabCell, ...]

    @property
    def exercises(self) -> list[str]:
        """Names of the solution cells, in order."""
        return [cell.name for cell in self.cells if cell.role == "solution"]


def check_course(course: Path, submissions: Path) -> None:
    """Check that the course does not lie among the submissions: a student may have handed in a folder named `labs`.

    Raises:
        ValueError: if it is the folder of the submissions, or lies in it.
    """
    if course.resolve().is_relative_to(submissions.resolve()):
        where = (
            "the folder" if course.resolve() == submissions.resolve() else f"which lies in {submissions}, the folder"
        )
        raise ValueError(f"--course is {course}, {where} of the submissions; give the checkout of the course")


def read_lab(course: Path, name: str) -> Lab:
    """Read `labs/<name>.ipynb` from a course folder.

    Raises:
        ValueError: if the course has no such lab, or a cell has no role.
    """
    path = course / "labs" / f"{name}.ipynb"
    if not path.is_file():
        available = sorted(notebook.stem for notebook in (course / "labs").glob("*.ipynb"))
        no_labs = "its folder `labs` holds no notebook: run `make labs`, or pass --course"
        advice = f"expected one of {', '.join(available)}" if available else no_labs
        raise ValueError(f"lab is {name!r}, which {course} does not have; {advice}")
    data = path.read_bytes()
    cells = [_lab_cell(cell, path) for cell in json.loads(data)["cells"] if cell["cell_type"] == "code"]
    return Lab(name, hashlib.sha256(data).hexdigest(), tuple(cells))


def _lab_cell(cell: dict, path: Path) -> LabCell:
    metadata = cell.get("metadata", {}).get("segedu", {})
    if metadata.get("role") not in ROLES:
        role = metadata.get("role")
        raise ValueError(f"{path.name}: cell {cell.get('id')} has role {role!r}, expected one of {', '.join(ROLES)}")
    source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    return LabCell(cell["id"], metadata["role"], metadata["name"], source)
