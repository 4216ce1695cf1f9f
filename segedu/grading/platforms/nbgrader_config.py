"""The configuration of nbgrader for the labs; the `nbgrader_config.py` of a course folder imports it."""

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

SKIP = "skip-execution"  # nbclient does not run cells with this tag
SKIPPED_ROLES = ("train", "widget")  # roles of cells that take long and give no points


class Stubs(ClearSolutions):
    """Replaces a solution of the lab by its stub, and any other solution by nbgrader's stub."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Process one cell."""
        begins = [BEGIN.match(line) for line in cell.source.splitlines()]
        if cell.cell_type == "code" and is_solution(cell) and any(begin and begin[2] for begin in begins):
            cell.source, _ = strip_solution(cell.source, cell.metadata.nbgrader.grade_id)
            return cell, resources
        return super().preprocess_cell(cell, resources, index)


class ChooseCells(NbGraderPreprocessor):
    """Skips cells that train or hold widgets, and removes the tags of students, who could skip a failing check cell."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Process one cell."""
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != SKIP]
        role = cell.metadata.get("segedu", {}).get("role")
        cell.metadata["tags"] = [*tags, SKIP] if role in SKIPPED_ROLES and not is_grade(cell) else tags
        return cell, resources


class DropInvalidMetadata(NbGraderPreprocessor):
    """Removes nbgrader's metadata from a cell if they are empty, damaged or of another version.

    If a student has copied a solution cell, `DeduplicateIds` leaves an empty dictionary in the copy. nbgrader takes it
    for metadata of an old version, and stops grading this student and all later ones.
    """

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Process one cell."""
        metadata = cell.metadata.get("nbgrader")
        valid = isinstance(metadata, dict) and isinstance(metadata.get("grade_id"), str)
        if not valid or metadata.get("schema_version") != MetadataValidator.schema_version:
            cell.metadata.pop("nbgrader", None)
        return cell, resources


class SetLabSeed(NbGraderPreprocessor):
    """Passes the seed of the lab to the next kernel; a cell that prints it reveals the seed of this lab only."""

    batch_seed = Integer(help="seed of the hidden cases of the course").tag(config=True)

    def preprocess(self, book: Any, resources: Any) -> tuple[Any, Any]:
        """Process one notebook."""
        os.environ[SEED] = str(exercise_seed(self.batch_seed, resources["nbgrader"]["assignment"], "nbgrader"))
        return book, resources


def configure(config: Any, file: str) -> None:
    """Configure nbgrader for the labs.

    Args:
        config: the object `c` of `nbgrader_config.py`.
        file: path of `nbgrader_config.py`, in whose folder the seed of the hidden cases is stored.
    """
    os.environ.pop(SEED, None)
    config.SetLabSeed.batch_seed = batch_seed(Path(file).resolve().parent, None)
    make = GenerateAssignment.class_traits()["preprocessors"].default()
    sanitise = [DropInvalidMetadata]
    for step in Autograde.class_traits()["sanitize_preprocessors"].default():
        sanitise += [step, DropInvalidMetadata] if step is DeduplicateIds else [step]
    config.GenerateAssignment.preprocessors = [Stubs if step is ClearSolutions else step for step in make]
    config.Autograde.sanitize_preprocessors = [*sanitise, ChooseCells, SetLabSeed]
    config.Execute.timeout = 60  # seconds per cell
    config.Execute.iopub_timeout = 30  # seconds; enough on a busy machine
    config.Execute.skip_cells_with_tag = SKIP
