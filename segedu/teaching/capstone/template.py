"""From solutions/capstone.py to two notebooks: the template of the capstone, and one that is filled in and run.

Its regions are those of a lab's source; a region of text becomes an invitation to write.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import nbformat

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
_OURS = (
    *(f"segedu/teaching/capstone/{part}.py" for part in ("__init__", "report", "leakage")),
    *(f"segedu/{part}.py" for part in ("datasets/cells", "instance/cellpose/cellpose", "metrics/instance", "viz")),
)


def build_capstone(course: Path, run: bool = True, force: bool = False) -> None:
    """Derive labs/capstone.ipynb and, where its source or what it stands on has changed, solutions/capstone.ipynb.

    Args:
        course: the checkout.
        run: whether to run the filled one at all.
        force: run it although nothing has changed.

    Raises:
        AuthoringError: a region is broken, or a cell fails.
    """
    import jupytext

    source = course / "solutions" / f"{NAME}.py"
    if not source.is_file():  # a course of somebody else's labs
        return
    filled = jupytext.read(source, fmt="py:percent")
    filled.metadata, filled.nbformat, filled.nbformat_minor = {**KERNEL, **KEPT_METADATA, "segedu": {}}, 4, 5
    for cell in filled.cells:
        name = cell.metadata["name"]
        cell.id, cell.metadata = f"{NAME}-{name}".replace("_", "-"), {"segedu": {"name": name}}
        if cell.cell_type == "code":
            cell.metadata["tags"] = ["nbval-ignore-output"]
    changed = write(template(filled), course / "labs" / f"{NAME}.ipynb")
    print(f"labs/{NAME}.ipynb: {'written' if changed else 'unchanged'}")
    if run:
        filled.metadata["segedu"]["source"] = _hash(course)
        path = course / "solutions" / f"{NAME}.ipynb"
        old = nbformat.read(path, 4).metadata.get("segedu", {}).get("source") if path.is_file() else None
        done = force or old != filled.metadata["segedu"]["source"]
        if done:
            write(_without_what_changes(execute(_unmarked(filled), course, NAME)), path)
        print(f"solutions/{NAME}.ipynb: {'written' if done else 'unchanged'}")


def template(filled: Any) -> Any:
    """The student's notebook: every region a stub.

    Args:
        filled: a notebook with regions.

    Returns:
        A copy without them.

    Raises:
        AuthoringError: a region is broken, or a line of one stands elsewhere in the notebook too.
    """
    blank, secrets = copy.deepcopy(filled), []
    for cell in blank.cells:
        if not any(BEGIN.match(line) for line in cell.source.splitlines()):
            continue
        cell.source, taken = strip_solution(cell.source, cell.id)
        secrets += [line.strip() for line in taken]
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("raise NotImplementedError('", "*Yours: ").replace("')", ".*")
    if leaks := find_leaks(blank, secrets):
        raise AuthoringError(f"a line of a solution also stands in the template: {leaks[0]!r}")
    return blank


def _unmarked(filled: Any) -> Any:
    """Text without the marks of its regions, which would be headings."""
    shown = copy.deepcopy(filled)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if not BEGIN.match(line) and not END.match(line)]
            cell.source = "\n".join(lines)
    return shown


def _without_what_changes(notebook: Any) -> Any:
    """Progress bars, times and the machine's versions are left out; tables and pictures stay."""
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
    for file in (f"solutions/{NAME}.py", *_OURS):
        digest.update((course / file).read_bytes())
    return digest.hexdigest()[:16]
