"""Derive two notebooks from a lab source: the student's lab and the executed solution.

A source is `solutions/NN_topic.py`, py:percent. Every cell has a unique `name`; code cells have a `role`:
setup (generated), solution, check, show, train, widget, quiz. The answer is between `### BEGIN SOLUTION: what to write`
and `### END SOLUTION`; in the lab a stub that raises NotImplementedError replaces it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat

from segedu.teaching import exercises
from segedu.teaching.authoring.address import colab_address, colab_setup, without_address

ROLES = ("setup", "solution", "check", "show", "train", "widget", "quiz")
BEGIN = re.compile(r"^(\s*)### BEGIN SOLUTION(?:: *(.*))?$")
END = re.compile(r"^\s*### END SOLUTION$")
KEPT_METADATA = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}}
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SILENT = ("codec", "drawing", "drawing_boxes", "drawing_panels", "remote")  # they print nothing when a check passes
LEAK_LENGTH = 25  # a shorter line, such as `return total`, may occur anywhere


class AuthoringError(ValueError):
    """A lab source that breaks a rule; the message names the file and the cell."""


def read_source(course: Path, lab: str) -> Any:
    """Read a lab source with its solutions, and give each cell its id, its tags and its metadata.

    Raises:
        AuthoringError: if the file is missing, a cell has no name or role, a name is used twice, a solution cell
            belongs to no exercise, or a check cell is malformed.
    """
    import jupytext

    path = course / "solutions" / f"{lab}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("[0-9]*.py")))
        raise AuthoringError(f"lab is {lab!r}, expected one of the labs in solutions/: {known}")
    notebook = jupytext.reads(path.read_text(), fmt="py:percent")
    points = {exercise.name: exercise.points for exercise in exercises.load(lab).exercises}
    names: set[str] = set()
    for number, cell in enumerate(notebook.cells):
        name = _checked_name(cell, number, names, path.name)
        role = "text" if cell.cell_type == "markdown" else cell.metadata.get("role")
        _check_role(cell, name, role, points, path.name)
        if role == "setup":
            cell.source = setup_source(course, lab)
        if number == 0:
            cell.source += f"\n\n[Open this lab in Colab]({colab_address(course, lab)})"
        cell.metadata = _metadata(cell, name, role, points)
        cell.id = f"{lab.partition('_')[0]}-{name}".replace("_", "-")
    missing = sorted(set(points) - names)
    if missing:
        raise AuthoringError(f"{path.name} has no solution cell for {', '.join(missing)}")
    notebook.metadata = {**KERNEL, **KEPT_METADATA, "segedu": {"lab": lab}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _checked_name(cell: Any, number: int, names: set[str], file: str) -> str:
    name = cell.metadata.get("name")
    if not name or not re.fullmatch(r"[a-z0-9_]+", name):
        raise AuthoringError(
            f'{file}, cell {number + 1}: the cell needs name="..." of lower-case letters, digits and _'
        )
    if name in names:
        raise AuthoringError(f"{file}: two cells are named {name}")
    names.add(name)
    return name


def _check_role(cell: Any, name: str, role: str | None, points: dict[str, int], file: str) -> None:
    if cell.cell_type == "markdown":
        return
    if role not in ROLES:
        raise AuthoringError(f"{file}, cell {name}: role is {role!r}, expected one of {', '.join(ROLES)}")
    if role == "solution" and (name not in points or f"def {name}(" not in cell.source):
        raise AuthoringError(
            f"{file}, cell {name}: a solution cell must define the exercise's function that it is named after"
        )
    if role == "check" and cell.source.strip() != f"check({name.removeprefix('check_')})":
        raise AuthoringError(f"{file}, cell {name}: a check cell must contain only check(<exercise>)")


def setup_source(course: Path, lab: str) -> str:
    """The first code cell of a lab: a quiet install on Colab only, imports, one green line."""
    return f"""{colab_setup(course)}

