"""Derive two notebooks from solutions/capstone.py: the template of the capstone, and a completed one that has been run.

Its regions are those of a lab's source; a region of text becomes an invitation to write.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import nbformat

from segedu.teaching.authoring.address import colab_setup
from segedu.teaching.authoring.notebooks import (
    BEGIN,
    END,
    KEPT_METADATA,
    KERNEL,
    AuthoringError,
    execute,
    find_leaks,
    strip_solution,
    write,
)

NAME = "capstone"
_SOURCES = (
    *(f"segedu/teaching/capstone/{part}.py" for part in ("__init__", "report", "leakage")),
    *(f"segedu/{part}.py" for part in ("datasets/cells", "instance/cellpose/cellpose", "metrics/instance", "viz")),
)


def build_capstone(course: Path, run: bool = True, force: bool = False) -> None:
    """Derive labs/capstone.ipynb and, if its source or the code that it uses has changed, solutions/capstone.ipynb.

    Args:
        course: the checkout.
        run: whether to run the completed one.
        force: run it even if nothing has changed.
    """
    import jupytext

    source = course / "solutions" / f"{NAME}.py"
    if not source.is_file():  # a course without a capstone
        return
    filled = jupytext.read(source, fmt="py:percent")
    filled.metadata, filled.nbformat, filled.nbformat_minor = {**KERNEL, **KEPT_METADATA, "segedu": {}}, 4, 5
    for cell in filled.cells:
        name = cell.metadata["name"]
        if name == "setup":
            cell.source = f"{colab_setup(course)}\n\n{cell.source}"
        cell.id, cell.metadata = f"{NAME}-{name}".replace("_", "-"), {"segedu": {"name": name}}
        if cell.cell_type == "code":
            cell.metadata["tags"] = ["nbval-ignore-output", *(["hide-input"] if name == "setup" else [])]
    changed = write(template(filled), course / "labs" / f"{NAME}.ipynb")
    print(f"labs/{NAME}.ipynb: {'written' if changed else 'unchanged'}")
    if run:
        filled.metadata["segedu"]["source"] = _hash(course)
        path = course / "solutions" / f"{NAME}.ipynb"
        old = nbformat.read(path, 4).metadata.get("segedu", {}).get("source") if path.is_file() else None
        written = force or old != filled.metadata["segedu"]["source"]
        if written:
            write(_without_run_dependent_outputs(execute(_without_region_marks(filled), course, NAME)), path)
        print(f"solutions/{NAME}.ipynb: {'written' if written else 'unchanged'}")


def template(filled: Any) -> Any:
    """Make the student's notebook, a copy with a stub for every region.

    Raises:
        AuthoringError: if a region is broken, or a line of one also occurs elsewhere in the notebook.
    """
    blank, secrets = copy.deepcopy(filled), []
    for cell in blank.cells:
        if not any(BEGIN.match(line) for line in cell.source.splitlines()):
            continue
        cell.source, removed = strip_solution(cell.source, cell.id)
        secrets += [line.strip() for line in removed]
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("raise NotImplementedError('", "*Yours: ").replace("')", ".*")
    if leaks := find_leaks(blank, secrets):
        raise AuthoringError(f"a line of a solution also occurs in the template: {leaks[0]!r}")
    return blank


def _without_region_marks(filled: Any) -> Any:
    """Remove the marks of text regions, which would be headings."""
    shown = copy.deepcopy(filled)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if not BEGIN.match(line) and not END.match(line)]
            cell.source = "\n".join(lines)
    return shown


def _without_run_dependent_outputs(notebook: Any) -> Any:
    """Remove progress bars, times and the machine's versions; tables and pictures stay."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = [o for o in cell.outputs if o.output_type != "stream" or o.name == "stdout"]
            kept = [o for o in kept if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
            cell.outputs = [] if cell.metadata["segedu"]["name"] == "setup" else kept
    return notebook


def _hash(course: Path) -> str:
    digest = hashlib.sha256()
    for file in (f"solutions/{NAME}.py", *_SOURCES):
        digest.update((course / file).read_bytes())
    return digest.hexdigest()[:16]
