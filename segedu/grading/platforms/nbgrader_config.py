"""What `nbgrader_config.py` of a course folder asks for; nbgrader itself imports this, nothing of ours does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from segedu.grading.judging.records import batch_seed
from segedu.grading.platforms.nbgrader import SEED
from segedu.teaching.authoring.notebooks import BEGIN, strip_solution

SKIP = "skip-execution"  # nbclient's tag of cells that are not run
LEFT_OUT = ("train", "widget")  # roles of cells that take long and decide no points


class Stubs(ClearSolutions):
    """Replaces a solution by the lab's own stub, which says what to write; others by nbgrader's."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """One cell."""
        begins = [BEGIN.match(line) for line in cell.source.splitlines()]
        if cell.cell_type == "code" and is_solution(cell) and any(begin and begin[2] for begin in begins):
            cell.source, _ = strip_solution(cell.source, cell.metadata.nbgrader.grade_id)
            return cell, resources
        return super().preprocess_cell(cell, resources, index)


class ChooseCells(NbGraderPreprocessor):
    """Which cells run while grading: not ours that train. A student's tag on a check cell would earn full points."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """One cell."""
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != SKIP]
        role = cell.metadata.get("segedu", {}).get("role")
        cell.metadata["tags"] = [*tags, SKIP] if role in LEFT_OUT and not is_grade(cell) else tags
        return cell, resources


def configure(config: Any, file: str) -> None:
    """Set what the labs need.

    Args:
        config: of `nbgrader_config.py`.
        file: that file; beside it lies the seed of the hidden cases, which the kernels inherit.
    """
    os.environ[SEED] = str(batch_seed(Path(file).resolve().parent, None))
    make = GenerateAssignment.class_traits()["preprocessors"].default()
    sanitise = Autograde.class_traits()["sanitize_preprocessors"].default()
    config.GenerateAssignment.preprocessors = [Stubs if step is ClearSolutions else step for step in make]
    config.Autograde.sanitize_preprocessors = [*sanitise, ChooseCells]
    config.Execute.timeout = 60  # of each cell, seconds
    config.Execute.iopub_timeout = 30  # on a busy machine
    config.Execute.skip_cells_with_tag = SKIP