import matplotlib.pyplot as plt
import numpy as np
import torch

from segedu.teaching.checks import setup
from segedu.teaching.exercises.lab{lab} import check, use

setup()"""


def _metadata(cell: Any, name: str, role: str, points: dict[str, int]) -> dict:
    """Metadata of a cell: our role and name, nbval's tag on code, nbgrader's v3 dict on graded cells."""
    metadata: dict = {"segedu": {"name": name, "role": role}}
    if cell.cell_type == "code":
        # outputs depend on the machine (times, devices, versions): nbval checks errors, not text
        metadata["tags"] = [role, "nbval-ignore-output", *(["hide-input"] if role == "setup" else [])]
    if role == "solution":
        metadata["nbgrader"] = {**_nbgrader(name), "solution": True}
    if role == "check":
        max_points = points[name.removeprefix("check_")]
        graded = {**_nbgrader(name), "grade": True, "locked": True, "points": max_points}
        metadata["nbgrader"] = {**graded, "checksum": _checksum(cell.source, graded)}
        metadata |= {"deletable": False, "editable": False}
    return metadata


def _nbgrader(name: str) -> dict:
    return {
        "schema_version": 3, "grade_id": name, "cell_type": "code",
        "grade": False, "solution": False, "locked": False, "task": False,
    }  # fmt: skip


def _checksum(source: str, graded: dict) -> str:
    """nbgrader's own checksum, by which it finds the check cell unchanged."""
    parts = [
        source,
        "code",
        str(graded["grade"]),
        str(graded["solution"]),
        str(graded["locked"]),
        graded["grade_id"],
    ]
    digest = hashlib.md5()
    for part in [*parts, str(float(graded["points"]))]:
        digest.update(part.encode())
    return digest.hexdigest()


def strip_solution(source: str, where: str) -> tuple[str, list[str]]:
    """Replace the solution regions of a cell by stubs.

    Returns:
        The stripped source, and the removed lines.

    Raises:
        AuthoringError: if regions are nested, an end or a beginning is missing, there is no region, or a region does
            not say what to write; `where` names the cell.
    """
    kept, removed, inside, regions = [], [], False, 0
    for line in source.splitlines():
        begin = BEGIN.match(line)
        if begin and inside:
            raise AuthoringError(f"{where}: ### BEGIN SOLUTION inside a solution region")
        if END.match(line):
            if not inside:
                raise AuthoringError(f"{where}: ### END SOLUTION without a beginning")
            inside = False
        elif begin:
            if not begin[2]:
                raise AuthoringError(
                    f"{where}: the region does not say what to write, expected ### BEGIN SOLUTION: ..."
                )
            kept.append(f"{begin[1]}raise NotImplementedError({begin[2]!r})")
            inside, regions = True, regions + 1
        else:
            (removed if inside else kept).append(line)
    if inside or not regions:
        raise AuthoringError(f"{where}: " + ("### END SOLUTION is missing" if inside else "no ### BEGIN SOLUTION"))
    return "\n".join(kept), removed


def make_lab(notebook: Any) -> Any:
    """Make the student's notebook from `read_source`: stubs for solutions, no outputs, no trace of a solution.

    Raises:
        AuthoringError: if a line of a solution also occurs elsewhere in the lab.
    """
    lab = copy.deepcopy(notebook)
    secrets: list[str] = []
    for cell in lab.cells:
        if cell.metadata["segedu"]["role"] == "solution":
            cell.source, removed = strip_solution(cell.source, cell.metadata["segedu"]["name"])
            secrets += [line.strip() for line in removed]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if leaks := find_leaks(lab, secrets):
        raise AuthoringError(f"a line of a solution also occurs in the lab: {leaks[0]!r}")
    return lab


