"""What `nbgrader_config.py` of a course folder asks for; nbgrader itself imports this, nothing of ours does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearSolutions, DeduplicateIds, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Integer

from segedu.grading.judging.compare import exercise_seed
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


class DropInvalidMetadata(NbGraderPreprocessor):
    """Makes an ordinary cell of one whose nbgrader metadata is empty, damaged or of another version.

    Where a student has copied a solution cell, `DeduplicateIds` leaves an empty dictionary in the copy. nbgrader takes
    that for metadata of an old version and stops grading, of that student and of all who come later.
    """

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """One cell."""
        found = cell.metadata.get("nbgrader")
        valid = isinstance(found, dict) and isinstance(found.get("grade_id"), str)
        if not valid or found.get("schema_version") != MetadataValidator.schema_version:
            cell.metadata.pop("nbgrader", None)
        return cell, resources


class SetLabSeed(NbGraderPreprocessor):
    """Gives the kernel that runs next the seed of its lab: a cell can print it, and the seed of one lab only."""

    batch_seed = Integer(help="of the course").tag(config=True)

    def preprocess(self, book: Any, resources: Any) -> tuple[Any, Any]:
        """One notebook."""
        os.environ[SEED] = str(exercise_seed(self.batch_seed, resources["nbgrader"]["assignment"], "nbgrader"))
        return book, resources


def configure(config: Any, file: str) -> None:
    """Set what the labs need.

    Args:
        config: of `nbgrader_config.py`.
        file: that file; beside it lies the seed of the hidden cases.
    """
    os.environ.pop(SEED, None)
    config.SetLabSeed.batch_seed = batch_seed(Path(file).resolve().parent, None)
    make = GenerateAssignment.class_traits()["preprocessors"].default()
    sanitise = [DropInvalidMetadata]
    for step in Autograde.class_traits()["sanitize_preprocessors"].default():
        sanitise += [step, DropInvalidMetadata] if step is DeduplicateIds else [step]
    config.GenerateAssignment.preprocessors = [Stubs if step is ClearSolutions else step for step in make]
    config.Autograde.sanitize_preprocessors = [*sanitise, ChooseCells, SetLabSeed]
    config.Execute.timeout = 60  # of each cell, seconds
    config.Execute.iopub_timeout = 30  # on a busy machine
    config.Execute.skip_cells_with_tag = SKIP
