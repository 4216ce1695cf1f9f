"""The lab as the course has it: which cells there are, what each is for. The grader trusts this file alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

ROLES = ("setup", "solution", "check", "show", "train", "widget", "quiz")


@dataclass(frozen=True)
class LabCell:
    """One code cell of ours.

    Attributes:
        id: stable, `04-box-iou`.
        role: one of `ROLES`.
        name: `box_iou`, `check_box_iou`.
        source: the text; for a solution cell, the stub.
    """

    id: str
    role: str
    name: str
    source: str


@dataclass(frozen=True)
class Lab:
    """A lab's code cells, in order.

    Attributes:
        name: `04_metrics`.
        digest: SHA-256 of the notebook file.
        cells: code cells.
    """

    name: str
    digest: str
    cells: tuple[LabCell, ...]

    @property
    def exercises(self) -> list[str]:
        """Names of the solution cells, in order."""
        return [cell.name for cell in self.cells if cell.role == "solution"]


def read_lab(course: Path, name: str) -> Lab:
    """Read `labs/<name>.ipynb` of a course.

    Args:
        course: the checkout.
        name: `04_metrics`.

    Returns:
        The lab.

    Raises:
        ValueError: if the course has no such lab, with those that it has; or if a cell has no role.
    """
    path = course / "labs" / f"{name}.ipynb"
    if not path.is_file():
        there = sorted(found.stem for found in (course / "labs").glob("*.ipynb"))
        none = "and there are no labs in it: run `make labs`, or give --course"
        what = f"expected one of {', '.join(there)}" if there else none
        raise ValueError(f"lab is {name!r}, which {course} does not have; {what}")
    data = path.read_bytes()
    cells = [_lab_cell(cell, path) for cell in json.loads(data)["cells"] if cell["cell_type"] == "code"]
    return Lab(name, hashlib.sha256(data).hexdigest(), tuple(cells))


def _lab_cell(cell: dict, path: Path) -> LabCell:
    ours = cell.get("metadata", {}).get("segedu", {})
    if ours.get("role") not in ROLES:
        role = ours.get("role")
        raise ValueError(f"{path.name}: cell {cell.get('id')} has role {role!r}, expected one of {', '.join(ROLES)}")
    source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    return LabCell(cell["id"], ours["role"], ours["name"], source)