def find_leaks(notebook: Any, secrets: list[str]) -> list[str]:
    """Find lines of a solution anywhere in a notebook: sources, outputs, attachments, metadata.

    Args:
        notebook: the lab.
        secrets: lines of the solutions, comments included; lines with fewer than 25 characters are ignored.
    """
    text = json.dumps(notebook, ensure_ascii=False)
    quoted = {line: json.dumps(line, ensure_ascii=False)[1:-1] for line in secrets if len(line) >= LEAK_LENGTH}
    return [line for line, form in quoted.items() if form in text]


def execute(notebook: Any, course: Path, lab: str) -> Any:
    """Run a copy of a notebook from top to bottom, as a student's Run All does, with the static frames of widgets.

    Args:
        notebook: not changed.
        course: the checkout; cells run in its labs/ folder.
        lab: names the notebook in errors.

    Raises:
        AuthoringError: if a cell fails, with the error.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    executed = copy.deepcopy(notebook)
    environment = {**os.environ, "SEGEDU_WIDGETS": "static", "SEGEDU_CHECK": "print"}
    (course / "labs").mkdir(exist_ok=True)
    client = NotebookClient(
        executed, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(course / "labs")}}
    )
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        raise AuthoringError(f"lab {lab}: a cell failed: {error.ename}: {error.evalue}\n{error.traceback}") from None
    return executed


def keep_check_outputs(notebook: Any) -> Any:
    """Copy an executed notebook for git: outputs of check cells only, and no run-dependent metadata."""
    kept = copy.deepcopy(notebook)
    kept.metadata.pop("widgets", None)  # state of progress bars, with ids that differ between runs
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        is_check = cell.metadata["segedu"]["role"] == "check"
        cell.execution_count = number if is_check else None  # nbval refuses outputs of a cell without a number
        cell.metadata.pop("execution", None)
        if not is_check:
            cell.outputs = []
    return kept


def write(notebook: Any, path: Path) -> bool:
    """Write a valid notebook if it differs from the file; returns whether the file changed."""
    nbformat.validate(notebook)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return True


def build_labs(course: Path, execute: bool = True, force: bool = False) -> None:
    """Derive both notebooks of every lab source; a solution runs again only if its source has changed, or with `force`.

    Raises:
        AuthoringError: see `read_source`, `make_lab`, `execute`; also if a solution fails one of its checks.
    """
    for source in sorted((course / "solutions").glob("[0-9]*.py")):
        lab = source.stem
        solved = read_source(course, lab)
        changed = write(make_lab(solved), course / "labs" / f"{lab}.ipynb")
        print(f"labs/{lab}.ipynb: {'written' if changed else 'unchanged'}")
        if execute:
            written = _executed(solved, course, lab, force)
            print(f"solutions/{lab}.ipynb: {'written' if written else 'unchanged'}")


def _executed(solved: Any, course: Path, lab: str, force: bool) -> bool:
    path = course / "solutions" / f"{lab}.ipynb"
    solved.metadata["segedu"]["source"] = _source_hash(course, lab, solved)
    if path.is_file() and not force:
        old = json.loads(path.read_text())
        if old.get("metadata", {}).get("segedu", {}).get("source") == solved.metadata["segedu"]["source"]:
            return False
    executed = execute(solved, course, lab)
    for cell in executed.cells:
        if cell.metadata["segedu"]["role"] == "check" and "Grading draws new inputs." not in json.dumps(cell.outputs):
            raise AuthoringError(f"lab {lab}: the solution fails its own check, {cell.source}")
    return write(keep_check_outputs(executed), path)


def _source_hash(course: Path, lab: str, solved: Any) -> str:
    """Hash everything that decides the output of the check cells: the cells, the exercises, the checks."""
    package = Path(exercises.__file__).parent
    checks = [file for file in (package.parent / "checks").glob("*.py") if file.stem not in SILENT]
    files = sorted([*(package / f"lab{lab}").glob("*.py"), *checks])
    digest = hashlib.sha256(without_address("\0".join(cell.source for cell in solved.cells)).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
